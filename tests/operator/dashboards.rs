//! The dashboards of deploy/grafana: promtool accepts every query, each names only metrics and labels of the program,
//! a month of the finance dashboard is the report of the ledger, and a running gateway fills the operations dashboard.
//! `make dashboards-check` holds them against Grafana's own schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tallygate::model::{Blame, Outcome};

use super::scraped_usage::{load, report};
use super::sealed_hours::{History, prometheus_on, seconds};
use super::third_party_tools::{prometheus, query_at, value_of};
use crate::world::{READ, World, reserve_address, run, stderr, stdout, tool, until};

const OCTOBER: (&str, &str) = ("2026-09-30T16:00:00Z", "2026-10-31T16:00:00Z");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("deploy/grafana/{name}.json"))).unwrap()
}

/// All panels, those inside of rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().unwrap().iter();
    top.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten())).collect()
}

/// One query, with the title of its panel.
struct Query<'d> {
    panel: &'d str,
    expression: &'d str,
    legend: &'d str,
    is_instant: bool,
}

fn queries(dashboard: &Value) -> Vec<Query<'_>> {
    panels(dashboard)
        .into_iter()
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap_or_default();
            panel["targets"].as_array().into_iter().flatten().map(move |target| Query {
                panel: title,
                expression: target["expr"].as_str().unwrap(),
                legend: target["legendFormat"].as_str().unwrap(),
                is_instant: target["instant"].as_bool().unwrap(),
            })
        })
        .collect()
}

/// Replaces the variables as Grafana does, with all gateways, departments and subsystems chosen.
fn filled(expression: &str, range_seconds: u32, rate: &str) -> String {
    let range = range_seconds.to_string();
    let mut filled = expression.to_owned();
    // The longer name first: `$__range` is its beginning.
    for (name, value) in
        [("$__range_s", range.as_str()), ("$__range", &format!("{range}s")), ("$__rate_interval", rate)]
    {
        filled = filled.replace(name, value);
    }
    for name in ["$instance", "$department", "$subsystem"] {
        filled = filled.replace(name, ".*");
    }
    assert!(!filled.contains('$'), "a variable without a value: {filled}");
    filled
}

#[test]
fn promtool_accepts_every_query() {
    let folder = tempfile::tempdir().unwrap();
    for (name, least) in [("operations", 70), ("finance", 14)] {
        let dashboard = dashboard(name);
        let expressions = queries(&dashboard).into_iter().map(|query| filled(query.expression, 2_678_400, "1m"));
        let rules: Vec<Value> = expressions
            .enumerate()
            .map(|(number, expression)| json!({ "record": format!("query:{number}"), "expr": expression }))
            .collect();
        assert!(rules.len() >= least, "{name} has {} queries", rules.len());
        let file = folder.path().join(format!("{name}.yml"));
        fs::write(&file, json!({ "groups": [{ "name": name, "rules": rules }] }).to_string()).unwrap(); // JSON is YAML
        let output = tool("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{name}: {}{}", stdout(&output), stderr(&output));
    }
}

/// Families and their labels, from the tables of docs/metrics.md. A test of the library holds the page against the
/// declarations.
fn documented_families() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/metrics.md");
    let mut families = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        families.insert(cells[1].trim_matches('`').to_owned(), labels);
    }
    let process = page.split("## The process").nth(1).unwrap();
    for name in process.split('`').filter(|word| word.starts_with("process_")) {
        families.insert(name.to_owned(), BTreeSet::new());
    }
    families
}

