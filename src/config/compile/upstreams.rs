//! Compiles servers and their policies: health checks, load balancing, slow start, queue and retries.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use crate::config::document::{
    BalanceDocument, HashByDocument, HealthCheckDocument, QueueDocument, RetriesDocument, RetryOnDocument,
    SessionCookieDocument, UpstreamDocument,
};
use crate::policy::{
    Backend, HashSource, HealthCheckPolicy, LoadBalancing, QueuePolicy, RetryPolicy, SessionCookie, SessionSecret,
    UpstreamProtocol, UpstreamServer,
};

use super::doc_path::DocPath;
use super::scalars;
use super::values::{count_or, nonzero_duration_or, optional_duration};

/// The shortest interval of health checks. More frequent checks would keep a server busy with little else.
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Limit of consecutive checks (`rise`, `fall`): longer runs would take too long to be useful.
const CHECKS_IN_ROW_MAX: u64 = 100;

/// Limit of the queue length: more commands than any gateway should keep waiting.
const QUEUE_LENGTH_MAX: u64 = 100_000;

type MakeBalance = fn() -> LoadBalancing;

/// The statuses that may be retried: those that report an error (Gateway API, `HTTPRouteRetry`).
const RETRYABLE_STATUSES: RangeInclusive<u16> = 400..=599;
/// The keyword of connection failures in `retries.on`.
const CONNECT_FAILURE: &str = "connect-failure";
/// Limit of the entries of `retries.on`: every failed attempt is compared with all of them.
const RETRY_ON_MAX: usize = 32;
/// Limit of retries per command: a command that failed more often would most likely fail again.
const RETRY_ATTEMPTS_MAX: u32 = 10;
/// Limit of the backoff: a command that waits holds its places in the limits of the gateway.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

const BALANCE_KEYWORDS: [(&str, MakeBalance); 3] = [
    ("leastRequest", || LoadBalancing::LeastRequest),
    ("roundRobin", || LoadBalancing::RoundRobin),
    ("consistentHash", || LoadBalancing::Hash(HashSource::Department)),
];

/// Compiles `upstreams` for this number of workers.
pub(crate) fn compile_upstreams(
    written: &[UpstreamDocument],
    (workers, protocol): (usize, UpstreamProtocol),
    place: &DocPath<'_>,
) -> Vec<UpstreamServer> {
    if written.len() > Backend::UPSTREAMS_MAX {
        place.problem(format!("has {} servers; at most {} are allowed", written.len(), Backend::UPSTREAMS_MAX));
    }
    let mut authorities = HashSet::with_capacity(written.len());
    let mut read: Vec<UpstreamServer> = Vec::with_capacity(written.len());
    for (index, upstream) in written.iter().take(Backend::UPSTREAMS_MAX).enumerate() {
        let place = place.item(index);
        let max_requests = compile_max_requests(upstream, workers, &place.key("maxRequests"));
        let weight = compile_weight(upstream.weight, &place.key("weight"));
        let place = place.key("url");
        match place.value_or_problem(scalars::parse_upstream(&upstream.url, protocol)) {
            Some(upstream) if !authorities.insert(upstream.authority.clone()) => {
                place.problem(format!("{} is named twice", upstream.authority))
            }
            Some(upstream) => read.push(UpstreamServer { max_requests, weight, ..upstream }),
            None => {}
        }
    }
    if !written.is_empty() && written.iter().all(|upstream| upstream.weight == Some(0)) {
        place.problem_with_hint(
            "all weights are 0, so no server would receive commands",
            "give at least one server a weight of 1",
        );
    }
    read
}

fn compile_weight(written: Option<u64>, place: &DocPath<'_>) -> u32 {
    let Some(written) = written else { return 1 };
    let read = u32::try_from(written).ok().filter(|weight| *weight <= UpstreamServer::WEIGHT_MAX);
    let read = read.ok_or_else(|| format!("{written} is not a weight between 0 and {}", UpstreamServer::WEIGHT_MAX));
    place.value_or_problem(read).unwrap_or(1)
}

/// Compiles `maxRequests`. The limit is divided among the workers, so it must be at least the number of workers.
fn compile_max_requests(written: &UpstreamDocument, workers: usize, place: &DocPath<'_>) -> Option<usize> {
    let max = count_or(Some(written.max_requests?), 1, place);
    if (1..workers).contains(&max) {
        let hint = format!("write at least {workers}, or set workers to at most {max}");
        place.problem_with_hint(format!("{max} cannot be divided among {workers} workers"), hint);
    }
    Some(max)
}

