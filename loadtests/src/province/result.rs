//! The result of a province run beside its bounds, as printed and stored.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::compare::render::{micros, table, times};
use crate::compare::result::Spread;
use crate::driver::Latency;
use crate::machine::Machine;

const START_MAX: Duration = Duration::from_secs(10);
const MEMORY_KIB_MAX: u64 = 1024 * 1024;
const SCRAPE_MAX: Duration = Duration::from_secs(1);
const RELOAD_MAX: Duration = Duration::from_secs(3);
/// Upper bound of the CPU ratio, in thousandths.
const CPU_RATIO_MAX: u64 = 1150;
/// Upper bound of the increase of the 99th percentile of the latency by reloads, in microseconds.
const ADDED_P99_MAX: u64 = 5_000;

/// The figures of a start.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Bytes of the configuration, without the main file.
    pub bytes: usize,
    pub took: Duration,
    pub memory_kib: u64,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB, ready after {:?}, {} MiB", self.bytes / 1_000_000, self.took, self.memory_kib / 1024)
    }
}

/// The figures of the province under load.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub scrape: Duration,
    pub scrape_bytes: usize,
    pub reload: Duration,
    pub quiet: Latency,
    pub reloading: Latency,
    /// Memory at the end of the run.
    pub memory_kib: u64,
}

/// The stored result of a run.
#[derive(Clone, Debug)]
pub struct Kept {
    pub date: String,
    pub command_line: String,
    pub machine: Machine,
    pub one_file: Start,
    pub many_files: Start,
    pub figures: Figures,
    /// CPU nanoseconds per command, per round: with eight departments, with the province.
    pub cpu_ns: Vec<(u64, u64)>,
}

/// A row: name of the figure, measured value, bound, and whether the bound is met.
type Row = (&'static str, String, String, bool);

impl Kept {
    /// Whether every bound is met.
    pub fn is_met(&self) -> bool {
        self.rows().iter().all(|(_, _, _, met)| *met)
    }

    /// The figures as a Markdown table.
    pub fn table(&self) -> String {
        let row = |(figure, measured, bound, met): Row| {
            vec![figure.to_owned(), measured, bound, if met { "yes" } else { "NO" }.to_owned()]
        };
        table(&["figure", "measured", "bound", "met"], self.rows().into_iter().map(row))
    }

    fn rows(&self) -> Vec<Row> {
        let Figures { scrape, scrape_bytes, reload, .. } = self.figures;
        vec![
            started("start, one file", self.one_file),
            started("start, included files", self.many_files),
            memory("memory at most, one file", self.one_file.memory_kib),
            memory("memory at most, included files, after reloads", self.figures.memory_kib),
            within(&format!("{} kB", scrape_bytes / 1000), "/metrics, the slowest", scrape, SCRAPE_MAX),
            within("from the change of the file", "reload of one limit, the slowest", reload, RELOAD_MAX),
            self.dent(),
            self.cpu(),
        ]
    }

    fn dent(&self) -> Row {
        let Figures { quiet, reloading, .. } = self.figures;
        let added = reloading.p99.saturating_sub(quiet.p99);
        let measured = format!(
            "p99 {} -> {}, p99.9 {} -> {}, max {} -> {}",
            quiet.p99, reloading.p99, quiet.p999, reloading.p999, quiet.max, reloading.max
        );
        ("latency without and with reloads, us", measured, format!("p99 + {ADDED_P99_MAX}"), added <= ADDED_P99_MAX)
    }

    fn cpu(&self) -> Row {
        let spread = |figure: fn(&(u64, u64)) -> u64| Spread::of(self.cpu_ns.iter().map(figure).collect());
        let median = |figure| spread(figure).map_or(0, |spread| spread.median);
        let (small, province) = (median(|round| round.0), median(|round| round.1));
        let ratio = median(|(small, province)| province * 1000 / (*small).max(1));
        let measured = format!("{} / {}: {}", micros(province), micros(small), times(ratio));
        ("CPU us a command, over 8 departments", measured, times(CPU_RATIO_MAX), ratio <= CPU_RATIO_MAX)
    }

    /// Writes the result to a file.
    pub fn keep(&self, out: Option<&Path>) -> Result<()> {
        let default = || PathBuf::from(format!("loadtests/results/{}-province.md", self.date));
        let file = out.map_or_else(default, Path::to_owned);
        let machine = &self.machine;
        let text = format!(
            "# A province, {}\n\n{}\n* command: `loadtests {}`\n* machine: {}, {} cores, kernel {}\n* load average before the \
             run: {}\n\nCPU is the median of {} rounds, ratios are taken within a round. The books of every sample balanced.\n",
            self.date,
            self.table(),
            self.command_line,
            machine.cpu,
            machine.cores,
            machine.kernel,
            machine.load_before,
            self.cpu_ns.len(),
        );
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        eprintln!("kept in {}", file.display());
        Ok(())
    }
}

fn started(figure: &'static str, start: Start) -> Row {
    within(&format!("{} MB", start.bytes / 1_000_000), figure, start.took, START_MAX)
}

fn memory(figure: &'static str, kib: u64) -> Row {
    (figure, format!("{} MiB", kib / 1024), format!("{} MiB", MEMORY_KIB_MAX / 1024), kib <= MEMORY_KIB_MAX)
}

fn within(of: &str, figure: &'static str, took: Duration, max: Duration) -> Row {
    (figure, format!("{} ms ({of})", took.as_millis()), format!("{} ms", max.as_millis()), took <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let start = Start { bytes: 38_000_000, took: Duration::from_secs(5), memory_kib: 300 * 1024 };
        let latency = Latency { p50: 5_000, p90: 5_500, p99: 6_000, p999: 7_000, max: 9_000 };
        let figures = Figures {
            scrape: Duration::from_millis(200),
            scrape_bytes: 5_000_000,
            reload: Duration::from_millis(1_800),
            quiet: latency,
            reloading: latency,
            memory_kib: 400 * 1024,
        };
        let machine = Machine { cpu: "a".to_owned(), cores: 2, kernel: "6".to_owned(), load_before: "0.1".to_owned() };
        let (date, command_line) = ("2026-12-01".to_owned(), "province".to_owned());
        let cpu_ns = vec![(50_000, 55_000), (60_000, 61_000), (50_000, 80_000)];
        Kept { date, command_line, machine, one_file: start, many_files: start, figures, cpu_ns }
    }

    #[test]
    fn every_bound_is_enforced() {
        assert!(kept().is_met(), "{}", kept().table());
        let slow = Start { took: Duration::from_millis(10_001), ..kept().one_file };
        let large = Start { memory_kib: MEMORY_KIB_MAX + 1, ..kept().one_file };
        let dented = Latency { p99: 11_001, ..kept().figures.quiet };
        let missed = [
            Kept { one_file: slow, ..kept() },
            Kept { many_files: slow, ..kept() },
            Kept { one_file: large, ..kept() },
            Kept { figures: Figures { memory_kib: MEMORY_KIB_MAX + 1, ..kept().figures }, ..kept() },
            Kept { figures: Figures { scrape: Duration::from_millis(1_001), ..kept().figures }, ..kept() },
            Kept { figures: Figures { reload: Duration::from_millis(3_001), ..kept().figures }, ..kept() },
            Kept { figures: Figures { reloading: dented, ..kept().figures }, ..kept() },
            Kept { cpu_ns: vec![(50_000, 58_000)], ..kept() },
        ];
        for kept in missed {
            assert!(!kept.is_met() && kept.table().contains("NO"), "{}", kept.table());
        }
    }
}
