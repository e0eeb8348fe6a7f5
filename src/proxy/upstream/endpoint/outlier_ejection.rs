//! The health of servers, passive and active.
//!
//! - Passive (outlier ejection): a server that fails [`FAILURES_MAX`] commands in a row is ejected, longer each time.
//! - Active: a server that fails its health checks is ejected until it passes them again.
//!
//! Guarantees:
//! - Health is shared by all workers and kept over reloads.
//! - A passive ejection lasts at most [`EJECTION_MAX`]; after that the server gets commands again.
//!
//! Leaves to others: performing the checks (`health_checks`), and the choice of a server (`load_balancing`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use crate::clock::Clock;
use crate::model::Name;
use crate::policy::{HealthCheckPolicy, UpstreamServer};
use crate::proxy::upstream::h2::is_graceful_goaway;
use crate::telemetry::{QueueStats, Telemetry, UpstreamStats};

use super::error::ConnectionError;
use super::slow_start::{FULL_WEIGHT, weight_after};

/// Subsystem and authority.
pub(crate) type ServerKey = (Name, String);

/// The consecutive failures that eject a server; Envoy's default for consecutive 5xx.
const FAILURES_MAX: u32 = 5;
/// The duration of the first ejection; the n-th lasts `n * EJECTION_BASE`. A third of Envoy's, since a city has few
/// servers per subsystem.
const EJECTION_BASE: Duration = Duration::from_secs(10);
/// The maximum duration of an ejection; Envoy's `max_ejection_time`.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// A failure that counts towards ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerFailure {
    /// No connection could be opened.
    Connect,
    /// The connection broke before the end of the response.
    Reset,
    /// The response, or the rest of it, did not arrive in time.
    Timeout,
    /// A response of 5xx.
    ServerError,
    /// A response that is not valid HTTP.
    Malformed,
    /// A request that the server refused before it processed any of it.
    Refused,
}

impl ServerFailure {
    /// The name of the failure in the log.
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Reset => "the connection was reset",
            Self::Timeout => "response timeout",
            Self::ServerError => "a 5xx response",
            Self::Malformed => "an invalid HTTP response",
            Self::Refused => "the request was refused",
        }
    }
}

/// A change of a server's health by its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthTransition {
    /// The server gets no more commands.
    Ejected,
    /// The server gets commands again.
    Readmitted,
}

/// The health of every server in the configuration.
pub struct UpstreamHealth {
    servers: DashMap<(Name, String), Arc<ServerHealth>>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// Whether the servers of the first configuration are known. Servers that come later begin with slow start.
    is_initialized: AtomicBool,
}

impl UpstreamHealth {
    /// A registry without servers; every server starts as healthy.
    pub fn new(telemetry: Arc<Telemetry>, clock: Clock) -> Self {
        Self { servers: DashMap::new(), telemetry, clock, is_initialized: AtomicBool::new(false) }
    }

    pub(crate) fn server_health(&self, subsystem: &Name, server: &UpstreamServer) -> Arc<ServerHealth> {
        let key = (subsystem.clone(), server.authority.clone());
        let health = self.servers.entry(key).or_insert_with(|| {
            let stats = self.telemetry.upstream_stats(subsystem, &server.authority);
            let health = ServerHealth::new((subsystem, server), stats, self.clock.clone());
            if self.is_initialized.load(Ordering::Relaxed) {
                health.start_slowly(health.now_ms());
            }
            Arc::new(health)
        });
        Arc::clone(&health)
    }

    /// The statistics of a subsystem's wait queue.
    pub(crate) fn queue_stats(&self, subsystem: &Name) -> Arc<QueueStats> {
        self.telemetry.queue_stats(subsystem)
    }

    /// The servers of the first configuration are known: servers that come later begin with slow start.
    pub(crate) fn end_start(&self) {
        self.is_initialized.store(true, Ordering::Relaxed);
    }

    /// Drops the servers that no worker uses any more, and their series in `/metrics`.
    pub(crate) fn forget_unused(&self) {
        self.servers.retain(|_, health| Arc::strong_count(health) > 1);
    }
}

/// The health of one server.
pub(crate) struct ServerHealth {
    subsystem: Name,
    /// The server's name in metrics and in the log.
    upstream: String,
    pub(crate) stats: Arc<UpstreamStats>,
    clock: Clock,
    consecutive_failures: AtomicU32,
    ejections: AtomicU32,
    /// The end of the current ejection, in milliseconds on the monotonic clock; 0 without one.
    ejected_until: AtomicU64,
    /// Whether failed checks eject the server. Only one thread writes this field and the next.
    failing_checks: AtomicBool,
    /// The number of consecutive checks that contradict `failing_checks`.
    consecutive_mismatches: AtomicU32,
    /// The start of the current healthy period, in milliseconds on the monotonic clock; 0 if the server was always
    /// healthy.
    healthy_since: AtomicU64,
}

