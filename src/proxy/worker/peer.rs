//! The peer of a downstream connection: its caller, the caller's department, and the hosts it may ask for.
//!
//! The handshake proves the caller, and the configuration assigns a caller to its department. All three are valid only
//! under the configuration in which they were found.
//!
//! Guarantees:
//! - After a reload, no result of the previous configuration is used.
//! - A certificate is verified again only if authorities or revocation lists have changed.
//! - A caller that was authorized and no longer is gets a close notice ([`DownstreamPeer::deauthorized`]).
//! - Between reloads all of this costs one comparison of pointers.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::config::TrustedProxies;
use crate::identity::{
    Caller, CertificateFault, CertificateRefusal, ConnectionHosts, ForwardedCertificate, HandshakePeer, ServerTls,
    ShownCertificate, TrustSet, UnacceptedCertificate,
};
use crate::lifecycle::DrainWatcher;
use crate::model::{CallerId, Name};
use crate::policy::{CallerOrigin, CallerUnclaimed, DepartmentPolicy, DownstreamProtocol, PolicySnapshot};
use crate::proxy::io::close_notice::CloseNotice;
use crate::proxy::message::field_line::FORWARDED_FOR;

/// How long the commands of a caller go on after its certificate has lost trust: enough time to send a refusal.
const REVOKED_GRACE: Duration = Duration::from_millis(100);

/// The listener that accepted a connection.
pub(crate) struct AcceptingListener {
    /// Its name, which determines the department of callers without a certificate.
    pub(crate) name: Name,
    /// What callers may send to it.
    pub(crate) protocol: DownstreamProtocol,
    /// Its TLS settings; `None` for plain HTTP, and where TLS connections are only passed through.
    pub(crate) tls: Option<ListenerTls>,
}

/// The TLS settings of the listener that accepted a connection.
#[derive(Clone)]
pub(crate) struct ListenerTls {
    /// The current server certificates and trust anchors.
    pub(crate) current: Arc<ArcSwap<ServerTls>>,
    /// The settings that the handshake used.
    pub(crate) at_handshake: Arc<ServerTls>,
}

/// The results of a handshake. A connection without TLS has only the address.
pub(crate) struct HandshakeInfo {
    pub(crate) peer: HandshakePeer,
    /// The host in the SNI extension.
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) address: IpAddr,
    /// The other end of the connection: the balancer, where one sends PROXY headers.
    pub(crate) socket: SocketAddr,
    /// The version of TLS, where the gateway ends TLS.
    pub(crate) tls_version: Option<&'static str>,
    /// The proxies whose `X-Forwarded-For` is trusted; `None` if the address is not one of them.
    pub(crate) trusted_proxies: Option<Arc<TrustedProxies>>,
    /// Whether TLS is passed through: the server ends it, and the gateway sees no certificate.
    pub(crate) is_passthrough: bool,
}

/// The peer of a downstream connection.
pub(crate) struct DownstreamPeer {
    caller: Option<Caller>,
    /// The certificate that was not accepted, on a connection that was. It identifies nobody.
    pub(crate) unaccepted: Option<UnacceptedCertificate>,
    address: HeaderValue,
    ip: IpAddr,
    socket: SocketAddr,
    tls_version: Option<&'static str>,
    trusted_proxies: Option<Arc<TrustedProxies>>,
    is_passthrough: bool,
    server_name: Option<Box<str>>,
    listener: Name,
    /// The current TLS settings of the listener; `None` for plain HTTP, and where TLS is passed through.
    tls: Option<Arc<ArcSwap<ServerTls>>>,
    clock: Clock,
    authorization: RefCell<PeerAuthorization>,
    has_requests: Cell<bool>,
    /// How long the open commands of a deauthorized caller may go on (`shutdown.grace`).
    grace: Duration,
    close_notice: Rc<CloseNotice>,
}

