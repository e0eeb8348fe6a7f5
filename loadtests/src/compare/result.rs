//! Samples, their medians and the ratios between proxies. All values are integers: nanoseconds and thousandths.

use serde::Serialize;

use crate::driver::{Latency, Protocol};
use crate::machine::Machine;
use crate::proxy::{Durability, Kind};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Number of the round, from 1.
    pub round: u32,
    /// The protocol of the commands.
    pub case: Protocol,
    /// The measured proxy.
    pub proxy: Kind,
    /// Number of measured commands.
    pub commands: u64,
    /// CPU nanoseconds of the proxy per command: user plus system time.
    pub cpu_ns: u64,
    /// User time in it.
    pub user_ns: u64,
    /// System time in it.
    pub system_ns: u64,
    /// Duration of the sample, in microseconds.
    pub elapsed_us: u64,
    /// Share of that duration during which the proxy was on its core.
    pub busy_percent: u64,
    /// Latencies in a closed loop.
    pub latency_us: Latency,
}

/// The median and the range of a figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The median; for an even number of values, the lower of the two in the middle.
    pub median: u64,
    /// The minimum.
    pub min: u64,
    /// The maximum.
    pub max: u64,
}

impl Spread {
    /// The spread of the values, or `None` if there are no values.
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let median = *values.get(values.len().checked_sub(1)? / 2)?;
        Some(Self { median, min: *values.first()?, max: *values.last()? })
    }
}

/// The figures of one proxy at one kind of work, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The kind of work.
    pub case: Protocol,
    /// The proxy.
    pub proxy: Kind,
    /// CPU nanoseconds per command.
    pub cpu_ns: Spread,
    /// User time in it.
    pub user_ns: Spread,
    /// System time in it.
    pub system_ns: Spread,
    /// Commands per second in a closed loop.
    pub commands_per_second: Spread,
    /// The median latency, in microseconds.
    pub p50_us: Spread,
    /// The 99th percentile of the latency, in microseconds.
    pub p99_us: Spread,
    /// Busy share of the proxy's core.
    pub busy_percent: Spread,
}

/// The ratio of Tallygate's cost to a peer's, in thousandths, taken per round.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The kind of work.
    pub case: Protocol,
    /// The peer.
    pub peer: Kind,
    /// The ratio of samples of the same round.
    pub thousandths: Spread,
    /// The upper target of the ratio, if there is one.
    pub target: Option<u64>,
}

/// The conditions of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The date, UTC.
    pub date: String,
    /// The command line of the run.
    pub command_line: String,
    /// The machine.
    pub machine: Machine,
    /// The versions of the programs.
    pub versions: Vec<(Kind, String)>,
    /// Tallygate's durability.
    pub durability: Durability,
}

/// The stored result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The conditions of the run.
    #[serde(flatten)]
    pub setting: Setting,
    /// Medians and ranges.
    pub summaries: Vec<Summary>,
    /// Ratios; empty for a run of the peers only.
    pub ratios: Vec<Ratio>,
    /// All samples.
    pub samples: Vec<Sample>,
}

impl Comparison {
    /// Computes summaries and ratios from the samples.
    pub fn new(setting: Setting, samples: Vec<Sample>) -> Self {
        Self { setting, summaries: summaries(&samples), ratios: ratios(&samples), samples }
    }
}

fn summaries(samples: &[Sample]) -> Vec<Summary> {
    first_round(samples).filter_map(|first| summary(samples, first.case, first.proxy)).collect()
}

/// The samples of the first round: each case and proxy once, in the order of the run.
fn first_round(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(|sample| sample.round == 1)
}

fn summary(samples: &[Sample], case: Protocol, proxy: Kind) -> Option<Summary> {
    let spread = |figure: fn(&Sample) -> u64| {
        let ours = samples.iter().filter(|sample| sample.case == case && sample.proxy == proxy);
        Spread::of(ours.map(figure).collect())
    };
    Some(Summary {
        case,
        proxy,
        cpu_ns: spread(|sample| sample.cpu_ns)?,
        user_ns: spread(|sample| sample.user_ns)?,
        system_ns: spread(|sample| sample.system_ns)?,
        commands_per_second: spread(|sample| sample.commands * 1_000_000 / sample.elapsed_us.max(1))?,
        p50_us: spread(|sample| sample.latency_us.p50)?,
        p99_us: spread(|sample| sample.latency_us.p99)?,
        busy_percent: spread(|sample| sample.busy_percent)?,
    })
}

fn ratios(samples: &[Sample]) -> Vec<Ratio> {
    let peers = first_round(samples).filter(|sample| sample.proxy != Kind::Tallygate);
    peers.filter_map(|first| ratio(samples, first.case, first.proxy)).collect()
}

fn ratio(samples: &[Sample], case: Protocol, peer: Kind) -> Option<Ratio> {
    let of = |round: u32, proxy: Kind| {
        samples.iter().find(|sample| (sample.round, sample.case, sample.proxy) == (round, case, proxy))
    };
    let rounds = samples.iter().filter(|sample| sample.case == case && sample.proxy == peer);
    let each = rounds.filter_map(|theirs| {
        let ours = of(theirs.round, Kind::Tallygate)?;
        (ours.cpu_ns * 1000).checked_div(theirs.cpu_ns)
    });
    Some(Ratio { case, peer, thousandths: Spread::of(each.collect())?, target: target(case, peer) })
}

/// The first targets, in thousandths. A figure without a target is only shown.
fn target(case: Protocol, peer: Kind) -> Option<u64> {
    match (case, peer) {
        (Protocol::H1 | Protocol::H2, Kind::Before) => Some(1010), // a change may cost 1 %
        (Protocol::H1, Kind::Haproxy) => Some(1000),
        (Protocol::H2, Kind::Haproxy) => Some(1100),
        _ => None,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A test sample in which only the cost is set.
    pub fn sample(round: u32, proxy: Kind, cpu_ns: u64) -> Sample {
        Sample {
            round,
            case: Protocol::H1,
            proxy,
            commands: 100,
            cpu_ns,
            user_ns: cpu_ns / 4,
            system_ns: cpu_ns - cpu_ns / 4,
            elapsed_us: 1000,
            busy_percent: 50,
            latency_us: Latency { p50: 1, p90: 2, p99: 3, p999: 4, max: 5 },
        }
    }

    #[test]
    fn ratios_are_computed_per_round() {
        let (ours, theirs) = (Kind::Tallygate, Kind::Haproxy);
        let costs =
            [(1, ours, 900), (1, theirs, 1000), (2, ours, 2000), (2, theirs, 1600), (3, ours, 30), (3, theirs, 30)];
        let samples = costs.map(|(round, proxy, cost)| sample(round, proxy, cost));
        let ratios = ratios(&samples);
        assert_eq!(ratios.len(), 1);
        assert_eq!(ratios[0].thousandths, Spread { median: 1000, min: 900, max: 1250 });
        assert_eq!(ratios[0].target, Some(1000));
    }

    #[test]
    fn peers_without_the_gateway_have_no_ratio() {
        let samples = [sample(1, Kind::Haproxy, 10), sample(1, Kind::Nginx, 20)];
        assert!(ratios(&samples).is_empty());
        assert_eq!(summaries(&samples).len(), 2);
    }
}
