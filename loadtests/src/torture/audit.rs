//! The audit after a kill: compares callers' log, ledger and upstream's log, department by department.
//!
//! Guarantees: pure; every violated rule is reported with its numbers. The rules, with sums since the beginning:
//!
//! * answered 200 <= ledger `ok`: no command with a response is lost;
//! * all commands in the ledger <= sent: no command is counted twice, and none that no caller sent;
//! * all in the ledger - all responses <= commands without an outcome at the caller;
//! * ledger `ok` <= received by the upstream <= admitted in the ledger: no command was forwarded uncounted;
//! * no request reached the upstream twice.

use std::collections::{BTreeMap, HashSet};

use super::gateway::Usage;
use super::journal::Seen;

/// Requests that reached the upstream.
#[derive(Debug, Default)]
pub struct Received {
    pub by_department: BTreeMap<String, u64>,
    ids: HashSet<String>,
    pub twice: u64,
}

impl Received {
    /// Adds a line of the upstream's log.
    pub fn take(&mut self, department: String, id: String) {
        *self.by_department.entry(department).or_default() += 1;
        self.twice += u64::from(!self.ids.insert(id));
    }

    fn of(&self, department: &str) -> u64 {
        self.by_department.get(department).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.by_department.values().sum()
    }
}

/// The findings over all departments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub sent: u64,
    /// Responses with status 200.
    pub answered: u64,
    pub ok: u64,
    pub interrupted: u64,
    /// Commands with another outcome: refused, broken, aborted.
    pub other: u64,
    /// Commands with a response that are missing in the ledger.
    pub lost: u64,
    /// Commands in the ledger beyond those that were sent, or received twice by the upstream.
    pub double: u64,
    /// Every violated rule, with its numbers.
    pub broken: Vec<String>,
}

/// Outcomes of refused commands. These are never forwarded, so they are missing in the upstream's log.
const REFUSED: [&str; 11] = [
    "malformed",
    "unauthenticated",
    "misdirected",
    "unknown_command",
    "forbidden",
    "rate_limited",
    "too_many_concurrent",
    "quota_exceeded",
    "overloaded",
    "ledger_unavailable",
    "too_large",
];

/// Compares the three counts.
pub fn audit(seen: &BTreeMap<String, Seen>, usage: &Usage, received: &Received) -> Findings {
    let mut findings = Findings { double: received.twice, ..Findings::default() };
    findings.rule(received.twice == 0, || format!("{} requests reached the upstream twice", received.twice));
    for (department, seen) in seen {
        audit_one(department, seen, usage, received, &mut findings);
    }
    let known = |department: &String| seen.contains_key(department);
    let strangers = usage.iter().filter(|((department, _), _)| !known(department)).map(|(_, commands)| commands);
    let strangers: u64 = strangers.sum();
    findings.double += strangers;
    findings.rule(strangers == 0, || format!("{strangers} commands are counted under departments that sent nothing"));
    findings
}

fn audit_one(department: &str, seen: &Seen, usage: &Usage, received: &Received, findings: &mut Findings) {
    let rows = || usage.iter().filter(|((of, _), _)| of == department);
    let of = |outcome: &str| usage.get(&(department.to_owned(), outcome.to_owned())).copied().unwrap_or(0);
    let refused: u64 = REFUSED.iter().map(|outcome| of(outcome)).sum();
    let all: u64 = rows().map(|(_, commands)| commands).sum();
    let (ok, admitted) = (of("ok"), all - refused);
    let answered = seen.answered.get(&200).copied().unwrap_or(0);
    let (sent, arrived, open) = (seen.sent, received.of(department), seen.sent - seen.answers());

    findings.sent += sent;
    findings.answered += answered;
    findings.ok += ok;
    findings.interrupted += of("interrupted");
    findings.other += all - ok - of("interrupted");
    findings.lost += answered.saturating_sub(ok) + seen.answers().saturating_sub(all);
    findings.double += all.saturating_sub(sent);
    let mut rule = |holds: bool, words: String| findings.rule(holds, || format!("{department}: {words}"));
    rule(answered <= ok, format!("{answered} were answered 200, the ledger holds {ok} ok"));
    rule(seen.answers() <= all, format!("{} were answered, the ledger holds {all}", seen.answers()));
    rule(all <= sent, format!("the ledger holds {all}, only {sent} were sent"));
    rule(ok <= answered + open, format!("the ledger holds {ok} ok, {answered} were answered and {open} left open"));
    rule(ok <= arrived, format!("the ledger holds {ok} ok, only {arrived} reached the upstream"));
    rule(arrived <= admitted, format!("{arrived} reached the upstream, the ledger holds {admitted} admitted"));
}

impl Findings {
    fn rule(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(words());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sent: u64, ok: u64) -> BTreeMap<String, Seen> {
        let seen = Seen { sent, answered: BTreeMap::from([(200, ok)]), failed: sent - ok };
        BTreeMap::from([("dept-1".to_owned(), seen)])
    }

    fn usage(ok: u64, interrupted: u64) -> Usage {
        let row = |outcome: &str, commands| (("dept-1".to_owned(), outcome.to_owned()), commands);
        Usage::from([row("ok", ok), row("interrupted", interrupted)])
    }

    fn received(count: u64) -> Received {
        let mut received = Received::default();
        (0..count).for_each(|id| received.take("dept-1".to_owned(), id.to_string()));
        received
    }

    #[test]
    fn consistent_books_break_no_rule() {
        let findings = audit(&seen(10, 7), &usage(8, 2), &received(9));
        assert_eq!((findings.broken.len(), findings.lost, findings.double), (0, 0, 0), "{findings:?}");
        assert_eq!((findings.sent, findings.answered, findings.ok, findings.interrupted), (10, 7, 8, 2));
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let lost = audit(&seen(10, 7), &usage(6, 2), &received(9));
        assert_eq!((lost.lost, lost.double), (1, 0), "{lost:?}");
        let double = audit(&seen(10, 7), &usage(9, 2), &received(9));
        assert_eq!((double.lost, double.double), (0, 1), "{double:?}");
        let uncounted = audit(&seen(10, 7), &usage(7, 1), &received(9));
        assert!(uncounted.broken[0].contains("9 reached the upstream, the ledger holds 8"), "{uncounted:?}");
        let invented = audit(&seen(10, 7), &usage(8, 1), &received(7));
        assert!(invented.broken[0].contains("only 7 reached"), "{invented:?}");
        let mut twice = received(8);
        twice.take("dept-1".to_owned(), "1".to_owned());
        assert_eq!(audit(&seen(10, 7), &usage(8, 2), &twice).double, 1);
        let mut strange = usage(8, 2);
        strange.insert(("dept-9".to_owned(), "ok".to_owned()), 3);
        assert_eq!(audit(&seen(10, 7), &strange, &received(9)).double, 3);
    }
}
