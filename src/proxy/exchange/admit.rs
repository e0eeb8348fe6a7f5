//! Admission: decides whether a command may run.
//!
//! The steps in order: host, client certificate, department, command, grant, size, limits, quota, ticket. Each step is
//! a plain decision that returns evidence.
//!
//! Guarantees:
//!
//! - [`Admitted`] exists only for a command that passed every step and is on the tally.
//! - The ticket comes last: nothing is admitted without being counted, and nothing counted as admitted is refused
//!   later.
//!
//! Leaves to others: the validation of the head (`message::request_head`), which comes before.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::{Body as _, Incoming};

use crate::identity::{CertificateFault, CertificateRefusal};
use crate::limit::{AddressPermit, LimitPermit, LimitRefusal, RateLimitInfo};
use crate::model::{CommandKey, Department, PeriodLength, Refused};
use crate::policy::{Command, CorsPolicy, DepartmentPolicy, Grant, RouteMatch, RouteRequest, Subsystem, UsagePage};
use crate::proxy::capacity::load_shedding::Overloaded;
use crate::proxy::message::grammar::malformed::MalformedRequest;
use crate::proxy::message::request_head::RequestHead;
use crate::proxy::message::upgrade_request::UpgradeRequest;

use super::command_record::note_admission;
use super::context::RequestContext;
use super::destination::{Destination, LocalResponse};
use super::gzip;
use super::in_flight_command::{CommandOrigin, InFlightCommand};
use super::response_head::CorsRequest;

/// Evidence that a command may be forwarded: the command is granted, within all limits, and on the tally.
pub(crate) struct Admitted {
    pub(crate) department: Arc<DepartmentPolicy>,
    pub(crate) subsystem: Arc<Subsystem>,
    pub(crate) command: Arc<Command>,
    pub(crate) grant: Grant,
    pub(crate) rate_limit: Option<RateLimitInfo>,
    /// The authority that the caller named.
    pub(crate) host: HeaderValue,
    /// The protocol that the caller asks to switch to, if this command may switch to it.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether the caller accepts a gzip response, if this command allows compression.
    pub(crate) accepts_gzip: Option<bool>,
    /// The time limit of the command, counted from its arrival: the smallest of the request timeout and, for a gRPC
    /// call, the caller's and the backend's deadline.
    pub(crate) deadline: Option<Duration>,
    /// The cross-origin request of a page in a browser, if the command has a CORS policy.
    pub(crate) cors_request: Option<CorsRequest>,
    /// Where the response comes from.
    pub(crate) destination: Destination,
    pub(crate) in_flight: InFlightCommand,
}

/// The target of a request: subsystem and command.
struct RoutedCommand {
    subsystem: Arc<Subsystem>,
    command: Arc<Command>,
    answer: CommandAnswer,
}

/// Where the response to a command comes from, once it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandAnswer {
    /// From a backend, which is chosen after all limits.
    Backend,
    /// From the gateway, as the configuration says.
    Local(LocalResponse),
    /// From the gateway: the department's own usage.
    UsagePage,
}

/// A refusal of a command. A normal result, not an error. Returned boxed, because it is rare and large.
pub(crate) struct CommandRefusal {
    /// The department and the command that the refusal is counted under.
    pub(crate) department: Department,
    pub(crate) command: CommandKey,
    pub(crate) refused: Refused,
    pub(crate) detail: Cow<'static, str>,
    /// A status that describes the fault more exactly than the default of `refused`.
    pub(crate) status: Option<StatusCode>,
    /// The page to which the caller is redirected.
    pub(crate) location: Option<HeaderValue>,
    /// The methods of the commands at the requested path, for `Allow`.
    pub(crate) allow: Option<HeaderValue>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) rate_limit: Option<RateLimitInfo>,
    /// The cross-origin request of a page in a browser, if the command has a CORS policy.
    pub(crate) cors_request: Option<CorsRequest>,
}

