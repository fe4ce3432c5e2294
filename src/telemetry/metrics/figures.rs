//! What the kernel counts: of this process, of the tunnel's devices, of connections.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What the kernel counts; what it does not tell is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Seconds of processor time that this process has used.
    pub cpu_s: Option<f64>,
    /// Bytes of memory that it has.
    pub resident: Option<f64>,
    /// Files that it has open.
    pub files: Option<f64>,
    /// Of each device by its name: bytes, packets, errors and drops received, and the same transmitted.
    pub devices: BTreeMap<String, [f64; 8]>,
    /// Connections that could not be remembered, because another one had its place; and packets dropped for want of
    /// memory or place. Of all processors.
    pub conntrack: Option<[f64; 2]>,
}

impl Figures {
    /// Asks the kernel. `/proc/self/net` is that of this process's network namespace.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let seconds = |usage: nix::sys::resource::Usage| {
            let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            u32::try_from(micros / 1_000).ok().map(|millis| f64::from(millis) / 1e3)
        };
        Self {
            cpu_s: usage.and_then(seconds),
            resident: text("/proc/self/status").and_then(|text| resident(&text)),
            files: fs::read_dir("/proc/self/fd").ok().and_then(|open| float(open.count())),
            devices: text("/proc/self/net/dev").map(|text| devices(&text)).unwrap_or_default(),
            conntrack: text("/proc/self/net/stat/nf_conntrack").and_then(|text| conntrack(&text)),
        }
    }
}

fn float(count: usize) -> Option<f64> {
    u32::try_from(count).ok().map(f64::from)
}

/// `VmRSS: 10636 kB`, proc(5).
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}

/// `/proc/net/dev`: two lines of headings, then a device each with eight numbers of what came and eight of what went.
fn devices(text: &str) -> BTreeMap<String, [f64; 8]> {
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<f64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let &[bytes, packets, errors, drops, _, _, _, _, sent, sents, failed, lost, ..] = numbers.as_slice()
        else {
            return None;
        };
        Some((name.trim().to_owned(), [bytes, packets, errors, drops, sent, sents, failed, lost]))
    };
    text.lines().skip(2).filter_map(device).collect()
}

/// `/proc/net/stat/nf_conntrack`: a line of names, then one of hexadecimal numbers for each processor.
fn conntrack(text: &str) -> Option<[f64; 2]> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let columns = ["insert_failed", "drop"].map(|name| names.iter().position(|other| *other == name));
    let [Some(failed), Some(dropped)] = columns else { return None };
    let mut sums = [0; 2];
    for line in lines {
        let numbers: Vec<u32> =
            line.split_whitespace().filter_map(|number| u32::from_str_radix(number, 16).ok()).collect();
        for (sum, column) in sums.iter_mut().zip([failed, dropped]) {
            *sum += numbers.get(column).copied().map_or(0, u64::from);
        }
    }
    // Exact up to 2^53.
    Some(sums.map(|sum| sum as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints_is_read() {
        assert_eq!(resident("VmPeak:\t  9 kB\nVmRSS:\t   10636 kB\n"), Some(10_891_264.0));
        let dev = "Inter-| Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\nflannel.1:100 0 0 7 0 0 0 0 200 3 0 1 0 0 0 0\n";
        let devices = devices(dev);
        assert_eq!(devices["lo"], [1.0, 2.0, 3.0, 4.0, 9.0, 10.0, 11.0, 12.0]);
        assert_eq!(devices["flannel.1"], [100.0, 0.0, 0.0, 7.0, 200.0, 3.0, 0.0, 1.0]);
        let stat = "entries  clashres insert insert_failed drop early_drop\n00000001 0 0 0000000a 00000001 0\n00000001 0 0 00000010 00000002 0\n";
        assert_eq!(conntrack(stat), Some([26.0, 3.0]));
        assert_eq!(conntrack("entries searched\n1 2\n"), None);
        assert_eq!(conntrack(""), None);
    }

    #[test]
    fn this_process_has_figures() {
        let figures = Figures::read();
        assert!(figures.resident.is_some_and(|bytes| bytes > 1e6), "{figures:?}");
        assert!(figures.cpu_s.is_some() && figures.files.is_some_and(|files| files >= 3.0), "{figures:?}");
        assert!(figures.devices.contains_key("lo"), "{figures:?}");
    }
}
