//! The result of a metering run, as printed and stored. All values are integers: nanoseconds, microseconds,
//! thousandths.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Variant, Work};
use crate::compare::render::{micros, range, table, times};
use crate::compare::result::Spread;
use crate::cpu::Cpu;
use crate::driver::Report;
use crate::machine::Machine;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub round: u32,
    pub work: Work,
    pub variant: Variant,
    pub commands: u64,
    /// CPU nanoseconds of the gateway per command.
    pub cpu_ns: u64,
    pub p50_us: u64,
}

impl Sample {
    pub fn new((round, work, variant): (u32, Work, Variant), cpu: Cpu, report: &Report) -> Self {
        let cpu_ns = cpu.total_us() * 1000 / report.commands.max(1);
        Self { round, work, variant, commands: report.commands, cpu_ns, p50_us: report.latency_us.p50 }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us a command, median {} us", micros(self.cpu_ns), self.p50_us)
    }
}

/// One variant beside another at the same work.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub work: Work,
    pub one: Variant,
    pub other: Variant,
    pub one_cpu_ns: Spread,
    pub other_cpu_ns: Spread,
    /// CPU of `one` over CPU of `other`, in thousandths, within a round.
    pub ratio: Spread,
    /// Median latency of `one` minus that of `other`, in microseconds, within a round; at least 0.
    pub added_p50_us: Spread,
    pub target: &'static str,
}

impl Figure {
    /// The figure from all samples, or `None` if there are no samples of these variants.
    pub fn of((work, one, other): (Work, Variant, Variant), samples: &[Sample]) -> Option<Self> {
        let of = |variant| samples.iter().filter(move |sample| sample.work == work && sample.variant == variant);
        let pairs: Vec<_> = of(one).zip(of(other)).collect(); // both in the order of the rounds
        let spread = |figure: fn(&(&Sample, &Sample)) -> u64| Spread::of(pairs.iter().map(figure).collect());
        Some(Self {
            work,
            one,
            other,
            one_cpu_ns: spread(|(one, _)| one.cpu_ns)?,
            other_cpu_ns: spread(|(_, other)| other.cpu_ns)?,
            ratio: spread(|(one, other)| one.cpu_ns * 1000 / other.cpu_ns.max(1))?,
            added_p50_us: spread(|(one, other)| one.p50_us.saturating_sub(other.p50_us))?,
            target: target(work, one),
        })
    }

    fn row(&self) -> Vec<String> {
        vec![
            title(self.work).to_owned(),
            format!("{:?} over {:?}", self.one, self.other).to_lowercase(),
            format!("{} / {}", micros(self.one_cpu_ns.median), micros(self.other_cpu_ns.median)),
            times(self.ratio.median),
            range(self.ratio, times),
            format!("{} ({})", self.added_p50_us.median, range(self.added_p50_us, |us| us.to_string())),
            self.target.to_owned(),
        ]
    }
}

fn title(work: Work) -> &'static str {
    match work {
        Work::H1 => "h1, 32 connections",
        Work::H2 => "h2, 8 connections x 16 streams",
        Work::Crowd => "h1, 256 connections",
        Work::Slow => "h1, 32 connections, upstream takes 5 ms",
    }
}

fn target(work: Work, variant: Variant) -> &'static str {
    match (variant, work) {
        (Variant::AccessLog, _) => "ratio <= 1.03",
        (Variant::AllTraces, _) => "none",
        (_, Work::H1 | Work::H2) => "ratio <= 1.02",
        (_, Work::Crowd) => "ratio <= 1.20",
        (_, Work::Slow) => "added <= 300 us",
    }
}

/// The stored result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub date: String,
    pub command_line: String,
    pub machine: Machine,
    pub figures: Vec<Figure>,
    pub samples: Vec<Sample>,
}

impl Measured {
    /// The figures as a Markdown table.
    pub fn table(&self) -> String {
        let head = ["work", "what", "CPU us a command", "ratio", "min..max", "added to the median, us", "target"];
        table(&head, self.figures.iter().map(Figure::row))
    }

    /// Writes JSON and Markdown side by side.
    pub fn keep(&self, out: Option<&Path>) -> Result<()> {
        let default = || PathBuf::from(format!("loadtests/results/{}-metering.json", self.date));
        let json = out.map_or_else(default, Path::to_owned);
        let machine = &self.machine;
        let text = format!(
            "# What counting costs, {}\n\n{}\n* command: `loadtests {}`\n* machine: {}, {} cores, kernel {}\n* load \
             average before the run: {}\n\nMedians over the rounds; ratios and differences are taken within a round. The \
             books of every sample balanced.\n",
            self.date,
            self.table(),
            self.command_line,
            machine.cpu,
            machine.cores,
            machine.kernel,
            machine.load_before
        );
        for (file, text) in [(&json, serde_json::to_string_pretty(self)? + "\n"), (&json.with_extension("md"), text)] {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
            eprintln!("kept in {}", file.display());
        }
        Ok(())
    }
}