/// Compiles `queue`.
pub(crate) fn compile_queue(written: Option<&QueueDocument>, place: &DocPath<'_>) -> QueuePolicy {
    let (length, timeout) = written.map_or((None, None), |queue| (queue.length, queue.timeout.as_deref()));
    let length = length.unwrap_or(0);
    if length > QUEUE_LENGTH_MAX {
        place.key("length").problem(format!("{length} is above the maximum of {QUEUE_LENGTH_MAX}"));
    }
    QueuePolicy {
        length: usize::try_from(length).unwrap_or(0),
        timeout: nonzero_duration_or(timeout, Duration::from_secs(1), &place.key("timeout")),
    }
}

/// Compiles `retries`.
pub(crate) fn compile_retries(written: Option<&RetriesDocument>, place: &DocPath<'_>) -> Option<RetryPolicy> {
    let written = written?;
    let on = &place.key("on");
    if written.on.len() > RETRY_ON_MAX {
        on.problem(format!("at most {RETRY_ON_MAX} failures can be listed"));
    }
    let statuses = written.on.iter().enumerate().filter_map(|(index, failure)| match failure {
        RetryOnDocument::Status(status) => on.item(index).value_or_problem(parse_retryable_status(*status)),
        RetryOnDocument::Word(word) => {
            on.item(index).value_or_problem(scalars::parse_keyword(word, &[(CONNECT_FAILURE, ())]));
            None
        }
    });
    Some(RetryPolicy {
        on: statuses.collect(),
        on_connect_failure: written.on.iter().any(|failure| matches!(failure, RetryOnDocument::Word(_))),
        attempts: bounded_count(written.attempts.unwrap_or(1), RETRY_ATTEMPTS_MAX, &place.key("attempts")),
        budget_percent: bounded_count(written.budget_percent.unwrap_or(20), 100, &place.key("budgetPercent")),
        backoff: compile_backoff(written.backoff.as_deref(), &place.key("backoff")),
    })
}

fn parse_retryable_status(written: u64) -> Result<u16, String> {
    let read = u16::try_from(written).ok().filter(|status| RETRYABLE_STATUSES.contains(status));
    read.ok_or_else(|| format!("{written} is not a status between 400 and 599"))
}

fn compile_backoff(written: Option<&str>, place: &DocPath<'_>) -> Option<Duration> {
    let backoff = optional_duration(written, place);
    if backoff.is_some_and(|backoff| backoff > BACKOFF_MAX) {
        place.problem(format!("is longer than {} s", BACKOFF_MAX.as_secs()));
    }
    backoff
}

fn bounded_count(written: u64, max: u32, place: &DocPath<'_>) -> u32 {
    let read = u32::try_from(written).ok().filter(|read| (1..=max).contains(read));
    place.value_or_problem(read.ok_or_else(|| format!("{written} is not a number between 1 and {max}"))).unwrap_or(1)
}

/// Compiles `balance`.
pub(crate) fn compile_balance(written: Option<&BalanceDocument>, place: &DocPath<'_>) -> LoadBalancing {
    let read = match written {
        None => None,
        Some(BalanceDocument::Word(word)) => {
            place.value_or_problem(scalars::parse_keyword(word, &BALANCE_KEYWORDS)).map(|balance| balance())
        }
        Some(BalanceDocument::Hash(by)) => compile_hash_source(&by.hash, &place.key("hash")).map(LoadBalancing::Hash),
        Some(BalanceDocument::Cookie(by)) => {
            let cookie = compile_cookie(&by.cookie, &place.key("cookie"));
            cookie.map(|cookie| LoadBalancing::Hash(HashSource::Cookie(Box::new(cookie))))
        }
    };
    read.unwrap_or(LoadBalancing::LeastRequest)
}

fn compile_hash_source(written: &HashByDocument, place: &DocPath<'_>) -> Option<HashSource> {
    match written {
        HashByDocument::Word(word) => {
            place.value_or_problem(scalars::parse_keyword(word, &[("department", ())])).map(|()| HashSource::Department)
        }
        HashByDocument::Header(by) => {
            let name = by.header.parse::<HeaderName>();
            let name =
                name.map_err(|_| format!("{:?} is not the name of a header; write one such as x-camera", by.header));
            place.key("header").value_or_problem(name).map(HashSource::Header)
        }
    }
}

/// The words of `SameSite`.
const SAME_SITE_KEYWORDS: [(&str, &str); 3] = [("Strict", "Strict"), ("Lax", "Lax"), ("None", "None")];

