//! Outcomes: how a command ended. Status, metric, log, ledger and bill share this vocabulary.
//!
//! Guarantees:
//! - The names are those of the public contract.
//! - The tally and the book store the numbers, so neither a name nor a number ever changes its meaning.
//! - Every match on these types is exhaustive: a new outcome does not compile until every module handles it.

use std::fmt;

/// The outcome of an admitted command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Finished {
    /// The subsystem responded with 2xx or 3xx, and the whole response reached the caller.
    Ok,
    /// The subsystem responded with 4xx.
    ClientError,
    /// The subsystem responded with 5xx.
    ServerError,
    /// No connection to the subsystem was made, or its servers refused the command: no part of it was processed.
    Unreachable,
    /// The subsystem broke the connection off after a part of the request was sent.
    UpstreamFailed,
    /// The subsystem did not respond in time.
    Timeout,
    /// The caller disconnected, or broke its own request off.
    Aborted,
    /// The gateway ended while the command was in flight.
    Interrupted,
}

impl Finished {
    /// All finished outcomes, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::ClientError,
        Self::ServerError,
        Self::Unreachable,
        Self::UpstreamFailed,
        Self::Timeout,
        Self::Aborted,
        Self::Interrupted,
    ];

    /// The position in [`Finished::ALL`] and in a slot of the tally.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in the public contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Unreachable => "unreachable",
            Self::UpstreamFailed => "upstream_failed",
            Self::Timeout => "timeout",
            Self::Aborted => "aborted",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The reason why a command was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    /// The request is not HTTP that the gateway accepts.
    Malformed,
    /// No department claims the caller.
    Unauthenticated,
    /// The authority does not belong to this connection or listener.
    Misdirected,
    /// No subsystem or no command matches.
    UnknownCommand,
    /// The department has no grant for the command.
    Forbidden,
    /// The rate limit is exceeded.
    RateLimited,
    /// The department's limit of commands in flight is reached.
    TooManyConcurrent,
    /// The quota of the period is used up.
    QuotaExceeded,
    /// The gateway itself is at a limit (load shedding).
    Overloaded,
    /// The command could not be counted, so it was not admitted.
    LedgerUnavailable,
    /// The body is larger than the command's limit.
    TooLarge,
}

impl Refused {
    /// All refusals, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Misdirected,
        Self::UnknownCommand,
        Self::Forbidden,
        Self::RateLimited,
        Self::TooManyConcurrent,
        Self::QuotaExceeded,
        Self::Overloaded,
        Self::LedgerUnavailable,
        Self::TooLarge,
    ];

    /// The position in [`Refused::ALL`] and in a slot of the tally.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in the public contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Misdirected => "misdirected",
            Self::UnknownCommand => "unknown_command",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::TooManyConcurrent => "too_many_concurrent",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Overloaded => "overloaded",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::TooLarge => "too_large",
        }
    }
}

/// The outcome of a command, admitted or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The command was admitted and ended in this way.
    Finished(Finished),
    /// The command was never forwarded.
    Refused(Refused),
}

/// The party at fault for an outcome. Alerts and prices depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// No party: the command succeeded.
    None,
    /// The caller (downstream).
    Caller,
    /// The gateway.
    Us,
    /// The subsystem (upstream).
    Upstream,
}

impl Blame {
    /// The name in the book and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Caller => "caller",
            Self::Us => "us",
            Self::Upstream => "upstream",
        }
    }
}

impl Outcome {
    /// Every outcome, the finished ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        Finished::ALL.into_iter().map(Self::Finished).chain(Refused::ALL.into_iter().map(Self::Refused))
    }

    /// The name in the public contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finished(finished) => finished.name(),
            Self::Refused(refused) => refused.name(),
        }
    }

    /// The stored number: finished from 1, refused from 101. Never reused, never renumbered.
    pub const fn code(self) -> u32 {
        match self {
            Self::Finished(finished) => 1 + finished as u32,
            Self::Refused(refused) => 101 + refused as u32,
        }
    }

    /// The outcome of a stored number.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::all().find(|outcome| outcome.code() == code)
    }

    /// The party at fault for the outcome.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Finished(Finished::Ok) => Blame::None,
            Self::Finished(Finished::ClientError | Finished::Aborted) => Blame::Caller,
            Self::Finished(Finished::Interrupted) => Blame::Us,
            Self::Finished(
                Finished::ServerError | Finished::Unreachable | Finished::UpstreamFailed | Finished::Timeout,
            ) => Blame::Upstream,
            Self::Refused(Refused::Overloaded | Refused::LedgerUnavailable) => Blame::Us,
            Self::Refused(
                Refused::Malformed
                | Refused::Unauthenticated
                | Refused::Misdirected
                | Refused::UnknownCommand
                | Refused::Forbidden
                | Refused::RateLimited
                | Refused::TooManyConcurrent
                | Refused::QuotaExceeded
                | Refused::TooLarge,
            ) => Blame::Caller,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_are_distinct_and_reversible() {
        let mut seen = std::collections::HashSet::new();
        for outcome in Outcome::all() {
            assert!(seen.insert(outcome.code()), "{outcome} has the number of another outcome");
            assert_eq!(Outcome::from_code(outcome.code()), Some(outcome));
        }
        assert_eq!(seen.len(), 19);
    }

    #[test]
    fn stored_numbers_never_change() {
        let numbers: Vec<_> = Outcome::all().map(|o| format!("{}={}", o.code(), o.name())).collect();
        assert_eq!(
            numbers.join(" "),
            "1=ok 2=client_error 3=server_error 4=unreachable 5=upstream_failed 6=timeout 7=aborted 8=interrupted \
             101=malformed 102=unauthenticated 103=misdirected 104=unknown_command 105=forbidden 106=rate_limited \
             107=too_many_concurrent 108=quota_exceeded 109=overloaded 110=ledger_unavailable 111=too_large"
        );
    }

    #[test]
    fn index_equals_the_position_in_all() {
        for (position, finished) in Finished::ALL.into_iter().enumerate() {
            assert_eq!(finished.index(), position);
        }
        for (position, refused) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(refused.index(), position);
        }
    }
}
