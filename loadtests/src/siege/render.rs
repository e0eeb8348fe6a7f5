//! Renders the result of a siege as a Markdown page.

use anyhow::Result;

use super::attack::capacity;
use super::gateway::{CONNECTIONS, IN_FLIGHT, MEMORY};
use super::{Outcome, Siege};
use crate::machine::{Machine, today, version};

/// The page: machine, command line and figures.
pub fn result(options: &Siege, outcomes: &[Outcome]) -> Result<String> {
    let machine = Machine::here()?;
    let mut text = format!("# Siege, {}\n\n", today()?);
    text += &format!("`loadtests {}`\n\n", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    text += &format!("* machine: {}, {} cores, Linux {}\n", machine.cpu, machine.cores, machine.kernel);
    text += &format!("* load average of the last minute at the end: {}\n", machine.load_before);
    text += &format!("* program: {}\n", version(&options.tallygate, "--version")?);
    text += &format!(
        "* memory cgroup of {} MiB, `capacity.connections` {CONNECTIONS} (what 20,000 descriptors allow), 2 workers, \
         scale {} of the full numbers, {} s idle and {} s of each attack once it stands\n\n",
        MEMORY / 1024 / 1024,
        options.scale,
        options.seconds,
        options.seconds,
    );
    text += "One department calls 200 times a second whatever happens, each twentieth time over a new connection; its latency\n\
             counts from the moment when a command was due. Gateway, attackers and it share the cores; its subsystem is none of\n\
             those that are attacked. An attack stands two seconds after its last connection was opened. Judged: the gateway\n\
             lives, the department has no error, client, subsystem and ledger agree. Told beside the target: p99 <= 3 x\n\
             idle, memory <= 40 KiB for each slow connection and +-10 % after the attack. `headTime` is 60 s so that all\n\
             slow heads stand at once; other timeouts are the defaults.\n\n";
    text += "| attack | stood at once | thrown out | good: commands / errors | p99 idle | p99 while it comes up | p99 once it stands (target), slowest | p99 while it ends | memory before / most / after (target) | a connection | books |\n";
    text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n";
    outcomes.iter().for_each(|outcome| text += &row(outcome));
    text += &format!(
        "\nOverload: {IN_FLIGHT} commands under way at most, each takes the subsystem 250 ms, so {} a second are the maximum and twice\n\
         as many come. Shed is what was answered 503 or 429.\n\n",
        capacity(IN_FLIGHT)
    );
    text += "| overload | answers by status | shed, with `Retry-After` | shed in, p50 / p99 (target 5 ms) | goodput of the maximum (target 90 %) |\n|---|---|---:|---:|---:|\n";
    outcomes.iter().filter(|outcome| outcome.attack.is_overload()).for_each(|outcome| text += &overload(outcome));
    for outcome in outcomes.iter().filter(|outcome| !outcome.broken.is_empty()) {
        text += &format!("\n**{} was not withstood**: {}\n", outcome.attack.name(), outcome.broken.join("; "));
    }
    Ok(text)
}

/// One line per attack, printed while the siege runs.
pub fn line(outcome: &Outcome) -> String {
    let mut line = row(outcome).trim_end().to_owned();
    for fault in outcome
        .report
        .first_fault
        .iter()
        .chain(&outcome.idle.faults)
        .chain(&outcome.opening.faults)
        .chain(&outcome.under.faults)
        .chain(&outcome.ending.faults)
    {
        line += &format!("\n  heard: {fault}");
    }
    line
}

fn row(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let [before, most, after] = outcome.memory;
    let each = most.saturating_sub(before).checked_div(report.most);
    let is_slow = outcome.count > 100 && !outcome.attack.is_overload();
    format!(
        "| {} | {} of {} | {} | {} / {} | {} ms | {} ms | {} ms ({}), {} | {} ms | {} / {} / {} MiB ({} to {}) | {} | {} |\n",
        outcome.attack.name(),
        report.most,
        outcome.count,
        report.ended + report.turned_away,
        outcome.commands,
        outcome.errors,
        milliseconds(outcome.idle.p99),
        milliseconds(outcome.opening.p99),
        milliseconds(outcome.under.p99),
        milliseconds(outcome.idle.p99 * 3),
        milliseconds(outcome.under.max),
        milliseconds(outcome.ending.p99),
        mebibytes(before),
        mebibytes(most),
        mebibytes(after),
        mebibytes(before - before / 10),
        mebibytes(before + before / 10),
        each.filter(|_| is_slow).map_or_else(|| "-".to_owned(), |each| format!("{} KiB", each / 1024)),
        if outcome.broken.is_empty() { "balanced" } else { "**see below**" },
    )
}

fn overload(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let answers: Vec<_> = report.answered.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    let ok = report.answered.get(&200).copied().unwrap_or(0);
    let maximum = capacity(IN_FLIGHT) as u64 * report.during_ms / 1000;
    format!(
        "| {} | {} | {}, {} | {} / {} ms | {} % |\n",
        outcome.attack.name(),
        answers.join(", "),
        report.shed,
        report.shed_with_retry_after,
        milliseconds(report.shed_p50_us),
        milliseconds(report.shed_p99_us),
        (100 * ok).checked_div(maximum).unwrap_or(0),
    )
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{}", microseconds / 1000, microseconds % 1000 / 100)
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / 1024 / 1024
}
