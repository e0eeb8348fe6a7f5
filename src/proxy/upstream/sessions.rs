//! Sessions: the server that a command belongs to by its cookie, department or header, and the cookie that its response
//! sets.
//!
//! Guarantees:
//! - A request without a session begins one, if the backend keeps sessions by a cookie.
//! - A persistent session stays at its server while the backend has it, also when servers are added.
//! - A session changes its server for good only if that server no longer exists, or if it has failed and the cookie
//!   changes on failure. In all other cases it returns to its server.
//! - A cookie is set beside a response of a server, which it names. If the session's server has failed and no other one
//!   was asked, the cookie that changes on failure is set beside the response of the gateway, and names another server.
//!
//! Leaves to others: the values of cookies (`policy`), the choice of the server (`load_balancing`).

use http::{HeaderMap, HeaderValue};

use crate::model::Name;
use crate::policy::{HashSource, LoadBalancing, SessionCookie, SessionSecret};

use super::backend_servers::BackendServers;
use super::load_balancing::server_set::TriedServers;
use super::load_balancing::{BalancedServer as _, HashKey, Selection};
use super::pool::LeasedResponse;
use super::pool::send_error::SendError;

/// What a request says about its server.
#[derive(Default)]
pub(crate) struct SessionAffinity {
    /// The key for sticky routing.
    pub(crate) key: Option<HashKey>,
    /// The random number of the session that the request begins.
    begun: Option<u128>,
    /// The entries of other backends in a persistent cookie.
    other_entries: String,
}

impl BackendServers {
    /// The server that a request belongs to. A request without a session begins one.
    pub(crate) fn session_affinity(&self, headers: &HeaderMap, department: &Name) -> SessionAffinity {
        let (key, other_entries) = match self.session_cookie() {
            Some((cookie, Some(secret))) => self.persistent_session(cookie, secret, headers),
            _ => (self.hash_key(headers, department), String::new()),
        };
        if key.is_some() || self.session_cookie().is_none() {
            return SessionAffinity { key, begun: None, other_entries };
        }
        let id = fastrand::u128(..);
        let key = HashKey::from_bytes(SessionCookie::session_text(id).as_bytes());
        SessionAffinity { key: Some(key), begun: Some(id), other_entries }
    }

    /// The key for sticky routing, if the backend uses hashing and the request has a key.
    pub(crate) fn hash_key(&self, headers: &HeaderMap, department: &Name) -> Option<HashKey> {
        match self.balancer.balance() {
            LoadBalancing::LeastRequest | LoadBalancing::RoundRobin => None,
            LoadBalancing::Hash(HashSource::Department) => Some(HashKey::from_bytes(department.as_str().as_bytes())),
            LoadBalancing::Hash(HashSource::Header(name)) => {
                headers.get(name).map(|value| HashKey::from_bytes(value.as_bytes()))
            }
            LoadBalancing::Hash(HashSource::Cookie(cookie)) => match &cookie.persistence {
                Some(secret) => self.persistent_session(cookie, secret, headers).0,
                None => cookie.session_of(headers).map(HashKey::from_bytes),
            },
        }
    }

    /// The field that sets the cookie beside the response to a request, on a connection with or without TLS.
    pub(crate) fn session_field(
        &self,
        affinity: &SessionAffinity,
        sent: &Result<LeasedResponse, SendError>,
        is_tls: bool,
    ) -> Option<HeaderValue> {
        let (cookie, secret) = self.session_cookie()?;
        let served = match sent {
            Ok(sent) => self.position_of(sent.lease.pool())?,
            Err(error) if affinity.begun.is_none() && error.is_server_failure() => self.other_server(affinity.key?)?,
            Err(_) => return None,
        };
        let is_moved = cookie.changes_on_failure && self.has_moved(affinity.key?, served);
        if affinity.begun.is_none() && !is_moved {
            return None;
        }
        let value = match (secret, affinity.begun) {
            (Some(secret), _) => self.new_entry(secret, served, &affinity.other_entries)?,
            (None, Some(id)) if !is_moved => SessionCookie::session_text(id),
            (None, _) => self.new_session_of(served)?,
        };
        cookie.field(&value, is_tls)
    }

    fn session_cookie(&self) -> Option<(&SessionCookie, Option<&SessionSecret>)> {
        match self.balancer.balance() {
            LoadBalancing::Hash(HashSource::Cookie(cookie)) => Some((cookie, cookie.persistence.as_ref())),
            _ => None,
        }
    }

    /// The key of a persistent session, pinned to its server, and the entries that name no server of this backend.
    fn persistent_session(
        &self,
        cookie: &SessionCookie,
        secret: &SessionSecret,
        headers: &HeaderMap,
    ) -> (Option<HashKey>, String) {
        let (mut key, mut others) = (None, String::new());
        for entry in cookie.entries_of(headers) {
            match secret.server_in(entry).and_then(|number| self.with_session_number(number)) {
                Some(position) => key = key.or_else(|| Some(HashKey::from_bytes(entry).pinned_to(position))),
                None => others.extend(entry.iter().copied().map(char::from)),
            }
        }
        (key, others)
    }

    fn with_session_number(&self, number: u64) -> Option<usize> {
        self.servers.iter().position(|server| server.session_number == Some(number))
    }

    /// A random server that is available, and not the one that the key belongs to.
    fn other_server(&self, key: HashKey) -> Option<usize> {
        let mut tried = TriedServers::default();
        tried.add(self.balancer.owner(&self.servers, key)?);
        let random = HashKey::from_bytes(&fastrand::u128(..).to_be_bytes());
        match self.balancer.select(&self.servers, Some(random), tried) {
            Selection::Server(position) => Some(position),
            Selection::AllFull | Selection::NoneLeft => None,
        }
    }

    /// Whether a response of another server than the session's shows that the session's server has failed. A server
    /// that is healthy and has no room has not.
    fn has_moved(&self, key: HashKey, served: usize) -> bool {
        let owner = self.balancer.owner(&self.servers, key).filter(|owner| *owner != served);
        owner.is_some_and(|owner| !self.servers[owner].is_healthy() || self.servers[owner].has_room())
    }

    /// The value of a persistent cookie with a new session at this server, before the entries of other backends.
    fn new_entry(&self, secret: &SessionSecret, position: usize, others: &str) -> Option<String> {
        let mut value = secret.entry(fastrand::u128(..), self.servers[position].session_number?);
        let kept = value.len() * (SessionCookie::ENTRIES_MAX - 1);
        value.push_str(&others[..others.len().min(kept)]);
        Some(value)
    }

    /// A new session that belongs to this server.
    fn new_session_of(&self, position: usize) -> Option<String> {
        self.balancer.draw_key_of(&self.servers, position, || {
            let session = SessionCookie::session_text(fastrand::u128(..));
            (HashKey::from_bytes(session.as_bytes()), session)
        })
    }
}
