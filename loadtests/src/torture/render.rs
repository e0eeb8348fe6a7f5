//! Renders the result of a torture run as a Markdown page.

use anyhow::Result;

use super::{Figures, Torture};
use crate::machine::{Machine, today, version};

/// The page: machine, command line and figures.
pub fn result(options: &Torture, figures: &[Figures]) -> Result<String> {
    let machine = Machine::here()?;
    let kills: u32 = figures.iter().flat_map(|figures| figures.kills.values()).sum();
    let again: u32 = figures.iter().map(|figures| figures.again).sum();
    let mut text = format!("# Torture, {}\n\n", today()?);
    text += &format!("`loadtests {}`\n\n", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    text += &format!("* machine: {}, {} cores, Linux {}\n", machine.cpu, machine.cores, machine.kernel);
    text += &format!("* program: {}\n", version(&options.tallygate, "--version")?);
    text += &format!(
        "* {kills} kills under load of 8 departments over mTLS, HTTP/1.1 and HTTP/2, and {again} more of starts that \
         were recovering\n\n"
    );
    text += "After each kill: answered <= ledger ok <= answered + open, ledger <= sent, ledger ok <= upstream <= ledger\n\
             admitted, for each department; the next start says exactly what the dead ledger said; at the end\n\
             `usage_hourly` says what the report says.\n\n";
    text += "| | ";
    text += &row(figures, |figures| format!("durability: {}", figures.durability));
    text += &format!("|---|{}\n", "---:|".repeat(figures.len()));
    for (name, cell) in LINES {
        text += &format!("| {name} | {}", row(figures, cell));
    }
    Ok(text)
}

type Cell = fn(&Figures) -> String;

const LINES: [(&str, Cell); 12] = [
    ("kills: plain / growth / recovery / out of memory", kills),
    ("starts killed while they recovered", |figures| figures.again.to_string()),
    ("lives whose tally had grown when they were killed", |figures| figures.grown.to_string()),
    ("commands sent", |figures| figures.findings.sent.to_string()),
    ("answered (200, read to the end)", |figures| figures.findings.answered.to_string()),
    ("ledger: ok", |figures| figures.findings.ok.to_string()),
    ("ledger: interrupted", |figures| figures.findings.interrupted.to_string()),
    ("ledger: everything else", |figures| figures.findings.other.to_string()),
    ("received by the upstream", |figures| figures.received.to_string()),
    ("**lost**", |figures| figures.findings.lost.to_string()),
    ("**double**", |figures| figures.findings.double.to_string()),
    ("slowest start, recovery included / whole run", |figures| {
        format!("{} ms / {} s", figures.slowest_start.as_millis(), figures.took.as_secs())
    }),
];

fn kills(figures: &Figures) -> String {
    let of = |kind| figures.kills.get(kind).copied().unwrap_or(0);
    format!("{} / {} / {} / {}", of("plain"), of("growth"), of("recovery"), of("oom"))
}

fn row(figures: &[Figures], cell: impl Fn(&Figures) -> String) -> String {
    let cells: Vec<_> = figures.iter().map(cell).collect();
    format!("{} |\n", cells.join(" | "))
}
