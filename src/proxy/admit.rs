//! May this command run? Head, host, command, grant, size, limits, quota, ticket: in this order, each step a plain decision that
//! returns evidence.
//!
//! Guarantees: [`Admitted`] exists only for a command that passed every step and is on the tally. The ticket comes last,
//! so nothing is admitted that is not counted, and nothing counted as admitted is refused afterwards.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use hyper::body::{Body as _, Incoming};

use crate::limit::{Budget, Limited, Pass};
use crate::model::{CommandKey, Department, Refused};
use crate::policy::{Command, DepartmentPolicy, Grant, Protocol, Route, Snapshot, Subsystem};

use super::account::Account;
use super::call::Call;
use super::fault::Fault;
use super::fields;
use super::grpc;
use super::head::{Head, host_value};
use super::load::Full;
use super::tunnel::{is_asked_for, is_extended};

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
    /// How long a gRPC call may take, from its arrival on.
    pub(super) deadline: Option<Duration>,
    pub(super) account: Account,
}

/// A "no": an answer, not an error. Boxed where it is returned: rare, and large.
pub(super) struct Refusal {
    /// Under whom and what it is counted.
    pub(super) department: Department,
    pub(super) command: CommandKey,
    pub(super) refused: Refused,
    pub(super) detail: &'static str,
    /// The status that says a fault more exactly.
    pub(super) status: Option<StatusCode>,
    pub(super) retry_after: Option<Duration>,
    pub(super) budget: Option<Budget>,
}

impl Refusal {
    fn new(department: &Department, command: &CommandKey, refused: Refused, detail: &'static str) -> Box<Self> {
        Box::new(Self {
            department: department.clone(),
            command: command.clone(),
            refused,
            detail,
            status: None,
            retry_after: None,
            budget: None,
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
    let department = caller.ok_or_else(|| {
        call.unplaced(Refused::Unauthenticated, "no department of this city claims the certificate of this connection")
    })?;
    let (subsystem, command) = place(snapshot, &department.department, head)?;
    let refuse = |refused, detail| Refusal::new(&department.department, &command.key, refused, detail);

    let grant = snapshot.grant(&department, &command);
    let grant = grant.ok_or_else(|| refuse(Refused::Forbidden, "this department has no grant for this command"))?;
    if request.body().size_hint().lower() > command.body_max {
        return Err(refuse(Refused::TooLarge, "the request body is larger than this command allows"));
    }
    let upgrade = upgrade(request, &subsystem, &command).map_err(|fault| {
        let mut refusal = refuse(Refused::Malformed, fault.detail);
        refusal.status = Some(fault.status);
        refusal
    })?;
    let room = call.worker.load.has_room_for(department.department.number);
    room.map_err(|full| refuse(Refused::Overloaded, overloaded_detail(full)))?;
    let gate = call.live.gate(&call.worker.limiters, &department, &command);
    let pass = gate.and_then(|gate| gate.admit(call.window));
    let pass = pass.map_err(|limited| Refusal::limited(&department.department, &command.key, limited))?;
    let budget = pass.budget();
    let account = open(call, &department, (&subsystem, &command), pass)?;
    let deadline = deadline(call, request, &subsystem);
    let host = host_value(request, head);
    Ok(Admitted { department, subsystem, command, grant, budget, host, upgrade, deadline, account })
}

/// The one protocol a caller asks to switch to, if it is the one that this command may switch to. Who asks over HTTP/1.1 for
/// another gets the answer of a plain GET; over HTTP/2 (extended CONNECT) nothing but a tunnel would be understood.
fn upgrade(
    request: &Request<Incoming>,
    subsystem: &Subsystem,
    command: &Command,
) -> Result<Option<HeaderValue>, Fault> {
    let allowed = command.upgrade.as_ref().filter(|_| subsystem.protocol == Protocol::Http1);
    match allowed.filter(|protocol| is_asked_for(request, protocol)) {
        None if is_extended(request) => Err(Fault::not_spoken("this command does not switch to that protocol")),
        agreed => Ok(agreed.cloned()),
    }
}

/// The deadline a gRPC caller gives its call, not longer than its subsystem allows.
fn deadline(call: &Call, request: &Request<Incoming>, subsystem: &Subsystem) -> Option<Duration> {
    let given = grpc::deadline(request.headers()).filter(|_| call.is_grpc)?;
    Some(given.min(subsystem.timeouts.deadline))
}

/// The head, if it is not too many fields, counting each crumb of a cookie: hyper knows that limit over HTTP/1.1 only. Its
/// bytes are limited by hyper.
fn read_head<'a>(call: &Call, request: &'a Request<Incoming>) -> Result<Head<'a>, Fault> {
    if request.headers().len() > call.worker.capacity.head_fields {
        return Err(Fault::large_head("the head has more fields than this gateway takes"));
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

fn place(
    snapshot: &Snapshot,
    department: &Department,
    head: Head<'_>,
) -> Result<(Arc<Subsystem>, Arc<Command>), Box<Refusal>> {
    let unknown = |command, detail| Refusal::new(department, command, Refused::UnknownCommand, detail);
    match snapshot.route(head.host, head.method, head.path) {
        Route::Command { subsystem, command } => Ok((Arc::clone(subsystem), Arc::clone(command))),
        Route::NoCommand { subsystem } => {
            Err(unknown(&subsystem.unknown, "this subsystem has no command with this method and path"))
        }
        Route::NoSubsystem => Err(unknown(&CommandKey::unknown(), "no subsystem is served at this host and path")),
    }
}

fn open(
    call: &Call,
    department: &DepartmentPolicy,
    (subsystem, command): (&Arc<Subsystem>, &Arc<Command>),
    mut pass: Pass,
) -> Result<Account, Box<Refusal>> {
    let ticket = call.worker.meter.open(&department.department, &command.key, command.units, call.window);
    let ticket = ticket.map_err(|refused| {
        let mut refusal =
            Refusal::new(&department.department, &command.key, refused, "the ledger cannot count at this moment");
        refusal.retry_after = Some(Duration::from_secs(1));
        refusal
    })?;
    pass.keep_units();
    Ok(Account::open(call, ticket, pass, (department.department.number, subsystem)))
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
