//! May this command run? Head, host, command, grant, size, limits, quota, ticket: in this order, each step a plain decision that
//! returns evidence.
//!
//! Guarantees: [`Admitted`] exists only for a command that passed every step and is on the tally. The ticket comes last,
//! so nothing is admitted that is not counted, and nothing counted as admitted is refused afterwards.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::{Body as _, Incoming};

use crate::limit::{Budget, Limited, Pass};
use crate::model::{CommandKey, Department, Refused};
use crate::policy::{Command, Cors, DepartmentPolicy, Grant, Route, Snapshot, Subsystem};

use super::account::Account;
use super::call::Call;
use super::compress;
use super::extended::{is_asked_for, is_extended};
use super::fault::Fault;
use super::fields;
use super::grpc;
use super::head::{Head, host_value};
use super::here::{Here, Reader};
use super::load::Full;
use super::wire::{HeadLimits, check_head};

/// Evidence that a command may be forwarded: it is granted, within all limits, and on the tally.
pub(super) struct Admitted {
    pub(super) department: Arc<DepartmentPolicy>,
    pub(super) subsystem: Arc<Subsystem>,
    pub(super) command: Arc<Command>,
    pub(super) grant: Grant,
    pub(super) budget: Option<Budget>,
    /// The authority the caller named.
    pub(super) host: HeaderValue,
    /// The protocol its caller asks to switch to, if this command may.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether its caller takes a compressed answer, if this command may have one.
    pub(super) compress: Option<bool>,
    /// How long a gRPC call may take, from its arrival on.
    pub(super) deadline: Option<Duration>,
    /// The page that asks, if browsers are told about this command.
    pub(super) reader: Option<Reader>,
    /// What the gateway answers itself, instead of forwarding.
    pub(super) here: Option<Here>,
    pub(super) account: Account,
}

/// What a request asks for.
struct Placed {
    subsystem: Arc<Subsystem>,
    command: Arc<Command>,
    here: Option<Here>,
}

/// A "no": an answer, not an error. Boxed where it is returned: rare, and large.
pub(super) struct Refusal {
    /// Under whom and what it is counted.
    pub(super) department: Department,
    pub(super) command: CommandKey,
    pub(super) refused: Refused,
    pub(super) detail: Cow<'static, str>,
    /// The status that says a fault more exactly.
    pub(super) status: Option<StatusCode>,
    /// The methods of the commands at the path that is asked for.
    pub(super) allow: Option<HeaderValue>,
    pub(super) retry_after: Option<Duration>,
    pub(super) budget: Option<Budget>,
    /// The page that asks, if browsers are told about this command.
    pub(super) reader: Option<Reader>,
}

impl Refusal {
    fn new(
        department: &Department,
        command: &CommandKey,
        refused: Refused,
        detail: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self {
            department: department.clone(),
            command: command.clone(),
            refused,
            detail: detail.into(),
            status: None,
            allow: None,
            retry_after: None,
            budget: None,
            reader: None,
        })
    }

    fn limited(department: &Department, command: &CommandKey, limited: Limited) -> Box<Self> {
        let mut refusal = Self::new(department, command, limited.refused, limited_detail(limited.refused));
        refusal.retry_after = Some(limited.retry_after);
        refusal.budget = limited.budget;
        refusal
    }
}

/// Decides about one command.
pub(super) fn admit(call: &Call, request: &Request<Incoming>) -> Result<Admitted, Box<Refusal>> {
    let snapshot = &*call.live.snapshot;
    let head = read_head(call, request).map_err(|fault| call.malformed(fault))?;
    if !call.peer.may_ask_for(head.host, &call.live.snapshot) {
        return Err(call.unplaced(Refused::Misdirected, "this connection is not for the host that the request names"));
    }
    let caller = call.peer.department(&call.live.snapshot);
    let department = caller.ok_or_else(|| call.unplaced(Refused::Unauthenticated, call.peer.why_nobody(snapshot)))?;
    let placed = place(snapshot, &department.department, head, request)?;
    let origin = || request.headers().get(ORIGIN).cloned();
    let reader = placed.command.cors().map(|cors| Reader { cors: Arc::clone(cors), origin: origin() });
    match decide(call, request, &department, &placed) {
        Ok((grant, budget, account)) => {
            let Placed { subsystem, command, here } = placed;
            let deadline = deadline(call, request, &subsystem);
            let host = host_value(request, head);
            let upgrade = upgrade(request, &command);
            let compress = compress::may_be_asked_for(request, &command);
            Ok(Admitted {
                department,
                subsystem,
                command,
                grant,
                budget,
                host,
                upgrade,
                compress,
                deadline,
                reader,
                here,
                account,
            })
        }
        Err(mut refusal) => {
            refusal.reader = reader;
            Err(refusal)
        }
    }
}

