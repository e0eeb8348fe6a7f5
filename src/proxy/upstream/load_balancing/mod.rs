//! Which of a subsystem's servers gets the next request. Those that are well come first; if none is, any: an ejected server
//! may have recovered, and refusing everything helps nobody (Envoy calls this panic mode).
//!
//! Guarantees: each server gets its weight's part of the requests, whatever the policy; one without a weight gets none, even
//! if nobody else is left; one that carries as many requests as it may is not chosen; by hash, a server that leaves moves
//! only its own keys, and one that comes takes only its own; nothing is allocated.

mod rendezvous;
mod smooth_wrr;

use std::cell::RefCell;

use crate::policy::LoadBalancing;

use self::server_set::ServerSet;
pub(crate) use super::endpoint::slow_start::FULL_WEIGHT;
pub(crate) use rendezvous::HashKey;
use smooth_wrr::SmoothWrr;

/// What the choice looks at.
pub(crate) trait BalancedServer {
    /// Whether it may be preferred.
    fn is_healthy(&self) -> bool;
    /// Whether it may carry one more.
    fn has_room(&self) -> bool;
    /// Requests it has in flight, all workers together.
    fn in_flight(&self) -> u64;
    /// How much of its weight counts, of [`FULL_WEIGHT`]: less while it starts slowly, never nothing.
    fn slow_start_weight(&self) -> u64;
    /// A hash of its name.
    fn server_hash(&self) -> u64;
}

/// What a choice comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The server at this position.
    Server(usize),
    /// All that are well carry as many as they may.
    AllFull,
    /// All were tried.
    NoneLeft,
}

/// Chooses.
pub(crate) struct LoadBalancer {
    policy: LoadBalancing,
    weights: ServerWeights,
    smooth_wrr: SmoothWrr,
    random: RefCell<fastrand::Rng>,
}

/// The weights of the servers, by position.
struct ServerWeights {
    by_position: Vec<u64>,
    /// Those with a weight.
    weighted: ServerSet,
    /// Whether these all have the same.
    are_equal: bool,
}

impl ServerWeights {
    fn new(each: Vec<u64>) -> Self {
        let some = ServerSet::first(each.len()).filter(|position| each[position] > 0);
        let mut weights = some.positions().map(|position| each[position]);
        let first = weights.next();
        Self { weighted: some, are_equal: weights.all(|weight| Some(weight) == first), by_position: each }
    }

    /// A server's part of the choices at this moment, in relation to those of the others.
    fn effective_weight(&self, position: usize, server: &impl BalancedServer) -> u64 {
        self.by_position[position] * server.slow_start_weight()
    }
}

impl LoadBalancer {
    /// For servers of these weights.
    pub(crate) fn new(balance: LoadBalancing, weights: Vec<u64>) -> Self {
        let turns = SmoothWrr::new(weights.len());
        Self { policy: balance, weights: ServerWeights::new(weights), smooth_wrr: turns, random: RefCell::default() }
    }

    pub(crate) fn balance(&self) -> &LoadBalancing {
        &self.policy
    }

    /// The next server for a request with this key, out of those not yet tried.
    pub(crate) fn select<S: BalancedServer>(&self, servers: &[S], key: Option<HashKey>, tried: ServerSet) -> Selection {
        let open = self.weights.weighted.without(tried);
        if open.is_empty() {
            return Selection::NoneLeft;
        }
        if let [only] = servers {
            return if only.has_room() { Selection::Server(0) } else { Selection::AllFull };
        }
        let share = |position: usize| self.weights.effective_weight(position, &servers[position]);
        let position = match (&self.policy, key) {
            (LoadBalancing::Hash(_), Some(key)) => self.rendezvous_owner(servers, open, key),
            (LoadBalancing::RoundRobin, _) => self.smooth_wrr.select_next(available_servers(servers, open), share),
            (LoadBalancing::LeastRequest | LoadBalancing::Hash(_), _) => self.pick_of_two(servers, open, share),
        };
        position.map_or(Selection::AllFull, Selection::Server)
    }

    /// The server that keeps what has this key.
    fn rendezvous_owner<S: BalancedServer>(&self, servers: &[S], open: ServerSet, key: HashKey) -> Option<usize> {
        let roomy = available_servers(servers, open);
        match self.weights.are_equal {
            true => roomy.max_by_key(|position| key.score(servers[position].server_hash())),
            false => roomy.max_by_key(|position| {
                key.weighted_score(servers[position].server_hash(), self.weights.by_position[position])
            }),
        }
    }

    /// The less busy of two at random ("the power of two choices"): nearly as even as the least busy of all, and without all
    /// workers running to the same one. A weight counts twice: for being one of the two, and for how much is busy.
    fn pick_of_two<S: BalancedServer>(
        &self,
        servers: &[S],
        open: ServerSet,
        share: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let two =
            self.two_uniform(servers, open).or_else(|| self.two_weighted(available_servers(servers, open), &share));
        let (one, other) = two?;
        // The other is less busy if it is so even with this request. Where that holds of neither, who was drawn first has it,
        // so that servers at rest get their parts.
        let (busy, less) = (servers[one].in_flight(), servers[other].in_flight() + 1);
        Some(if one != other && busy * share(other) >= less * share(one) { other } else { one })
    }

    /// Two at random without a look at all: the everyday case, if all have the same weight and the two will do.
    fn two_uniform<S: BalancedServer>(&self, servers: &[S], open: ServerSet) -> Option<(usize, usize)> {
        if !self.weights.are_equal {
            return None;
        }
        let good = |position: &usize| {
            let server = &servers[*position];
            server.is_healthy() && server.has_room() && server.slow_start_weight() >= FULL_WEIGHT
        };
        let (one, other) = self.two_weighted(open, &|_| 1).filter(|(one, other)| one != other)?;
        (good(&one) && good(&other)).then_some((one, other))
    }

    /// Two different positions at random, each by its share, or twice the only one.
    fn two_weighted(&self, set: ServerSet, share: &impl Fn(usize) -> u64) -> Option<(usize, usize)> {
        let one = self.one_weighted(set, share)?;
        Some((one, self.one_weighted(set.without(ServerSet::single(one)), share).unwrap_or(one)))
    }

    fn one_weighted(&self, set: ServerSet, share: &impl Fn(usize) -> u64) -> Option<usize> {
        let whole: u64 = set.positions().map(share).sum();
        let mut left = self.random.borrow_mut().u64(..whole.max(1));
        let mut passed = set.positions().skip_while(|position| {
            let rest = left.checked_sub(share(*position));
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        passed.next().or_else(|| set.nth(0)) // a share can have become less in between
    }
}

/// Those with room among those that are well, or among all if none is.
fn available_servers<S: BalancedServer>(servers: &[S], open: ServerSet) -> ServerSet {
    let well = open.filter(|position| servers[position].is_healthy()).or_if_empty(open);
    well.filter(|position| servers[position].has_room())
}

pub(crate) mod server_set;
#[cfg(test)]
mod tests;
