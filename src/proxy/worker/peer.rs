//! Who is at the other end of a connection: the caller its handshake proved, the department that claims it, the hosts it
//! may ask for. All three hold only as long as the configuration they were found under.
//!
//! Guarantees: after a reload nothing found before it is used again; a caller is verified anew only if authorities or
//! revocation lists have changed; one that was let in and would not be now is [sent away](Peer::sent_away). Between
//! reloads all of it costs one comparison of pointers.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::identity::{Caller, ConnectionHosts, ServerTls};
use crate::policy::{CallerUnclaimed, DepartmentPolicy, PolicySnapshot};

use crate::proxy::exchange::tunnel::PendingTunnel;
use crate::proxy::message::field_line::FORWARDED_FOR;

/// How long the commands of a caller that is not trusted any more go on: enough for a refusal to leave.
const REVOKED_GRACE: Duration = Duration::from_millis(100);

/// The listener a connection came in by.
pub(crate) struct ListenerTls {
    /// Its keys and trust, as they are now.
    pub(crate) current: Arc<ArcSwap<ServerTls>>,
    /// As they were in the handshake.
    pub(crate) at_handshake: Arc<ServerTls>,
}

/// What a handshake has shown.
pub(crate) struct HandshakeInfo {
    pub(crate) caller: Option<Caller>,
    /// The host that the caller named.
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) address: IpAddr,
    /// Whether it is a proxy whose `X-Forwarded-For` is believed.
    pub(crate) is_proxy: bool,
}

/// Who is at the other end.
pub(crate) struct DownstreamPeer {
    caller: Option<Caller>,
    address: HeaderValue,
    is_proxy: bool,
    server_name: Option<Box<str>>,
    tls: Arc<ArcSwap<ServerTls>>,
    clock: Clock,
    authorization: RefCell<PeerAuthorization>,
    has_requests: Cell<bool>,
    /// How long commands of a caller that is sent away may go on (`shutdown.grace`).
    grace: Duration,
    close_notice: CloseNotice,
    /// What the connection is to become, once its last answer has left.
    pub(crate) tunnel: PendingTunnel,
}

/// What a caller is under one configuration.
struct PeerAuthorization {
    snapshot: Arc<PolicySnapshot>,
    tls: Arc<ServerTls>,
    is_trusted: bool,
    served_names: Option<ConnectionHosts>,
    department: Option<Arc<DepartmentPolicy>>,
}

/// Tells a connection to end.
#[derive(Default)]
struct CloseNotice {
    is_given: Cell<bool>,
    /// When what is still on its way is cut off; never, once its caller is let in again.
    deadline: Cell<Option<Instant>>,
    is_cut_off: Cell<bool>,
    /// The connection waits for it, and each of its tunnels over HTTP/2.
    changed: Notify,
}

impl DownstreamPeer {
    /// A caller whose handshake has just been finished.
    pub(crate) fn new(
        handshake: HandshakeInfo,
        door: ListenerTls,
        snapshot: &Arc<PolicySnapshot>,
        (clock, grace): (&Clock, Duration),
    ) -> Self {
        let address = HeaderValue::try_from(handshake.address.to_canonical().to_string());
        let address = address.expect("an IP address is a header value");
        let authorization = PeerAuthorization {
            snapshot: Arc::clone(snapshot),
            is_trusted: true,
            served_names: door.at_handshake.hosts.hosts_for_sni(handshake.server_name.as_deref()),
            department: department_for(handshake.caller.as_ref(), snapshot),
            tls: door.at_handshake,
        };
        Self {
            caller: handshake.caller,
            address,
            is_proxy: handshake.is_proxy,
            server_name: handshake.server_name,
            tls: door.current,
            clock: clock.clone(),
            authorization: RefCell::new(authorization),
            has_requests: Cell::new(false),
            grace,
            close_notice: CloseNotice::default(),
            tunnel: PendingTunnel::default(),
        }
    }

