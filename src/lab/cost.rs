//! What a real agent costs its host.

use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use super::{AgentProcess, LabError};

impl AgentProcess {
    /// The time on processors that all its threads have had, to the nanosecond; `/proc/<pid>/stat` has the same in
    /// hundredths of a second.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration, LabError> {
        let attempt = || format!("read the clock of process {}", self.pid());
        let read = || ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid().cast_signed()))?.now();
        read().map(Duration::from).map_err(|errno| LabError::io(attempt)(errno.into()))
    }

    /// The time on processors that the programs have had which it ran, and which have ended (nft and the like), in
    /// hundredths of a second.
    ///
    /// # Errors
    /// It has ended.
    pub fn programs_cpu(&self) -> Result<Duration, LabError> {
        let attempt = || format!("read what process {} ran", self.pid());
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).map_err(LabError::io(attempt))?;
        // Numbered from 3 behind the name, as in proc_pid_stat(5): cutime and cstime are 16 and 17.
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let ticks =
            behind.split_whitespace().skip(16 - 3).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
        Ok(Duration::from_millis(ticks.sum::<u64>() * 10))
    }
}
