//! Which of a subsystem's servers gets the next request. Those that are well come first; if none is, any: an ejected server
//! may have recovered, and refusing everything helps nobody (Envoy calls this panic mode).
//!
//! Guarantees: a server that carries as many requests as it may is not chosen; by hash, a server that leaves moves only its
//! own keys, and one that comes takes only its own; nothing is allocated.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::policy::Balance;

use super::set::Set;

/// What the choice looks at.
pub(super) trait Server {
    /// Whether it may be preferred.
    fn is_healthy(&self) -> bool;
    /// Whether it may carry one more.
    fn has_room(&self) -> bool;
    /// Requests it has in flight, all workers together.
    fn in_flight(&self) -> u64;
    /// How many of a thousand choices stand: fewer while it starts slowly.
    fn warmth(&self) -> u64;
    /// A hash of its name.
    fn seed(&self) -> u64;
}

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

/// What keeps a request with its server: a hash of a header's value, or of its department.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Key(u64);

impl Key {
    /// The key of these bytes, the same in every gateway.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hasher = FixedState::default().build_hasher();
        hasher.write(bytes);
        Self(hasher.finish())
    }

    /// Rendezvous hashing: the server of the largest weight has the key.
    fn weight(self, seed: u64) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        hasher.write_u64(self.0);
        hasher.write_u64(seed);
        hasher.finish()
    }

    /// The key as a server's seed.
    pub(super) fn seed(self) -> u64 {
        self.0
    }
}

/// Chooses.
pub(super) struct Balancer {
    balance: Balance,
    turn: Cell<usize>,
    random: RefCell<fastrand::Rng>,
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Self {
        Self { balance, turn: Cell::new(0), random: RefCell::default() }
    }

    pub(super) fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The next server for a request with this key, out of those not yet tried.
    pub(super) fn choose<S: Server>(&self, servers: &[S], key: Option<Key>, tried: Set) -> Chosen {
        let open = Set::first(servers.len()).without(tried);
        if open.is_empty() {
            return Chosen::Nobody;
        }
        if let [only] = servers {
            return if only.has_room() { Chosen::Server(0) } else { Chosen::Full };
        }
        Chosen::Server(match (&self.balance, key) {
            (Balance::Hash(_), Some(key)) => {
                let roomy = roomy(servers, open);
                match roomy.max_by_key(|position| key.weight(servers[position].seed())) {
                    Some(position) => position,
                    None => return Chosen::Full,
                }
            }
            (Balance::RoundRobin, _) => match self.warm(servers, roomy(servers, open)).next_after(self.turn.get()) {
                Some(position) => {
                    self.turn.set(position + 1);
                    position
                }
                None => return Chosen::Full,
            },
            (Balance::LeastRequest | Balance::Hash(_), _) => match self.less_busy(servers, open) {
                Some(position) => position,
                None => return Chosen::Full,
            },
        })
    }

    /// The less busy of two at random ("the power of two choices"): nearly as even as the least busy of all, without a look
    /// at all, and without all workers running to the same one. Looks at all only if one of the two will not do.
    fn less_busy<S: Server>(&self, servers: &[S], open: Set) -> Option<usize> {
        let good = |position: usize| {
            let server = &servers[position];
            server.is_healthy() && server.has_room() && self.stands(server)
        };
        let two = match self.two_of(open) {
            Some((one, other)) if one != other && good(one) && good(other) => Some((one, other)),
            _ => self.two_of(self.warm(servers, roomy(servers, open))),
        };
        two.map(|(one, other)| if servers[other].in_flight() < servers[one].in_flight() { other } else { one })
    }

    /// Two different positions at random, or twice the only one.
    fn two_of(&self, set: Set) -> Option<(usize, usize)> {
        let mut random = self.random.borrow_mut();
        let one = set.nth(random.usize(..set.len().max(1)))?;
        let rest = set.without(Set::of(one));
        let other = set.len().checked_sub(1).filter(|left| *left > 0).and_then(|left| rest.nth(random.usize(..left)));
        Some((one, other.unwrap_or(one)))
    }

    /// Those whose turn stands; all, if none does.
    fn warm<S: Server>(&self, servers: &[S], set: Set) -> Set {
        set.keep(|position| self.stands(&servers[position])).or(set)
    }

    fn stands(&self, server: &impl Server) -> bool {
        let warmth = server.warmth();
        warmth >= WARM || self.random.borrow_mut().u64(..WARM) < warmth
    }
}

/// All choices stand.
pub(super) const WARM: u64 = 1000;

