//! How a subsystem's servers are kept well and chosen.

use std::time::Duration;

use http::HeaderName;

use crate::config::document::{
    Balance as BalanceDocument, HashBy as HashByDocument, HealthCheck as HealthCheckDocument, Queue as QueueDocument,
    Retries as RetriesDocument, Subsystem as SubsystemDocument, Upstream as UpstreamDocument,
};
use crate::config::leaf;
use crate::policy::{Balance, HashBy, HealthCheck, Queue, Retries, Subsystem, Upstream};

use super::place::Place;
use super::settings::{cap, wait};

/// A server that is asked more often does little else.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// More checks in a row than anybody would wait for.
const ROW_MAX: u64 = 100;

/// More commands than any gateway lets wait.
const QUEUE_MAX: u64 = 100_000;

type MakeBalance = fn() -> Balance;

/// The statuses that may be tried again: those that say that somebody else failed, or is not there.
const RETRIED: [u16; 3] = [502, 503, 504];
/// A command that failed more often than this will fail again.
const ATTEMPTS_MAX: u32 = 3;

const BALANCES: [(&str, MakeBalance); 3] = [
    ("leastRequest", || Balance::LeastRequest),
    ("roundRobin", || Balance::RoundRobin),
    ("consistentHash", || Balance::Hash(HashBy::Department)),
];

/// `upstreams`, for so many workers.
pub(super) fn upstreams(written: &SubsystemDocument, workers: usize, place: &Place<'_>) -> Vec<Upstream> {
    if written.upstreams.is_empty() {
        place.problem("without an upstream nothing can be forwarded; name at least one");
    }
    if written.upstreams.len() > Subsystem::UPSTREAMS_MAX {
        place.problem(format!("a subsystem has at most {} upstreams", Subsystem::UPSTREAMS_MAX));
    }
    let mut read: Vec<Upstream> = Vec::with_capacity(written.upstreams.len());
    for (index, upstream) in written.upstreams.iter().enumerate() {
        let place = place.item(index);
        let max_requests = max_requests(upstream, workers, &place.key("maxRequests"));
        let weight = weight(upstream.weight, &place.key("weight"));
        let place = place.key("url");
        match place.read(leaf::upstream(&upstream.url)) {
            Some(upstream) if read.iter().any(|other| other.authority == upstream.authority) => {
                place.problem(format!("{} is named twice", upstream.authority))
            }
            Some(upstream) => read.push(Upstream { max_requests, weight, ..upstream }),
            None => {}
        }
    }
    if !written.upstreams.is_empty() && written.upstreams.iter().all(|upstream| upstream.weight == Some(0)) {
        place.problem_with_hint("with a weight of 0 each, no server would get a command", "give one of them 1");
    }
    read
}

fn weight(written: Option<u64>, place: &Place<'_>) -> u32 {
    let Some(written) = written else { return 1 };
    let read = u32::try_from(written).ok().filter(|weight| *weight <= Upstream::WEIGHT_MAX);
    let read = read.ok_or_else(|| format!("{written} is not a weight between 0 and {}", Upstream::WEIGHT_MAX));
    place.read(read).unwrap_or(1)
}

/// Each worker has its part of it, so it cannot be less than there are workers.
fn max_requests(written: &UpstreamDocument, workers: usize, place: &Place<'_>) -> Option<usize> {
    let max = cap(Some(written.max_requests?), 1, place);
    if (1..workers).contains(&max) {
        let hint = format!("write at least {workers}, or set workers to at most {max}");
        place.problem_with_hint(format!("{max} cannot be divided among {workers} workers"), hint);
    }
    Some(max)
}

