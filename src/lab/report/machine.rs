//! The machine on which something was measured, as far as it tells.

use std::fs;

use serde::Serialize;

use super::{Cell, Markup, Table};

/// What a reader has to know to compare figures with those of another machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of them may be used.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel: release, build and architecture.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// Whether it is a virtual machine, as far as its processor says.
    pub is_virtual: bool,
    /// The load of the last minute, before anything was measured.
    pub load: String,
    /// When, in UTC.
    pub date: String,
    /// The command.
    pub command: String,
}

impl Machine {
    /// This machine, and the command line of this process.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (processors, memory, system) =
            (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
        let mut machine = Self::of(&processors, &memory, &system);
        machine.cpus = std::thread::available_parallelism().map_or(0, usize::from);
        machine.load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
        machine.kernel = nix::sys::utsname::uname().map_or_else(
            |_| String::new(),
            |name| {
                let parts = [name.release(), name.version(), name.machine()];
                parts.map(|part| part.to_string_lossy().into_owned()).join(" ")
            },
        );
        machine.date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        let program = |word: String| word.rsplit('/').next().unwrap_or_default().to_owned();
        let mut words = std::env::args();
        machine.command = words.next().map(program).into_iter().chain(words).collect::<Vec<_>>().join(" ");
        machine
    }

    /// What the kernel and the distribution write of a machine.
    fn of(processors: &str, memory: &str, system: &str) -> Self {
        let value = |text: &str, name: &str| {
            let found =
                text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix([':', '=']));
            found.unwrap_or_default().trim().trim_matches('"').to_owned()
        };
        // Arm says no name, only numbers.
        let names = ["model name", "Model", "CPU part"].map(|name| value(processors, name));
        let kib: u64 =
            value(memory, "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Self {
            processor: names.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
            memory_mib: kib / 1024,
            system: value(system, "PRETTY_NAME"),
            is_virtual: value(processors, "flags").split(' ').any(|flag| flag == "hypervisor"),
            ..Self::default()
        }
    }

    /// Names and values, for a report; `more` are of the report alone.
    #[must_use]
    pub fn markup(&self, more: &[(&str, String)]) -> Markup {
        let virtual_machine = if self.is_virtual { ", virtual" } else { "" };
        let mut rows = vec![
            ("date", self.date.clone()),
            ("command", self.command.clone()),
            ("processor", format!("{}{virtual_machine}", self.processor)),
            ("cores", self.cpus.to_string()),
            ("memory", format!("{} MiB", self.memory_mib)),
            ("kernel", self.kernel.clone()),
            ("system", self.system.clone()),
            ("load before", self.load.clone()),
        ];
        rows.extend(more.iter().cloned());
        let mut table = Table::new(&["what", ""]);
        rows.into_iter().for_each(|(name, value)| table.row([name.to_owned(), value].map(Cell::Words)));
        table.markup()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_what_the_kernel_writes() {
        let processors = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu hypervisor lm\n";
        let system = "NAME=\"x\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        let machine = Machine::of(processors, "MemTotal:       24576000 kB\n", system);
        assert_eq!((machine.processor.as_str(), machine.memory_mib), ("Some CPU @ 2.00GHz", 24000));
        assert_eq!((machine.system.as_str(), machine.is_virtual), ("Debian GNU/Linux 12 (bookworm)", true));
        let arm = Machine::of("processor\t: 0\nCPU part\t: 0xd0c\n", "", "");
        assert_eq!((arm.processor.as_str(), arm.memory_mib, arm.is_virtual), ("0xd0c", 0, false));
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && machine.memory_mib > 0 && machine.date.ends_with("UTC"), "{machine:?}");
        assert!(!machine.command.is_empty() && !machine.kernel.is_empty(), "{machine:?}");
        let text = machine.markup(&[("runs", "5".to_owned())]).to_string();
        assert!(text.contains(">runs<") && text.contains(&machine.date), "{text}");
    }
}
