//! Tests of all load-balancing policies, with fake servers: round robin, least requests, sticky routing (rendezvous
//! hashing), weights, slow start, unhealthy and full servers.

use crate::policy::HashSource;

use super::*;

struct FakeServer {
    healthy: bool,
    room: bool,
    in_flight: u64,
    warmth: u64,
    name: &'static str,
}

impl BalancedServer for FakeServer {
    fn is_healthy(&self) -> bool {
        self.healthy
    }
    fn has_room(&self) -> bool {
        self.room
    }
    fn in_flight(&self) -> u64 {
        self.in_flight
    }
    fn slow_start_weight(&self) -> u64 {
        self.warmth
    }
    fn server_hash(&self) -> u64 {
        HashKey::from_bytes(self.name.as_bytes()).server_hash()
    }
}

const NAMES: [&str; 5] = ["a:1", "b:1", "c:1", "d:1", "e:1"];

fn servers(loads: &[(bool, u64)]) -> Vec<FakeServer> {
    let fake = |(name, (healthy, in_flight)): (&'static str, &(bool, u64))| FakeServer {
        healthy: *healthy,
        room: true,
        in_flight: *in_flight,
        warmth: FULL_WEIGHT,
        name,
    };
    NAMES.into_iter().zip(loads).map(fake).collect()
}

/// A balancer for servers with these weights and a fixed random seed.
fn balancer(balance: LoadBalancing, weights: &[u64]) -> LoadBalancer {
    let balancer = LoadBalancer::new(balance, weights.to_vec());
    balancer.random.replace(fastrand::Rng::with_seed(7));
    balancer
}

fn picks(balance: LoadBalancing, servers: &[FakeServer], times: usize) -> Vec<usize> {
    weighted_picks(balance, servers, &vec![1; servers.len()], times)
}

fn weighted_picks(balance: LoadBalancing, servers: &[FakeServer], weights: &[u64], times: usize) -> Vec<usize> {
    let balancer = balancer(balance, weights);
    let one = |_| match balancer.select(servers, None, TriedServers::default()) {
        Selection::Server(position) => position,
        other => panic!("{other:?}"),
    };
    (0..times).map(one).collect()
}

fn first_tried() -> TriedServers {
    let mut tried = TriedServers::default();
    tried.add(0);
    tried
}

fn by_hash(servers: &[FakeServer], key: usize) -> &'static str {
    by_weighted_hash(servers, &vec![1; servers.len()], &key.to_be_bytes())
}

