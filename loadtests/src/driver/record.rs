//! The counts and latencies of a driver, and its report.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::pki::{DEPARTMENTS, department};

/// The longest latency that the histogram resolves, in microseconds.
const LATENCY_LIMIT: u64 = 120_000_000;

/// The number of errors that a report quotes.
const FAULTS_QUOTED: usize = 5;

/// The outcome of a command at the client, ordered so that successes come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Answered(u16),
    Failed,
}

/// The commands of one stint.
#[derive(Debug)]
pub struct Record {
    endings: BTreeMap<(usize, Ending), u64>,
    latency: Histogram<u64>,
    faults: Vec<String>,
}

impl Record {
    /// An empty record.
    pub fn new() -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, LATENCY_LIMIT, 3)?;
        Ok(Self { endings: BTreeMap::new(), latency, faults: Vec::new() })
    }

    /// Records a command that has a response.
    pub fn answered(&mut self, department: usize, status: u16, latency: Duration) {
        *self.endings.entry((department, Ending::Answered(status))).or_default() += 1;
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Records a command without a complete response. The command may not have been sent.
    pub fn failed(&mut self, department: usize, fault: &anyhow::Error) {
        *self.endings.entry((department, Ending::Failed)).or_default() += 1;
        if self.faults.len() < FAULTS_QUOTED {
            self.faults.push(format!("{fault:#}"));
        }
    }

    /// Number of commands in the record.
    pub fn commands(&self) -> u64 {
        self.endings.values().sum()
    }

    /// The account by department. Each outcome other than status 200 has a key of its own.
    pub fn account(&self) -> Account {
        self.endings.iter().map(|((index, ending), count)| (key(*index, *ending), *count)).collect()
    }

    /// The latencies, in microseconds.
    pub fn latency(&self) -> Latency {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.latency.max() }
    }

    /// The first few errors.
    pub fn faults(self) -> Vec<String> {
        self.faults
    }
}

fn key(index: usize, ending: Ending) -> String {
    match ending {
        Ending::Answered(200) => department(index),
        Ending::Answered(status) => format!("{} status {status}", department(index)),
        Ending::Failed => format!("{} failed", department(index)),
    }
}

/// Latencies in microseconds, from the first byte sent to the last byte received.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The maximum.
    pub max: u64,
}

/// The report that a driver prints at its end, as one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// All commands that were sent, including the warm-up.
    pub account: Account,
    /// Number of commands after the warm-up.
    pub commands: u64,
    /// Duration of these commands, in microseconds.
    pub elapsed_us: u64,
    /// Latency of these commands, in microseconds.
    pub latency_us: Latency,
    /// The first few errors.
    pub faults: Vec<String>,
}

/// Number of commands per department. All numbers differ, so that a mix-up of two departments shows.
pub fn shares(commands: u64) -> [u64; DEPARTMENTS] {
    let departments = DEPARTMENTS as u64;
    let base = commands / departments;
    let mut shares = [base; DEPARTMENTS];
    if base >= departments {
        for (share, index) in shares.iter_mut().zip(0..) {
            *share = base + 2 * index + 1 - departments; // the odd steps from -7 to 7 sum to 0
        }
    }
    shares[DEPARTMENTS - 1] += commands % departments;
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_up_and_are_distinct() {
        for commands in [64, 71, 100_000, 99_999] {
            let shares = shares(commands);
            assert_eq!(shares.iter().sum::<u64>(), commands);
            assert!(shares.windows(2).all(|pair| pair[0] < pair[1]), "{shares:?}");
        }
        assert_eq!(shares(10), [1, 1, 1, 1, 1, 1, 1, 3]);
    }

    #[test]
    fn only_a_200_response_counts_as_a_command() {
        let mut record = Record::new().expect("a histogram");
        record.answered(0, 200, Duration::from_micros(5));
        record.answered(0, 429, Duration::from_micros(5));
        record.failed(1, &anyhow::anyhow!("cut off"));
        let expected = [("dept-1", 1), ("dept-1 status 429", 1), ("dept-2 failed", 1)];
        assert_eq!(record.account(), expected.map(|(key, count)| (key.to_owned(), count)).into());
        assert_eq!(record.faults(), ["cut off"]);
    }
}
