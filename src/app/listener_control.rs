//! The requests of the reload thread to the control thread: retire what goes, activate what comes (`ListenerControl`).
//!
//! Guarantees:
//! - At most one request waits. Each is answered, or fails because the gateway stops.
//! - A request that fails has changed nothing.
//!
//! Leaves to others: the plan (`listener_plan`), the sockets (`binding`), and the listeners (`listener_set`).

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::admin::{self, AdminState};
use crate::config::GatewaySettings;
use crate::lifecycle::{DrainTrigger, DrainWatcher, drain};
use crate::model::NameInterner;

use super::binding::{AdminSocket, BoundSockets};
use super::components::ListenerTlsMap;
use super::listener_plan::ListenerFate;
use super::listener_set::{ListenerSet, PlannedListener, PlannedSocket};

/// The maximum of queued requests. The reload thread waits for each answer.
const QUEUED_REQUESTS_MAX: usize = 1;
/// How long the reload thread waits for an answer. The control thread closes sockets within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The reload thread's end: changes the listeners of the running gateway.
pub(crate) struct ListenerControl(mpsc::Sender<ListenerRequest>);

/// The control thread's end.
pub(crate) struct ListenerRequests(mpsc::Receiver<ListenerRequest>);

/// A request, with the channel for its answer.
enum ListenerRequest {
    Retire(Retirement, oneshot::Sender<()>),
    Activate(Activation, oneshot::Sender<()>),
}

/// What goes.
pub(crate) struct Retirement {
    /// What becomes of each listener, in their order.
    pub(crate) fates: Vec<ListenerFate>,
    /// When the commands in flight on retired listeners are cut off.
    pub(crate) deadline: Instant,
    /// Whether the socket of the admin listener goes.
    pub(crate) stops_admin: bool,
}

impl Retirement {
    /// Whether nothing goes.
    pub(crate) fn is_empty(&self) -> bool {
        !self.stops_admin && self.fates.iter().all(|fate| *fate == ListenerFate::Keep)
    }
}

/// What comes: all listeners, and the socket of the admin listener if it is new.
pub(crate) struct Activation {
    pub(crate) listeners: Vec<PlannedListener>,
    pub(crate) admin: Option<TcpListener>,
}

/// The gateway stops, or its control thread does not answer.
pub(crate) struct NoAnswer;

/// The two ends of the channel.
pub(crate) fn listener_control() -> (ListenerControl, ListenerRequests) {
    let (sender, receiver) = mpsc::channel(QUEUED_REQUESTS_MAX);
    (ListenerControl(sender), ListenerRequests(receiver))
}

impl ListenerControl {
    /// Retires listeners. Returns when their sockets are closed.
    pub(crate) async fn retire(&self, retirement: Retirement) -> Result<(), NoAnswer> {
        self.request(|reply| ListenerRequest::Retire(retirement, reply)).await
    }

    /// Activates listeners. Returns when they accept connections.
    pub(crate) async fn activate(&self, activation: Activation) -> Result<(), NoAnswer> {
        self.request(|reply| ListenerRequest::Activate(activation, reply)).await
    }

    async fn request(&self, make: impl FnOnce(oneshot::Sender<()>) -> ListenerRequest) -> Result<(), NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(make(reply)).await.map_err(|_| NoAnswer)?;
        let answered = timeout(ANSWER_TIMEOUT, answer).await;
        answered.map_or(Err(NoAnswer), |answered| answered.map_err(|_| NoAnswer))
    }
}

impl Activation {
    /// The activation of the sockets of a configuration.
    pub(crate) fn new(
        bound: BoundSockets,
        settings: &GatewaySettings,
        tls: &ListenerTlsMap,
        numbers: &NameInterner,
    ) -> Self {
        let BoundSockets { plan, listeners: new, admin } = bound;
        let mut new = new.into_iter();
        let planned = settings.listeners.iter().zip(plan.sockets).filter_map(|(listener, socket)| {
            let socket = match socket {
                Some(index) => PlannedSocket::Live(index),
                None => PlannedSocket::Bound(new.next()?), // one was bound for each
            };
            let has_tls = listener.tls.is_some();
            let tls = tls.get(&listener.name).filter(|_| has_tls).map(Arc::clone);
            let number = numbers.intern(listener.name.as_str());
            Some(PlannedListener { settings: listener.clone(), number, tls, socket })
        });
        let listeners = planned.collect();
        let admin = match admin {
            AdminSocket::Bound(socket) => Some(socket),
            AdminSocket::Unchanged | AdminSocket::Removed => None,
        };
        Self { listeners, admin }
    }
}

/// Everything that accepts connections, on the control thread.
pub(crate) struct AcceptingParts {
    /// `None` once the gateway drains.
    listeners: Option<ListenerSet>,
    admin: AdminListener,
}

/// The admin listener. Each of its sockets has its own drain.
struct AdminListener {
    state: AdminState,
    running: Option<(DrainTrigger, JoinHandle<()>)>,
}

impl AcceptingParts {
    pub(crate) fn new(listeners: ListenerSet, admin: AdminState) -> Self {
        Self { listeners: Some(listeners), admin: AdminListener { state: admin, running: None } }
    }

    /// Activates the listeners of the start, then serves requests until `ended`.
    pub(crate) async fn run(mut self, start: Activation, requests: ListenerRequests, mut ended: DrainWatcher) {
        let ListenerRequests(mut requests) = requests;
        self.activate(start);
        loop {
            tokio::select! {
                () = ended.begun() => return,
                () = drain_begun(&mut self.listeners) => {
                    if let Some(listeners) = self.listeners.take() {
                        listeners.begin_drain();
                    }
                }
                Some(request) = requests.recv() => self.handle(request).await,
            }
        }
    }

    /// Handles a request. Once the gateway drains, a request gets no answer.
    async fn handle(&mut self, request: ListenerRequest) {
        let Some(listeners) = &mut self.listeners else { return };
        let reply = match request {
            ListenerRequest::Retire(retirement, reply) => {
                listeners.retire(&retirement.fates, retirement.deadline).await;
                if retirement.stops_admin {
                    self.admin.stop().await;
                }
                reply
            }
            ListenerRequest::Activate(activation, reply) => {
                self.activate(activation);
                reply
            }
        };
        let _ = reply.send(()); // the reload thread may have stopped waiting
    }

    fn activate(&mut self, activation: Activation) {
        if let Some(listeners) = &mut self.listeners {
            listeners.activate(activation.listeners);
        }
        if let Some(socket) = activation.admin {
            self.admin.start(socket);
        }
    }
}

/// Ready when the gateway drains; never once its listeners have been drained.
async fn drain_begun(listeners: &mut Option<ListenerSet>) {
    match listeners {
        Some(listeners) => listeners.drain_begun().await,
        None => std::future::pending().await,
    }
}

impl AdminListener {
    fn start(&mut self, socket: TcpListener) {
        let (trigger, watcher) = drain();
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => {
                let serving = tokio::spawn(admin::serve_admin(listener, self.state.clone(), watcher));
                self.running = Some((trigger, serving));
            }
            Err(error) => tracing::error!(%error, "cannot start the admin listener"),
        }
    }

    /// Closes the socket; open requests finish.
    async fn stop(&mut self) {
        if let Some((trigger, serving)) = self.running.take() {
            trigger.begin();
            let _ = serving.await; // the panic hook has reported a panic
        }
    }
}