/// `queue`.
pub(super) fn queue(written: Option<&QueueDocument>, place: &Place<'_>) -> Queue {
    let (length, timeout) = written.map_or((None, None), |queue| (queue.length, queue.timeout.as_deref()));
    let length = length.unwrap_or(0);
    if length > QUEUE_MAX {
        place.key("length").problem(format!("{length} is more than the {QUEUE_MAX} that may wait"));
    }
    Queue {
        length: usize::try_from(length).unwrap_or(0),
        timeout: wait(timeout, Duration::from_secs(1), &place.key("timeout")),
    }
}

/// `retries`.
pub(super) fn retries(written: Option<&RetriesDocument>, place: &Place<'_>) -> Option<Retries> {
    let written = written?;
    let on = written.on.iter().enumerate().filter_map(|(index, status)| {
        let known = RETRIED.into_iter().find(|known| u64::from(*known) == *status);
        place.key("on").item(index).read(known.ok_or_else(|| format!("{status} is not 502, 503 or 504")))
    });
    Some(Retries {
        on: on.collect(),
        attempts: within(written.attempts.unwrap_or(1), ATTEMPTS_MAX, &place.key("attempts")),
        budget_percent: within(written.budget_percent.unwrap_or(20), 100, &place.key("budgetPercent")),
    })
}

fn within(written: u64, max: u32, place: &Place<'_>) -> u32 {
    let read = u32::try_from(written).ok().filter(|read| (1..=max).contains(read));
    place.read(read.ok_or_else(|| format!("{written} is not a number between 1 and {max}"))).unwrap_or(1)
}

/// `balance`.
pub(super) fn balance(written: Option<&BalanceDocument>, place: &Place<'_>) -> Balance {
    let read = match written {
        None => None,
        Some(BalanceDocument::Word(word)) => place.read(leaf::word(word, &BALANCES)).map(|balance| balance()),
        Some(BalanceDocument::Hash(by)) => hash_by(&by.hash, &place.key("hash")).map(Balance::Hash),
    };
    read.unwrap_or(Balance::LeastRequest)
}

fn hash_by(written: &HashByDocument, place: &Place<'_>) -> Option<HashBy> {
    match written {
        HashByDocument::Word(word) => place.read(leaf::word(word, &[("department", ())])).map(|()| HashBy::Department),
        HashByDocument::Header(by) => {
            let name = by.header.parse::<HeaderName>();
            let name =
                name.map_err(|_| format!("{:?} is not the name of a header; write one such as x-camera", by.header));
            place.key("header").read(name).map(HashBy::Header)
        }
    }
}

/// `slowStart`.
pub(super) fn slow_start(written: Option<&str>, place: &Place<'_>) -> Option<Duration> {
    written.map(|text| wait(Some(text), Duration::ZERO, place)).filter(|time| !time.is_zero())
}

/// `healthCheck`.
pub(super) fn health_check(written: Option<&HealthCheckDocument>, place: &Place<'_>) -> Option<HealthCheck> {
    let written = written?;
    let time = |text: &Option<String>, default, key: &str| {
        wait(text.as_deref(), Duration::from_secs(default), &place.key(key))
    };
    let interval = time(&written.interval, 10, "interval");
    if (Duration::from_millis(1)..INTERVAL_MIN).contains(&interval) {
        place.key("interval").problem("checks this close are a load of their own; write at least 100ms");
    }
    let status = written.status.as_deref().unwrap_or("200..399");
    Some(HealthCheck {
        path: place.key("path").read(leaf::target(&written.path)).unwrap_or_default(),
        interval,
        timeout: time(&written.timeout, 2, "timeout"),
        rise: row(written.rise, 2, &place.key("rise")),
        fall: row(written.fall, 3, &place.key("fall")),
        status: place.key("status").read(leaf::statuses(status)).unwrap_or(200..=399),
    })
}

fn row(written: Option<u64>, default: u32, place: &Place<'_>) -> u32 {
    let Some(written) = written else { return default };
    if !(1..=ROW_MAX).contains(&written) {
        place.problem(format!("{written} is not a number of checks between 1 and {ROW_MAX}"));
    }
    u32::try_from(written).unwrap_or(default)
}