impl CommandRefusal {
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
            location: None,
            allow: None,
            retry_after: None,
            rate_limit: None,
            cors_request: None,
        })
    }

    fn limited(department: &Department, command: &CommandKey, limited: LimitRefusal) -> Box<Self> {
        let mut refusal = Self::new(department, command, limited.refused, limited_detail(&limited));
        refusal.retry_after = Some(limited.retry_after);
        refusal.rate_limit = limited.rate_limit;
        refusal
    }
}

/// Decides about one command.
pub(crate) fn admit(
    context: &RequestContext,
    head: RequestHead<'_>,
    request: &Request<Incoming>,
) -> Result<Admitted, Box<CommandRefusal>> {
    let snapshot = &*context.config.snapshot;
    if !context.peer.is_host_allowed(head.host, &context.config.snapshot) {
        return Err(
            context.unrouted_refusal(Refused::Misdirected, "the host of the request does not match this connection")
        );
    }
    if let Some(refusal) = context.certificate_refusal() {
        return Err(refusal);
    }
    let caller = context.peer.department(&context.config.snapshot);
    let department = caller.ok_or_else(|| {
        context.unrouted_refusal(Refused::Unauthenticated, context.peer.unauthenticated_detail(snapshot))
    })?;
    let placed = route_command(context, &department.department, head, request)?;
    let origin = || request.headers().get(ORIGIN).cloned();
    let cors_request = placed.command.cors().map(|cors| CorsRequest { cors: Arc::clone(cors), origin: origin() });
    match check_grant_and_limits(context, request, &department, &placed) {
        Ok((grant, budget, in_flight)) => {
            let RoutedCommand { subsystem, command, answer } = placed;
            let destination = match answer {
                CommandAnswer::Backend => Destination::choose(&context.config, &command),
                CommandAnswer::Local(local_response) => Destination::Local(local_response),
                CommandAnswer::UsagePage => Destination::UsagePage,
            };
            let call_deadline = context.grpc_timeout.map(|timeout| match destination {
                Destination::Backend(chosen) => timeout.min(context.backend(chosen).timeouts.deadline),
                Destination::Local(_) | Destination::UsagePage => timeout,
            });
            let deadline = call_deadline.into_iter().chain(command.timeouts.request).min();
            let host = head.host_header();
            let upgrade = allowed_upgrade(context.upgrade.as_deref(), &command).cloned();
            let compress = gzip::negotiate(request, &command);
            Ok(Admitted {
                department,
                subsystem,
                command,
                grant,
                rate_limit: budget,
                host,
                upgrade,
                accepts_gzip: compress,
                deadline,
                cors_request,
                destination,
                in_flight,
            })
        }
        Err(mut refusal) => {
            refusal.cors_request = cors_request;
            Err(refusal)
        }
    }
}

/// The steps from the grant on: grant, size, upgrade, load shedding, limits, quota, ticket.
fn check_grant_and_limits(
    context: &RequestContext,
    request: &Request<Incoming>,
    department: &DepartmentPolicy,
    placed: &RoutedCommand,
) -> Result<(Grant, Option<RateLimitInfo>, InFlightCommand), Box<CommandRefusal>> {
    let command = &placed.command;
    let refuse =
        |refused, detail: Cow<'static, str>| CommandRefusal::new(&department.department, &command.key, refused, detail);

    let grant = find_grant(context, department, placed);
    let grant = grant.map_err(|detail| refuse(Refused::Forbidden, detail))?;
    if request.body().size_hint().lower() > command.body_max {
        return Err(refuse(Refused::TooLarge, "the request body is larger than this command allows".into()));
    }
    let asked = context.upgrade.as_deref();
    if asked.is_some_and(UpgradeRequest::requires_tunnel) && allowed_upgrade(asked, command).is_none() {
        let mut refusal = refuse(Refused::Malformed, no_upgrade_detail(&command.key));
        refusal.status = Some(StatusCode::NOT_IMPLEMENTED);
        return Err(refusal);
    }
    check_source(context, request, command)
        .map_err(|()| refuse(Refused::Forbidden, "this command may not be called from this address".into()))?;
    let room = context.worker.in_flight.check_capacity(department.department.number);
    room.map_err(|full| refuse(Refused::Overloaded, overloaded_detail(full).into()))?;
    let gate = context.config.gate(&context.worker.components.limiters, department, command);
    let address = check_address_limits(context, request, placed);
    let address = address.map_err(|limited| address_refusal(&department.department, command, limited))?;
    let permit = gate.and_then(|gate| gate.admit_for(placed.units(), context.window));
    let mut permit =
        permit.map_err(|limited| CommandRefusal::limited(&department.department, &command.key, limited))?;
    if let Some(address) = address {
        permit.hold_address(address);
    }
    let budget = permit.rate_limit_info();
    let in_flight = open_command(context, department, placed, permit)?;
    Ok((grant, budget, in_flight))
}

