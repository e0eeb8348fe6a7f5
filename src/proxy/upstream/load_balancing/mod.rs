//! Load balancing: the choice of the server for the next request by least request, round robin or hash (sticky
//! routing).
//!
//! Guarantees:
//! - Healthy servers are preferred. If no server is healthy, all are candidates: an ejected server may have recovered,
//!   and refusing every request helps no caller (Envoy's panic mode).
//! - Each server gets a share of the requests in proportion to its weight, for every policy.
//! - A server with weight 0 gets no requests, even if no other server is left.
//! - A server with its maximum of requests in flight is not chosen.
//! - By hash, a server that is removed moves only its own keys, and a server that is added takes only its own keys.
//! - A key that is pinned to a server goes to that server while it is available, and else by its hash.
//! - A choice allocates no memory.
//!
//! Leaves to others: health (`endpoint::outlier_ejection`), slow start (`slow_start`), and limits (`server_pools`).

mod rendezvous;
mod smooth_wrr;

use std::cell::RefCell;
use std::cmp::Reverse;

use crate::policy::LoadBalancing;

use self::server_set::{ServerSet, TriedServers};
pub(crate) use super::endpoint::slow_start::FULL_WEIGHT;
pub(crate) use rendezvous::HashKey;
use smooth_wrr::SmoothWrr;

/// The most draws of a key that belongs to a given server, for each server of the backend. With equal weights one
/// search in nine million ends without a key.
const DRAWS_PER_SERVER: usize = 16;

/// The properties of a server that load balancing uses.
pub(crate) trait BalancedServer {
    /// Whether the server is preferred.
    fn is_healthy(&self) -> bool;
    /// Whether the server may carry one more request.
    fn has_room(&self) -> bool;
    /// The requests in flight at the server, from all workers.
    fn in_flight(&self) -> u64;
    /// The slow-start weight, of [`FULL_WEIGHT`]: smaller during slow start, never 0.
    fn slow_start_weight(&self) -> u64;
    /// The hash of the server's name.
    fn server_hash(&self) -> u64;
}

/// The result of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The server at this position.
    Server(usize),
    /// All candidates have their maximum of requests in flight.
    AllFull,
    /// All servers were tried.
    NoneLeft,
}

/// The load balancer of one subsystem.
pub(crate) struct LoadBalancer {
    policy: LoadBalancing,
    weights: ServerWeights,
    smooth_wrr: SmoothWrr,
    random: RefCell<fastrand::Rng>,
}

/// The weights of the servers, by position.
struct ServerWeights {
    by_position: Vec<u64>,
    /// The servers with a weight above 0.
    weighted: ServerSet,
    /// Their number.
    weighted_count: usize,
    /// Whether these weights are all equal.
    are_equal: bool,
}

impl ServerWeights {
    fn new(each: Vec<u64>) -> Self {
        let some = ServerSet::first(each.len()).filter(|position| each[position] > 0);
        let mut weights = some.positions().map(|position| each[position]);
        let first = weights.next();
        let are_equal = weights.all(|weight| Some(weight) == first);
        let weighted_count = some.positions().count();
        Self { weighted: some, weighted_count, are_equal, by_position: each }
    }

    /// The weight of a server at this moment: its configured weight times its slow-start weight.
    fn effective_weight(&self, position: usize, server: &impl BalancedServer) -> u64 {
        self.by_position[position] * server.slow_start_weight()
    }
}

impl LoadBalancer {
    /// A load balancer for servers with these weights.
    pub(crate) fn new(balance: LoadBalancing, weights: Vec<u64>) -> Self {
        let turns = SmoothWrr::new(weights.len());
        Self { policy: balance, weights: ServerWeights::new(weights), smooth_wrr: turns, random: RefCell::default() }
    }

    pub(crate) fn balance(&self) -> &LoadBalancing {
        &self.policy
    }

    /// Selects the next server for a request with this key, out of the servers not yet tried.
    pub(crate) fn select<S: BalancedServer>(
        &self,
        servers: &[S],
        key: Option<HashKey>,
        tried: TriedServers,
    ) -> Selection {
        if let [only] = servers {
            return match only.has_room() {
                _ if self.weights.weighted_count == 0 || !tried.is_empty() => Selection::NoneLeft,
                true => Selection::Server(0),
                false => Selection::AllFull,
            };
        }
        let is_least_request = match &self.policy {
            LoadBalancing::LeastRequest => true,
            LoadBalancing::Hash(_) => key.is_none(),
            LoadBalancing::RoundRobin => false,
        };
        if is_least_request
            && tried.is_empty()
            && let Some((one, other)) = self.two_uniform(servers)
        {
            return Selection::Server(less_loaded(servers, (one, other), |_| FULL_WEIGHT));
        }
        let open = self.weights.weighted.without_tried(tried);
        if open.is_empty() {
            return Selection::NoneLeft;
        }
        let share = |position: usize| self.weights.effective_weight(position, &servers[position]);
        let position = match (&self.policy, key) {
            (LoadBalancing::Hash(_), Some(key)) => self.rendezvous_owner(servers, open, key),
            (LoadBalancing::RoundRobin, _) => self.smooth_wrr.select_next(available_servers(servers, open), share),
            (LoadBalancing::LeastRequest | LoadBalancing::Hash(_), _) => self.pick_of_two(servers, open, share),
        };
        position.map_or(Selection::AllFull, Selection::Server)
    }