    /// The caller, if it showed a certificate.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// The value of `X-Forwarded-For`: where the caller is, after what it says itself, if it is a proxy that is believed.
    pub(crate) fn forwarded_for(&self, notified: &HeaderMap) -> Cow<'_, [u8]> {
        let own = self.address.as_bytes();
        if !self.is_proxy {
            return own.into();
        }
        let notified = notified.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        notified.chain([own]).collect::<Vec<_>>().join(b", ".as_slice()).into()
    }

    /// The one department that claims the caller under this snapshot.
    pub(crate) fn department(&self, snapshot: &Arc<PolicySnapshot>) -> Option<Arc<DepartmentPolicy>> {
        self.refresh(snapshot);
        self.authorization.borrow().department.clone()
    }

    /// Why no department may call on this connection, in words for its caller.
    pub(crate) fn unauthenticated_detail(&self, snapshot: &PolicySnapshot) -> &'static str {
        let Some(caller) = &self.caller else {
            return "this connection showed no client certificate, and every command needs one";
        };
        if !self.authorization.borrow().is_trusted {
            return "the certificate of this connection is not let in any more: it has expired, is revoked, or its authority is gone";
        }
        match snapshot.department_of(caller.identities()) {
            Err(CallerUnclaimed::Disabled(_)) => "the department that this certificate belongs to is disabled",
            Err(CallerUnclaimed::Several(..)) => "more than one department claims the certificate of this connection",
            _ => "no department of this city claims the certificate of this connection",
        }
    }

    /// Whether this connection may ask for a host under this snapshot.
    pub(crate) fn is_host_allowed(&self, host: &str, snapshot: &Arc<PolicySnapshot>) -> bool {
        self.refresh(snapshot);
        self.authorization.borrow().served_names.as_ref().is_some_and(|served| served.covers(host))
    }

    /// Looks whether the caller is still what it was; for connections on which nothing happens.
    pub(crate) fn revalidate(&self, snapshot: &Arc<PolicySnapshot>, now: Timestamp) {
        self.refresh(snapshot);
        if self.authorization.borrow().is_trusted && self.has_expired(now) {
            let mut authorization = self.authorization.borrow_mut();
            (authorization.is_trusted, authorization.department) = (false, None);
            self.close_notice.announce(self.grace);
        }
    }

    /// A command of this caller has come.
    pub(crate) fn note_request(&self) {
        self.has_requests.set(true);
    }

    /// Whether there has been any command: without one there is nothing to be finished.
    pub(crate) fn has_requests(&self) -> bool {
        self.has_requests.get()
    }

    /// Whether the connection is to end after what is on its way.
    pub(crate) fn is_deauthorized(&self) -> bool {
        self.close_notice.is_given.get()
    }

    /// Waits until the caller is not let in any more: its certificate is revoked or expired, its authority gone, its
    /// department removed or disabled, its host not served.
    pub(crate) async fn deauthorized(&self) {
        let notified = self.close_notice.changed.notified(); // made before the look, so that nothing is missed in between
        if !self.close_notice.is_given.get() {
            notified.await;
        }
    }

    /// Waits until what is still on its way is to be cut off: within a moment of the loss of trust (a revoked certificate, an
    /// authority that is gone), within the grace of everything else that sends a caller away.
    pub(crate) async fn wait_until_cut_off(&self) {
        loop {
            let changed = self.close_notice.changed.notified(); // made before the look, so that nothing is missed in between
            match self.close_notice.deadline.get() {
                None => changed.await,
                Some(deadline) if deadline <= Instant::now() => return self.close_notice.is_cut_off.set(true),
                Some(deadline) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(deadline) => {}
                },
            }
        }
    }

    /// Whether what was on its way has been cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.close_notice.is_cut_off.get()
    }

    /// Finds everything anew if there is another configuration.
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
        } else if lost || !now.is_trusted || now.served_names.is_none() {
            self.close_notice.announce(self.grace);
        } else if now.department.is_some() {
            self.close_notice.withdraw();
        }
    }

    fn authorize_under(&self, snapshot: &Arc<PolicySnapshot>) -> PeerAuthorization {
        let tls = self.tls.load_full();
        let now = self.clock.wall();
        let trusted = self.is_trusted_by(&tls, now) && !self.has_expired(now);
        let caller = self.caller.as_ref().filter(|_| trusted);
        PeerAuthorization {
            snapshot: Arc::clone(snapshot),
            is_trusted: trusted,
            served_names: tls.hosts.hosts_for_sni(self.server_name.as_deref()),
            department: department_for(caller, snapshot),
            tls,
        }
    }

    fn is_trusted_by(&self, tls: &ServerTls, now: Timestamp) -> bool {
        let before = self.authorization.borrow();
        match &self.caller {
            _ if tls.has_same_trust(&before.tls) => before.is_trusted,
            Some(caller) => tls.still_accepts(caller, now),
            None => !tls.requires_certificates(),
        }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.expires_at() < now)
    }
}

impl CloseNotice {
    /// The connection takes no more commands, and what is on its way ends within `grace`, or the grace it had.
    fn announce(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.is_given.set(true);
        self.deadline.set(Some(self.deadline.get().map_or(deadline, |before| before.min(deadline))));
        self.changed.notify_waiters();
    }

    /// The caller is let in again: what is on its way may end as it likes. The connection still takes no more commands.
    fn withdraw(&self) {
        if self.deadline.take().is_some() {
            self.changed.notify_waiters();
        }
    }
}

fn department_for(caller: Option<&Caller>, snapshot: &PolicySnapshot) -> Option<Arc<DepartmentPolicy>> {
    let claimed = snapshot.department_of(caller?.identities());
    let claimed_by =
        claimed.inspect_err(|unclaimed| tracing::debug!(?unclaimed, "no single department claims this caller"));
    claimed_by.ok().map(Arc::clone)
}