/// Finds the grant of a command, or says why there is none. Of its own usage page a department needs no grant, but a
/// certificate: who may reach a listener without one does not speak for a department.
fn find_grant(
    context: &RequestContext,
    department: &DepartmentPolicy,
    placed: &RoutedCommand,
) -> Result<Grant, Cow<'static, str>> {
    let (snapshot, command) = (&context.config.snapshot, &placed.command);
    match (placed.answer, &snapshot.usage_page) {
        (CommandAnswer::UsagePage, Some(page)) => {
            let has_certificate = context.peer.claimed_identity(snapshot).is_some();
            let grant = has_certificate.then(|| page.grant(department));
            grant.ok_or_else(|| "only callers with a certificate of a department can read its usage".into())
        }
        _ => {
            let grant = snapshot.find_grant(department, command);
            grant.ok_or_else(|| no_grant_detail(&department.department, &command.key))
        }
    }
}

fn check_source(context: &RequestContext, request: &Request<Incoming>, command: &Command) -> Result<(), ()> {
    let Some(sources) = &command.sources else { return Ok(()) };
    let address = context.peer.client_address(request.headers());
    if sources.admits(address) { Ok(()) } else { Err(()) }
}

/// Checks the limits of the client's address. A command that is answered here, without a backend, has none.
fn check_address_limits(
    context: &RequestContext,
    request: &Request<Incoming>,
    placed: &RoutedCommand,
) -> Result<Option<AddressPermit>, LimitRefusal> {
    let limits = placed.command.address_limits.as_ref().filter(|_| placed.answer == CommandAnswer::Backend);
    let Some(limits) = limits else { return Ok(None) };
    let address = context.peer.client_address(request.headers());
    context.worker.components.limiters.admit_address(limits, address).map(Some)
}

fn address_refusal(department: &Department, command: &Command, limited: LimitRefusal) -> Box<CommandRefusal> {
    let mut refusal = CommandRefusal::limited(department, &command.key, limited);
    refusal.detail = match limited.refused {
        Refused::RateLimited => "the rate limit of this client address is exceeded".into(),
        Refused::TooManyConcurrent => "this client address has too many commands in flight".into(),
        _ => refusal.detail,
    };
    let is_unavailable = command.address_limits.as_ref().is_some_and(|limits| limits.is_unavailable);
    refusal.status = is_unavailable.then_some(StatusCode::SERVICE_UNAVAILABLE);
    refusal
}

/// The protocol that the caller asks to switch to, if the command may switch to it.
///
/// A caller that asks over HTTP/1.1 for another protocol gets the response of a plain GET (RFC 9110 section 7.8),
/// unless the request [requires a tunnel](UpgradeRequest::requires_tunnel).
fn allowed_upgrade<'a>(asked: Option<&UpgradeRequest>, command: &'a Command) -> Option<&'a HeaderValue> {
    let asked = asked?; // `None` for nearly all requests
    command.upgrade.as_ref().filter(|allowed| asked.is_to(allowed))
}