    /// The server that the key is pinned to, if it is available, or else the owner of the key by rendezvous hashing
    /// among the available servers.
    fn rendezvous_owner<S: BalancedServer>(&self, servers: &[S], open: ServerSet, key: HashKey) -> Option<usize> {
        let roomy = available_servers(servers, open);
        let pinned = key.pinned().filter(|position| roomy.contains(*position));
        pinned.or_else(|| self.best_score(servers, roomy, key))
    }

    fn best_score<S: BalancedServer>(&self, servers: &[S], among: ServerSet, key: HashKey) -> Option<usize> {
        match self.weights.are_equal {
            true => among.max_by_key(|position| key.score(servers[position].server_hash())),
            false => among.max_by_key(|position| self.weighted_score(servers, position, key)),
        }
    }

    fn weighted_score<S: BalancedServer>(&self, servers: &[S], position: usize, key: HashKey) -> (Reverse<u64>, u64) {
        key.weighted_score(servers[position].server_hash(), self.weights.by_position[position])
    }

    /// The server that a key belongs to while all servers are available.
    pub(crate) fn owner<S: BalancedServer>(&self, servers: &[S], key: HashKey) -> Option<usize> {
        key.pinned().or_else(|| self.best_score(servers, self.weights.weighted, key))
    }

    /// The first of the drawn keys that belongs to this server. `None` if there is none among
    /// [`DRAWS_PER_SERVER`] draws for each server: its weight is very small. Most draws end at the first servers.
    pub(crate) fn draw_key_of<S: BalancedServer, T>(
        &self,
        servers: &[S],
        position: usize,
        mut draw: impl FnMut() -> (HashKey, T),
    ) -> Option<T> {
        let draws = DRAWS_PER_SERVER * self.weights.weighted_count;
        let mut drawn = std::iter::repeat_with(&mut draw).take(draws);
        drawn.find(|(key, _)| self.is_owner(servers, position, *key)).map(|(_, drawn)| drawn)
    }

    fn is_owner<S: BalancedServer>(&self, servers: &[S], position: usize, key: HashKey) -> bool {
        let mut others = self.weights.weighted.positions().filter(|other| *other != position);
        if self.weights.are_equal {
            let own = key.score(servers[position].server_hash());
            return others.all(|other| key.score(servers[other].server_hash()) < own);
        }
        let own = self.weighted_score(servers, position, key);
        others.all(|other| self.weighted_score(servers, other, key) < own)
    }

    /// The less loaded of two random servers ("the power of two choices"). The result is nearly as even as the least
    /// loaded of all, and workers do not all pick the same server. The weight counts twice: for the random choice, and
    /// in the comparison of loads.
    fn pick_of_two<S: BalancedServer>(
        &self,
        servers: &[S],
        open: ServerSet,
        share: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let two = self.two_weighted(available_servers(servers, open), &share)?;
        Some(less_loaded(servers, two, share))
    }

    /// Two different random servers without computing the set of available servers. This is the common case: all
    /// weights are equal and both servers are available. The cost does not depend on the number of servers.
    fn two_uniform<S: BalancedServer>(&self, servers: &[S]) -> Option<(usize, usize)> {
        let count = self.weights.weighted_count;
        if !self.weights.are_equal || count < 2 {
            return None;
        }
        let mut random = self.random.borrow_mut();
        let (one, other) = (random.usize(..count), random.usize(..count - 1));
        let other = if other < one { other } else { other + 1 };
        let two = self.weights.weighted.nth(one).zip(self.weights.weighted.nth(other));
        let is_good = |position: usize| {
            let server = &servers[position];
            server.is_healthy() && server.has_room() && server.slow_start_weight() >= FULL_WEIGHT
        };
        two.filter(|(one, other)| is_good(*one) && is_good(*other))
    }

    /// Two different random positions, each with a probability in proportion to its share; the same one twice if there
    /// is only one.
    fn two_weighted(&self, set: ServerSet, share: &impl Fn(usize) -> u64) -> Option<(usize, usize)> {
        let one = self.one_weighted(&set, share)?;
        Some((one, self.one_weighted(&set.without(one), share).unwrap_or(one)))
    }

    fn one_weighted(&self, set: &ServerSet, share: &impl Fn(usize) -> u64) -> Option<usize> {
        let whole: u64 = set.positions().map(share).sum();
        let mut left = self.random.borrow_mut().u64(..whole.max(1));
        let mut passed = set.positions().skip_while(|position| {
            let rest = left.checked_sub(share(*position));
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        // A share can have dropped since the sum was computed.
        passed.next().or_else(|| set.nth(0))
    }
}

/// The less loaded of two servers. The second one is preferred only if it stays less loaded after taking this request:
/// ties go to the first, so that idle servers get their shares.
fn less_loaded<S: BalancedServer>(servers: &[S], (one, other): (usize, usize), share: impl Fn(usize) -> u64) -> usize {
    let (busy, less) = (servers[one].in_flight(), servers[other].in_flight() + 1);
    if one != other && busy * share(other) >= less * share(one) { other } else { one }
}

/// The servers with room among the healthy ones, or among all if none is healthy.
fn available_servers<S: BalancedServer>(servers: &[S], open: ServerSet) -> ServerSet {
    let well = open.filter(|position| servers[position].is_healthy()).or_if_empty(open);
    well.filter(|position| servers[position].has_room())
}

pub(crate) mod server_set;
#[cfg(test)]
mod tests;
