//! Statistics of connections, upstreams, queues and limits, beside the counts of the ledger.
//!
//! Guarantees: every label value comes from a closed set or from the configuration, never from a caller.

use std::sync::Arc;

use crate::identity::is_unserved_host_error;

use super::counters::{EventCounter, LevelGauge};
use super::log_lines::log_throttle::LogThrottle;

/// Statistics of one upstream, over all workers.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// Requests sent, including attempts that failed to send. Each retry is an attempt of its own.
    pub attempts: EventCounter,
    /// Retries: attempts made because an earlier attempt of the same command failed after it was sent.
    pub retries: EventCounter,
    /// Connect failures: the connection was refused, the upstream was unreachable, or the connect timeout passed.
    pub failures_connect: EventCounter,
    /// Connections that broke (reset) after something was sent.
    pub failures_reset: EventCounter,
    /// Malformed responses: not valid HTTP (RFC 9110, 9112, 9113).
    pub failures_malformed: EventCounter,
    /// Requests of which the server reported that it processed nothing (RFC 9113 section 8.7).
    pub failures_refused: EventCounter,
    /// Responses that did not arrive in time.
    pub failures_timeout: EventCounter,
    /// The reasons for which the upstream is ejected from rotation: failed commands, failed health checks. 0 means
    /// healthy.
    pub ejected: LevelGauge,
    /// Passed health checks.
    pub checks_passed: EventCounter,
    /// Failed health checks.
    pub checks_failed: EventCounter,
    /// Open connections to the upstream, busy or idle.
    pub connections: LevelGauge,
    /// Requests whose response is not complete yet.
    pub requests: LevelGauge,
    malformed_throttle: LogThrottle,
}

impl UpstreamStats {
    /// Whether to log a malformed response at this second. If so, returns the number suppressed since the last line.
    pub fn should_log_malformed(&self, unix_seconds: i64) -> Option<u64> {
        self.malformed_throttle.should_log(unix_seconds)
    }
}

/// Statistics of the commands that wait for capacity at a server of one subsystem, over all workers.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Commands waiting now.
    pub waiting: LevelGauge,
    /// Commands that found the queue full.
    pub full: EventCounter,
    /// Commands that reached the queue timeout.
    pub timeout: EventCounter,
}

/// Statistics of the downstream (caller) connections, over all listeners.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Open connections.
    pub open: LevelGauge,
    /// Connections accepted since the process started.
    pub accepted: EventCounter,
    handshakes_failed: [EventCounter; HandshakeFailure::ALL.len()],
    failure_throttle: LogThrottle,
}

/// A guard that counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<ConnectionStats>);

impl ConnectionStats {
    /// Counts a connection as accepted, and as open until the guard is dropped.
    pub fn count_accepted(self: &Arc<Self>) -> OpenConnection {
        self.accepted.increment();
        self.open.increment();
        OpenConnection(Arc::clone(self))
    }

    /// Counts a failed TLS handshake.
    pub fn count_handshake_failure(&self, failure: HandshakeFailure) {
        self.handshakes_failed[failure as usize].increment();
    }

    /// Whether to log a failed handshake at this second. If so, returns the number suppressed since the last line.
    pub fn should_log_failure(&self, unix_seconds: i64) -> Option<u64> {
        self.failure_throttle.should_log(unix_seconds)
    }

    /// Failed handshakes so far, by reason.
    pub fn handshake_failures(&self) -> impl Iterator<Item = (HandshakeFailure, u64)> {
        HandshakeFailure::ALL.into_iter().map(|failure| (failure, self.handshakes_failed[failure as usize].get()))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.decrement();
    }
}

/// The reason why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The listener requires a client certificate and the caller sent none.
    NoCertificate,
    /// The certificate was not issued by an authority of the listener.
    UnknownAuthority,
    /// The certificate is expired or not valid yet.
    Expired,
    /// The certificate is revoked.
    Revoked,
    /// Every revocation list (CRL) that covers the certificate has expired.
    RevocationListExpired,
    /// The certificate is invalid for another reason.
    BadCertificate,
    /// The server name (SNI) is not served, or a required server name is missing.
    UnknownServerName,
    /// The bytes are not TLS, or no version, cipher or protocol is shared.
    Protocol,
    /// The handshake exceeded its timeout.
    Timeout,
    /// The handshake was evicted to make room for another one.
    Evicted,
    /// A load balancer passed the connection on without a valid PROXY header.
    BadProxyHeader,
    /// The caller closed the connection, or the connection broke.
    ClientClosed,
}

