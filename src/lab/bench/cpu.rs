//! Processor time, of the machine and of the agents.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::lab::{AgentProcess, LabError};

const STAT: &str = "/proc/stat";

/// What was spent up to some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    /// By everything on this machine, interrupts included.
    pub(super) machine: Duration,
    /// By all threads of the agents.
    pub(super) agents: Duration,
}

impl Cpu {
    /// Up to this moment.
    pub(super) fn read(agents: &[AgentProcess]) -> Result<Self, LabError> {
        let text = fs::read_to_string(STAT).map_err(LabError::io(|| format!("read {STAT}")))?;
        let unreadable = || LabError::Unreadable { what: STAT.into(), text: text.clone() };
        let ticks = busy(&text).ok_or_else(unreadable)?;
        let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u32::try_from(hertz).ok());
        let machine = Duration::from_secs(ticks) / hertz.filter(|hertz| *hertz > 0).unwrap_or(100);
        let agents = agents.iter().map(AgentProcess::cpu).sum::<Result<Duration, _>>()?;
        Ok(Self { machine, agents })
    }

    /// What was spent since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            machine: self.machine.saturating_sub(before.machine),
            agents: self.agents.saturating_sub(before.agents),
        }
    }
}

/// Ticks of all processors that were neither idle, nor waiting for a disk, nor taken by the hypervisor: proc_stat(5).
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else { return None };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let stat = "cpu  1 20 300 4000 50000 600000 7000000 80000000 0 0\ncpu0 9 9 9 9 9 9 9 9 0 0\n";
        assert_eq!(busy(stat), Some(7_600_321));
        assert_eq!(busy("cpu  1 2\n"), None);
        assert_eq!(busy(""), None);
    }

    #[test]
    fn the_machine_spends_time() {
        let before = Cpu::read(&[]).unwrap();
        assert!(before.machine > Duration::ZERO);
        assert_eq!(before.since(before), Cpu::default());
    }
}