fn by_weighted_hash(servers: &[FakeServer], weights: &[u64], key: &[u8]) -> &'static str {
    let balancer = balancer(LoadBalancing::Hash(HashSource::Department), weights);
    match balancer.select(servers, Some(HashKey::from_bytes(key)), TriedServers::default()) {
        Selection::Server(position) => servers[position].name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn round_robin_alternates_among_healthy_servers() {
    let servers = servers(&[(true, 0), (false, 0), (true, 0)]);
    assert_eq!(picks(LoadBalancing::RoundRobin, &servers, 4), [0, 2, 0, 2]);
}

#[test]
fn least_request_never_selects_the_busiest_nor_an_unhealthy_server() {
    let servers = servers(&[(true, 5), (true, 2), (false, 0), (true, 3)]);
    let picked = picks(LoadBalancing::LeastRequest, &servers, 200);
    assert!(picked.iter().all(|position| [1, 3].contains(position)), "{picked:?}");
    assert!(picked.contains(&1) && picked.contains(&3));
    let two = &servers[..3];
    assert!(picks(LoadBalancing::LeastRequest, two, 50).iter().all(|position| *position == 1), "the less busy of two");
}

#[test]
fn removed_server_moves_only_its_own_keys() {
    let all = servers(&[(true, 9), (true, 0), (true, 3), (true, 0), (true, 1)]);
    let unhealthy = servers(&[(true, 9), (true, 0), (false, 3), (true, 0), (true, 1)]);
    let gone: Vec<_> = servers(&[(true, 0); 5]).into_iter().filter(|server| server.name != "c:1").collect();
    let mut moved = 0;
    for key in 0..500 {
        let before = by_hash(&all, key);
        assert_eq!(before, by_hash(&all, key));
        assert_eq!(
            by_hash(&unhealthy, key),
            by_hash(&gone, key),
            "an unhealthy and a removed server have the same effect at every position"
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
fn pinned_key_stays_at_its_server_while_that_is_available() {
    let balancer = balancer(LoadBalancing::Hash(HashSource::Department), &[1; 5]);
    let all = servers(&[(true, 0); 5]);
    let unhealthy = servers(&[(true, 0), (false, 0), (true, 0), (true, 0), (true, 0)]);
    let mut full = servers(&[(true, 0); 5]);
    full[1].room = false;
    let select = |servers: &[FakeServer], key, tried| match balancer.select(servers, Some(key), tried) {
        Selection::Server(position) => position,
        other => panic!("{other:?}"),
    };
    let mut tried = TriedServers::default();
    tried.add(1);
    for key in 0..100_usize {
        let key = HashKey::from_bytes(&key.to_be_bytes());
        let pinned = key.pinned_to(1);
        assert_eq!(select(&all, pinned, TriedServers::default()), 1);
        assert_eq!(balancer.owner(&unhealthy, pinned), Some(1));
        assert_eq!(balancer.owner(&unhealthy, key), Some(select(&all, key, TriedServers::default())));
        // Elsewhere it goes where it would go without a pin.
        let elsewhere = select(&unhealthy, key, TriedServers::default());
        assert_eq!(select(&unhealthy, pinned, TriedServers::default()), elsewhere);
        assert_eq!(select(&full, pinned, TriedServers::default()), elsewhere);
        assert_eq!(select(&all, pinned, tried), elsewhere);
    }
    // A position that the backend does not have is no server.
    assert!(select(&all, HashKey::from_bytes(b"x").pinned_to(5), TriedServers::default()) < 5);
}

#[test]
fn drawn_key_belongs_to_the_server() {
    let unhealthy = servers(&[(true, 0), (false, 0), (true, 0), (true, 0), (true, 0)]);
    for weights in [[1; 5], [5, 1, 3, 1, 1]] {
        let balancer = balancer(LoadBalancing::Hash(HashSource::Department), &weights);
        for position in 0..5 {
            let mut number = 0_u64;
            let drawn = balancer.draw_key_of(&unhealthy, position, || {
                number += 1;
                let key = HashKey::from_bytes(&number.to_be_bytes());
                (key, key)
            });
            let owner = drawn.and_then(|key| balancer.owner(&unhealthy, key));
            assert_eq!(owner, Some(position), "{weights:?}");
        }
    }
    // The number of draws is bounded.
    let balancer = balancer(LoadBalancing::Hash(HashSource::Department), &[1; 5]);
    let (key, mut draws) = (HashKey::from_bytes(b"traffic-police"), 0);
    let drawn = balancer.draw_key_of(&unhealthy, 0, || {
        draws += 1;
        (key, ())
    });
    assert_eq!((drawn, draws), (None, 80), "the key belongs to another server");
}

#[test]
fn panic_mode_tries_each_server_once() {
    let servers = servers(&[(false, 0), (false, 0)]);
    let balancer = balancer(LoadBalancing::LeastRequest, &[1, 1]);
    let mut tried = TriedServers::default();
    let mut seen = Vec::new();
    while let Selection::Server(position) = balancer.select(&servers, None, tried) {
        tried.add(position);
        seen.push(position);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);
    assert_eq!(balancer.select(&servers, None, tried), Selection::NoneLeft);
}

#[test]
fn full_server_is_skipped_and_unhealthy_one_does_not_replace_it() {
    for balance in [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin, LoadBalancing::Hash(HashSource::Department)]
    {
        let mut servers = servers(&[(true, 0), (true, 9), (false, 0)]);
        servers[0].room = false;
        assert_eq!(picks(balance.clone(), &servers, 5), [1; 5]);
        servers[1].room = false;
        let key = Some(HashKey::from_bytes(b"x"));
        assert_eq!(
            balancer(balance.clone(), &[1; 3]).select(&servers, key, TriedServers::default()),
            Selection::AllFull
        );
        assert_eq!(balancer(balance, &[1]).select(&servers[..1], None, TriedServers::default()), Selection::AllFull);
    }
}

/// The number of choices that fell on the second server.
fn of_the_second(picked: &[usize]) -> usize {
    picked.iter().filter(|position| **position == 1).count()
}

#[test]
fn slow_starting_server_gets_its_reduced_share() {
    for (balance, expected) in [(LoadBalancing::LeastRequest, 140..=225), (LoadBalancing::RoundRobin, 181..=182)] {
        let mut servers = servers(&[(true, 0), (true, 0)]);
        servers[1].warmth = FULL_WEIGHT / 10;
        let count = of_the_second(&picks(balance.clone(), &servers, 2_000));
        assert!(expected.contains(&count), "{count} of 2000 with {balance:?}, one in eleven was expected");
        servers[0].healthy = false;
        assert_eq!(picks(balance.clone(), &servers, 3), [1; 3], "it is the only healthy server");
        // Weight and slow start multiply: 10 times a tenth is 1.
        servers[0].healthy = true;
        let count = of_the_second(&weighted_picks(balance.clone(), &servers, &[1, 10], 2_000));
        assert!((900..=1100).contains(&count), "{count} of 2000 with {balance:?}, half was expected");
    }
}

#[test]
fn round_robin_splits_nine_to_one_exactly() {
    let servers = servers(&[(true, 0), (true, 0)]);
    let picked = weighted_picks(LoadBalancing::RoundRobin, &servers, &[9, 1], 100);
    assert_eq!(of_the_second(&picked), 10);
    assert!(picked.chunks(10).all(|ten| of_the_second(ten) == 1), "spread evenly: {picked:?}");
}

#[test]
fn least_request_splits_nine_to_one_idle_and_under_load() {
    let mut servers = servers(&[(true, 0), (true, 0)]);
    let at_rest = of_the_second(&weighted_picks(LoadBalancing::LeastRequest, &servers, &[9, 1], 10_000));
    assert!((940..=1060).contains(&at_rest), "{at_rest} of 10000");
    for in_flight in [100, 1_000] {
        let balancer = balancer(LoadBalancing::LeastRequest, &[9, 1]);
        let mut open = std::collections::VecDeque::new();
        let mut second = 0;
        for _ in 0..10_000 {
            let Selection::Server(position) = balancer.select(&servers, None, TriedServers::default()) else {
                panic!("nobody")
            };
            servers[position].in_flight += 1;
            second += position;
            open.push_back(position);
            if open.len() == in_flight {
                let oldest = open.pop_front().expect("one");
                servers[oldest].in_flight -= 1;
            }
        }
        assert!((980..=1020).contains(&second), "{second} of 10000 with {in_flight} in flight");
        open.drain(..).for_each(|position| servers[position].in_flight -= 1);
    }
}

#[test]
fn equal_weights_equal_no_weights() {
    let servers = servers(&[(true, 5), (true, 4), (true, 5)]);
    for weights in [[1; 3], [10; 3]] {
        let picked = weighted_picks(LoadBalancing::LeastRequest, &servers, &weights, 300);
        let less_busy = of_the_second(&picked);
        assert!(
            (180..=220).contains(&less_busy),
            "{less_busy} of 300: expected whenever it is one of the two candidates"
        );
        assert_eq!(weighted_picks(LoadBalancing::RoundRobin, &servers, &weights, 6), [0, 1, 2, 0, 1, 2]);
    }
}

#[test]
fn hash_splits_nine_to_one_and_a_changed_weight_moves_only_its_own_keys() {
    let servers = servers(&[(true, 0), (true, 0), (true, 0)]);
    let (mut second, mut moved) = (0, 0);
    for key in 0..10_000_usize {
        let by = |weights: &[u64]| by_weighted_hash(&servers, weights, &key.to_be_bytes());
        let (before, after) = (by(&[9, 1, 0]), by(&[9, 2, 0]));
        second += usize::from(before == "b:1");
        if before != after {
            assert_eq!((before, after), ("a:1", "b:1"), "it gains keys, and no other server does");
            moved += 1;
        }
    }
    assert!((940..=1060).contains(&second), "{second} of 10000");
    assert!((760..=876).contains(&moved), "{moved} of 10000: the share changed from a tenth to two elevenths");
    for key in 0..1_000_usize {
        let (even, odd) = ([7, 7, 7], [7, 7, 0]);
        assert_eq!(by_weighted_hash(&servers, &even, &key.to_be_bytes()), by_hash(&servers, key));
        assert_eq!(by_weighted_hash(&servers, &odd, &key.to_be_bytes()), by_hash(&servers[..2], key));
    }
}

#[test]
fn server_of_weight_zero_gets_nothing_even_if_others_fail() {
    for balance in [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin, LoadBalancing::Hash(HashSource::Department)]
    {
        let mut servers = servers(&[(true, 9), (true, 0)]);
        assert_eq!(weighted_picks(balance.clone(), &servers, &[1, 0], 5), [0; 5]);
        servers[0].healthy = false;
        assert_eq!(weighted_picks(balance.clone(), &servers, &[1, 0], 5), [0; 5]);
        let balancer = balancer(balance, &[1, 0]);
        let key = Some(HashKey::from_bytes(b"x"));
        assert_eq!(balancer.select(&servers, key, first_tried()), Selection::NoneLeft);
        servers[0].room = false;
        assert_eq!(balancer.select(&servers, key, TriedServers::default()), Selection::AllFull);
    }
}

#[test]
fn remaining_servers_keep_the_ratio_of_their_weights() {
    for (unhealthy, full) in [(true, false), (false, true)] {
        for balance in
            [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin, LoadBalancing::Hash(HashSource::Department)]
        {
            let mut servers = servers(&[(true, 0), (!unhealthy, 0), (true, 0)]);
            servers[1].room = !full;
            let balancer = balancer(balance.clone(), &[3, 8, 1]);
            let mut picked = [0; 3];
            for key in 0..4_000_usize {
                let key = Some(HashKey::from_bytes(&key.to_be_bytes()));
                let Selection::Server(position) = balancer.select(&servers, key, TriedServers::default()) else {
                    panic!("nobody")
                };
                picked[position] += 1;
            }
            assert_eq!(picked[1], 0, "{balance:?}");
            assert!((900..=1_100).contains(&picked[2]), "{picked:?} with {balance:?}, a quarter was expected");
        }
    }
}

/// A change of these values sends keys to other servers after an upgrade. It needs a line in the changelog, and is
/// better avoided.
#[test]
fn hash_selections_are_fixed_for_all_versions() {
    let names = ["10.0.0.1:9001", "10.0.0.2:9001", "10.0.0.3:9001", "cameras.city.example:443", "/run/cameras.sock"];
    let mut servers = servers(&[(true, 0); 5]);
    servers.iter_mut().zip(names).for_each(|(server, name)| server.name = name);
    for (key, even, weighted) in FIXED {
        let at = |weights: &[u64]| {
            let name = by_weighted_hash(&servers, weights, key.as_bytes());
            names.iter().position(|known| *known == name).expect("one of them")
        };
        assert_eq!((at(&[1; 5]), at(&[5, 1, 3, 1, 1])), (even, weighted), "{key:?}");
    }
}

/// The key, the server's position with equal weights, and its position with the weights 5, 1, 3, 1, 1.
const FIXED: [(&str, usize, usize); 8] = [
    ("traffic-police", 2, 2),
    ("logistics", 0, 0),
    ("archive", 1, 2),
    ("health-bureau", 0, 0),
    ("", 2, 2),
    ("a", 1, 2),
    ("camera-0017", 3, 3),
    ("\u{4ea4}\u{901a}", 4, 4),
];

#[test]
fn least_request_reaches_each_of_many_servers() {
    let fake = |_| FakeServer { healthy: true, room: true, in_flight: 0, warmth: FULL_WEIGHT, name: "a:1" };
    let many: Vec<FakeServer> = (0..1024).map(fake).collect();
    for balance in [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin] {
        let picked: std::collections::HashSet<_> = picks(balance.clone(), &many, 20_000).into_iter().collect();
        assert_eq!(picked.len(), 1024, "{balance:?}");
    }
}
