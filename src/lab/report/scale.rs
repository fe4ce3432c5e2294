//! Where on an axis a number stands, if each step is ten times the last.

/// From `low` to `high`, over `width` pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogScale {
    /// What stands at 0; more than nothing.
    pub low: f64,
    /// What stands at `width`; more than `low`.
    pub high: f64,
    /// In pixels.
    pub width: f64,
}

impl LogScale {
    /// In pixels; what is outside stands at the end.
    #[must_use]
    pub fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).log10() / (self.high / self.low).log10();
        share.clamp(0.0, 1.0) * self.width
    }

    /// The powers of ten.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        let first = 10_f64.powf(self.low.log10().ceil());
        let next = |tick: &f64| Some(tick * 10.0).filter(|tick| *tick <= self.high * 1.000_001);
        std::iter::successors(Some(first), next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_is_a_step() {
        let scale = LogScale { low: 1.0, high: 1000.0, width: 300.0 };
        let places = [0.0, 1.0, 10.0, 100.0, 1000.0, 1e9].map(|value| scale.at(value).round());
        assert_eq!(places, [0.0, 0.0, 100.0, 200.0, 300.0, 300.0]);
        let ticks: Vec<f64> = scale.ticks().iter().map(|tick| tick.round()).collect();
        assert_eq!(ticks, [1.0, 10.0, 100.0, 1000.0]);
        let ticks = LogScale { low: 5.0, high: 99.0, ..scale }.ticks();
        assert_eq!((ticks.len(), ticks[0].round()), (1, 10.0));
    }
}