/// The steps from the grant on.
fn decide(
    call: &Call,
    request: &Request<Incoming>,
    department: &DepartmentPolicy,
    placed: &Placed,
) -> Result<(Grant, Option<Budget>, Account), Box<Refusal>> {
    let command = &placed.command;
    let refuse =
        |refused, detail: Cow<'static, str>| Refusal::new(&department.department, &command.key, refused, detail);

    let grant = call.live.snapshot.grant(department, command);
    let grant = grant.ok_or_else(|| refuse(Refused::Forbidden, no_grant(&department.department, &command.key)))?;
    if request.body().size_hint().lower() > command.body_max {
        return Err(refuse(Refused::TooLarge, "the request body is larger than this command allows".into()));
    }
    if needs_a_tunnel(request) && upgrade(request, command).is_none() {
        let mut refusal = refuse(Refused::Malformed, no_switch(&command.key));
        refusal.status = Some(StatusCode::NOT_IMPLEMENTED);
        return Err(refusal);
    }
    let room = call.worker.load.has_room_for(department.department.number);
    room.map_err(|full| refuse(Refused::Overloaded, overloaded_detail(full).into()))?;
    let gate = call.live.gate(&call.worker.limiters, department, command);
    let pass = gate.and_then(|gate| gate.admit_for(placed.units(), call.window));
    let pass = pass.map_err(|limited| Refusal::limited(&department.department, &command.key, limited))?;
    let budget = pass.budget();
    let account = open(call, department, placed, pass)?;
    Ok((grant, budget, account))
}

/// The one protocol a caller asks to switch to, if it is the one that this command may switch to. A caller that asks over
/// HTTP/1.1 for another gets the answer of a plain GET (RFC 9110 section 7.8), unless it [needs a tunnel](needs_a_tunnel).
fn upgrade(request: &Request<Incoming>, command: &Command) -> Option<HeaderValue> {
    command.upgrade.as_ref().filter(|allowed| is_asked_for(request, allowed)).cloned()
}

/// Whether a caller has no use for another answer than a tunnel: an extended CONNECT, or the handshake of a WebSocket (RFC 6455
/// section 4.1). That a plain answer to a handshake comes from the gateway's configuration could not be seen.
fn needs_a_tunnel(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let is_handshake = is_asked_for(request, &WEBSOCKET) // false for nearly all, by one look
        && headers.contains_key(SEC_WEBSOCKET_KEY)
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    is_handshake || is_extended(request)
}

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

fn no_grant(department: &Department, command: &CommandKey) -> Cow<'static, str> {
    let CommandKey { subsystem, command, .. } = command;
    format!(
        "the department `{}` has no grant for the command `{command}` of the subsystem `{subsystem}`",
        department.id
    )
    .into()
}

fn no_switch(command: &CommandKey) -> Cow<'static, str> {
    let CommandKey { subsystem, command, .. } = command;
    format!("the command `{command}` of the subsystem `{subsystem}` does not switch to the protocol that is asked for")
        .into()
}

/// The deadline a gRPC caller gives its call, not longer than its subsystem allows.
fn deadline(call: &Call, request: &Request<Incoming>, subsystem: &Subsystem) -> Option<Duration> {
    let given = grpc::deadline(request.headers()).filter(|_| call.is_grpc)?;
    Some(given.min(subsystem.timeouts.deadline))
}

