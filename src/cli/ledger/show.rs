//! What is said of a ledger, for people.

use std::fmt::Write;

use crate::ledger::audit::{ChainHead, Checked, EpochState, Info, Verdict};

/// The epochs that are shown; of older ones only how many there are.
const EPOCHS: usize = 20;

/// One line per fact, its name to the left.
pub(super) fn info(info: &Info) -> String {
    let mut page = Page::default();
    page.say("gateway", &info.gateway);
    page.say("kept by", info.kept_by.map_or_else(|| "nobody".to_owned(), |process| format!("process {process}")));
    page.say("format", info.format);
    page.say("calendar", &info.calendar);
    page.say("head", head(&info.head));
    page.say("sealed at", info.head.sealed_at.as_deref().unwrap_or("-"));
    windows(&mut page, info);
    counts(&mut page, info);
    let sizes = &info.sizes;
    page.say("bytes", format!("book {}, write-ahead log {}, tally {}", sizes.book, sizes.wal, sizes.tally));
    if let Some(slots) = &info.slots {
        page.say("slots", format!("{} in use, {} free", slots.in_use, slots.free));
    }
    epochs(&mut page, &info.epochs);
    info.notes.iter().for_each(|note| page.say("note", note));
    page.0
}

fn windows(page: &mut Page, info: &Info) {
    let windows = &info.windows;
    let ends = windows.first.as_deref().zip(windows.last.as_deref());
    let ends = ends.map_or_else(|| "none".to_owned(), |(first, last)| format!("{first} to {last}"));
    page.say("hours", format!("{ends}; {} sealed, {} not sealed", windows.sealed, windows.unsealed));
    if let Some(horizon) = &info.rolled_before {
        page.say("", format!("before {horizon} kept as whole days only"));
    }
}

fn counts(page: &mut Page, info: &Info) {
    let flying = &info.in_flight;
    page.say(
        "in flight",
        format!(
            "{} commands, {} units, {} bytes in, {} bytes out",
            flying.commands, flying.units, flying.request_bytes, flying.response_bytes
        ),
    );
    if let Some(live) = &info.live {
        page.say(
            "this epoch",
            format!(
                "{} received, {} refused, {} finished, {} in flight",
                live.received, live.refused, live.finished, live.in_flight
            ),
        );
    }
    page.say("corrections", format!("{}, together {} units", info.adjustments.count, info.adjustments.units));
}

fn epochs(page: &mut Page, epochs: &[EpochState]) {
    let hidden = epochs.len().saturating_sub(EPOCHS);
    if hidden > 0 {
        page.say("epochs", format!("{hidden} older ones (--format json shows all)"));
    }
    for EpochState { row, state } in &epochs[hidden..] {
        let ended = row.ended_at.as_deref().unwrap_or("now");
        page.say(&format!("epoch {}", row.epoch), format!("{} to {ended}: {state}", row.started_at));
    }
}

/// As `--head` takes it.
fn head(head: &ChainHead) -> String {
    match head.number {
        0 => "nothing is sealed yet".to_owned(),
        number => format!("{number}:{}", head.hash),
    }
}

/// Findings, and what was looked at.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let mut page = Page::default();
    for finding in &verdict.findings {
        let _ = writeln!(page.0, "{}: {}: {}", finding.check, finding.place, finding.what);
    }
    if verdict.more > 0 {
        let _ = writeln!(page.0, "and {} more", verdict.more);
    }
    page.say("checked", checked(&verdict.checked));
    page.say("head", head(&verdict.head));
    let found = verdict.findings.len() as u64 + verdict.more;
    page.say("verdict", if verdict.ok { "sound".to_owned() } else { format!("NOT SOUND, {found} findings") });
    page.0
}

fn checked(checked: &Checked) -> String {
    let Checked { seals, rolled, lines, days, series, balances, adjustments, epochs, slots } = checked;
    let rolled = if *rolled == 0 { String::new() } else { format!(" ({rolled} of them by their day)") };
    format!(
        "{seals} seals{rolled}, {lines} lines, {days} days, {series} series, {balances} balances, \
         {adjustments} corrections, {epochs} epochs, {slots} slots"
    )
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn say(&mut self, name: &str, what: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name:<12} {what}"); // a String takes everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::audit::{Check, Finding};

    #[test]
    fn a_verdict_begins_with_its_findings_and_ends_with_a_word() {
        let head = ChainHead { number: 2, hash: "ab".to_owned(), sealed_at: None };
        let finding = Finding { check: Check::Content, place: "seal 2".to_owned(), what: "edited".to_owned() };
        let sound = Verdict { ok: true, head, findings: vec![], more: 0, notes: vec![], checked: Checked::default() };
        let text = verdict(&sound);
        assert!(text.ends_with("verdict      sound\n") && text.contains("head         2:ab"), "{text}");
        let text = verdict(&Verdict { ok: false, findings: vec![finding], more: 7, ..sound });
        assert!(text.starts_with("content: seal 2: edited\nand 7 more\n"), "{text}");
        assert!(text.ends_with("NOT SOUND, 8 findings\n"), "{text}");
    }
}
