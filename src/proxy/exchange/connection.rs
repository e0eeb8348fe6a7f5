//! The life of a command that is a TLS connection: admitted by its server name, then forwarded as a tunnel.
//!
//! Guarantees:
//! - A connection is counted as received before any decision. It is admitted and forwarded, or counted as refused.
//! - The steps are those of a request, in the same order: department, command, grant, limits, quota, ticket, backend.
//! - A connection is one command, in flight until it ends. Its bytes are on the tally as they pass.
//! - A connection that no server takes is closed, and settles as `unreachable`.
//!
//! Leaves to others: TLS (`downstream`), the choice of a server (`upstream`), and the copying (`tunnel`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::FrozenTime;
use crate::limit::LimitPermit;
use crate::model::{CommandKey, Department, Finished, Refused};
use crate::policy::{Command, ConnectionMatch, DepartmentPolicy, Durability, Subsystem};
use crate::proxy::io::lingering_close::close_after_handshake;
use crate::proxy::upstream::{ConnectedServer, SendError};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::config_view::WorkerConfig;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::{AccessRecord, RecordText};

use super::command_record::{begin_connection_record, log_refused, note_admission};
use super::destination::{ChosenBackend, Destination};
use super::in_flight_command::{CommandOrigin, InFlightCommand};
use super::tunnel::UpgradeTunnel;

/// Evidence that a connection may be forwarded: it is granted, within all limits, and on the tally.
pub(crate) struct AdmittedConnection {
    config: Rc<WorkerConfig>,
    department: Arc<DepartmentPolicy>,
    subsystem: Arc<Subsystem>,
    command: Arc<Command>,
    destination: Destination,
    in_flight: InFlightCommand,
}

/// The connection was refused, and is counted as that.
#[derive(Debug)]
pub(crate) struct ConnectionRefused;

/// A refusal, before it is counted.
struct Refusal {
    department: Department,
    command: CommandKey,
    refused: Refused,
}

/// Decides about the command of a connection. It never waits.
pub(crate) fn admit_connection(
    worker: &Rc<TrafficWorker>,
    peer: &Rc<DownstreamPeer>,
) -> Result<AdmittedConnection, ConnectionRefused> {
    let still = FrozenTime::freeze(); // the whole decision sees one moment
    worker.meter.received();
    peer.note_request();
    let record = Cell::new(begin_connection_record((worker, &worker.config()), peer));
    decide(worker, peer, (&still, &record)).map_err(|Refusal { department, command, refused }| {
        worker.meter.refuse(&department, &command, refused, worker.components.clock.window());
        if let Some(record) = record.take() {
            log_refused(worker, record, (&department, &command), refused);
        }
        tracing::debug!(
            department = %department.id, subsystem = %command.subsystem, command = %command.command,
            outcome = refused.name(), "connection refused"
        );
        ConnectionRefused
    })
}

fn decide(
    worker: &Rc<TrafficWorker>,
    peer: &Rc<DownstreamPeer>,
    (still, record): (&FrozenTime, &Cell<Option<Box<AccessRecord>>>),
) -> Result<AdmittedConnection, Refusal> {
    let config = worker.config();
    let snapshot = &config.snapshot;
    let refusal = |department: &Department, command: &CommandKey, refused| Refusal {
        department: department.clone(),
        command: command.clone(),
        refused,
    };
    let department = peer.department(snapshot);
    let department =
        department.ok_or_else(|| refusal(&Department::unknown(), &CommandKey::unknown(), Refused::Unauthenticated))?;
    let by = &department.department;
    let found = snapshot.find_connection(peer.listener(), peer.server_name());
    let ConnectionMatch::Command { subsystem, command, .. } = found else {
        return Err(refusal(by, &CommandKey::unknown(), Refused::UnknownCommand)); // a reload has removed it
    };
    let refuse = |refused| refusal(by, &command.key, refused);
    snapshot.find_grant(&department, command).ok_or_else(|| refuse(Refused::Forbidden))?;
    let address = peer.client_address(&HeaderMap::new());
    if command.sources.as_ref().is_some_and(|sources| !sources.admits(address)) {
        return Err(refuse(Refused::Forbidden));
    }
    worker.in_flight.check_capacity(by.number).map_err(|_| refuse(Refused::Overloaded))?;
    let window = worker.components.clock.window();
    let gate = config.gate(&worker.components.limiters, &department, command);
    let limits = command.address_limits.as_ref();
    let address = limits.map(|limits| worker.components.limiters.admit_address(limits, address)).transpose();
    let address = address.map_err(|limited| refuse(limited.refused))?;
    let permit = gate.and_then(|gate| gate.admit_for(command.units, window));
    let mut permit: LimitPermit = permit.map_err(|limited| refuse(limited.refused))?;
    if let Some(address) = address {
        permit.hold_address(address);
    }
    let ticket = worker.meter.open(by, &command.key, command.units, window).map_err(refuse)?;
    permit.keep_units();
    let record = record.take().map(|mut record| {
        note_admission(&mut record, (by, &command.key), (command.units, permit.rate_limit_info()));
        record
    });
    let origin = CommandOrigin { worker, peer, arrived_at: still.instant().into(), record };
    let in_flight = InFlightCommand::open(origin, ticket, permit, (by.number, subsystem));
    Ok(AdmittedConnection {
        destination: Destination::choose(&config, command),
        subsystem: Arc::clone(subsystem),
        command: Arc::clone(command),
        department,
        in_flight,
        config: Rc::clone(&config),
    })
}

/// Forwards a connection until both sides have ended. `received` are bytes that the caller has already sent.
pub(crate) async fn forward_connection(
    worker: &Rc<TrafficWorker>,
    admitted: AdmittedConnection,
    caller: impl AsyncRead + AsyncWrite + Unpin,
    received: Bytes,
) {
    if admitted.command.durability == Durability::Machine {
        admitted.in_flight.wait_until_durable().await;
    }
    let AdmittedConnection { config, department, subsystem, destination, mut in_flight, .. } = admitted;
    let Destination::Backend(chosen) = destination else {
        in_flight.settle(Finished::Unreachable);
        return close_after_handshake(caller).await;
    };
    match connect(worker, (&config, chosen), (&department, &in_flight)).await {
        Ok(ConnectedServer { stream, lease }) => {
            lease.note_success();
            in_flight.progress().is_sent.set(true);
            let idle_timeout = config.servers_of(chosen.index).policy.timeouts.idle;
            drop(config); // a long connection must not keep an old configuration
            let tunnel = UpgradeTunnel {
                server_stream: stream,
                buffered: Bytes::new(),
                command: in_flight,
                lease,
                idle_timeout,
                client_stream: None,
            };
            tunnel.run_on_connection(caller, received).await;
        }
        Err(error) => {
            tracing::debug!(subsystem = %subsystem.id, %error, "no connection to the subsystem");
            in_flight.note(|record| record.set_text(RecordText::Reason, error.to_string().as_bytes()));
            in_flight.settle(Finished::Unreachable); // nothing was sent
            close_after_handshake(caller).await;
        }
    }
}

async fn connect(
    worker: &TrafficWorker,
    (config, chosen): (&WorkerConfig, ChosenBackend),
    (department, in_flight): (&DepartmentPolicy, &InFlightCommand),
) -> Result<ConnectedServer, SendError> {
    let servers = config.servers_of(chosen.index);
    let key = servers.hash_key(&HeaderMap::new(), &department.department.id);
    servers.connect(key, (&worker.tick_timers, in_flight.progress())).await
}
