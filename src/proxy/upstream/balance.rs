//! Which of a subsystem's servers gets the next request. Healthy ones first; if none is, any: an ejected server may have
//! recovered, and refusing everything helps nobody (Envoy calls this panic mode).

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use foldhash::fast::FixedState;

use crate::policy::Balance;

use super::pool::Pool;

/// The servers a request was offered to, by position; `config` allows at most
/// [`crate::policy::Subsystem::UPSTREAMS_MAX`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried(u64);

impl Tried {
    fn has(self, position: usize) -> bool {
        self.0 & (1 << position) != 0
    }

    fn add(&mut self, position: usize) {
        self.0 |= 1 << position;
    }
}

/// What the choice looks at.
pub(super) trait Server {
    /// Whether it may be preferred.
    fn is_healthy(&self) -> bool;
    /// Requests it has in flight, all workers together.
    fn in_flight(&self) -> u64;
}

/// Chooses.
pub(super) struct Balancer {
    balance: Balance,
    turn: Cell<usize>,
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Self {
        Self { balance, turn: Cell::new(0) }
    }

    /// The next server for a request of this department, out of those not yet tried.
    pub(super) fn pick<'a>(&self, pools: &'a [Rc<Pool>], department: u32, tried: &mut Tried) -> Option<&'a Rc<Pool>> {
        let position = match pools {
            [_] if !tried.has(0) => 0,
            _ => self.choose(pools.len(), |position| &*pools[position], department, *tried)?,
        };
        tried.add(position);
        pools.get(position)
    }

    fn choose<'a, S: Server + 'a>(
        &self,
        count: usize,
        server: impl Fn(usize) -> &'a S,
        department: u32,
        tried: Tried,
    ) -> Option<usize> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let in_turn = |offset: usize| (turn.wrapping_add(offset)) % count.max(1);
        let open = (0..count).map(in_turn).filter(|position| !tried.has(*position));
        let (well, all): (Vec<usize>, Vec<usize>) =
            (open.clone().filter(|position| server(*position).is_healthy()).collect(), open.collect());
        let candidates = if well.is_empty() { all } else { well };
        match self.balance {
            Balance::RoundRobin => candidates.first().copied(),
            Balance::LeastRequest => candidates.into_iter().min_by_key(|position| server(*position).in_flight()),
            Balance::ConsistentHash => candidates.into_iter().max_by_key(|position| weight(department, *position)),
        }
    }
}

/// Rendezvous hashing: a server that leaves moves only its own departments.
fn weight(department: u32, position: usize) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u32(department);
    hasher.write_usize(position);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        healthy: bool,
        in_flight: u64,
    }

    impl Server for Fake {
        fn is_healthy(&self) -> bool {
            self.healthy
        }
        fn in_flight(&self) -> u64 {
            self.in_flight
        }
    }

    fn picks(balance: Balance, servers: &[Fake], times: usize, department: u32) -> Vec<usize> {
        let balancer = Balancer::new(balance);
        (0..times)
            .filter_map(|_| balancer.choose(servers.len(), |position| &servers[position], department, Tried::default()))
            .collect()
    }

    fn servers(loads: &[(bool, u64)]) -> Vec<Fake> {
        loads.iter().map(|(healthy, in_flight)| Fake { healthy: *healthy, in_flight: *in_flight }).collect()
    }

    #[test]
    fn round_robin_takes_turns_among_the_healthy() {
        let servers = servers(&[(true, 0), (false, 0), (true, 0)]);
        assert_eq!(picks(Balance::RoundRobin, &servers, 4, 0), [0, 2, 2, 0]);
    }

    #[test]
    fn least_request_takes_the_idlest_healthy_one() {
        let servers = servers(&[(true, 5), (true, 2), (false, 0)]);
        assert_eq!(picks(Balance::LeastRequest, &servers, 3, 0), [1, 1, 1]);
    }

    #[test]
    fn a_department_stays_with_its_server() {
        let servers = servers(&[(true, 9), (true, 0), (true, 3)]);
        for department in 0..20 {
            let picked = picks(Balance::ConsistentHash, &servers, 5, department);
            assert!(picked.windows(2).all(|pair| pair[0] == pair[1]), "{picked:?}");
        }
    }

    #[test]
    fn when_none_is_healthy_any_is_tried_and_none_twice() {
        let servers = servers(&[(false, 0), (false, 0)]);
        let balancer = Balancer::new(Balance::LeastRequest);
        let mut tried = Tried::default();
        let mut seen = Vec::new();
        while let Some(position) = balancer.choose(2, |position| &servers[position], 0, tried) {
            tried.add(position);
            seen.push(position);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    }
}
