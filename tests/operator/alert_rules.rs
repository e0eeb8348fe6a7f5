//! The alerts of deploy/prometheus/rules.yml: promtool accepts them and their cases, each has a case and a section of
//! the runbook, and they name only metrics of the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tallygate::model::{Blame, Outcome};

use crate::world::{stderr, stdout, tool};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rest of each line that begins so, beside spaces.
fn values<'t>(text: &'t str, beginning: &'static str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| line.trim_start().strip_prefix(beginning))
}

/// The names of the alerts.
fn alerts() -> BTreeSet<String> {
    let names: BTreeSet<String> =
        values(&read("deploy/prometheus/rules.yml"), "- alert: ").map(str::to_owned).collect();
    assert!(names.len() >= 30, "{names:?}");
    names
}

#[test]
fn promtool_accepts_the_rules_and_their_cases() {
    for (what, file) in [("check", "rules.yml"), ("test", "rules_test.yml")] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
        let output = tool("promtool").args([what, "rules", file]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "promtool {what} rules: {}{}", stdout(&output), stderr(&output));
    }
}

/// Cases without expected alerts show that an alert does not fire; each needs one in which it does.
#[test]
fn every_alert_fires_in_a_case() {
    let cases = read("deploy/prometheus/rules_test.yml");
    let fires: BTreeSet<String> = cases
        .split("alertname: ")
        .skip(1)
        .filter(|case| case.lines().nth(2).is_some_and(|line| line.trim_start().starts_with("- exp_labels:")))
        .map(|case| case.lines().next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(fires, alerts());
}

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let runbook = read("docs/runbook.md");
    let sections: BTreeSet<String> = values(&runbook, "## ").map(str::to_owned).collect();
    assert_eq!(sections, alerts());
    for section in runbook.split("\n## ").skip(1) {
        assert!(
            section.contains("* **Means:** ") && section.contains("o:** "),
            "no meaning, or nothing to do: {section}"
        );
    }
}

#[test]
fn rules_name_only_metrics_of_the_program() {
    let (rules, manual) = (read("deploy/prometheus/rules.yml"), read("docs/metrics.md"));
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    let names: BTreeSet<&str> = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim_start().starts_with("- record:"))
        .flat_map(|line| line.split(|character: char| !is_part(character)))
        .filter(|word| word.starts_with("tallygate_"))
        .map(|word| word.trim_end_matches(':'))
        .collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let family = name.strip_suffix("_bucket").or(name.strip_suffix("_count")).unwrap_or(name);
        assert!(manual.contains(&format!("`{family}`")), "docs/metrics.md has no {family}");
    }
}

/// An outcome that is new belongs to the ratio of its blame.
#[test]
fn ratios_have_the_outcomes_of_their_blame() {
    let rules = read("deploy/prometheus/rules.yml");
    let listed = |record: &str| -> BTreeSet<BTreeSet<String>> {
        let begin = format!("- record: {record}:");
        let after = rules.split(begin.as_str()).skip(1);
        let lists = after.map(|rule| rule.split("outcome=~\"").nth(1).unwrap().split('"').next().unwrap());
        lists.map(|list| list.split('|').map(str::to_owned).collect()).collect()
    };
    let with = |is_so: &dyn Fn(Outcome) -> bool| -> BTreeSet<BTreeSet<String>> {
        [Outcome::all().filter(|one| is_so(*one)).map(|one| one.name().to_owned()).collect()].into()
    };
    let is_error = |one: Outcome| matches!(one.blame(), Blame::Upstream | Blame::Us);
    let is_refusal = |one: Outcome| matches!(one, Outcome::Refused(_)) && one.blame() == Blame::Caller;
    assert_eq!(listed("subsystem:tallygate_error_ratio"), with(&is_error));
    assert_eq!(listed("department:tallygate_refusals"), with(&is_refusal));
}

#[test]
fn chart_has_the_same_rules() {
    assert_eq!(read("deploy/helm/tallygate/files/alerts.yaml"), read("deploy/prometheus/rules.yml"));
}