impl ServerHealth {
    /// The server's name in metrics and in the log.
    pub(crate) fn upstream(&self) -> &str {
        &self.upstream
    }

    fn new((subsystem, server): (&Name, &UpstreamServer), stats: Arc<UpstreamStats>, clock: Clock) -> Self {
        Self {
            subsystem: subsystem.clone(),
            upstream: server.authority.clone(),
            stats,
            clock,
            consecutive_failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            failing_checks: AtomicBool::new(false),
            consecutive_mismatches: AtomicU32::new(0),
            healthy_since: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        !self.failing_checks.load(Ordering::Relaxed) && self.is_ejection_over()
    }

    /// The slow-start weight, of [`FULL_WEIGHT`].
    pub(crate) fn slow_start_weight(&self, slow_start: Duration) -> u64 {
        let since = self.healthy_since.load(Ordering::Relaxed).max(self.ejected_until.load(Ordering::Relaxed));
        if since == 0 {
            return FULL_WEIGHT;
        }
        weight_after(self.now_ms().saturating_sub(since), slow_start)
    }

    fn start_slowly(&self, since: u64) {
        self.healthy_since.store(since.max(1), Ordering::Relaxed);
    }

    /// Whether no passive ejection is in force.
    fn is_ejection_over(&self) -> bool {
        self.has_passed(self.ejected_until.load(Ordering::Relaxed))
    }

    fn has_passed(&self, ejected_until: u64) -> bool {
        match ejected_until {
            0 => true,
            not_after => self.now_ms() >= not_after,
        }
    }

    /// Records a successful response: the consecutive failures are reset, and an ejection that is over ends.
    pub(crate) fn note_success(&self) {
        if self.consecutive_failures.load(Ordering::Relaxed) != 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
        if self.ejections.load(Ordering::Relaxed) != 0 && self.is_ejection_over() {
            self.readmit();
        }
    }

    /// Records a failure of the server.
    pub(crate) fn note_failure(&self, failure: ServerFailure) {
        match failure {
            ServerFailure::Connect => self.stats.failures_connect.increment(),
            ServerFailure::Reset => self.stats.failures_reset.increment(),
            ServerFailure::Timeout => self.stats.failures_timeout.increment(),
            ServerFailure::Malformed => self.stats.failures_malformed.increment(),
            ServerFailure::Refused => self.stats.failures_refused.increment(),
            // A response: the ledger counts it by outcome.
            ServerFailure::ServerError => (),
        }
        if self.consecutive_failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.eject(failure);
        }
    }

    /// Records an attempt that broke after something was sent. A malformed response is logged, at most once per second
    /// and server.
    pub(crate) fn note_connection_error(&self, error: &ConnectionError) {
        if !error.is_protocol_error() {
            return self.note_failure(ServerFailure::Reset);
        }
        self.note_failure(ServerFailure::Malformed);
        let Some(suppressed) = self.stats.should_log_malformed(self.clock.unix_seconds()) else { return };
        let Self { subsystem, upstream, .. } = self;
        tracing::warn!(%subsystem, upstream, reason = %error, suppressed,
            "a response was rejected: it is not valid HTTP");
    }

    /// Records a refused request. A graceful shutdown of the server (GOAWAY with NO_ERROR) is no failure.
    pub(crate) fn note_refusal(&self, error: &ConnectionError) {
        match error {
            ConnectionError::Http2(error) if is_graceful_goaway(error) => self.stats.failures_refused.increment(),
            _ => self.note_failure(ServerFailure::Refused),
        }
    }

    /// Records a kept connection that ended before a response began. Healthy servers close idle connections, so this is
    /// no failure.
    pub(crate) fn note_stale_connection(&self) {
        self.stats.failures_reset.increment();
    }

    /// Records a health check. Called by one thread only.
    pub(crate) fn note_check(&self, passed: bool, check: &HealthCheckPolicy) -> Option<HealthTransition> {
        let count = if passed { &self.stats.checks_passed } else { &self.stats.checks_failed };
        count.increment();
        let is_out = self.failing_checks.load(Ordering::Relaxed);
        if passed != is_out {
            self.consecutive_mismatches.store(0, Ordering::Relaxed);
            return None;
        }
        let contrary = self.consecutive_mismatches.load(Ordering::Relaxed) + 1;
        self.consecutive_mismatches.store(contrary, Ordering::Relaxed);
        let transition =
            if is_out { (check.rise, HealthTransition::Readmitted) } else { (check.fall, HealthTransition::Ejected) };
        (contrary >= transition.0).then(|| self.log_transition(transition.1))
    }

