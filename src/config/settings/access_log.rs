//! The settings of the access log. A reload applies them.

use std::path::PathBuf;

use crate::model::{Finished, Outcome, Refused};

/// The settings of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Where lines go.
    pub output: AccessLogOutput,
    /// The format of lines.
    pub format: AccessLogFormat,
    /// Whether lines have the query of the request.
    pub has_query: bool,
    /// Which commands have lines.
    pub sampling: SampleRates,
    /// The limits of the lines that wait to be written.
    pub queue: AccessQueueLimits,
}

/// Where the lines of the access log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogOutput {
    /// The standard output of the process.
    Stdout,
    /// A file that is appended to, or a named pipe.
    File(PathBuf),
}

/// The format of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One flat JSON object for each line.
    #[default]
    Json,
    /// `key=value` pairs, with values in quotes where they need them.
    Logfmt,
}

/// The limits of the lines that wait to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessQueueLimits {
    /// The most lines.
    pub lines: usize,
    /// The most bytes of memory.
    pub bytes: usize,
}

impl Default for AccessQueueLimits {
    fn default() -> Self {
        Self { lines: 16_384, bytes: 16 * 1024 * 1024 }
    }
}

/// The part of the commands that have lines, by outcome: one of N commands. 0 stands for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleRates {
    /// N by [`Finished::index`].
    pub finished: [u32; Finished::ALL.len()],
    /// N by [`Refused::index`].
    pub refused: [u32; Refused::ALL.len()],
}

impl Default for SampleRates {
    /// Every command has a line.
    fn default() -> Self {
        Self { finished: [1; Finished::ALL.len()], refused: [1; Refused::ALL.len()] }
    }
}

impl SampleRates {
    /// The N of an outcome: one of N commands has a line. 0 stands for none.
    pub fn one_of(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Finished(finished) => self.finished[finished.index()],
            Outcome::Refused(refused) => self.refused[refused.index()],
        }
    }

    /// The number of commands with this outcome that a line of this command stands for; `None` if it has no line. The
    /// request id alone decides: it is random, and the same command is chosen on each evaluation.
    pub fn choose(&self, outcome: Outcome, request_id: u128) -> Option<u32> {
        let one_of = self.one_of(outcome);
        let low = request_id as u64; // the lower half is as random as the whole
        (one_of == 1 || (one_of > 1 && low.is_multiple_of(u64::from(one_of)))).then_some(one_of)
    }
}

impl AccessLogOutput {
    /// The output as a configuration writes it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Stdout => "stdout".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl AccessLogSettings {
    /// The keys of `accessLog` in which two settings differ.
    pub fn changed_keys(before: Option<&Self>, now: Option<&Self>) -> Vec<&'static str> {
        let (Some(before), Some(now)) = (before, now) else {
            return if before == now { Vec::new() } else { vec!["accessLog"] };
        };
        let keys = [
            ("accessLog.output", before.output != now.output),
            ("accessLog.format", before.format != now.format),
            ("accessLog.query", before.has_query != now.has_query),
            ("accessLog.sample", before.sampling != now.sampling),
            ("accessLog.queue", before.queue != now.queue),
        ];
        keys.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_id_alone_decides_which_commands_have_lines() {
        let ok = Outcome::Finished(Finished::Ok);
        let mut rates = SampleRates::default();
        assert_eq!(rates.choose(ok, 7), Some(1));
        rates.finished[Finished::Ok.index()] = 4;
        let chosen: Vec<u128> = (0..16).filter(|id| rates.choose(ok, *id) == Some(4)).collect();
        assert_eq!(chosen, [0, 4, 8, 12]);
        assert_eq!(rates.choose(ok, (5 << 64) + 8), Some(4), "the upper half does not count");
        assert_eq!(rates.choose(Outcome::Finished(Finished::Timeout), 7), Some(1), "another outcome");
        assert_eq!(rates.choose(Outcome::Refused(Refused::Malformed), 7), Some(1), "another kind");
        rates.finished[Finished::Ok.index()] = 0;
        assert_eq!((0..16).find_map(|id| rates.choose(ok, id)), None);
    }
}
