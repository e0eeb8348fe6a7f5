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
use crate::identity::{Caller, ServedNames, ServerTls};
use crate::policy::{DepartmentPolicy, Snapshot, Unclaimed};

use super::headers::FORWARDED_FOR;
use super::tunnel::Doorstep;

/// How long the commands of a caller that is not trusted any more go on: enough for a refusal to leave.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// The listener a connection came in by.
pub(super) struct Door {
    /// Its keys and trust, as they are now.
    pub(super) now: Arc<ArcSwap<ServerTls>>,
    /// As they were in the handshake.
    pub(super) then: Arc<ServerTls>,
}

/// What a handshake has shown.
pub(super) struct Shown {
    pub(super) caller: Option<Caller>,
    /// The host that the caller named.
    pub(super) server_name: Option<Box<str>>,
    pub(super) address: IpAddr,
    /// Whether it is a proxy whose `X-Forwarded-For` is believed.
    pub(super) is_proxy: bool,
}

/// Who is at the other end.
pub(super) struct Peer {
    caller: Option<Caller>,
    address: HeaderValue,
    is_proxy: bool,
    server_name: Option<Box<str>>,
    door: Arc<ArcSwap<ServerTls>>,
    clock: Clock,
    standing: RefCell<Standing>,
    has_asked: Cell<bool>,
    /// How long commands of a caller that is sent away may go on (`shutdown.grace`).
    grace: Duration,
    farewell: Farewell,
    /// What the connection is to become, once its last answer has left.
    pub(super) tunnel: Doorstep,
}

/// What a caller is under one configuration.
struct Standing {
    snapshot: Arc<Snapshot>,
    tls: Arc<ServerTls>,
    trusted: bool,
    served: Option<ServedNames>,
    department: Option<Arc<DepartmentPolicy>>,
}

/// Tells a connection to end.
#[derive(Default)]
struct Farewell {
    said: Cell<bool>,
    /// When what is still on its way is cut off; never, once its caller is let in again.
    deadline: Cell<Option<Instant>>,
    is_cut_off: Cell<bool>,
    /// The connection waits for it, and each of its tunnels over HTTP/2.
    waiting: Notify,
}

impl Peer {
    /// A caller whose handshake has just been finished.
    pub(super) fn new(shown: Shown, door: Door, snapshot: &Arc<Snapshot>, (clock, grace): (&Clock, Duration)) -> Self {
        let address = HeaderValue::try_from(shown.address.to_canonical().to_string());
        let address = address.expect("an IP address is a header value");
        let standing = Standing {
            snapshot: Arc::clone(snapshot),
            trusted: true,
            served: door.then.names.bind(shown.server_name.as_deref()),
            department: department_of(shown.caller.as_ref(), snapshot),
            tls: door.then,
        };
        Self {
            caller: shown.caller,
            address,
            is_proxy: shown.is_proxy,
            server_name: shown.server_name,
            door: door.now,
            clock: clock.clone(),
            standing: RefCell::new(standing),
            has_asked: Cell::new(false),
            grace,
            farewell: Farewell::default(),
            tunnel: Doorstep::default(),
        }
    }