    /// Forgets the results of all checks, because the configuration has no checks for the server any more.
    pub(crate) fn forget_checks(&self) {
        self.consecutive_mismatches.store(0, Ordering::Relaxed);
        if self.failing_checks.load(Ordering::Relaxed) {
            self.log_transition(HealthTransition::Readmitted);
            let Self { subsystem, upstream, .. } = self;
            tracing::info!(%subsystem, upstream, "a server is back in rotation: its health checks were removed");
        }
    }

    fn log_transition(&self, transition: HealthTransition) -> HealthTransition {
        self.consecutive_mismatches.store(0, Ordering::Relaxed);
        self.failing_checks.store(transition == HealthTransition::Ejected, Ordering::Relaxed);
        match transition {
            HealthTransition::Ejected => self.stats.ejected.increment(),
            HealthTransition::Readmitted => {
                self.start_slowly(self.now_ms());
                self.stats.ejected.decrement();
            }
        }
        transition
    }

    /// An ejected server may still get commands if no other server is healthy. Failures then extend the ejection, and
    /// nothing is logged.
    fn eject(&self, last: ServerFailure) {
        self.consecutive_failures.store(0, Ordering::Relaxed);
        let nth = self.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let length = EJECTION_BASE.saturating_mul(nth).min(EJECTION_MAX);
        let not_after = self.now_ms() + u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 2);
        let was_in = self.has_passed(self.ejected_until.swap(not_after, Ordering::Relaxed));
        if nth == 1 {
            self.stats.ejected.increment();
        }
        if was_in {
            let (Self { subsystem, upstream, .. }, seconds) = (self, length.as_secs());
            let (in_a_row, last) = (FAILURES_MAX, last.name());
            tracing::warn!(%subsystem, upstream, in_a_row, last, seconds, "a server is out of rotation: commands failed");
        }
    }

    fn readmit(&self) {
        let not_after = self.ejected_until.swap(0, Ordering::Relaxed);
        self.healthy_since.fetch_max(not_after, Ordering::Relaxed);
        if self.ejections.swap(0, Ordering::Relaxed) != 0 {
            self.stats.ejected.decrement();
            let Self { subsystem, upstream, .. } = self;
            tracing::info!(%subsystem, upstream, "a server is back in rotation: a command succeeded");
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
    use crate::policy::UpstreamAddress;
    use crate::proxy::upstream::endpoint::slow_start::SLOW_START_MIN;

    #[test]
    fn recovered_server_regains_its_share_gradually() {
        let (health, clock) = health();
        let slow = Duration::from_secs(10);
        assert_eq!(health.slow_start_weight(slow), FULL_WEIGHT, "the server was in the first configuration");
        fail(&health, FAILURES_MAX);
        clock.advance(EJECTION_BASE);
        assert_eq!(health.slow_start_weight(slow), SLOW_START_MIN);
        health.note_success();
        clock.advance(slow / 2);
        assert_eq!(health.slow_start_weight(slow), FULL_WEIGHT / 2);
        clock.advance(slow);
        assert_eq!(health.slow_start_weight(slow), FULL_WEIGHT);
    }

    #[test]
    fn server_that_passes_its_checks_regains_its_share_gradually() {
        let (health, clock) = health();
        let (slow, check) = (Duration::from_secs(10), check());
        let note = |passed, times| (0..times).for_each(|_| _ = health.note_check(passed, &check));
        note(false, 3);
        clock.advance(slow * 5);
        note(true, 2);
        assert!(health.is_healthy());
        let warmth_after = |time| {
            clock.advance(time);
            health.slow_start_weight(slow)
        };
        assert_eq!([Duration::ZERO, slow / 2, slow].map(warmth_after), [SLOW_START_MIN, FULL_WEIGHT / 2, FULL_WEIGHT]);
        note(true, 9);
        assert_eq!(
            health.slow_start_weight(slow),
            FULL_WEIGHT,
            "a server that stays healthy does not restart slow start"
        );
    }

    #[test]
    fn server_added_by_a_reload_is_new() {
        let clock = Clock::manual("2026-11-24T00:00:00Z".parse().expect("a time"));
        let all = UpstreamHealth::new(Telemetry::new(), clock);
        let old = all.server_health(&Name::unknown(), &server(1));
        all.end_start();
        let new = all.server_health(&Name::unknown(), &server(2));
        let slow = Duration::from_secs(10);
        assert_eq!(
            [old, new, all.server_health(&Name::unknown(), &server(1))].map(|one| one.slow_start_weight(slow)),
            [FULL_WEIGHT, SLOW_START_MIN, FULL_WEIGHT]
        );
    }

    fn server(port: u16) -> UpstreamServer {
        UpstreamServer {
            address: UpstreamAddress::Tcp("a".to_owned(), port),
            secure: false,
            authority: format!("a:{port}"),
            max_requests: None,
            weight: 1,
        }
    }

    fn check() -> HealthCheckPolicy {
        let second = Duration::from_secs(1);
        HealthCheckPolicy {
            path: "/".to_owned(),
            interval: second,
            timeout: second,
            rise: 2,
            fall: 3,
            status: 200..=399,
        }
    }

    fn health() -> (ServerHealth, Clock) {
        let clock = Clock::manual("2026-11-24T00:00:00Z".parse().expect("a time"));
        let stats = Telemetry::new().upstream_stats(&Name::unknown(), "127.0.0.1:1");
        (ServerHealth::new((&Name::unknown(), &server(1)), stats, clock.clone()), clock)
    }

    fn fail(health: &ServerHealth, times: u32) {
        for _ in 0..times {
            health.note_failure(ServerFailure::Connect);
        }
    }

    #[test]
    fn five_consecutive_failures_eject_for_ten_seconds() {
        let (health, clock) = health();
        fail(&health, FAILURES_MAX - 1);
        health.note_success();
        fail(&health, FAILURES_MAX - 1);
        assert!(health.is_healthy(), "a success resets the failures");
        fail(&health, 1);
        assert!(!health.is_healthy());
        clock.advance(EJECTION_BASE);
        assert!(health.is_healthy(), "the server is tried again after the ejection");
    }

    /// The lines that `deed` logs.
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
            // An ejected server still gets commands if no other server is healthy.
            fail(&health, 3 * FAILURES_MAX);
            clock.advance(EJECTION_BASE * 3);
            fail(&health, FAILURES_MAX - 1);
            health.note_failure(ServerFailure::Timeout);
            health.note_success();
            clock.advance(EJECTION_BASE * 4);
            health.note_success();
            health.note_success();
            (0..3).for_each(|_| _ = health.note_check(false, &check()));
            health.forget_checks();
        });
        let expected = [
            ("WARN", "last=\"no connection\" seconds=10"),
            ("WARN", "last=\"response timeout\" seconds=40"),
            ("INFO", "a server is back in rotation: a command succeeded"),
            ("INFO", "a server is back in rotation: its health checks were removed"),
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, (level, words)) in lines.iter().zip(expected) {
            assert!(line.contains(level) && line.contains(words) && line.contains("upstream=\"a:1\""), "{line}");
        }
    }

    #[test]
    fn goaway_and_closed_idle_connections_are_no_failures() {
        let (health, _) = health();
        (0..2 * FAILURES_MAX).for_each(|_| health.note_stale_connection());
        assert!(health.is_healthy());
        assert_eq!(health.stats.failures_reset.get(), 2 * u64::from(FAILURES_MAX));
        (0..FAILURES_MAX).for_each(|_| {
            health.note_connection_error(&ConnectionError::InvalidResponse("two different values of Content-Length"))
        });
        assert!(!health.is_healthy(), "a malformed response is a failure");
        assert_eq!(health.stats.failures_malformed.get(), u64::from(FAILURES_MAX));
    }

    #[test]
    fn health_checks_eject_a_server_and_restore_it() {
        let (health, clock) = health();
        let check = check();
        let turns = |passed: &[bool]| -> Vec<_> { passed.iter().map(|one| health.note_check(*one, &check)).collect() };
        assert_eq!(turns(&[false, false, true, false, false]), [None; 5], "never three failures in a row");
        assert_eq!(turns(&[false]), [Some(HealthTransition::Ejected)]);
        health.note_success();
        clock.advance(EJECTION_MAX);
        assert!(!health.is_healthy(), "neither a command nor time restores the server");
        assert_eq!(turns(&[true, false, true, true]), [None, None, None, Some(HealthTransition::Readmitted)]);
        assert!(health.is_healthy());
        fail(&health, FAILURES_MAX);
        assert_eq!(turns(&[true, true, true]), [None; 3]);
        assert!(!health.is_healthy(), "passed checks do not end an ejection by failed commands");
        turns(&[false, false, false]);
        assert_eq!(health.stats.ejected.get(), 2);
        health.forget_checks();
        assert_eq!(health.stats.ejected.get(), 1);
    }

    #[test]
    fn each_ejection_lasts_longer_until_a_success() {
        let (health, clock) = health();
        for nth in 1..=3 {
            fail(&health, FAILURES_MAX);
            clock.advance(EJECTION_BASE * nth - Duration::from_millis(1));
            assert!(!health.is_healthy(), "ejection {nth}");
            clock.advance(Duration::from_millis(1));
            assert!(health.is_healthy(), "ejection {nth}");
        }
        health.note_success();
        fail(&health, FAILURES_MAX);
        clock.advance(EJECTION_BASE);
        assert!(health.is_healthy());
    }
}