/// Those with room among those that are well, or among all if none is.
fn roomy<S: Server>(servers: &[S], open: Set) -> Set {
    let well = open.keep(|position| servers[position].is_healthy()).or(open);
    well.keep(|position| servers[position].has_room())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::HashBy;

    struct Fake {
        healthy: bool,
        room: bool,
        in_flight: u64,
        warmth: u64,
        name: &'static str,
    }

    impl Server for Fake {
        fn is_healthy(&self) -> bool {
            self.healthy
        }
        fn has_room(&self) -> bool {
            self.room
        }
        fn in_flight(&self) -> u64 {
            self.in_flight
        }
        fn warmth(&self) -> u64 {
            self.warmth
        }
        fn seed(&self) -> u64 {
            Key::of(self.name.as_bytes()).seed()
        }
    }

    const NAMES: [&str; 5] = ["a:1", "b:1", "c:1", "d:1", "e:1"];

    fn servers(loads: &[(bool, u64)]) -> Vec<Fake> {
        let fake = |(name, (healthy, in_flight)): (&'static str, &(bool, u64))| Fake {
            healthy: *healthy,
            room: true,
            in_flight: *in_flight,
            warmth: WARM,
            name,
        };
        NAMES.into_iter().zip(loads).map(fake).collect()
    }

    fn picks(balance: Balance, servers: &[Fake], times: usize) -> Vec<usize> {
        let balancer = Balancer::new(balance);
        let one = |_| match balancer.choose(servers, None, Set::default()) {
            Chosen::Server(position) => position,
            other => panic!("{other:?}"),
        };
        (0..times).map(one).collect()
    }

    fn by_hash(servers: &[Fake], key: usize) -> &'static str {
        let balancer = Balancer::new(Balance::Hash(HashBy::Department));
        match balancer.choose(servers, Some(Key::of(&key.to_be_bytes())), Set::default()) {
            Chosen::Server(position) => servers[position].name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn round_robin_takes_turns_among_the_healthy() {
        let servers = servers(&[(true, 0), (false, 0), (true, 0)]);
        assert_eq!(picks(Balance::RoundRobin, &servers, 4), [0, 2, 0, 2]);
    }

    #[test]
    fn least_request_never_takes_the_busiest_nor_an_ill_one() {
        let servers = servers(&[(true, 5), (true, 2), (false, 0), (true, 3)]);
        let picked = picks(Balance::LeastRequest, &servers, 200);
        assert!(picked.iter().all(|position| [1, 3].contains(position)), "{picked:?}");
        assert!(picked.contains(&1) && picked.contains(&3));
        let two = &servers[..3];
        assert!(picks(Balance::LeastRequest, two, 50).iter().all(|position| *position == 1), "of two the less busy");
    }

    #[test]
    fn a_server_that_leaves_moves_only_its_own_keys() {
        let all = servers(&[(true, 9), (true, 0), (true, 3), (true, 0), (true, 1)]);
        let ill = servers(&[(true, 9), (true, 0), (false, 3), (true, 0), (true, 1)]);
        let gone: Vec<_> = servers(&[(true, 0); 5]).into_iter().filter(|server| server.name != "c:1").collect();
        let mut moved = 0;
        for key in 0..500 {
            let before = by_hash(&all, key);
            assert_eq!(before, by_hash(&all, key));
            assert_eq!(
                by_hash(&ill, key),
                by_hash(&gone, key),
                "whether it is ill or gone, wherever it stood in the list"
            );
            if before == "c:1" {
                moved += 1;
            } else {
                assert_eq!(by_hash(&gone, key), before);
            }
        }
        assert!((50..150).contains(&moved), "{moved} of 500 keys were those of one of five servers");
    }

    #[test]
    fn when_none_is_healthy_any_is_tried_and_none_twice() {
        let servers = servers(&[(false, 0), (false, 0)]);
        let balancer = Balancer::new(Balance::LeastRequest);
        let mut tried = Set::default();
        let mut seen = Vec::new();
        while let Chosen::Server(position) = balancer.choose(&servers, None, tried) {
            tried.add(position);
            seen.push(position);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
        assert_eq!(balancer.choose(&servers, None, tried), Chosen::Nobody);
    }

    #[test]
    fn a_full_server_is_passed_over_and_an_ill_one_does_not_stand_in_for_it() {
        for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::Hash(HashBy::Department)] {
            let mut servers = servers(&[(true, 0), (true, 9), (false, 0)]);
            servers[0].room = false;
            assert_eq!(picks(balance.clone(), &servers, 5), [1; 5]);
            servers[1].room = false;
            let balancer = Balancer::new(balance);
            assert_eq!(balancer.choose(&servers, Some(Key::of(b"x")), Set::default()), Chosen::Full);
            assert_eq!(balancer.choose(&servers[..1], None, Set::default()), Chosen::Full);
        }
    }

    #[test]
    fn a_server_that_starts_slowly_gets_its_share() {
        for balance in [Balance::LeastRequest, Balance::RoundRobin] {
            let mut servers = servers(&[(true, 0), (true, 0)]);
            servers[1].warmth = WARM / 10;
            let picked = picks(balance.clone(), &servers, 2_000);
            let count = picked.iter().filter(|position| **position == 1).count();
            assert!((20..400).contains(&count), "{count} of 2000 by {balance:?}");
            servers[0].healthy = false;
            assert_eq!(picks(balance, &servers, 3), [1; 3], "it is the only one that is well");
        }
    }
}