/// The authorization of a caller under one configuration.
struct PeerAuthorization {
    snapshot: Arc<PolicySnapshot>,
    /// `None` for plain HTTP.
    tls: Option<Arc<ServerTls>>,
    is_trusted: bool,
    hosts: AllowedHosts,
    department: Option<Arc<DepartmentPolicy>>,
    /// Why all requests are refused, because of the client certificate.
    refusal: Option<CertificateRefusal>,
    /// The fields about the client certificate that subsystems get.
    forwarded: Option<Rc<ForwardedCertificate>>,
}

/// The hosts that the commands of a connection may name.
enum AllowedHosts {
    /// Those that belong to the server name of the handshake.
    Served(ConnectionHosts),
    /// Every host, over plain HTTP: there is no certificate that could be valid for another one.
    All,
    /// None: the listener no longer serves the server name of the handshake.
    None,
}

impl AllowedHosts {
    fn new(tls: Option<&ServerTls>, server_name: Option<&str>) -> Self {
        match tls {
            None => Self::All,
            Some(tls) => tls.hosts.hosts_for_sni(server_name).map_or(Self::None, Self::Served),
        }
    }

    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Served(served) => served.covers(host),
            Self::All => true,
            Self::None => false,
        }
    }
}

impl DownstreamPeer {
    /// The peer of a connection whose handshake has just completed.
    pub(crate) fn new(
        handshake: HandshakeInfo,
        listener: AcceptingListener,
        snapshot: &Arc<PolicySnapshot>,
        (clock, grace): (&Clock, Duration),
    ) -> Self {
        let address = HeaderValue::try_from(handshake.address.to_canonical().to_string());
        let address = address.expect("an IP address is a valid header value");
        let AcceptingListener { name: listener, tls, .. } = listener;
        let tls = tls.filter(|_| !handshake.is_passthrough); // its certificates and authorities judge nothing here
        let passed_name = handshake.server_name.as_deref().filter(|_| handshake.is_passthrough);
        let (current, at_handshake) = tls.map(|tls| (tls.current, tls.at_handshake)).unzip();
        let (caller, unaccepted) = match handshake.peer {
            HandshakePeer::Anonymous => (None, None),
            HandshakePeer::Verified(caller) => (Some(caller), None),
            HandshakePeer::Unaccepted(certificate) => (None, Some(certificate)),
        };
        let server_name = handshake.server_name.as_deref();
        let trust = at_handshake.as_ref().and_then(|tls| tls.trust_for_sni(server_name));
        let origin = origin_of(&listener, trust);
        let shown = shown_certificate(caller.as_ref(), unaccepted.as_ref());
        let authorization = PeerAuthorization {
            snapshot: Arc::clone(snapshot),
            is_trusted: true,
            refusal: trust.and_then(|trust| trust.refuse_requests(shown)),
            forwarded: forwarded_certificate(trust, shown),
            hosts: AllowedHosts::new(at_handshake.as_deref(), server_name),
            department: department_for((caller.as_ref(), passed_name), origin, snapshot),
            tls: at_handshake,
        };
        Self {
            caller,
            unaccepted,
            address,
            ip: handshake.address.to_canonical(),
            socket: SocketAddr::new(handshake.socket.ip().to_canonical(), handshake.socket.port()),
            tls_version: handshake.tls_version,
            trusted_proxies: handshake.trusted_proxies,
            is_passthrough: handshake.is_passthrough,
            server_name: handshake.server_name,
            listener,
            tls: current,
            clock: clock.clone(),
            authorization: RefCell::new(authorization),
            has_requests: Cell::new(false),
            grace,
            close_notice: Rc::default(),
        }
    }

    /// The name of the listener that accepted the connection.
    pub(crate) fn listener(&self) -> &Name {
        &self.listener
    }

