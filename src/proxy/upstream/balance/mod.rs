//! Which of a subsystem's servers gets the next request. Those that are well come first; if none is, any: an ejected server
//! may have recovered, and refusing everything helps nobody (Envoy calls this panic mode).
//!
//! Guarantees: each server gets its weight's part of the requests, whatever the policy; one without a weight gets none, even
//! if nobody else is left; one that carries as many requests as it may is not chosen; by hash, a server that leaves moves
//! only its own keys, and one that comes takes only its own; nothing is allocated.

mod key;
mod turns;

use std::cell::RefCell;

use crate::policy::Balance;

use super::set::Set;
pub(in crate::proxy) use key::Key;
use turns::Turns;

/// What the choice looks at.
pub(super) trait Server {
    /// Whether it may be preferred.
    fn is_healthy(&self) -> bool;
    /// Whether it may carry one more.
    fn has_room(&self) -> bool;
    /// Requests it has in flight, all workers together.
    fn in_flight(&self) -> u64;
    /// How much of its weight counts, of [`WARM`]: less while it starts slowly, never nothing.
    fn warmth(&self) -> u64;
    /// A hash of its name.
    fn seed(&self) -> u64;
}

/// The whole weight counts.
pub(super) const WARM: u64 = 1000;

/// What a choice comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The server at this position.
    Server(usize),
    /// All that are well carry as many as they may.
    Full,
    /// All were tried.
    Nobody,
}

/// Chooses.
pub(super) struct Balancer {
    balance: Balance,
    weights: Weights,
    turns: Turns,
    random: RefCell<fastrand::Rng>,
}

/// The weights of the servers, by position.
struct Weights {
    each: Vec<u64>,
    /// Those with a weight.
    some: Set,
    /// Whether these all have the same.
    are_even: bool,
}

impl Weights {
    fn new(each: Vec<u64>) -> Self {
        let some = Set::first(each.len()).keep(|position| each[position] > 0);
        let mut weights = some.positions().map(|position| each[position]);
        let first = weights.next();
        Self { some, are_even: weights.all(|weight| Some(weight) == first), each }
    }

    /// A server's part of the choices at this moment, in relation to those of the others.
    fn share(&self, position: usize, server: &impl Server) -> u64 {
        self.each[position] * server.warmth()
    }
}

impl Balancer {
    /// For servers of these weights.
    pub(super) fn new(balance: Balance, weights: Vec<u64>) -> Self {
        let turns = Turns::new(weights.len());
        Self { balance, weights: Weights::new(weights), turns, random: RefCell::default() }
    }

    pub(super) fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The next server for a request with this key, out of those not yet tried.
    pub(super) fn choose<S: Server>(&self, servers: &[S], key: Option<Key>, tried: Set) -> Chosen {
        let open = self.weights.some.without(tried);
        if open.is_empty() {
            return Chosen::Nobody;
        }
        if let [only] = servers {
            return if only.has_room() { Chosen::Server(0) } else { Chosen::Full };
        }
        let share = |position: usize| self.weights.share(position, &servers[position]);
        let position = match (&self.balance, key) {
            (Balance::Hash(_), Some(key)) => self.keeper(servers, open, key),
            (Balance::RoundRobin, _) => self.turns.next(roomy(servers, open), share),
            (Balance::LeastRequest | Balance::Hash(_), _) => self.less_busy(servers, open, share),
        };
        position.map_or(Chosen::Full, Chosen::Server)
    }

    /// The server that keeps what has this key.
    fn keeper<S: Server>(&self, servers: &[S], open: Set, key: Key) -> Option<usize> {
        let roomy = roomy(servers, open);
        match self.weights.are_even {
            true => roomy.max_by_key(|position| key.draw(servers[position].seed())),
            false => roomy.max_by_key(|position| key.claim(servers[position].seed(), self.weights.each[position])),
        }
    }

    /// The less busy of two at random ("the power of two choices"): nearly as even as the least busy of all, and without all
    /// workers running to the same one. A weight counts twice: for being one of the two, and for how much is busy.
    fn less_busy<S: Server>(&self, servers: &[S], open: Set, share: impl Fn(usize) -> u64) -> Option<usize> {
        let two = self.two_alike(servers, open).or_else(|| self.two_of(roomy(servers, open), &share));
        let (one, other) = two?;
        // The other is less busy if it is so even with this request. Where that holds of neither, who was drawn first has it,
        // so that servers at rest get their parts.
        let (busy, less) = (servers[one].in_flight(), servers[other].in_flight() + 1);
        Some(if one != other && busy * share(other) >= less * share(one) { other } else { one })
    }

    /// Two at random without a look at all: the everyday case, if all have the same weight and the two will do.
    fn two_alike<S: Server>(&self, servers: &[S], open: Set) -> Option<(usize, usize)> {
        if !self.weights.are_even {
            return None;
        }
        let good = |position: &usize| {
            let server = &servers[*position];
            server.is_healthy() && server.has_room() && server.warmth() >= WARM
        };
        let (one, other) = self.two_of(open, &|_| 1).filter(|(one, other)| one != other)?;
        (good(&one) && good(&other)).then_some((one, other))
    }

    /// Two different positions at random, each by its share, or twice the only one.
    fn two_of(&self, set: Set, share: &impl Fn(usize) -> u64) -> Option<(usize, usize)> {
        let one = self.one_of(set, share)?;
        Some((one, self.one_of(set.without(Set::of(one)), share).unwrap_or(one)))
    }

    fn one_of(&self, set: Set, share: &impl Fn(usize) -> u64) -> Option<usize> {
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
fn roomy<S: Server>(servers: &[S], open: Set) -> Set {
    let well = open.keep(|position| servers[position].is_healthy()).or(open);
    well.keep(|position| servers[position].has_room())
}

#[cfg(test)]
mod tests;