fn no_grant_detail(department: &Department, command: &CommandKey) -> Cow<'static, str> {
    let CommandKey { subsystem, command, .. } = command;
    format!(
        "the department `{}` has no grant for the command `{command}` of the subsystem `{subsystem}`",
        department.id
    )
    .into()
}

fn no_upgrade_detail(command: &CommandKey) -> Cow<'static, str> {
    let CommandKey { subsystem, command, .. } = command;
    format!(
        "the command `{command}` of the subsystem `{subsystem}` does not allow an upgrade to the requested protocol"
    )
    .into()
}

impl RequestContext {
    /// The refusal of a malformed request.
    pub(crate) fn malformed_refusal(&self, fault: MalformedRequest) -> Box<CommandRefusal> {
        let mut refusal = self.unrouted_refusal(Refused::Malformed, fault.detail);
        refusal.status = Some(fault.status);
        refusal
    }

    /// The refusal of a request because of the client certificate of its connection: with 400 as nginx has it, or a
    /// redirect to the page that the configuration names.
    fn certificate_refusal(&self) -> Option<Box<CommandRefusal>> {
        let (CertificateRefusal { fault, error_page }, detail) =
            self.peer.certificate_refusal(&self.config.snapshot)?;
        let (refused, status) = match fault {
            CertificateFault::Missing | CertificateFault::NotAccepted => {
                (Refused::Unauthenticated, StatusCode::BAD_REQUEST)
            }
            CertificateFault::OtherSubject => (Refused::Forbidden, StatusCode::FORBIDDEN),
        };
        let mut refusal = self.unrouted_refusal(refused, detail);
        if refused == Refused::Unauthenticated {
            refusal.department = Department::unknown(); // nobody is proven to call, as for every such refusal
        }
        refusal.location = error_page.and_then(|page| HeaderValue::try_from(&*page).ok());
        refusal.status = Some(if refusal.location.is_some() { StatusCode::FOUND } else { status });
        Some(refusal)
    }

    /// A refusal before the command is determined.
    fn unrouted_refusal(&self, refused: Refused, detail: impl Into<Cow<'static, str>>) -> Box<CommandRefusal> {
        let department = self.peer.department(&self.config.snapshot);
        let department = department.map_or_else(Department::unknown, |policy| policy.department.clone());
        CommandRefusal::new(&department, &CommandKey::unknown(), refused, detail)
    }
}

impl RoutedCommand {
    /// The units to charge. A preflight costs none: it is a query of the browser, not the command.
    fn units(&self) -> u64 {
        if self.answer == CommandAnswer::Local(LocalResponse::Preflight) { 0 } else { self.command.units }
    }
}

/// Finds the command of a request. A preflight is routed to the command that it asks about, if that command has a CORS
/// policy.
fn route_command(
    context: &RequestContext,
    department: &Department,
    head: RequestHead<'_>,
    request: &Request<Incoming>,
) -> Result<RoutedCommand, Box<CommandRefusal>> {
    let snapshot = &context.config.snapshot;
    if let Some(page) = snapshot.usage_page.as_ref().filter(|_| UsagePage::is_at(head.path)) {
        return route_to_usage_page(page, department, head.method);
    }
    let requested_method = CorsPolicy::requested_method(head.method, request.headers());
    let wanted = head.route_request(context.peer.listener());
    if let Some(RouteMatch::Command { subsystem, command, .. }) =
        requested_method.as_ref().map(|method| snapshot.find_route(&RouteRequest { method, ..wanted.clone() }))
        && command.cors().is_some()
    {
        let (subsystem, command) = (Arc::clone(subsystem), Arc::clone(command));
        return Ok(RoutedCommand { subsystem, command, answer: CommandAnswer::Local(LocalResponse::Preflight) });
    }
    let unknown = |command, detail| CommandRefusal::new(department, command, Refused::UnknownCommand, detail);
    match snapshot.find_route(&wanted) {
        RouteMatch::Command { subsystem, command, .. } => {
            let answer = match command.redirect() {
                Some(_) => CommandAnswer::Local(LocalResponse::Redirect),
                None => CommandAnswer::Backend,
            };
            Ok(RoutedCommand { subsystem: Arc::clone(subsystem), command: Arc::clone(command), answer })
        }
        RouteMatch::NoCommand { subsystem } => {
            let methods = snapshot.methods_at(&wanted);
            let mut refusal = unknown(&subsystem.unknown, unknown_command_detail(!methods.is_empty()));
            if !methods.is_empty() {
                refusal.status = Some(StatusCode::METHOD_NOT_ALLOWED);
                refusal.allow = HeaderValue::try_from(methods.join(", ")).ok();
            }
            Err(refusal)
        }
        RouteMatch::NoSubsystem => Err(unknown(&CommandKey::unknown(), "no subsystem matches this host and path")),
    }
}