    /// The caller, if it showed a certificate.
    pub(super) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// The value of `X-Forwarded-For`: where the caller is, after what it says itself, if it is a proxy that is believed.
    pub(super) fn forwarded_for(&self, said: &HeaderMap) -> Cow<'_, [u8]> {
        let own = self.address.as_bytes();
        if !self.is_proxy {
            return own.into();
        }
        let said = said.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        said.chain([own]).collect::<Vec<_>>().join(b", ".as_slice()).into()
    }

    /// The one department that claims the caller under this snapshot.
    pub(super) fn department(&self, snapshot: &Arc<Snapshot>) -> Option<Arc<DepartmentPolicy>> {
        self.renew(snapshot);
        self.standing.borrow().department.clone()
    }

    /// Why no department may call on this connection, in words for its caller.
    pub(super) fn why_nobody(&self, snapshot: &Snapshot) -> &'static str {
        let Some(caller) = &self.caller else {
            return "this connection showed no client certificate, and every command needs one";
        };
        if !self.standing.borrow().trusted {
            return "the certificate of this connection is not let in any more: it has expired, is revoked, or its authority is gone";
        }
        match snapshot.department_of(caller.identities()) {
            Err(Unclaimed::Disabled(_)) => "the department that this certificate belongs to is disabled",
            Err(Unclaimed::Several(..)) => "more than one department claims the certificate of this connection",
            _ => "no department of this city claims the certificate of this connection",
        }
    }

    /// Whether this connection may ask for a host under this snapshot.
    pub(super) fn may_ask_for(&self, host: &str, snapshot: &Arc<Snapshot>) -> bool {
        self.renew(snapshot);
        self.standing.borrow().served.as_ref().is_some_and(|served| served.covers(host))
    }

    /// Looks whether the caller is still what it was; for connections on which nothing happens.
    pub(super) fn look_after(&self, snapshot: &Arc<Snapshot>, now: Timestamp) {
        self.renew(snapshot);
        if self.standing.borrow().trusted && self.has_expired(now) {
            let mut standing = self.standing.borrow_mut();
            (standing.trusted, standing.department) = (false, None);
            self.farewell.say(self.grace);
        }
    }

    /// A command of this caller has come.
    pub(super) fn asks(&self) {
        self.has_asked.set(true);
    }

    /// Whether there has been any command: without one there is nothing to be finished.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.get()
    }

    /// Whether the connection is to end after what is on its way.
    pub(super) fn is_sent_away(&self) -> bool {
        self.farewell.said.get()
    }

    /// Waits until the caller is not let in any more: its certificate is revoked or expired, its authority gone, its
    /// department removed or disabled, its host not served.
    pub(super) async fn sent_away(&self) {
        let said = self.farewell.waiting.notified(); // made before the look, so that nothing is missed in between
        if !self.farewell.said.get() {
            said.await;
        }
    }

    /// Waits until what is still on its way is to be cut off: within a moment of the loss of trust (a revoked certificate, an
    /// authority that is gone), within the grace of everything else that sends a caller away.
    pub(super) async fn cut_off(&self) {
        loop {
            let changed = self.farewell.waiting.notified(); // made before the look, so that nothing is missed in between
            match self.farewell.deadline.get() {
                None => changed.await,
                Some(deadline) if deadline <= Instant::now() => return self.farewell.is_cut_off.set(true),
                Some(deadline) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(deadline) => {}
                },
            }
        }
    }

    /// Whether what was on its way has been cut off.
    pub(super) fn is_cut_off(&self) -> bool {
        self.farewell.is_cut_off.get()
    }

    /// Finds everything anew if there is another configuration.
    fn renew(&self, snapshot: &Arc<Snapshot>) {
        if Arc::ptr_eq(&self.standing.borrow().snapshot, snapshot) {
            return;
        }
        let renewed = self.standing_under(snapshot);
        let before = self.standing.replace(renewed);
        let now = self.standing.borrow();
        let lost = before.department.is_some() && now.department.is_none();
        if !now.trusted && !self.has_expired(self.clock.wall()) {
            self.farewell.say(LAST_MOMENT.min(self.grace));
        } else if lost || !now.trusted || now.served.is_none() {
            self.farewell.say(self.grace);
        } else if now.department.is_some() {
            self.farewell.take_back();
        }
    }

    fn standing_under(&self, snapshot: &Arc<Snapshot>) -> Standing {
        let tls = self.door.load_full();
        let now = self.clock.wall();
        let trusted = self.is_trusted_by(&tls, now) && !self.has_expired(now);
        let caller = self.caller.as_ref().filter(|_| trusted);
        Standing {
            snapshot: Arc::clone(snapshot),
            trusted,
            served: tls.names.bind(self.server_name.as_deref()),
            department: department_of(caller, snapshot),
            tls,
        }
    }

    fn is_trusted_by(&self, tls: &ServerTls, now: Timestamp) -> bool {
        let before = self.standing.borrow();
        match &self.caller {
            _ if tls.trusts_as(&before.tls) => before.trusted,
            Some(caller) => tls.still_trusts(caller, now),
            None => !tls.requires_certificates(),
        }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.expires() < now)
    }
}

impl Farewell {
    /// The connection takes no more commands, and what is on its way ends within `grace`, or the grace it had.
    fn say(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.said.set(true);
        self.deadline.set(Some(self.deadline.get().map_or(deadline, |before| before.min(deadline))));
        self.waiting.notify_waiters();
    }

    /// The caller is let in again: what is on its way may end as it likes. The connection still takes no more commands.
    fn take_back(&self) {
        if self.deadline.take().is_some() {
            self.waiting.notify_waiters();
        }
    }
}

fn department_of(caller: Option<&Caller>, snapshot: &Snapshot) -> Option<Arc<DepartmentPolicy>> {
    let claimed = snapshot.department_of(caller?.identities());
    let told = claimed.inspect_err(|unclaimed| tracing::debug!(?unclaimed, "no single department claims this caller"));
    told.ok().map(Arc::clone)
}