fn is_part_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The names of metrics in an expression, with the labels that their matchers name.
fn selectors(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(begin) = ["tallygate_", "process_"].iter().filter_map(|beginning| rest.find(beginning)).min() {
        rest = &rest[begin..];
        let end = rest.find(|character| !is_part_of_name(character)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let matchers = after.strip_prefix('{').and_then(|inside| inside.split('}').next()).unwrap_or_default();
        let labels = matchers.split(", ").filter(|matcher| !matcher.is_empty());
        found.push((name, labels.map(|matcher| matcher.split(['=', '!']).next().unwrap()).collect()));
        rest = after;
    }
    found
}

/// The labels in the brackets after `by` and `on`.
fn grouped_labels(expression: &str) -> BTreeSet<&str> {
    let lists = [" by (", " on ("].into_iter().flat_map(|begin| expression.split(begin).skip(1));
    lists.flat_map(|list| list.split(')').next().unwrap().split(", ")).collect()
}

#[test]
fn queries_name_only_metrics_and_labels_of_the_program() {
    let families = documented_families();
    assert!(families.len() >= 75, "{}", families.len());
    for name in ["operations", "finance"] {
        let dashboard = dashboard(name);
        for query in queries(&dashboard) {
            let place = format!("{name}, {:?}: {}", query.panel, query.expression);
            let mut known = BTreeSet::from(["job", "instance"]); // a scrape adds them
            let selectors = selectors(query.expression);
            assert!(!selectors.is_empty(), "no metric: {place}");
            for (metric, matched) in selectors {
                let histogram = metric.strip_suffix("_bucket");
                let labels = families.get(histogram.unwrap_or(metric)).unwrap_or_else(|| panic!("{metric}: {place}"));
                known.extend(labels.iter().map(String::as_str));
                known.extend(histogram.map(|_| "le"));
                let unknown: Vec<_> = matched.iter().filter(|label| !known.contains(**label)).collect();
                assert!(unknown.is_empty(), "{metric} has no {unknown:?}: {place}");
            }
            let grouped = grouped_labels(query.expression);
            assert!(grouped.is_subset(&known), "no metric has {:?}: {place}", grouped.difference(&known));
            let shown = query.legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
            for label in shown {
                let is_there = grouped.contains(label) || (label == "instance" && grouped.len() <= 2);
                assert!(is_there, "the legend has {label}, and the result has not: {place}");
            }
        }
    }
}

/// A value that a variable offers comes from a metric that has it.
#[test]
fn variables_are_declared_and_filled_from_metrics_of_the_program() {
    let families = documented_families();
    for name in ["operations", "finance"] {
        let dashboard = dashboard(name);
        let list = dashboard["templating"]["list"].as_array().unwrap();
        let declared: BTreeSet<&str> = list.iter().map(|one| one["name"].as_str().unwrap()).collect();
        for variable in list.iter().filter(|one| one["type"] == "query") {
            let query = variable["query"]["query"].as_str().unwrap();
            let inside = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (metric, label) = inside.split_once(", ").unwrap();
            let labels = families.get(metric).unwrap_or_else(|| panic!("{metric}"));
            assert!(label == "instance" || labels.contains(label), "{query}");
            assert_eq!(variable["allValue"], ".*", "{query}");
        }
        for query in queries(&dashboard) {
            let used = query.expression.split("=~\"$").skip(1).map(|rest| rest.split('"').next().unwrap());
            used.for_each(|name| assert!(declared.contains(name), "{name}: {}", query.expression));
        }
        for panel in panels(&dashboard).iter().filter(|panel| panel["targets"].is_array()) {
            for part in std::iter::once(*panel).chain(panel["targets"].as_array().unwrap()) {
                assert_eq!(part["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            }
        }
    }
}

#[test]
fn panels_have_numbers_of_their_own_and_do_not_overlap() {
    for name in ["operations", "finance"] {
        let dashboard = dashboard(name);
        let all = panels(&dashboard);
        let numbers: BTreeSet<u64> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(numbers.len(), all.len(), "{name}");
        let mut taken = BTreeSet::new();
        for panel in &all {
            let side = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(side("x") + side("w") <= 24, "{}", panel["title"]);
            for place in
                (side("x")..side("x") + side("w")).flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y)))
            {
                assert!(taken.insert(place), "{name}: {} lies on another panel at {place:?}", panel["title"]);
            }
            let explained = panel["type"] == "row" || panel["type"] == "text" || panel["description"].is_string();
            assert!(explained, "{}", panel["title"]);
        }
    }
}

/// An outcome that is new belongs to the panel of its blame.
#[test]
fn panels_have_the_outcomes_of_their_blame() {
    let dashboard = dashboard("operations");
    let listed = |title: &str| -> BTreeSet<String> {
        let panel = queries(&dashboard).into_iter().find(|query| query.panel == title).unwrap();
        let list = panel.expression.split("outcome=~\"").nth(1).unwrap().split('"').next().unwrap();
        list.split('|').map(str::to_owned).collect()
    };
    let with = |is_so: &dyn Fn(Outcome) -> bool| -> BTreeSet<String> {
        Outcome::all().filter(|one| is_so(*one)).map(|one| one.name().to_owned()).collect()
    };
    let is_error = |one: Outcome| matches!(one.blame(), Blame::Upstream | Blame::Us);
    let is_refusal = |one: Outcome| matches!(one, Outcome::Refused(_)) && one.blame() == Blame::Caller;
    for (title, expected) in [
        ("Errors", with(&is_error)),
        ("Errors by subsystem", with(&is_error)),
        ("Refused", with(&is_refusal)),
        ("Refused commands by department", with(&is_refusal)),
    ] {
        assert_eq!(listed(title), expected, "{title}");
    }
}

#[test]
fn chart_has_the_same_dashboards() {
    for name in ["operations", "finance"] {
        let (chart, own) =
            (format!("deploy/helm/tallygate/files/dashboard-{name}.json"), format!("deploy/grafana/{name}.json"));
        assert_eq!(read(&chart), read(&own), "{name}: run `make dashboards`");
    }
}

/// The rows of a query, by the values of its labels.
type Rows = BTreeMap<Vec<String>, u64>;

fn rows_of_result(result: &Value, labels: &[&str]) -> Rows {
    let samples = result.as_array().unwrap().iter();
    let key = |sample: &Value| -> Vec<String> {
        labels.iter().map(|label| sample["metric"][*label].as_str().unwrap_or_default().to_owned()).collect()
    };
    samples.map(|sample| (key(sample), value_of(sample).unwrap())).collect()
}

/// The rows of a report of the ledger, those with usage.
async fn rows_of_ledger(history: &History, keys: &[&str], measure: &str) -> Rows {
    let (book, by) = (history.book(), keys.join(","));
    let arguments = ["--ledger", book.to_str().unwrap(), "--period", "2026-10", "--format", "json", "--by", &by];
    let (code, out, err) = report(&[&arguments[..], &["--measures", "commands,units"]].concat()).await;
    assert!(code == 0 && err.is_empty(), "{out}{err}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["state"], "complete");
    let key = |row: &Value| keys.iter().map(|key| row[*key].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    shown["rows"].as_array().unwrap().iter().map(|row| (key(row), row[measure].as_u64().unwrap())).collect()
}

/// A month in +08:00 with usage of three departments, on both edges of the month and beside them.
async fn a_month() -> History {
    let (begin, end) = (seconds(OCTOBER.0), seconds(OCTOBER.1));
    let history = History::open("2026-09-30T15:00:00Z", None).await;
    history.count(0, 0, 11); // September
    history.pass_to(begin).await;
    for step in 0..40_u32 {
        history.count(step % 3, step % 2, step + 1);
        history.pass_to(begin + i64::from(step + 1) * 66_000 - i64::from(step + 1) * 66_000 % 3600).await;
    }
    history.pass_to(end - 1).await;
    history.count(2, 1, 5); // the last second of October
    history.pass_to(end).await;
    history.count(1, 1, 13); // November
    history.pass_to(end + 4 * 3600).await;
    history
}

#[tokio::test]
async fn month_of_the_finance_dashboard_is_the_report_of_the_ledger() {
    let history = a_month().await;
    load(&history, &["--from", "2026-09-30T15:00:00Z", "--to", "2026-11-01", "--label", "instance=gateway-1"]).await;
    let address = reserve_address();
    let mut prometheus = prometheus_on(&history.folder.path().join("blocks"), address);
    until("Prometheus answers", async || query_at(address, "vector(1)", None).await).await;
    let finance = dashboard("finance");
    assert_eq!(finance["timezone"], "Asia/Shanghai"); // the zone of the default `calendar.offset`
    // "Previous month" ends a millisecond before the next one; Grafana asks for the whole range at that moment.
    let (range, at) = (2_678_400, seconds(OCTOBER.1) - 1);
    let result = async |panel: &str, number: usize| {
        let chosen = queries(&finance).into_iter().filter(|query| query.panel == panel).nth(number).unwrap();
        assert!(chosen.is_instant, "{panel}");
        query_at(address, &filled(chosen.expression, range, "1m"), Some(at)).await.unwrap()
    };
    for (number, measure) in ["commands", "units"].into_iter().enumerate() {
        let departments = rows_of_ledger(&history, &["department"], measure).await;
        let mut shown = rows_of_result(&result("Departments", number).await, &["department"]);
        let unused = shown.remove(&vec!["archive".to_owned()]);
        assert_eq!((shown, unused), (departments.clone(), Some(0)), "{measure}");
        let both = rows_of_ledger(&history, &["department", "subsystem"], measure).await;
        let shown = rows_of_result(&result("Departments and subsystems", number).await, &["department", "subsystem"]);
        assert_eq!(shown, both, "{measure}");
        let total: u64 = departments.values().sum();
        let title = if measure == "commands" { "Commands" } else { "Units" };
        assert_eq!(rows_of_result(&result(title, 0).await, &[]), [(vec![], total)].into());
        assert_eq!(days_shown(address, &finance, &format!("{title} by day")).await, days_of(&history, measure).await);
    }
    assert_eq!(rows_of_result(&result("Samples", 0).await, &[]), [(vec![], 1)].into());
    assert_eq!(rows_of_result(&result("Hours missing", 0).await, &[]), [(vec![], 0)].into());
    // A month that is not whole says so.
    let hours = queries(&finance).into_iter().find(|query| query.panel == "Hours missing").unwrap();
    let later = query_at(address, &filled(hours.expression, range, "1m"), Some(at + 7200)).await.unwrap();
    assert_eq!(rows_of_result(&later, &[]), [(vec![], 2)].into());
    prometheus.signal("TERM");
    prometheus.ended().await;
}

/// Days with usage as the panel shows them: the range from the first midnight on, a value for each midnight.
async fn days_shown(address: SocketAddr, finance: &Value, panel: &str) -> Rows {
    let chosen = queries(finance).into_iter().find(|query| query.panel == panel).unwrap();
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10", "-G", "--data-urlencode"]);
    curl.arg(format!("query={}", filled(chosen.expression, 2_678_400, "1m")));
    curl.args([format!("-dstart={}", seconds(OCTOBER.0)), format!("-dend={}", seconds(OCTOBER.1) - 1)]);
    curl.arg("-dstep=86400").arg(format!("http://{address}/api/v1/query_range"));
    let answer: Value = serde_json::from_slice(&run(curl).await.stdout).unwrap();
    let mut days = Rows::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        for value in series["values"].as_array().unwrap() {
            let day = jiff::Timestamp::from_second(value[0].as_i64().unwrap() + 8 * 3600).unwrap().to_string();
            let units: u64 = value[1].as_str().unwrap().parse().unwrap();
            let department = series["metric"]["department"].as_str().unwrap().to_owned();
            days.insert(vec![day[..10].to_owned(), department], units);
        }
    }
    days.into_iter().filter(|(_, units)| *units > 0).collect()
}

async fn days_of(history: &History, measure: &str) -> Rows {
    let days = rows_of_ledger(history, &["day", "department"], measure).await;
    days.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Panels of the operations dashboard that a gateway in order leaves empty.
const EMPTY_IN_ORDER: [&str; 15] = [
    "Errors by subsystem",
    "Limits met by commands",
    "Limits met by connections and waits",
    "Commands in flight, by department",
    "Quota used",
    "Pace of the month",
    "Out of rotation",
    "Failed attempts",
    "Retries",
    "Queues",
    "Failed health checks",
    "Failed handshakes",
    "Expired lists accepted",
    "Sealed hours",
    "Errors",
];

#[tokio::test]
async fn a_running_gateway_fills_the_operations_dashboard() {
    let world = World::city().start().await;
    let address = reserve_address();
    let mut prometheus = prometheus(&world, address);
    let client = world.client("traffic-police");
    let ready = "count_over_time(tallygate_commands_total[1m]) > 3";
    until("a rate can be computed", async || {
        client.get(READ).await;
        client.get("/nothing").await;
        query_at(address, ready, None).await.filter(|result| !result.as_array().unwrap().is_empty())
    })
    .await;
    let operations = dashboard("operations");
    let cluster =
        operations["panels"].as_array().unwrap().iter().find(|panel| panel["title"] == "Kubernetes controller");
    let of_cluster: BTreeSet<&str> =
        cluster.unwrap()["panels"].as_array().unwrap().iter().map(|panel| panel["title"].as_str().unwrap()).collect();
    for query in queries(&operations) {
        let result = query_at(address, &filled(query.expression, 60, "1m"), None).await;
        let result = result.unwrap_or_else(|| panic!("{}: {}", query.panel, query.expression));
        let may_be_empty = EMPTY_IN_ORDER.contains(&query.panel) || of_cluster.contains(query.panel);
        assert!(may_be_empty || !result.as_array().unwrap().is_empty(), "{}: {}", query.panel, query.expression);
    }
    prometheus.signal("TERM");
    prometheus.ended().await;
    world.close().await;
}