/// The usage page, before every subsystem of the configuration: nothing at its path is ever forwarded.
fn route_to_usage_page(
    page: &UsagePage,
    department: &Department,
    method: &Method,
) -> Result<RoutedCommand, Box<CommandRefusal>> {
    if !UsagePage::has_method(method) {
        let key = &page.subsystem.unknown;
        let mut refusal = CommandRefusal::new(department, key, Refused::UnknownCommand, unknown_command_detail(true));
        refusal.status = Some(StatusCode::METHOD_NOT_ALLOWED);
        refusal.allow = Some(HeaderValue::from_static(UsagePage::METHODS));
        return Err(refusal);
    }
    let (subsystem, command) = (Arc::clone(&page.subsystem), Arc::clone(&page.command));
    Ok(RoutedCommand { subsystem, command, answer: CommandAnswer::UsagePage })
}

fn open_command(
    context: &RequestContext,
    department: &DepartmentPolicy,
    placed: &RoutedCommand,
    mut permit: LimitPermit,
) -> Result<InFlightCommand, Box<CommandRefusal>> {
    let RoutedCommand { subsystem, command, .. } = placed;
    let ticket = context.worker.meter.open(&department.department, &command.key, placed.units(), context.window);
    let ticket = ticket.map_err(|refused| {
        let mut refusal = CommandRefusal::new(
            &department.department,
            &command.key,
            refused,
            "the ledger cannot record commands at the moment",
        );
        refusal.retry_after = Some(Duration::from_secs(1));
        refusal
    })?;
    permit.keep_units();
    let cost = (placed.units(), permit.rate_limit_info());
    let record = context.record.take().map(|mut record| {
        note_admission(&mut record, (&department.department, &command.key), cost);
        record
    });
    let (worker, peer, arrived_at) = (&context.worker, &context.peer, context.arrived_at);
    let origin = CommandOrigin { worker, peer, arrived_at, record };
    Ok(InFlightCommand::open(origin, ticket, permit, (department.department.number, subsystem)))
}

fn unknown_command_detail(is_path_known: bool) -> &'static str {
    match is_path_known {
        true => "this subsystem has no command with this method at this path; Allow lists the methods of this path",
        false => "this subsystem has no command with this method and path",
    }
}

fn overloaded_detail(full: Overloaded) -> &'static str {
    match full {
        Overloaded::Gateway => "the gateway has reached its limit of commands in flight",
        Overloaded::FairShare => {
            "the gateway is close to its limit of commands in flight, and this department has reached its fair share"
        }
    }
}

fn limited_detail(limited: &LimitRefusal) -> &'static str {
    match (limited.refused, limited.quota.map(|quota| quota.per)) {
        (Refused::RateLimited, _) => "the rate limit is exceeded",
        (Refused::TooManyConcurrent, _) => "the limit of concurrent commands is reached",
        (Refused::QuotaExceeded, Some(PeriodLength::Day)) => "the quota of this day is used up",
        (Refused::QuotaExceeded, _) => "the quota of this month is used up",
        _ => "a limit of the gateway is reached",
    }
}
