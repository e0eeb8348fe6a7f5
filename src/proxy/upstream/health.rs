//! Who is well. Passive: a server that fails several commands in a row is left alone for a while, longer each time. Active:
//! a server that fails its checks is left alone until it passes them again.
//!
//! Shared by all workers, kept over reloads. Passive ejection never lasts for ever: after its time a server is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use crate::clock::Clock;
use crate::model::Name;
use crate::policy::{HealthCheck, Upstream};
use crate::telemetry::{QueueStats, Telemetry, UpstreamStats};

use super::Broken;
use super::balance::WARM;
use super::h2::is_leaving;

/// Failures in a row that eject a server; Envoy's default for consecutive 5xx.
const FAILURES_MAX: u32 = 5;
/// The first ejection; the n-th lasts n times as long. A third of Envoy's, since a city has few servers per subsystem.
const EJECTION: Duration = Duration::from_secs(10);
/// The longest ejection; Envoy's `max_ejection_time`.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// The share that a server starts slowly with, of a thousand; Envoy's `min_weight_percent`.
const WARMTH_MIN: u64 = 100;

/// What is held against a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection.
    Connect,
    /// A connection that broke before its answer had ended.
    Reset,
    /// No answer, or no more of it, in time.
    Timeout,
    /// An answer of 5xx.
    ServerError,
    /// An answer that is not valid HTTP.
    Malformed,
    /// A request that it refused before it processed anything of it.
    Refused,
}

impl Failure {
    /// As the log says it.
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Reset => "the connection broke",
            Self::Timeout => "no answer in time",
            Self::ServerError => "an answer of 5xx",
            Self::Malformed => "an answer that is not valid HTTP",
            Self::Refused => "the request was refused",
        }
    }
}

/// What a check has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The server gets no more commands.
    Out,
    /// The server gets commands again.
    In,
}

/// The health of every server the configuration names.
pub struct UpstreamHealth {
    servers: DashMap<(Name, String), Arc<Health>>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// Whether the servers of the first configuration are known; those that come later are new.
    settled: AtomicBool,
}

impl UpstreamHealth {
    /// Nobody is ill yet.
    pub fn new(telemetry: Arc<Telemetry>, clock: Clock) -> Self {
        Self { servers: DashMap::new(), telemetry, clock, settled: AtomicBool::new(false) }
    }

    pub(super) fn of(&self, subsystem: &Name, server: &Upstream) -> Arc<Health> {
        let key = (subsystem.clone(), server.authority.clone());
        let health = self.servers.entry(key).or_insert_with(|| {
            let stats = self.telemetry.upstream(subsystem, &server.authority);
            let health = Health::new((subsystem, server), stats, self.clock.clone());
            if self.settled.load(Ordering::Relaxed) {
                health.begin_slowly(health.now_ms());
            }
            Arc::new(health)
        });
        Arc::clone(&health)
    }

    /// The numbers of the queue before a subsystem.
    pub(super) fn queue(&self, subsystem: &Name) -> Arc<QueueStats> {
        self.telemetry.queue(subsystem)
    }

    /// Forgets the servers that no worker reaches any more, and their series in `/metrics` with them.
    pub(super) fn forget_unused(&self) {
        self.settled.store(true, Ordering::Relaxed);
        self.servers.retain(|_, health| Arc::strong_count(health) > 1);
    }
}

/// The health of one server.
pub(super) struct Health {
    subsystem: Name,
    /// As it is called in metrics and in the log.
    upstream: String,
    pub(super) stats: Arc<UpstreamStats>,
    clock: Clock,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Milliseconds on the monotonic clock; 0 when well.
    ejected_until: AtomicU64,
    /// Whether its checks keep it out. Written by one thread only, as is the next.
    checked_out: AtomicBool,
    /// Checks in a row that say otherwise.
    contrary: AtomicU32,
    /// Since when it is well, in milliseconds on the monotonic clock; 0 when it always was.
    well_since: AtomicU64,
}

