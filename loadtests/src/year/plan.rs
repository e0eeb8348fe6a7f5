//! The plan of the city's year: number of commands by series, hour and outcome.
//!
//! The plan is pure arithmetic, known before any command is counted, so that the ledger can be compared with it.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, ensure};
use tallygate::model::{CommandKey, Department, Finished, Name};

/// The load of each hour of a day, in parts of the day: a quiet night and two rush hours.
const DAY: [u64; 24] = [2, 1, 1, 1, 1, 2, 4, 8, 9, 7, 6, 6, 6, 6, 6, 6, 7, 9, 9, 7, 6, 5, 4, 3];

/// Series are called in turns. In each turn the series with number n is called `n % WEIGHTS + 1` times.
const WEIGHTS: u64 = 4;

/// Of this number of a worker's commands, one has each of the outcomes in [`RARE`].
const RARE_EVERY: u64 = 64;
const RARE: [Finished; 4] = [Finished::ClientError, Finished::ServerError, Finished::Timeout, Finished::Aborted];

/// Commands by department, command and outcome.
pub type Counts = BTreeMap<(String, String, &'static str), u64>;

/// The plan of a year.
#[derive(Clone, Debug)]
pub struct Plan {
    pub commands: u64,
    pub hours: u32,
    pub workers: u64,
    pub series: Vec<Series>,
    /// Positions in `series`, each repeated by its weight.
    turn: Vec<u32>,
}

/// One department's use of one command.
#[derive(Clone, Debug)]
pub struct Series {
    pub department: Department,
    pub command: CommandKey,
}

impl Plan {
    pub fn new(commands: u64, hours: u32, (departments, each): (u32, u32), workers: u64) -> Result<Self> {
        ensure!(hours > 0 && departments > 0 && each > 0 && workers > 0, "a year needs hours, series and workers");
        let mut series = Vec::new();
        for department in 1..=departments {
            for command in 1..=each {
                series.push(Series::new(department, command)?);
            }
        }
        let weight = |number: u32| u64::from(number) % WEIGHTS + 1;
        let turn = (0..departments * each).flat_map(|at| (0..weight(at)).map(move |_| at)).collect();
        Ok(Self { commands, hours, workers, series, turn })
    }

    /// Commands of an hour: its share of the year by the hour of the day. The last hour has the remainder.
    pub fn of_hour(&self, hour: u32) -> u64 {
        let parts = |hours: Range<u32>| hours.map(|hour| DAY[hour as usize % 24]).sum::<u64>();
        let share = |part: u64| {
            let all = u128::from(parts(0..self.hours));
            u64::try_from(u128::from(self.commands) * u128::from(part) / all).unwrap_or(u64::MAX)
        };
        match hour + 1 == self.hours {
            false => share(DAY[hour as usize % 24]),
            true => self.commands - (0..hour).map(|hour| share(DAY[hour as usize % 24])).sum::<u64>(),
        }
    }

    /// A worker's commands in an hour.
    pub fn of_worker(&self, in_hour: u64, worker: u64) -> u64 {
        in_hour / self.workers + u64::from(worker < in_hour % self.workers)
    }

    /// The series and the outcome of a worker's n-th command in an hour.
    pub fn nth(&self, n: u64) -> (usize, Finished) {
        let at = (n % self.turn.len() as u64) as usize;
        let rare = n % RARE_EVERY;
        (self.turn[at] as usize, RARE.get(rare as usize).copied().unwrap_or(Finished::Ok))
    }

    /// The contents of the ledger at the end, computed by whole cycles without another pass over the year.
    pub fn expected(&self) -> Counts {
        let cycle = self.turn.len() as u64 * RARE_EVERY; // the pattern of series and outcomes repeats with this period
        let mut of_cycle = vec![[0_u64; Finished::ALL.len()]; self.series.len()];
        let mut sums = of_cycle.clone();
        let shares: Vec<u64> = self.shares();
        (0..cycle).for_each(|n| self.note(&mut of_cycle, n));
        let cycles: u64 = shares.iter().map(|share| share / cycle).sum();
        for (sum, one) in sums.iter_mut().flatten().zip(of_cycle.iter().flatten()) {
            *sum = one * cycles;
        }
        shares.iter().for_each(|share| (0..share % cycle).for_each(|n| self.note(&mut sums, n)));
        self.named(&sums)
    }

    /// Number of commands for every worker and hour.
    fn shares(&self) -> Vec<u64> {
        let of_hour = |hour| {
            let commands = self.of_hour(hour);
            (0..self.workers).map(move |worker| self.of_worker(commands, worker))
        };
        (0..self.hours).flat_map(of_hour).collect()
    }

    fn note(&self, sums: &mut [[u64; Finished::ALL.len()]], n: u64) {
        let (series, finished) = self.nth(n);
        sums[series][finished.index()] += 1;
    }

    fn named(&self, sums: &[[u64; Finished::ALL.len()]]) -> Counts {
        let one = |series: &Series, finished: Finished, commands: u64| {
            ((series.department.id.to_string(), series.command.command.to_string(), finished.name()), commands)
        };
        let of_series = |(series, sums): (&Series, &[u64; Finished::ALL.len()])| {
            let counts = Finished::ALL.map(|finished| one(series, finished, sums[finished.index()]));
            counts.into_iter().filter(|(_, commands)| *commands > 0).collect::<Vec<_>>()
        };
        self.series.iter().zip(sums).flat_map(of_series).collect()
    }
}

impl Series {
    fn new(department: u32, command: u32) -> Result<Self> {
        let name = |text: String| Name::parse(&text).map_err(anyhow::Error::from);
        Ok(Self {
            department: Department {
                number: department,
                id: name(format!("department-{department:03}"))?,
                name: String::new(),
            },
            command: CommandKey {
                number: command,
                subsystem: name("city".into())?,
                command: name(format!("command-{command:02}"))?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_counts_equal_those_of_the_simulated_year() {
        let plan = Plan::new(1_000_003, 50, (3, 5), 2).expect("a plan");
        let mut walked = vec![[0_u64; Finished::ALL.len()]; plan.series.len()];
        for share in plan.shares() {
            (0..share).for_each(|n| plan.note(&mut walked, n));
        }
        assert_eq!(plan.expected(), plan.named(&walked));
        assert_eq!(plan.expected().values().sum::<u64>(), 1_000_003);
    }

    #[test]
    fn hours_sum_up_to_the_year() {
        let plan = Plan::new(3_560_000_000, 8760, (1, 1), 2).expect("a plan");
        assert_eq!((0..8760).map(|hour| plan.of_hour(hour)).sum::<u64>(), 3_560_000_000);
        assert!(plan.of_hour(8) > 4 * plan.of_hour(3), "there is a night");
    }
}
