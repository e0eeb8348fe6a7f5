//! Process metrics read from the kernel through `/proc/self` (proc(5)).
//!
//! The `prometheus` crate has a collector for this, but it brings `procfs` and its dependencies for seven numbers.
//! Outside Linux, and where `/proc` is missing, the numbers are absent.

use std::fs;

use prometheus::proto::MetricFamily;

use super::family_spec::to_float;
use super::metric_families;

/// Clock ticks per second. The kernel reports times to programs in hundredths of a second on every supported
/// architecture (USER_HZ, proc(5)).
const TICKS_PER_SECOND: u32 = 100;
const KIB: u64 = 1024;

/// Numbers of the process; absent where the kernel does not report them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProcessMetrics {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) start_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
}

impl ProcessMetrics {
    /// Reads the current numbers from the kernel.
    pub(crate) fn read_kernel() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(&stat),
            start_seconds: start_seconds(&stat, &machine),
            resident_bytes: status_field(&status, "VmRSS:").map(|kib| kib * KIB),
            virtual_bytes: status_field(&status, "VmSize:").map(|kib| kib * KIB),
            threads: status_field(&status, "Threads:"),
            open_fds: open_fds(),
            max_fds: max_fds(&limits),
        }
    }

    /// The numbers as families with the usual names of Prometheus exporters.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        let whole = |value: Option<u64>| value.map(|value| ([], to_float(value)));
        vec![
            metric_families::PROCESS_CPU.family_of(self.cpu_seconds.map(|value| ([], value))),
            metric_families::PROCESS_MEMORY.family_of(whole(self.resident_bytes)),
            metric_families::PROCESS_VIRTUAL.family_of(whole(self.virtual_bytes)),
            metric_families::PROCESS_FDS.family_of(whole(self.open_fds)),
            metric_families::PROCESS_FDS_MAX.family_of(whole(self.max_fds)),
            metric_families::PROCESS_THREADS.family_of(whole(self.threads)),
            metric_families::PROCESS_START.family_of(self.start_seconds.map(|value| ([], value))),
        ]
    }
}

/// A field of `/proc/self/stat`, by its number. The first field after the program's name is field 3. The name itself
/// may contain spaces and parentheses.
fn stat_field(stat: &str, field: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(field - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let ticks = stat_field(stat, 14)? + stat_field(stat, 15)?; // utime, stime
    Some(seconds(ticks))
}

fn start_seconds(stat: &str, machine: &str) -> Option<f64> {
    let since_boot = stat_field(stat, 22)?;
    let boot = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<u64>().ok()?;
    Some(seconds(boot * u64::from(TICKS_PER_SECOND) + since_boot))
}

#[expect(clippy::float_arithmetic, reason = "metrics are in seconds; no bill depends on them")]
fn seconds(ticks: u64) -> f64 {
    to_float(ticks) / f64::from(TICKS_PER_SECOND)
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(listed).ok()?.checked_sub(1) // the directory itself is open while it is read
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1234 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 1000\n"), Some(1012.34));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn sizes_and_limits_are_found_by_name() {
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(max_fds("Limit  Soft\nMax open files            1024        4096        files\n"), Some(1024));
        assert_eq!(max_fds("Max open files   unlimited unlimited files\n"), None);
    }
}