    /// The host in the SNI extension, if the connection has TLS and names one.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The other end of the connection: the client, or a balancer in front of it.
    pub(crate) fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// The version of TLS, where the gateway ends TLS.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        self.tls_version
    }

    /// The caller, if the connection has a client certificate.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// The identity of the caller that a department claims.
    pub(crate) fn claimed_identity<'a>(&'a self, snapshot: &PolicySnapshot) -> Option<&'a CallerId> {
        let caller = self.caller.as_ref()?;
        let authorization = self.authorization.borrow();
        let trust = authorization.tls.as_deref().and_then(|tls| tls.trust_for_sni(self.server_name.as_deref()));
        let origin = origin_of(&self.listener, trust);
        snapshot.claimed_identity(caller.identities(), origin.realm)
    }

    /// The scheme of the connection, for `X-Forwarded-Proto`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The value of `X-Forwarded-For` for the subsystem: the address of the peer. If the peer is a trusted proxy, the
    /// values that it sent come first.
    pub(crate) fn forwarded_for(&self, notified: &HeaderMap) -> Cow<'_, [u8]> {
        let own = self.address.as_bytes();
        if self.trusted_proxies.is_none() {
            return own.into();
        }
        let notified = notified.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        notified.chain([own]).collect::<Vec<_>>().join(b", ".as_slice()).into()
    }

    /// The address of the client: that of the peer. If the peer is a trusted proxy, the last address in
    /// `X-Forwarded-For` that is not one.
    pub(crate) fn client_address(&self, notified: &HeaderMap) -> IpAddr {
        let Some(proxies) = &self.trusted_proxies else { return self.ip };
        let values = notified.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
        let named = values.flat_map(|value| value.rsplit(','));
        let named = named.map_while(|item| item.trim().parse::<IpAddr>().ok());
        let mut last = self.ip;
        for address in named {
            last = address;
            if !proxies.forwarded_for.contains(address) {
                break;
            }
        }
        last
    }

    /// The one department that claims the caller under this snapshot.
    pub(crate) fn department(&self, snapshot: &Arc<PolicySnapshot>) -> Option<Arc<DepartmentPolicy>> {
        self.refresh(snapshot);
        self.authorization.borrow().department.clone()
    }

    /// Why no department may send commands on this connection; a text for the caller.
    pub(crate) fn unauthenticated_detail(&self, snapshot: &PolicySnapshot) -> Cow<'static, str> {
        if let Some(UnacceptedCertificate { reason, .. }) = &self.unaccepted {
            return format!("the client certificate of this connection was not accepted: {reason}").into();
        }
        match &self.caller {
            Some(caller) => self.unclaimed_detail(caller, snapshot),
            None => self.anonymous_detail(snapshot),
        }
        .into()
    }

    fn anonymous_detail(&self, snapshot: &PolicySnapshot) -> &'static str {
        match snapshot.anonymous_department(&self.listener) {
            Err(CallerUnclaimed::Disabled(_)) => "the department of callers without a client certificate is disabled",
            _ if self.tls.is_none() => {
                "this listener uses plain HTTP, and no department has callers without a client certificate here"
            }
            _ => "no client certificate was presented on this connection; every command needs one",
        }
    }

    fn unclaimed_detail(&self, caller: &Caller, snapshot: &PolicySnapshot) -> &'static str {
        if !self.authorization.borrow().is_trusted {
            return "this certificate is no longer accepted: it has expired, is revoked, or its authority was removed";
        }
        let authorization = self.authorization.borrow();
        let trust = authorization.tls.as_deref().and_then(|tls| tls.trust_for_sni(self.server_name.as_deref()));
        let origin = origin_of(&self.listener, trust);
        match snapshot.certified_department(origin, caller.identities()) {
            Err(CallerUnclaimed::Disabled(_)) => "the department of this certificate is disabled",
            Err(CallerUnclaimed::Several(..)) => "more than one department claims the certificate of this connection",
            _ => "no department claims the certificate of this connection",
        }
    }

    /// Why every request of this connection is refused because of its client certificate, and the text for the caller.
    pub(crate) fn certificate_refusal(
        &self,
        snapshot: &Arc<PolicySnapshot>,
    ) -> Option<(CertificateRefusal, Cow<'static, str>)> {
        self.refresh(snapshot);
        let refusal = self.authorization.borrow().refusal.clone()?;
        let detail = match refusal.fault {
            CertificateFault::Missing => "no required client certificate was sent on this connection".into(),
            CertificateFault::NotAccepted => self.unauthenticated_detail(snapshot),
            CertificateFault::OtherSubject => {
                "the client certificate has not the subject that this host expects".into()
            }
        };
        Some((refusal, detail))
    }

    /// The fields about the client certificate that the subsystem gets.
    pub(crate) fn forwarded_certificate(&self) -> Option<Rc<ForwardedCertificate>> {
        self.authorization.borrow().forwarded.clone()
    }

    /// Whether this connection may ask for a host under this snapshot (the hosts that its SNI selects).
    pub(crate) fn is_host_allowed(&self, host: &str, snapshot: &Arc<PolicySnapshot>) -> bool {
        self.refresh(snapshot);
        self.authorization.borrow().hosts.covers(host)
    }

    /// Checks the authorization again. For connections on which no command arrives.
    pub(crate) fn revalidate(&self, snapshot: &Arc<PolicySnapshot>, now: Timestamp) {
        self.refresh(snapshot);
        if self.authorization.borrow().is_trusted && self.has_expired(now) {
            let mut authorization = self.authorization.borrow_mut();
            (authorization.is_trusted, authorization.department) = (false, None);
            self.close_notice.announce(self.grace);
        }
    }

    /// Notes that the connection has received a command.
    pub(crate) fn note_request(&self) {
        self.has_requests.set(true);
    }

    /// Whether the connection has received any command. Without one there is nothing to finish.
    pub(crate) fn has_requests(&self) -> bool {
        self.has_requests.get()
    }

    /// Whether the connection must close after the commands in flight.
    pub(crate) fn is_deauthorized(&self) -> bool {
        self.close_notice.is_given()
    }

    /// Waits until the caller is deauthorized: its certificate is revoked or expired, its authority is gone, its
    /// department is removed or disabled, or its host is no longer served.
    pub(crate) async fn deauthorized(&self) {
        self.close_notice.wait_until_given().await;
    }

    /// Waits until the commands in flight must be cut off: within [`REVOKED_GRACE`] of a loss of trust (a revoked
    /// certificate, an authority that is gone), within `grace` of every other reason, and at the deadline of a drain.
    pub(crate) async fn wait_until_cut_off(&self) {
        self.close_notice.wait_until_cut_off().await;
    }

    /// Notes that the listener drains. If the drain has a deadline, the commands in flight are cut off then.
    pub(crate) fn note_drain(&self, drain: &DrainWatcher) {
        if let Some(deadline) = drain.deadline() {
            self.close_notice.end_by(deadline);
        }
    }

    /// The notice that the connection must close.
    pub(crate) fn close_notice(&self) -> &Rc<CloseNotice> {
        &self.close_notice
    }

    /// Computes the authorization again if the configuration has changed.
    fn refresh(&self, snapshot: &Arc<PolicySnapshot>) {
        if Arc::ptr_eq(&self.authorization.borrow().snapshot, snapshot) {
            return;
        }
        let renewed = self.authorize_under(snapshot);
        let before = self.authorization.replace(renewed);
        let now = self.authorization.borrow();
        let lost = before.department.is_some() && now.department.is_none();
        if !now.is_trusted && !self.has_expired(self.clock.wall()) {
            self.close_notice.announce(REVOKED_GRACE.min(self.grace));
        } else if lost || !now.is_trusted || matches!(now.hosts, AllowedHosts::None) {
            self.close_notice.announce(self.grace);
        } else if now.department.is_some() {
            self.close_notice.withdraw();
        }
    }

    fn authorize_under(&self, snapshot: &Arc<PolicySnapshot>) -> PeerAuthorization {
        let tls = self.tls.as_ref().map(|tls| tls.load_full());
        let now = self.clock.wall();
        let trusted = tls.as_ref().is_none_or(|tls| self.is_trusted_by(tls, now)) && !self.has_expired(now);
        let trust = tls.as_ref().and_then(|tls| tls.trust_for_sni(self.server_name.as_deref()));
        let origin = origin_of(&self.listener, trust);
        let passed_name = self.server_name().filter(|_| self.is_passthrough);
        let caller = (self.caller.as_ref(), passed_name);
        let department = if trusted { department_for(caller, origin, snapshot) } else { None };
        let shown = shown_certificate(self.caller.as_ref(), self.unaccepted.as_ref());
        PeerAuthorization {
            snapshot: Arc::clone(snapshot),
            is_trusted: trusted,
            refusal: trust.and_then(|trust| trust.refuse_requests(shown)),
            forwarded: forwarded_certificate(trust, shown),
            hosts: AllowedHosts::new(tls.as_deref(), self.server_name.as_deref()),
            department,
            tls,
        }
    }

    /// Judges the caller by the trust set of the connection's server name, the set that a handshake would use now.
    fn is_trusted_by(&self, tls: &ServerTls, now: Timestamp) -> bool {
        let before = self.authorization.borrow();
        let server_name = self.server_name.as_deref();
        // Without a set the host is no longer served: every command is misdirected, and the connection is closed.
        let Some(trust) = tls.trust_for_sni(server_name) else { return before.is_trusted };
        let trust_before = before.tls.as_ref().and_then(|before| before.trust_for_sni(server_name));
        match (&self.caller, &self.unaccepted) {
            _ if trust_before.is_some_and(|before| trust.has_same_trust(before)) => before.is_trusted,
            (Some(caller), _) => trust.still_accepts(caller, now),
            (None, Some(certificate)) => trust.tolerates(certificate),
            (None, None) => !trust.requires_certificates(),
        }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.expires_at() < now)
    }
}

