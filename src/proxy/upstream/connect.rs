//! Connections to the servers of a backend for the bytes of callers' TLS connections.
//!
//! Guarantees:
//! - A connection is offered to at most [`SERVERS_MAX`] servers, each within the connect timeout.
//! - A connection is counted as in flight at its server until it ends, and is never kept.
//!
//! Leaves to others: what is sent on it (`exchange`).

use std::cell::Cell;

use crate::proxy::io::tick_timer::TickTimers;
use crate::proxy::message::upload_progress::UploadProgress;

use super::attempt_state::AttemptState;
use super::backend_servers::{BackendServers, NoServer, SERVERS_MAX, SelectedServer};
use super::endpoint::stream::ServerStream;
use super::load_balancing::HashKey;
use super::load_balancing::server_set::TriedServers;
use super::pool::ServerLease;
use super::pool::response_deadline::ResponseDeadline;
use super::pool::send_error::SendError;

/// A connection to a server, with the lease that counts it.
pub(crate) struct ConnectedServer {
    pub(crate) stream: ServerStream,
    pub(crate) lease: ServerLease,
}

impl BackendServers {
    /// Connects to a server: to the next one if a connection fails, and after a wait in the queue if all are full.
    ///
    /// # Errors
    /// If no server takes the connection. Nothing was sent then.
    pub(crate) async fn connect(
        &self,
        key: Option<HashKey>,
        (timers, progress): (&TickTimers, &UploadProgress),
    ) -> Result<ConnectedServer, SendError> {
        let deadline = ResponseDeadline {
            timers,
            response_timeout: self.policy.timeouts.response,
            attempt_timeout: None,
            attempt_end: Cell::new(None),
            not_after: None,
            progress,
            on_interim: None,
        };
        let mut attempt = AttemptState::new(key, deadline);
        let mut reason = String::from("no server is configured");
        let mut selected = match self.wait_queue.is_empty() {
            true => self.select_server(key, TriedServers::default()),
            false => Err(NoServer::AllFull), // others wait already
        };
        for _ in 0..SERVERS_MAX {
            let chosen = match selected {
                Err(NoServer::AllFull) => self.wait_in_queue(&attempt).await?,
                chosen => chosen,
            };
            let Ok(SelectedServer { pool, permit, tried }) = chosen else { break };
            attempt.tried = tried;
            progress.note_connecting(&pool.server);
            match pool.open_stream(self.connect_timeout).await {
                Ok(stream) => {
                    progress.note_attempt(&pool.server);
                    return Ok(ConnectedServer { stream, lease: ServerLease::new(pool, permit) });
                }
                Err(because) => reason = because,
            }
            selected = self.select_server(attempt.hash_key, attempt.tried);
        }
        Err(SendError::Unreachable(reason))
    }
}
