//! What traffic tells about its connections, upstreams and limits, beside the ledger.
//!
//! Guarantees: every label comes from a closed set or from the configuration, never from a caller.

use std::sync::Arc;

use crate::identity::is_unserved_host_error;

use super::counters::{EventCounter, LevelGauge};
use super::log_throttle::LogThrottle;

/// One upstream of a subsystem, over all workers.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// Requests sent, or tried to be sent; a retry is an attempt of its own.
    pub attempts: EventCounter,
    /// Attempts that were made because an earlier one of the same command failed after it was sent.
    pub retries: EventCounter,
    /// No connection: refused, unreachable, or no answer within the connect timeout.
    pub failures_connect: EventCounter,
    /// The connection broke after something was sent.
    pub failures_reset: EventCounter,
    /// An answer was not valid HTTP (RFC 9110, 9112, 9113).
    pub failures_malformed: EventCounter,
    /// The server said that it had processed nothing of the request (RFC 9113 section 8.7).
    pub failures_refused: EventCounter,
    /// No answer in time.
    pub failures_timeout: EventCounter,
    /// Why it is out of rotation for now: failures of commands, failures of checks; 0 means healthy.
    pub ejected: LevelGauge,
    /// Health checks that it passed.
    pub checks_passed: EventCounter,
    /// Health checks that it failed.
    pub checks_failed: EventCounter,
    /// Connections open to it, busy or idle.
    pub connections: LevelGauge,
    /// Requests it has not answered wholly.
    pub requests: LevelGauge,
    malformed_throttle: LogThrottle,
}

impl UpstreamStats {
    /// Whether a malformed answer is to be logged at this second, and how many since the last one were not.
    pub fn should_log_malformed(&self, unix_seconds: i64) -> Option<u64> {
        self.malformed_throttle.should_log(unix_seconds)
    }
}

/// The commands that wait for a place at a server of one subsystem, over all workers.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Commands that wait now.
    pub waiting: LevelGauge,
    /// Commands that found as many waiting as may.
    pub full: EventCounter,
    /// Commands that waited for as long as they may.
    pub timeout: EventCounter,
}

/// The connections of callers, all listeners together.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Open now.
    pub open: LevelGauge,
    /// Accepted since the process began.
    pub accepted: EventCounter,
    handshakes_failed: [EventCounter; HandshakeFailure::ALL.len()],
    failure_throttle: LogThrottle,
}

/// Counts a connection as open for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection(Arc<ConnectionStats>);

impl ConnectionStats {
    /// Counts a connection as accepted, and as open until the guard is dropped.
    pub fn count_accepted(self: &Arc<Self>) -> OpenConnection {
        self.accepted.increment();
        self.open.increment();
        OpenConnection(Arc::clone(self))
    }

    /// Counts a TLS handshake that came to nothing.
    pub fn count_handshake_failure(&self, failure: HandshakeFailure) {
        self.handshakes_failed[failure as usize].increment();
    }

    /// Whether a failed handshake is to be logged at this second, and how many since the last one were not.
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

/// Why a TLS handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The listener wants a client certificate and none came.
    NoCertificate,
    /// The certificate is not from an authority of the listener.
    UnknownAuthority,
    /// The certificate is expired, or not valid yet.
    Expired,
    /// The certificate is revoked.
    Revoked,
    /// Every revocation list that speaks of the certificate has expired.
    RevocationListExpired,
    /// Something else is wrong with the certificate.
    BadCertificate,
    /// The host it named is not served, or it named none and had to.
    UnknownServerName,
    /// Not TLS, or no version, cipher or protocol in common.
    Protocol,
    /// It took too long.
    Timeout,
    /// It was not finished when another needed its place.
    Evicted,
    /// A balancer passed the connection on without a PROXY header that could be read.
    BadProxyHeader,
    /// The caller left, or its connection broke.
    ClientClosed,
}

impl HandshakeFailure {
    /// All, in the order of their positions.
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

    /// The word of the label `reason`.
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

    /// What the error of a handshake means: `tokio-rustls` wraps that of rustls.
    pub fn from_io_error(error: &std::io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(fault) => Self::from_tls_error(fault),
            None if error.kind() == std::io::ErrorKind::TimedOut => Self::Timeout,
            None if error.kind() == std::io::ErrorKind::InvalidData => Self::BadProxyHeader, // whatever is bad in TLS has a cause
            None => Self::ClientClosed,
        }
    }

    /// What rustls found, as a reason.
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

/// What became of a request's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorOutcome {
    /// It was answered, whatever the answer said.
    Responded,
    /// There was no answer.
    Failed,
    /// It was not sent: its body was too large or did not come whole, or as many copies were under way as may be.
    Skipped,
}

impl MirrorOutcome {
    /// All, in the order of their positions.
    pub const ALL: [Self; 3] = [Self::Responded, Self::Failed, Self::Skipped];

    /// The word of the label `result`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responded => "answered",
            Self::Failed => "failed",
            Self::Skipped => "left_out",
        }
    }
}

/// A limit of `capacity:` whose hitting ends a connection or a wait, not a command with an outcome of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitHit {
    /// A caller's connection was closed at once: `capacity.connections` are open.
    Connections,
    /// A caller's connection was closed at once: its listener carries as many as it may.
    ListenerConnections,
    /// A caller's connection was closed after its handshake: its department has as many as it may.
    DepartmentConnections,
    /// A caller's connection was closed at once: its address has as many as it may.
    AddressConnections,
    /// A handshake made room for another: as many were under way as may be.
    Handshakes,
    /// The admin listener had as many connections as it carries.
    AdminConnections,
    /// The admin listener had as many requests as it carries.
    AdminRequests,
    /// A caller's head, or what opens HTTP/2, did not come within `capacity.headTime`.
    HeadTime,
    /// A request body did not keep `capacity.bodyIdle` or `capacity.bodyRate`.
    BodyPace,
    /// A caller took nothing of an answer for `capacity.answerIdle`.
    AnswerIdle,
    /// A caller sent too many HTTP/2 frames that do nothing: settings, pings, window updates.
    IdleFrames,
}

impl LimitHit {
    /// All, in the order of their positions.
    pub const ALL: [Self; 11] = [
        Self::Connections,
        Self::ListenerConnections,
        Self::DepartmentConnections,
        Self::AddressConnections,
        Self::Handshakes,
        Self::AdminConnections,
        Self::AdminRequests,
        Self::HeadTime,
        Self::BodyPace,
        Self::AnswerIdle,
        Self::IdleFrames,
    ];

    /// The word of the label `limit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ListenerConnections => "listener_connections",
            Self::DepartmentConnections => "department_connections",
            Self::AddressConnections => "address_connections",
            Self::Handshakes => "handshakes",
            Self::AdminConnections => "admin_connections",
            Self::AdminRequests => "admin_requests",
            Self::HeadTime => "head_time",
            Self::BodyPace => "body_pace",
            Self::AnswerIdle => "answer_idle",
            Self::IdleFrames => "idle_frames",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_as_long_as_its_guard() {
        let stats = Arc::new(ConnectionStats::default());
        let guard = stats.count_accepted();
        assert_eq!((stats.open.get(), stats.accepted.get()), (1, 1));
        drop(guard);
        assert_eq!((stats.open.get(), stats.accepted.get()), (0, 1));
    }

    #[test]
    fn positions_are_those_of_all() {
        for (position, failure) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, position);
        }
        for (position, hit) in LimitHit::ALL.into_iter().enumerate() {
            assert_eq!(hit as usize, position);
        }
    }

    #[test]
    fn a_handshake_error_is_told_by_its_cause() {
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