fn shown_certificate<'a>(
    caller: Option<&'a Caller>,
    unaccepted: Option<&'a UnacceptedCertificate>,
) -> ShownCertificate<'a> {
    match (caller.and_then(|caller| caller.chain().first()), unaccepted) {
        (Some(leaf), _) => ShownCertificate::Verified(leaf),
        (None, Some(certificate)) => ShownCertificate::Unaccepted(certificate),
        (None, None) => ShownCertificate::None,
    }
}

fn forwarded_certificate(trust: Option<&TrustSet>, shown: ShownCertificate<'_>) -> Option<Rc<ForwardedCertificate>> {
    trust?.forwarded_certificate(shown).map(Rc::new)
}

/// Where a connection came in: the realm is that of the trust set for its server name.
fn origin_of<'a>(listener: &'a Name, trust: Option<&'a TrustSet>) -> CallerOrigin<'a> {
    CallerOrigin {
        listener,
        realm: trust.and_then(TrustSet::realm),
        refuses_unclaimed: trust.is_some_and(TrustSet::refuses_unclaimed),
    }
}

/// The department of a caller; without a certificate, that of the listener's anonymous callers. `passed_name` is the
/// server name of a connection that is passed through.
fn department_for(
    (caller, passed_name): (Option<&Caller>, Option<&str>),
    origin: CallerOrigin<'_>,
    snapshot: &PolicySnapshot,
) -> Option<Arc<DepartmentPolicy>> {
    let claimed = match (caller, passed_name) {
        (Some(caller), _) => snapshot.certified_department(origin, caller.identities()),
        (None, Some(_)) => snapshot.passthrough_department(origin.listener, passed_name),
        (None, None) => snapshot.anonymous_department(origin.listener),
    };
    let claimed_by =
        claimed.inspect_err(|unclaimed| tracing::debug!(?unclaimed, "no single department claims this caller"));
    claimed_by.ok().map(Arc::clone)
}