impl Health {
    fn new((subsystem, server): (&Name, &Upstream), stats: Arc<UpstreamStats>, clock: Clock) -> Self {
        Self {
            subsystem: subsystem.clone(),
            upstream: server.authority.clone(),
            stats,
            clock,
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            checked_out: AtomicBool::new(false),
            contrary: AtomicU32::new(0),
            well_since: AtomicU64::new(0),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        !self.checked_out.load(Ordering::Relaxed) && self.is_forgiven()
    }

    /// How many of a thousand choices stand, if a server takes so long to get its whole share.
    pub(super) fn warmth(&self, slow_start: Duration) -> u64 {
        let since = self.well_since.load(Ordering::Relaxed).max(self.ejected_until.load(Ordering::Relaxed));
        if since == 0 {
            return WARM;
        }
        let elapsed = self.now_ms().saturating_sub(since);
        let whole = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX).max(1);
        (elapsed.saturating_mul(WARM) / whole).clamp(WARMTH_MIN, WARM)
    }

    fn begin_slowly(&self, since: u64) {
        self.well_since.store(since.max(1), Ordering::Relaxed);
    }

    /// Whether nothing is held against it that commands told.
    fn is_forgiven(&self) -> bool {
        self.is_past(self.ejected_until.load(Ordering::Relaxed))
    }

    fn is_past(&self, ejected_until: u64) -> bool {
        match ejected_until {
            0 => true,
            until => self.now_ms() >= until,
        }
    }

    /// An answer that is no failure: whatever was held against the server is forgotten.
    pub(super) fn note_success(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.ejections.load(Ordering::Relaxed) != 0 && self.is_forgiven() {
            self.readmit();
        }
    }