impl HandshakeFailure {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::Expired,
        Self::Revoked,
        Self::RevocationListExpired,
        Self::BadCertificate,
        Self::UnknownServerName,
        Self::Protocol,
        Self::Timeout,
        Self::Evicted,
        Self::BadProxyHeader,
        Self::ClientClosed,
    ];

    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::RevocationListExpired => "revocation_list_expired",
            Self::BadCertificate => "bad_certificate",
            Self::UnknownServerName => "unknown_name",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Evicted => "crowded_out",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::ClientClosed => "left",
        }
    }

    /// The reason behind an I/O error of a handshake. `tokio-rustls` wraps the error of rustls.
    pub fn from_io_error(error: &std::io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(fault) => Self::from_tls_error(fault),
            None if error.kind() == std::io::ErrorKind::TimedOut => Self::Timeout,
            None if error.kind() == std::io::ErrorKind::InvalidData => Self::BadProxyHeader, // TLS errors have a cause
            None => Self::ClientClosed,
        }
    }

    /// The reason behind an error of rustls.
    pub fn from_tls_error(fault: &rustls::Error) -> Self {
        match fault {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(fault) => Self::from_certificate_error(fault),
            other if is_unserved_host_error(other) => Self::UnknownServerName,
            _ => Self::Protocol,
        }
    }

    fn from_certificate_error(fault: &rustls::CertificateError) -> Self {
        use rustls::CertificateError as Fault;
        match fault {
            Fault::UnknownIssuer => Self::UnknownAuthority,
            Fault::Expired | Fault::ExpiredContext { .. } | Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
                Self::Expired
            }
            Fault::Revoked => Self::Revoked,
            Fault::ExpiredRevocationList | Fault::ExpiredRevocationListContext { .. } => Self::RevocationListExpired,
            _ => Self::BadCertificate,
        }
    }
}

/// The outcome of a mirrored copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorOutcome {
    /// A response arrived, with any status.
    Responded,
    /// No response arrived.
    Failed,
    /// The copy was not sent: its body was too large or incomplete, or the limit of concurrent copies was reached.
    Skipped,
}

impl MirrorOutcome {
    /// All outcomes, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Responded, Self::Failed, Self::Skipped];

    /// The value of the label `result`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responded => "answered",
            Self::Failed => "failed",
            Self::Skipped => "left_out",
        }
    }
}

/// A limit of `capacity:` that closes a connection or ends a wait, without an outcome of its own for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitHit {
    /// A downstream connection was closed at once, because `capacity.connections` connections are open.
    Connections,
    /// A downstream connection was closed at once, because its listener has reached its limit.
    ListenerConnections,
    /// A downstream connection was closed after its handshake, because its department has reached its limit.
    DepartmentConnections,
    /// A downstream connection was closed at once, because its address has reached its limit.
    AddressConnections,
    /// A handshake was evicted to make room for another, because the limit of concurrent handshakes was reached.
    Handshakes,
    /// The admin listener reached its limit of connections.
    AdminConnections,
    /// The admin listener reached its limit of requests.
    AdminRequests,
    /// The admin listener reached its limit of pages of hours.
    AdminHourPages,
    /// A request head or the HTTP/2 connection preface did not arrive within `capacity.headTime`.
    HeadTime,
    /// A request body violated `capacity.bodyIdle` (idle timeout) or `capacity.bodyRate` (minimum rate).
    BodyPace,
    /// Write timeout: a caller read nothing of a response for `capacity.responseIdle`.
    ResponseIdle,
    /// A caller sent too many HTTP/2 control frames that do no work (settings, pings, window updates), as in a flood
    /// attack.
    IdleFrames,
}

impl LimitHit {
    /// All limits, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::ListenerConnections,
        Self::DepartmentConnections,
        Self::AddressConnections,
        Self::Handshakes,
        Self::AdminConnections,
        Self::AdminRequests,
        Self::AdminHourPages,
        Self::HeadTime,
        Self::BodyPace,
        Self::ResponseIdle,
        Self::IdleFrames,
    ];

    /// The value of the label `limit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ListenerConnections => "listener_connections",
            Self::DepartmentConnections => "department_connections",
            Self::AddressConnections => "address_connections",
            Self::Handshakes => "handshakes",
            Self::AdminConnections => "admin_connections",
            Self::AdminRequests => "admin_requests",
            Self::AdminHourPages => "admin_hour_pages",
            Self::HeadTime => "head_time",
            Self::BodyPace => "body_pace",
            Self::ResponseIdle => "response_idle",
            Self::IdleFrames => "idle_frames",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_is_open_while_its_guard_lives() {
        let stats = Arc::new(ConnectionStats::default());
        let guard = stats.count_accepted();
        assert_eq!((stats.open.get(), stats.accepted.get()), (1, 1));
        drop(guard);
        assert_eq!((stats.open.get(), stats.accepted.get()), (0, 1));
    }

    #[test]
    fn discriminants_equal_positions_in_all() {
        for (position, failure) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, position);
        }
        for (position, hit) in LimitHit::ALL.into_iter().enumerate() {
            assert_eq!(hit as usize, position);
        }
    }

    #[test]
    fn handshake_error_is_labelled_by_its_cause() {
        use rustls::{CertificateError as Fault, Error};
        for (cause, expected) in [
            (Error::NoCertificatesPresented, "no_certificate"),
            (Error::InvalidCertificate(Fault::UnknownIssuer), "unknown_authority"),
            (Error::InvalidCertificate(Fault::Expired), "expired"),
            (Error::InvalidCertificate(Fault::Revoked), "revoked"),
            (Error::InvalidCertificate(Fault::ExpiredRevocationList), "revocation_list_expired"),
            (Error::InvalidCertificate(Fault::BadEncoding), "bad_certificate"),
            (Error::NoApplicationProtocol, "protocol"),
        ] {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, cause);
            assert_eq!(HandshakeFailure::from_io_error(&error).name(), expected);
        }
        let left = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(HandshakeFailure::from_io_error(&left), HandshakeFailure::ClientClosed);
    }
}
