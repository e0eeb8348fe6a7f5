//! Limits on a manual clock: rate limits (token buckets), concurrency limits, monthly quotas and their warnings. Tested
//! are the order of limits, refusals that spend no token, and state that survives reloads.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::test_fixtures::{compile_with, config_text};
use crate::model::{CalendarOffset, NameInterner, PeriodLength, QuotaKind, QuotaMeasure, Refused};
use crate::policy::PolicySnapshot;

use super::*;

struct City {
    numbers: NameInterner,
    clock: Clock,
    limiters: LimiterRegistry,
    snapshot: Arc<PolicySnapshot>,
}

/// One department with two commands. The three texts are flow mappings of limits and a quota.
fn document(department: &str, command: &str, total: &str) -> String {
    config_text(&format!(
        "limits: {total}
departments: [{{ id: police, callers: [{{ dns: police }}], {department} }}]
subsystems:
  - id: cameras
    upstreams: [{{ url: \"http://127.0.0.1:1\" }}]
    commands:
      - {{ id: a, match: {{ path: /a }}, {command} }}
      - {{ id: b, match: {{ path: /b }} }}
"
    ))
}

impl City {
    fn new(document: &str) -> Self {
        let clock = Clock::manual("2026-11-24T04:00:00Z".parse().expect("a time"));
        let numbers = NameInterner::default();
        let limiters = LimiterRegistry::new(clock.clone(), CalendarOffset::default());
        let snapshot = compile_with(document, &numbers).snapshot;
        limiters.enforce(&snapshot);
        Self { numbers, clock, limiters, snapshot }
    }

    fn reload(&mut self, document: &str) {
        self.snapshot = compile_with(document, &self.numbers).snapshot;
        self.limiters.enforce(&self.snapshot);
    }

    fn admit(&self, command: usize) -> Result<LimitPermit, LimitRefusal> {
        let (department, subsystem) = (&self.snapshot.departments[0], &self.snapshot.subsystems[0]);
        self.limiters.admit(&self.snapshot, department, &subsystem.commands[command], self.clock.window())
    }

    /// Admits and finishes commands until one is refused. Returns their number.
    fn drain(&self, command: usize) -> usize {
        (0..1000).take_while(|_| self.admit(command).map(|mut permit| permit.keep_units()).is_ok()).count()
    }

    /// Like [`City::drain`], without the number.
    fn empty(&self, command: usize) {
        let _ = self.drain(command);
    }

    /// Restores the use of November, as a start does.
    fn recall(&self, units: u64, has_refused: bool) {
        self.recall_period(PeriodLength::Month, RestoredUse { units, commands: 0, has_refused });
    }

    /// Restores the use of the current day or month.
    fn recall_period(&self, length: PeriodLength, used: RestoredUse) {
        let number = self.snapshot.departments[0].department.number;
        let period = length.containing(self.clock.window(), CalendarOffset::default());
        self.limiters.restore_use(number, period, used);
    }

    fn quota(&self) -> QuotaState {
        self.limiters.quotas(self.clock.window()).pop().expect("a quota")
    }

    /// Used and granted units.
    fn used(&self) -> (u64, u64) {
        (self.quota().used, self.quota().amount)
    }

    /// The percentages that `act` logs, with 0 for the first refusal, and the highest one as the metric shows it.
    fn warned(&self, act: impl FnOnce(&Self)) -> (Vec<u8>, u8) {
        let percent = |line: &str| {
            assert!(line.contains("WARN") && line.contains("department=police") && line.contains("quota="), "{line}");
            let percent = line.split_once("percent=").map(|(_, rest)| rest.split(' ').next().expect("a number"));
            percent.map_or(0, |percent| percent.parse().expect("a percentage"))
        };
        let log = logged(|| act(self));
        (log.lines().map(percent).collect(), self.quota().warned_percent)
    }

    fn refusal(&self, command: usize) -> Option<Refused> {
        self.admit(command).err().map(|limited| limited.refused)
    }
}

/// The log lines of `act`.
fn logged(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(log, act);
    String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("text")
}

#[test]
fn limits_of_a_grant_replace_those_of_the_command_and_carry_over() {
    let grants = |grants: &str| format!("{}grants: [{grants}]\n", document("", "limits: { rate: 9/h }", "{}"));
    let grant = |limits: &str| format!("{{ department: police, subsystem: cameras, commands: [\"*\"]{limits} }}");
    let mut city = City::new(&grants(&grant("")));
    assert_eq!(city.drain(0), 9, "the command's own");
    city.reload(&grants(&grant(", limits: { rate: 20/h }")));
    assert!(city.drain(0) <= 11, "what was used stays used");
    assert_eq!(city.drain(1), 20, "each command has limits of its own");
    let first = [grant(""), grant(", limits: { rate: 5/h }"), grant(", limits: { rate: 7/h }")].join(", ");
    assert_eq!(City::new(&grants(&first)).drain(1), 5, "the first grant with limits counts");
}

#[test]
fn rate_allows_its_burst_and_then_its_sustained_rate() {
    let city = City::new(&document("limits: { rate: 10/s, burst: 4 }", "units: 1", "{}"));
    assert_eq!(city.drain(0), 4);
    let limited = city.admit(0).expect_err("empty");
    assert_eq!((limited.refused, limited.retry_after), (Refused::RateLimited, Duration::from_millis(100)));
    city.clock.advance(Duration::from_millis(250));
    assert_eq!(city.drain(0), 2);
    city.clock.advance(Duration::from_secs(60));
    assert_eq!(city.drain(0), 4);
}

#[test]
fn budget_is_that_of_the_tightest_limit_of_the_department() {
    let city = City::new(&document("limits: { rate: 10/s, burst: 40 }", "limits: { rate: 2/m, burst: 2 }", "{}"));
    let budget = city.admit(0).expect("passes").rate_limit_info().expect("limited");
    assert_eq!(budget, RateLimitInfo { quota: 2, window_seconds: 60, remaining: 1, reset_seconds: 30 });
    let budget = city.admit(1).expect("passes").rate_limit_info().expect("limited");
    assert_eq!(budget, RateLimitInfo { quota: 40, window_seconds: 4, remaining: 38, reset_seconds: 1 });
}

#[test]
fn unlimited_department_has_no_budget() {
    let city = City::new(&document("name: Police", "units: 1", "{ total: { rate: 5/s } }"));
    assert_eq!(city.admit(0).expect("passes").rate_limit_info(), None);
    assert_eq!(city.drain(0), 4);
}

#[test]
fn refusal_by_a_wider_limit_returns_what_narrower_limits_took() {
    let (department, command) = ("limits: { rate: 1/h, burst: 6 }", "limits: { rate: 1/h, burst: 5 }");
    let mut city = City::new(&document(department, command, "{ total: { rate: 1/s, burst: 2 } }"));
    assert_eq!(city.drain(0), 2);
    assert_eq!(city.drain(0), 0);
    city.reload(&document(department, command, "{}"));
    assert_eq!(city.drain(0), 3, "the command has spent two of five");
    assert_eq!(city.drain(1), 1, "the department has spent five of six");
}

#[test]
fn permits_are_returned_when_a_pass_is_dropped() {
    let city = City::new(&document("limits: { concurrent: 2 }", "limits: { concurrent: 1 }", "{}"));
    let first = city.admit(0).expect("a place");
    assert_eq!(city.refusal(0), Some(Refused::TooManyConcurrent));
    let second = city.admit(1).expect("a place");
    assert_eq!(city.refusal(1), Some(Refused::TooManyConcurrent));
    drop(first);
    assert_eq!(city.refusal(0), None);
    drop(second);
    assert_eq!(city.drain(1), 1000);
}

#[test]
fn reload_never_refills_a_bucket() {
    let with = |rate: &str| document(&format!("limits: {{ rate: {rate} }}"), "units: 1", "{}");
    let mut city = City::new(&with("1/h, burst: 10"));
    (0..6).for_each(|_| drop(city.admit(0)));
    city.reload(&with("1/h, burst: 10"));
    city.reload(&with("2/h, burst: 20"));
    let bucket = city.limiters.departments.limiter_for(1, city.snapshot.departments[0].limits, &city.clock);
    assert_eq!(city.snapshot.departments[0].department.number, 1);
    assert_eq!(bucket.expect("a limiter").bucket.as_ref().expect("a rate").tokens_left(), 8);
    city.reload(&with("2/h, burst: 3"));
    assert_eq!(city.drain(0), 1, "eight of twenty are one of three, rounded down");
    city.reload(&with("2/h, burst: 1000"));
    assert_eq!(city.drain(0), 0);
}

#[test]
fn reload_keeps_permits_and_units() {
    let with = |cap: u32| {
        document(&format!("limits: {{ concurrent: {cap} }}, quota: {{ per: month, units: 9 }}"), "units: 4", "{}")
    };
    let mut city = City::new(&with(2));
    let _held = [city.admit(0).expect("a place"), city.admit(0).expect("a place")];
    city.reload(&with(1));
    assert_eq!(city.refusal(0), Some(Refused::TooManyConcurrent));
    city.reload(&with(3));
    assert_eq!(city.refusal(0), Some(Refused::QuotaExceeded));
}

#[test]
fn quota_is_taken_once_and_resets_with_the_month() {
    let city = City::new(&document("quota: { per: month, units: 10 }", "units: 4", "{}"));
    city.recall(2, false);
    drop(city.admit(0).expect("passes"));
    assert_eq!(city.used(), (2, 10), "an unused pass gives its units back");
    assert_eq!(city.drain(0), 2);
    let limited = city.admit(0).expect_err("used up");
    assert_eq!(limited.refused, Refused::QuotaExceeded);
    assert_eq!(limited.retry_after, Duration::from_secs((6 * 24 + 12) * 3600), "1 December in +08:00");
    assert_eq!(city.used(), (10, 10));
    city.clock.advance(limited.retry_after);
    assert_eq!(city.used(), (0, 10));
    assert_eq!(city.drain(0), 2);
}

#[test]
fn quota_that_allows_excess_continues_counting() {
    let city = City::new(&document("quota: { per: month, units: 1, exceeded: allow }", "units: 4", "{}"));
    (0..3).for_each(|_| city.admit(0).expect("passes").keep_units());
    assert_eq!(city.used(), (12, 1));
}

#[test]
fn command_refused_by_a_quota_takes_no_token() {
    let document = |quota: &str| document(&format!("limits: {{ rate: 1/h, burst: 3 }}, {quota}"), "units: 1", "{}");
    let mut city = City::new(&document("quota: { per: month, units: 1 }"));
    assert_eq!(city.drain(0), 1);
    assert_eq!(city.drain(0), 0);
    city.reload(&document("name: Police"));
    assert_eq!(city.drain(0), 2);
}

#[test]
fn removed_limit_is_dropped() {
    let mut city = City::new(&document("limits: { rate: 1/h, burst: 3 }", "limits: { rate: 1/h }", "{}"));
    assert_eq!(city.drain(0), 1);
    city.reload(&document("name: Police", "units: 1", "{}"));
    assert_eq!(city.drain(0), 1000);
}

fn with_warnings(units: u64, warn: &str, exceeded: &str) -> String {
    let quota = format!("quota: {{ per: month, units: {units}, warn: [{warn}], exceeded: {exceeded} }}");
    document(&quota, "units: 4", "{}")
}

#[test]
fn each_threshold_is_logged_once_by_the_command_that_reaches_it() {
    for exceeded in ["refuse", "allow"] {
        let city = City::new(&with_warnings(10, "50, 80", exceeded));
        let one = |command: usize| city.warned(|city| city.admit(command).expect("passes").keep_units());
        let steps = [0, 1, 0, 1].map(one); // 4, 5, 9, 10 of 10 units
        assert_eq!(steps, [(vec![], 0), (vec![50], 50), (vec![80], 80), (vec![100], 100)], "{exceeded}");
        assert_eq!(city.warned(|city| city.empty(1)), (vec![], 100), "{exceeded}");
    }
}

#[test]
fn one_command_can_reach_several_thresholds() {
    let city = City::new(&with_warnings(4, "10, 20, 99", "refuse"));
    assert_eq!(city.warned(|city| city.empty(0)), (vec![10, 20, 99, 100], 100));
}

#[test]
fn early_quota_refusal_is_logged_once() {
    let city = City::new(&with_warnings(10, "80", "refuse"));
    assert_eq!(city.warned(|city| city.empty(0)), (vec![80, 0], 100), "8 of 10 units, then a command of 4");
    assert_eq!(city.warned(|city| city.empty(0)), (vec![], 100));
    assert_eq!(city.warned(|city| city.empty(1)), (vec![100], 100), "commands of 1 use it up");
}

/// In a cluster the first configuration has no departments.
#[test]
fn restored_use_waits_for_the_quota_that_a_reload_brings() {
    for (has_refused, expected) in [(false, 80), (true, 100)] {
        let mut city = City::new(&document("name: Police", "units: 1", "{}"));
        city.recall(9, has_refused);
        let log = logged(|| city.reload(&with_warnings(10, "50, 80", "refuse")));
        assert_eq!(log, "", "the thresholds were reached before the start");
        assert_eq!((city.used(), city.quota().warned_percent), ((9, 10), expected));
        assert_eq!(city.drain(1), 1, "one unit is left");
    }
}

#[test]
fn start_does_not_log_thresholds_reached_before_it() {
    let city = City::new(&with_warnings(10, "50, 80", "refuse"));
    assert_eq!(city.warned(|city| city.recall(6, false)), (vec![], 50));
    assert_eq!(city.warned(|city| city.admit(0).expect("passes").keep_units()), (vec![80, 100], 100));
    let city = City::new(&with_warnings(10, "50, 80", "refuse"));
    assert_eq!(city.warned(|city| city.recall(8, true)), (vec![], 100));
    assert_eq!(city.warned(|city| city.empty(0)), (vec![], 100), "the quota refused before the start");
}

#[test]
fn thresholds_reset_with_the_month() {
    let city = City::new(&with_warnings(4, "50", "refuse"));
    assert_eq!(city.warned(|city| city.empty(0)), (vec![50, 100], 100));
    city.clock.advance(city.admit(0).expect_err("used up").retry_after);
    assert_eq!(city.quota().warned_percent, 0);
    assert_eq!(city.warned(|city| city.empty(0)), (vec![50, 100], 100));
}

#[test]
fn quota_changed_by_a_reload_warns_at_its_new_thresholds() {
    let mut city = City::new(&with_warnings(10, "50", "refuse"));
    assert_eq!(city.warned(|city| city.admit(0).expect("passes").keep_units()), (vec![], 0));
    assert_eq!(logged(|| city.reload(&with_warnings(10, "50", "refuse"))), "", "the same quota");
    assert!(
        logged(|| city.reload(&with_warnings(8, "50", "refuse"))).contains("percent=50"),
        "now it is half of the quota"
    );
    assert_eq!(logged(|| city.reload(&with_warnings(100, "50", "refuse"))), "");
    assert_eq!(city.quota().warned_percent, 0);
    let fourth = city.warned(|city| (0..12).for_each(|_| city.admit(0).expect("passes").keep_units()));
    assert_eq!(fourth, (vec![50], 50), "52 of 100 units");
}

#[test]
fn every_worker_sees_a_threshold_and_one_logs_it() {
    let city = City::new(&with_warnings(100, "50", "allow"));
    let (department, subsystem) = (&city.snapshot.departments[0], &city.snapshot.subsystems[0]);
    let gate = || city.limiters.gate(&city.snapshot, department, &subsystem.commands[1]).expect("a gate");
    let gates = [gate(), gate(), gate()];
    let all = |_: &City| {
        for gate in gates.iter().cycle().take(99) {
            gate.admit(city.clock.window()).expect("passes").keep_units();
        }
    };
    assert_eq!(city.warned(all), (vec![50], 50));
}

fn with_quotas(quotas: &str) -> String {
    document(&format!("quotas: [{quotas}]"), "units: 4", "{}")
}

/// What is used of each quota: by period, then measure.
fn uses(city: &City) -> Vec<(PeriodLength, QuotaMeasure, u64)> {
    let states = city.limiters.quotas(city.clock.window());
    states.into_iter().map(|state| (state.kind.per, state.kind.measure, state.used)).collect()
}

#[test]
fn each_of_several_quotas_holds_and_a_refusal_takes_from_none() {
    use PeriodLength::{Day, Month};
    use QuotaMeasure::{Commands, Units};
    let text =
        "{ per: day, units: 9 }, { per: day, commands: 3 }, { per: month, units: 100 }, { per: month, commands: 4 }";
    let city = City::new(&with_quotas(text));
    assert_eq!(city.drain(0), 2, "8 of 9 units of the day");
    let after_two = vec![(Month, Units, 8), (Month, Commands, 2), (Day, Units, 8), (Day, Commands, 2)];
    assert_eq!(uses(&city), after_two, "the refused command took nothing");
    let limited = city.admit(0).expect_err("the day");
    assert_eq!(limited.quota, Some(QuotaKind { per: Day, measure: Units }));
    assert_eq!(limited.retry_after, Duration::from_secs(12 * 3600), "25 November in +08:00");
    assert_eq!(city.drain(1), 1, "one unit of the day, the third command of the day");
    city.clock.advance(limited.retry_after);
    assert_eq!(uses(&city), vec![(Month, Units, 9), (Month, Commands, 3), (Day, Units, 0), (Day, Commands, 0)]);
    assert_eq!(city.drain(1), 1, "the fourth command of the month");
    let limited = city.admit(1).expect_err("the month");
    assert_eq!(limited.quota, Some(QuotaKind { per: Month, measure: Commands }));
    assert_eq!(limited.retry_after, Duration::from_secs(6 * 24 * 3600), "1 December in +08:00");
}

#[test]
fn free_command_returns_its_units_and_stays_a_command() {
    let city = City::new(&with_quotas("{ per: day, units: 9 }, { per: day, commands: 9 }"));
    let mut permit = city.admit(0).expect("passes");
    permit.keep_units();
    permit.return_units();
    drop(permit);
    drop(city.admit(0).expect("passes")); // not admitted after all
    let used: Vec<_> = uses(&city).into_iter().map(|(_, _, used)| used).collect();
    assert_eq!(used, [0, 1]);
}

#[test]
fn thresholds_of_a_day_are_logged_once_a_day_also_after_a_restart() {
    let text = "{ per: day, commands: 4, warn: [50] }, { per: month, commands: 100, warn: [4] }";
    let city = City::new(&with_quotas(text));
    let log = logged(|| {
        city.recall_period(PeriodLength::Day, RestoredUse { units: 8, commands: 2, has_refused: false });
        city.recall_period(PeriodLength::Month, RestoredUse { units: 12, commands: 3, has_refused: true });
        city.empty(1);
    });
    let lines: Vec<_> = log.lines().map(|line| line.split_once("WARN").expect("a warning").1.trim()).collect();
    let has =
        |line: usize, parts: &[&str]| parts.iter().for_each(|part| assert!(lines[line].contains(part), "{lines:?}"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    has(0, &["percent=4", "used=4", "quota=100", "measure=\"commands\"", "period=2026-11"]);
    has(1, &["percent=100", "used=4", "quota=4", "period=2026-11-24", "until the day ends"]);
    city.clock.advance(Duration::from_secs(12 * 3600));
    let log = logged(|| city.empty(1));
    assert_eq!(log.lines().count(), 2, "50 and 100 of the next day: {log}");
    assert!(log.contains("period=2026-11-25") && !log.contains("period=2026-11 "), "{log}");
}

/// A refusal of the day before says nothing about a quota with enough left.
#[test]
fn restored_refusal_belongs_only_to_quotas_that_can_have_refused() {
    let city = City::new(&with_quotas("{ per: day, units: 4 }, { per: month, units: 100 }"));
    city.recall_period(PeriodLength::Month, RestoredUse { units: 30, commands: 9, has_refused: true });
    city.recall_period(PeriodLength::Day, RestoredUse { units: 1, commands: 1, has_refused: true });
    let warned: Vec<_> = city.limiters.quotas(city.clock.window()).iter().map(|one| one.warned_percent).collect();
    assert_eq!(warned, [0, 100], "the month has 70 units left, the day 3, and a command costs 4");
}

#[test]
fn quota_that_a_reload_adds_starts_from_the_counted_use() {
    let mut city = City::new(&document("name: Police", "units: 4", "{}"));
    (0..3).for_each(|_| city.admit(0).expect("passes").keep_units());
    city.reload(&with_quotas("{ per: day, commands: 4 }, { per: day, units: 100 }"));
    assert_eq!(uses(&city).into_iter().map(|(_, _, used)| used).collect::<Vec<_>>(), [12, 3]);
    assert_eq!(city.drain(0), 1);
}