fn compile_cookie(written: &SessionCookieDocument, place: &DocPath<'_>) -> Option<SessionCookie> {
    let mut attributes = String::new();
    let path = written.path.as_deref().unwrap_or("/");
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
    let path = Some(path).filter(|path| path.starts_with('/') && is_plain(path));
    let path = path.ok_or_else(|| "is not a path; write one such as /shop".to_owned());
    attributes.extend(place.key("path").value_or_problem(path).map(|path| format!("; Path={path}")));
    if let Some(domain) = &written.domain {
        let domain = place.key("domain").value_or_problem(scalars::parse_host(domain));
        attributes.extend(domain.map(|domain| format!("; Domain={domain}")));
    }
    if let Some(age) = optional_duration(written.max_age.as_deref(), &place.key("maxAge")) {
        attributes.push_str(&format!("; Max-Age={}", age.as_secs()));
    }
    if let Some(word) = &written.same_site {
        let word = place.key("sameSite").value_or_problem(scalars::parse_keyword(word, &SAME_SITE_KEYWORDS));
        attributes.extend(word.map(|word| format!("; SameSite={word}")));
    }
    attributes.push_str("; HttpOnly");
    // The name of a cookie is a token, as that of a field (RFC 6265 section 4.1.1).
    let is_name = HeaderName::from_bytes(written.name.as_bytes()).is_ok();
    let name = is_name.then(|| written.name.clone());
    let name = name.ok_or_else(|| format!("{:?} is not the name of a cookie; write one such as route", written.name));
    let name = place.key("name").value_or_problem(name)?;
    let persistence = compile_persistence(written, place);
    let changes_on_failure = written.change_on_failure.unwrap_or(false);
    Some(SessionCookie { name, attributes, secure: written.secure, persistence, changes_on_failure })
}

/// Compiles `mode` and `secret` of a cookie.
fn compile_persistence(written: &SessionCookieDocument, place: &DocPath<'_>) -> Option<SessionSecret> {
    let mode = written.mode.as_deref().unwrap_or("balanced");
    let words = [("balanced", false), ("persistent", true)];
    let is_persistent = place.key("mode").value_or_problem(scalars::parse_keyword(mode, &words))?;
    let place = place.key("secret");
    match &written.secret {
        Some(secret) if is_persistent && secret.chars().count() >= SessionSecret::LENGTH_MIN => {
            return Some(SessionSecret::new(secret));
        }
        Some(_) if is_persistent => {
            place.problem(format!("is too short; write at least {} characters", SessionSecret::LENGTH_MIN));
        }
        Some(_) => place.problem_with_hint("has no effect without mode: persistent", "remove it"),
        None if is_persistent => place.problem_with_hint(
            "is missing; mode: persistent needs it",
            "write at least 16 random characters, the same in all gateways",
        ),
        None => {}
    }
    None
}

/// Compiles `slowStart`.
pub(crate) fn compile_slow_start(written: Option<&str>, place: &DocPath<'_>) -> Option<Duration> {
    written.map(|text| nonzero_duration_or(Some(text), Duration::ZERO, place)).filter(|time| !time.is_zero())
}

/// Compiles `healthCheck`.
pub(crate) fn compile_health_check(
    written: Option<&HealthCheckDocument>,
    place: &DocPath<'_>,
) -> Option<HealthCheckPolicy> {
    let written = written?;
    let time = |text: &Option<String>, default, key: &str| {
        nonzero_duration_or(text.as_deref(), Duration::from_secs(default), &place.key(key))
    };
    let interval = time(&written.interval, 10, "interval");
    if (Duration::from_millis(1)..CHECK_INTERVAL_MIN).contains(&interval) {
        place.key("interval").problem("this interval is too short; write at least 100ms");
    }
    let status = written.status.as_deref().unwrap_or("200..399");
    Some(HealthCheckPolicy {
        path: place.key("path").value_or_problem(scalars::parse_target(&written.path)).unwrap_or_default(),
        interval,
        timeout: time(&written.timeout, 2, "timeout"),
        rise: checks_in_row(written.rise, 2, &place.key("rise")),
        fall: checks_in_row(written.fall, 3, &place.key("fall")),
        status: place.key("status").value_or_problem(scalars::parse_statuses(status)).unwrap_or(200..=399),
    })
}

fn checks_in_row(written: Option<u64>, default: u32, place: &DocPath<'_>) -> u32 {
    let Some(written) = written else { return default };
    if !(1..=CHECKS_IN_ROW_MAX).contains(&written) {
        place.problem(format!("{written} is not a number of checks between 1 and {CHECKS_IN_ROW_MAX}"));
    }
    u32::try_from(written).unwrap_or(default)
}