/// The head, once its grammar is known to be right. Over HTTP/1.1 `wire` has read it before hyper did.
fn read_head<'a>(call: &Call, request: &'a Request<Incoming>) -> Result<Head<'a>, Fault> {
    if request.version() == Version::HTTP_2 {
        check_head(request, HeadLimits::of(&call.worker.capacity))?;
    }
    if fields::nominates_a_claim(request.headers()) {
        return Err(Fault::bad("Connection names a field that only the gateway may write"));
    }
    Head::read(request)
}

impl Call {
    /// The refusal of what is not HTTP as this house accepts it.
    pub(super) fn malformed(&self, fault: Fault) -> Box<Refusal> {
        let mut refusal = self.unplaced(Refused::Malformed, fault.detail);
        refusal.status = Some(fault.status);
        refusal
    }

    /// A refusal before the command could be told.
    fn unplaced(&self, refused: Refused, detail: &'static str) -> Box<Refusal> {
        let department = self.peer.department(&self.live.snapshot);
        let department = department.map_or_else(Department::unknown, |policy| policy.department.clone());
        Refusal::new(&department, &CommandKey::unknown(), refused, detail)
    }
}

impl Placed {
    /// What it counts: a preflight is a browser's question, not the command.
    fn units(&self) -> u64 {
        if self.here == Some(Here::Preflight) { 0 } else { self.command.units }
    }
}

/// A preflight is placed as the command that it asks about, if browsers are told about that one.
fn place(
    snapshot: &Snapshot,
    department: &Department,
    head: Head<'_>,
    request: &Request<Incoming>,
) -> Result<Placed, Box<Refusal>> {
    let asked = Cors::asked(head.method, request.headers());
    if let Some(Route::Command { subsystem, command }) = asked.map(|asked| snapshot.route(head.host, &asked, head.path))
        && command.cors().is_some()
    {
        let (subsystem, command) = (Arc::clone(subsystem), Arc::clone(command));
        return Ok(Placed { subsystem, command, here: Some(Here::Preflight) });
    }
    let unknown = |command, detail| Refusal::new(department, command, Refused::UnknownCommand, detail);
    match snapshot.route(head.host, head.method, head.path) {
        Route::Command { subsystem, command } => {
            let here = command.redirect().map(|_| Here::Redirect);
            Ok(Placed { subsystem: Arc::clone(subsystem), command: Arc::clone(command), here })
        }
        Route::NoCommand { subsystem } => {
            let methods = snapshot.methods_at(head.host, head.path);
            let mut refusal = unknown(&subsystem.unknown, no_command(!methods.is_empty()));
            if !methods.is_empty() {
                refusal.status = Some(StatusCode::METHOD_NOT_ALLOWED);
                refusal.allow = HeaderValue::try_from(methods.join(", ")).ok();
            }
            Err(refusal)
        }
        Route::NoSubsystem => Err(unknown(&CommandKey::unknown(), "no subsystem is served at this host and path")),
    }
}

fn open(call: &Call, department: &DepartmentPolicy, placed: &Placed, mut pass: Pass) -> Result<Account, Box<Refusal>> {
    let Placed { subsystem, command, .. } = placed;
    let ticket = call.worker.meter.open(&department.department, &command.key, placed.units(), call.window);
    let ticket = ticket.map_err(|refused| {
        let mut refusal =
            Refusal::new(&department.department, &command.key, refused, "the ledger cannot count at this moment");
        refusal.retry_after = Some(Duration::from_secs(1));
        refusal
    })?;
    pass.keep_units();
    Ok(Account::open(call, ticket, pass, (department.department.number, subsystem)))
}

fn no_command(is_path_known: bool) -> &'static str {
    match is_path_known {
        true => {
            "this subsystem has no command with this method at this path; Allow names the methods that it has there"
        }
        false => "this subsystem has no command with this method and path",
    }
}

fn overloaded_detail(full: Full) -> &'static str {
    match full {
        Full::Gateway => "the gateway carries as many commands as it can",
        Full::Share => "the gateway is nearly full, and this department has its fair share of it in flight",
    }
}

fn limited_detail(refused: Refused) -> &'static str {
    match refused {
        Refused::RateLimited => "commands come faster than the limit allows",
        Refused::TooManyConcurrent => "as many commands as allowed are already in flight",
        Refused::QuotaExceeded => "the quota of this month is used up",
        _ => "a limit of the gateway is reached",
    }
}