    /// Holds a failure against the server.
    pub(super) fn note_failure(&self, failure: Failure) {
        match failure {
            Failure::Connect => self.stats.failures_connect.one(),
            Failure::Reset => self.stats.failures_reset.one(),
            Failure::Timeout => self.stats.failures_timeout.one(),
            Failure::Malformed => self.stats.failures_malformed.one(),
            Failure::Refused => self.stats.failures_refused.one(),
            Failure::ServerError => (), // an answer: the ledger counts it by outcome
        }
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.eject(failure);
        }
    }

    /// Holds an attempt against the server that broke after something was sent. What was wrong with an answer is logged, for this
    /// server once a second.
    pub(super) fn note_broken(&self, broken: &Broken) {
        if !broken.is_malformed() {
            return self.note_failure(Failure::Reset);
        }
        self.note_failure(Failure::Malformed);
        let Some(suppressed) = self.stats.tell_malformed(self.clock.unix_seconds()) else { return };
        let Self { subsystem, upstream, .. } = self;
        tracing::warn!(%subsystem, upstream, reason = %broken, suppressed, "an answer was refused: it is not valid HTTP");
    }

    /// Takes note of a request that was refused. A server that takes its leave in good order is well.
    pub(super) fn note_refusal(&self, broken: &Broken) {
        match broken {
            Broken::Http2(error) if is_leaving(error) => self.stats.failures_refused.one(),
            _ => self.note_failure(Failure::Refused),
        }
    }

    /// Takes note of a kept connection that ended before an answer began: servers close idle connections, and are well.
    pub(super) fn note_lost(&self) {
        self.stats.failures_reset.one();
    }

    /// Takes note of a check. Called by one thread only.
    pub(super) fn note_check(&self, passed: bool, check: &HealthCheck) -> Option<Turn> {
        let count = if passed { &self.stats.checks_passed } else { &self.stats.checks_failed };
        count.one();
        let is_out = self.checked_out.load(Ordering::Relaxed);
        if passed != is_out {
            self.contrary.store(0, Ordering::Relaxed);
            return None;
        }
        let contrary = self.contrary.load(Ordering::Relaxed) + 1;
        self.contrary.store(contrary, Ordering::Relaxed);
        let turn = if is_out { (check.rise, Turn::In) } else { (check.fall, Turn::Out) };
        (contrary >= turn.0).then(|| self.turn(turn.1))
    }

    /// Nobody checks the server any more: what checks have said is forgotten.
    pub(super) fn forget_checks(&self) {
        self.contrary.store(0, Ordering::Relaxed);
        if self.checked_out.load(Ordering::Relaxed) {
            self.turn(Turn::In);
            let Self { subsystem, upstream, .. } = self;
            tracing::info!(%subsystem, upstream, "a server is back: its health checks were removed");
        }
    }

    fn turn(&self, turn: Turn) -> Turn {
        self.contrary.store(0, Ordering::Relaxed);
        self.checked_out.store(turn == Turn::Out, Ordering::Relaxed);
        match turn {
            Turn::Out => self.stats.ejected.up(),
            Turn::In => {
                self.begin_slowly(self.now_ms());
                self.stats.ejected.down();
            }
        }
        turn
    }

    /// While it is out it may still get commands, if no other server is well: then it stays out longer, and nothing is logged.
    fn eject(&self, last: Failure) {
        self.failures.store(0, Ordering::Relaxed);
        let nth = self.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let length = EJECTION.saturating_mul(nth).min(EJECTION_MAX);
        let until = self.now_ms() + u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 2);
        let was_in = self.is_past(self.ejected_until.swap(until, Ordering::Relaxed));
        if nth == 1 {
            self.stats.ejected.up();
        }
        if was_in {
            let (Self { subsystem, upstream, .. }, seconds) = (self, length.as_secs());
            let (in_a_row, last) = (FAILURES_MAX, last.name());
            tracing::warn!(%subsystem, upstream, in_a_row, last, seconds, "a server is out of rotation: commands failed");
        }
    }

    fn readmit(&self) {
        let until = self.ejected_until.swap(0, Ordering::Relaxed);
        self.well_since.fetch_max(until, Ordering::Relaxed);
        if self.ejections.swap(0, Ordering::Relaxed) != 0 {
            self.stats.ejected.down();
            let Self { subsystem, upstream, .. } = self;
            tracing::info!(%subsystem, upstream, "a server is back: it answered a command");
        }
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic().nanoseconds() / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _};
    use std::sync::Mutex;

    use super::*;
    use crate::policy::Address;

    #[test]
    fn a_server_that_comes_back_gets_its_share_bit_by_bit() {
        let (health, clock) = health();
        let slow = Duration::from_secs(10);
        assert_eq!(health.warmth(slow), WARM, "it was there from the start");
        fail(&health, FAILURES_MAX);
        clock.advance(EJECTION);
        assert_eq!(health.warmth(slow), WARMTH_MIN);
        health.note_success();
        clock.advance(slow / 2);
        assert_eq!(health.warmth(slow), WARM / 2);
        clock.advance(slow);
        assert_eq!(health.warmth(slow), WARM);
    }

    #[test]
    fn a_server_that_passes_its_checks_again_gets_its_share_bit_by_bit() {
        let (health, clock) = health();
        let (slow, check) = (Duration::from_secs(10), check());
        let note = |passed, times| (0..times).for_each(|_| _ = health.note_check(passed, &check));
        note(false, 3);
        clock.advance(slow * 5);
        note(true, 2);
        assert!(health.is_healthy());
        let warmth_after = |time| {
            clock.advance(time);
            health.warmth(slow)
        };
        assert_eq!([Duration::ZERO, slow / 2, slow].map(warmth_after), [WARMTH_MIN, WARM / 2, WARM]);
        note(true, 9);
        assert_eq!(health.warmth(slow), WARM, "one that stays well does not begin anew");
    }

    #[test]
    fn a_server_that_a_reload_brings_is_new() {
        let clock = Clock::manual("2026-11-24T00:00:00Z".parse().expect("a time"));
        let all = UpstreamHealth::new(Telemetry::new(), clock);
        let old = all.of(&Name::unknown(), &server(1));
        all.forget_unused();
        let new = all.of(&Name::unknown(), &server(2));
        let slow = Duration::from_secs(10);
        assert_eq!(
            [old, new, all.of(&Name::unknown(), &server(1))].map(|one| one.warmth(slow)),
            [WARM, WARMTH_MIN, WARM]
        );
    }

    fn server(port: u16) -> Upstream {
        Upstream {
            address: Address::Tcp("a".to_owned(), port),
            secure: false,
            authority: format!("a:{port}"),
            max_requests: None,
            weight: 1,
        }
    }

    fn check() -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck { path: "/".to_owned(), interval: second, timeout: second, rise: 2, fall: 3, status: 200..=399 }
    }

    fn health() -> (Health, Clock) {
        let clock = Clock::manual("2026-11-24T00:00:00Z".parse().expect("a time"));
        let stats = Telemetry::new().upstream(&Name::unknown(), "127.0.0.1:1");
        (Health::new((&Name::unknown(), &server(1)), stats, clock.clone()), clock)
    }

    fn fail(health: &Health, times: u32) {
        for _ in 0..times {
            health.note_failure(Failure::Connect);
        }
    }

    #[test]
    fn five_failures_in_a_row_eject_for_ten_seconds() {
        let (health, clock) = health();
        fail(&health, FAILURES_MAX - 1);
        health.note_success();
        fail(&health, FAILURES_MAX - 1);
        assert!(health.is_healthy(), "a success in between forgives");
        fail(&health, 1);
        assert!(!health.is_healthy());
        clock.advance(EJECTION);
        assert!(health.is_healthy(), "after its time it is tried again");
    }

    /// What is logged meanwhile, line by line.
    fn logged(deed: impl FnOnce()) -> Vec<String> {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let made = Mutex::new(writer);
        let subscriber = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(made).finish();
        tracing::subscriber::with_default(subscriber, deed);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_ejection_and_return_is_logged_once_with_its_reason() {
        let (health, clock) = health();
        let lines = logged(|| {
            fail(&health, 3 * FAILURES_MAX); // it gets commands all the same, if no other server is well
            clock.advance(EJECTION * 3);
            fail(&health, FAILURES_MAX - 1);
            health.note_failure(Failure::Timeout);
            health.note_success();
            clock.advance(EJECTION * 4);
            health.note_success();
            health.note_success();
            (0..3).for_each(|_| _ = health.note_check(false, &check()));
            health.forget_checks();
        });
        let expected = [
            ("WARN", "last=\"no connection\" seconds=10"),
            ("WARN", "last=\"no answer in time\" seconds=40"),
            ("INFO", "a server is back: it answered a command"),
            ("INFO", "a server is back: its health checks were removed"),
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, (level, words)) in lines.iter().zip(expected) {
            assert!(line.contains(level) && line.contains(words) && line.contains("upstream=\"a:1\""), "{line}");
        }
    }

    #[test]
    fn a_server_that_takes_its_leave_or_closes_what_is_idle_is_well() {
        let (health, _) = health();
        (0..2 * FAILURES_MAX).for_each(|_| health.note_lost());
        assert!(health.is_healthy());
        assert_eq!(health.stats.failures_reset.get(), 2 * u64::from(FAILURES_MAX));
        (0..FAILURES_MAX).for_each(|_| health.note_broken(&Broken::Framing("it has two lengths")));
        assert!(!health.is_healthy(), "a malformed answer is a failure");
        assert_eq!(health.stats.failures_malformed.get(), u64::from(FAILURES_MAX));
    }

    #[test]
    fn checks_take_a_server_out_and_bring_it_back() {
        let (health, clock) = health();
        let check = check();
        let turns = |passed: &[bool]| -> Vec<_> { passed.iter().map(|one| health.note_check(*one, &check)).collect() };
        assert_eq!(turns(&[false, false, true, false, false]), [None; 5], "never three in a row");
        assert_eq!(turns(&[false]), [Some(Turn::Out)]);
        health.note_success();
        clock.advance(EJECTION_MAX);
        assert!(!health.is_healthy(), "neither a command nor time brings it back");
        assert_eq!(turns(&[true, false, true, true]), [None, None, None, Some(Turn::In)]);
        assert!(health.is_healthy());
        fail(&health, FAILURES_MAX);
        assert_eq!(turns(&[true, true, true]), [None; 3]);
        assert!(!health.is_healthy(), "what commands told is another matter");
        turns(&[false, false, false]);
        assert_eq!(health.stats.ejected.get(), 2);
        health.forget_checks();
        assert_eq!(health.stats.ejected.get(), 1);
    }

    #[test]
    fn every_ejection_lasts_longer_until_a_success() {
        let (health, clock) = health();
        for nth in 1..=3 {
            fail(&health, FAILURES_MAX);
            clock.advance(EJECTION * nth - Duration::from_millis(1));
            assert!(!health.is_healthy(), "ejection {nth}");
            clock.advance(Duration::from_millis(1));
            assert!(health.is_healthy(), "ejection {nth}");
        }
        health.note_success();
        fail(&health, FAILURES_MAX);
        clock.advance(EJECTION);
        assert!(health.is_healthy());
    }
}
