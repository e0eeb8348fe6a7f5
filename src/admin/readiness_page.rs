//! `/readyz`: whether the gateway takes traffic, and why not; with `?verbose` the state of each part.
//!
//! Guarantees:
//! - The status depends on the guards of `lifecycle` alone; `?verbose` changes only the text.
//! - Each line that is not in order says what to do.
//! - A ledger that does not answer delays the verbose page by at most [`LEDGER_TIME`].

use std::time::Duration;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use crate::ledger::LedgerTotals;
use crate::lifecycle::Readiness;
use crate::model::Name;
use crate::telemetry::{ClusterView, ConfigStatus, RuntimeView};

use super::query_text::read_parameters;
use super::response::{AdminResponse, TEXT_TYPE, problem_response, respond};
use super::state::AdminState;

/// The longest wait for the ledger.
const LEDGER_TIME: Duration = Duration::from_secs(2);
/// A certificate or list that ends within this time is named.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// The most certificates that are named.
const ENDS_MAX: usize = 10;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    InOrder,
    /// Traffic goes on, and somebody should look.
    Attention,
    Failed,
}

/// One line of the verbose page.
type PartLine = (PartState, String);

/// The response to `/readyz`.
pub(crate) async fn readiness_response(state: &AdminState, query: &str) -> AdminResponse {
    let mut is_verbose = false;
    let read = read_parameters(query, &["verbose"], |_, value| {
        is_verbose = !matches!(value.as_str(), "0" | "false");
        Ok(())
    });
    if let Err(reason) = read {
        return problem_response(StatusCode::BAD_REQUEST, &reason);
    }
    let unserved = (state.unserved)();
    let (status, mut text) = readiness_text(&state.ready, &unserved);
    if is_verbose {
        let view = (state.view)();
        let parts = [ledger_lines(state, view.now).await, config_lines(&view.config), other_lines(&view, &unserved)];
        for (part, line) in parts.into_iter().flatten() {
            let mark = match part {
                PartState::InOrder => "+",
                PartState::Attention => "!",
                PartState::Failed => "-",
            };
            text += &format!("[{mark}] {line}\n");
        }
    }
    respond(status, TEXT_TYPE, text)
}

/// A gateway is ready even if no server of a subsystem is healthy. Otherwise all gateways would turn unready at once,
/// and a load balancer would send callers to none of them. Callers would get a broken connection instead of a 502 that
/// is counted.
fn readiness_text(ready: &Readiness, unserved: &[Name]) -> (StatusCode, String) {
    let awaited = ready.awaited_reasons();
    if awaited.is_empty() {
        let but = unserved.iter().map(|subsystem| format!("but every server of {subsystem} is out of rotation\n"));
        return (StatusCode::OK, format!("ready\n{}", but.collect::<String>()));
    }
    let lines = awaited.iter().map(|reason| format!("awaiting {}\n  do: {}\n", reason.what, reason.remedy));
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn ledger_lines(state: &AdminState, now: Timestamp) -> Vec<PartLine> {
    let line = match tokio::time::timeout(LEDGER_TIME, state.ledger.totals()).await {
        Ok(Ok(totals)) => ledger_line(&totals, now),
        Ok(Err(error)) => (PartState::Failed, format!("ledger: {error}; do: see the log, and check its disk")),
        Err(_) => {
            let text = format!("ledger: no answer within {} s; do: check its disk", LEDGER_TIME.as_secs());
            (PartState::Failed, text)
        }
    };
    vec![line]
}

fn ledger_line(totals: &LedgerTotals, now: Timestamp) -> PartLine {
    let ago = |at: Timestamp| {
        let millis = now.duration_since(at).as_millis().max(0);
        format!("{}.{} s ago", millis / 1000, millis % 1000 / 100)
    };
    let times = format!("synced {}, folded {}", ago(totals.times.synced_at), ago(totals.times.folded_at));
    match (totals.imbalance, totals.mended) {
        (0, 0) => (PartState::InOrder, format!("ledger: balances, {times}")),
        (0, mended) => {
            let text = format!(
                "ledger: balances, {times}; {mended} windows were mended: another program writes into the book; do: find \
                 it, and run tallygate ledger verify"
            );
            (PartState::Attention, text)
        }
        (imbalance, _) => {
            let text = format!(
                "ledger: does not balance ({imbalance}), {times}: a defect; do: copy the ledger's folder, and report it"
            );
            (PartState::Attention, text)
        }
    }
}

fn config_lines(status: &ConfigStatus) -> Vec<PartLine> {
    let live = &status.live;
    let source = live.source.display();
    let mut lines =
        vec![(PartState::InOrder, format!("configuration: {} of {source}, live since {}", live.version, live.since))];
    let mut attention = |text: String| lines.push((PartState::Attention, text));
    if let Some(rejected) = &status.rejected {
        attention(format!(
            "configuration: {} was rejected at {} with {} problems, the older one stays live; do: GET \
             /config?format=text lists them",
            rejected.version,
            rejected.at,
            rejected.problems.len()
        ));
    }
    if !status.excluded.is_empty() {
        attention(format!(
            "configuration: {} sources are left out; do: GET /config?format=text names them and their problems",
            status.excluded.len()
        ));
    }
    for setting in &status.restart_needed {
        attention(format!("configuration: {} waits for a restart; do: restart, or revert the change", setting.path));
    }
    if let Some(served) = &status.last_good {
        attention(format!(
            "configuration: the last good one of the disk, written at {}, is served; do: restore the API server",
            served.written_at
        ));
    }
    lines
}

fn other_lines(view: &RuntimeView, unserved: &[Name]) -> Vec<PartLine> {
    let mut lines: Vec<PartLine> = unserved
        .iter()
        .map(|subsystem| {
            let text = format!(
                "subsystem {subsystem}: every server is out of rotation, callers get 502; do: check its servers, the log \
                 has the reason"
            );
            (PartState::Attention, text)
        })
        .collect();
    lines.extend(certificate_lines(view));
    lines.extend(view.accepts_expired_crl.iter().map(|listener| {
        let text = format!(
            "listener {listener}: expired revocation lists count as current; do: fetch new lists, and remove \
             expiredRevocation: allow"
        );
        (PartState::Attention, text)
    }));
    lines.extend(view.cluster.iter().flat_map(cluster_lines));
    lines
}

/// Certificates and lists of the gateway that end soon; those of callers are for their owners.
fn certificate_lines(view: &RuntimeView) -> Vec<PartLine> {
    let own = view.expiries.iter().filter(|item| item.role != "caller");
    let mut soon: Vec<_> = own.filter(|item| item.expires_at.duration_since(view.now) < ENDS_SOON).collect();
    if soon.is_empty() {
        return vec![(PartState::InOrder, "certificates: none ends within 14 days".to_owned())];
    }
    soon.sort_by_key(|item| item.expires_at);
    let line = |item: &&crate::identity::ExpiringItem| {
        let (verb, state) = match item.expires_at > view.now {
            true => ("ends", PartState::Attention),
            false => ("has ended", PartState::Failed),
        };
        (state, format!("certificates: {} {} {verb} at {}; do: renew it", item.role, item.name, item.expires_at))
    };
    let mut lines: Vec<_> = soon.iter().take(ENDS_MAX).map(line).collect();
    if soon.len() > ENDS_MAX {
        lines.push((PartState::Attention, format!("certificates: {} more end within 14 days", soon.len() - ENDS_MAX)));
    }
    lines
}

fn cluster_lines(cluster: &ClusterView) -> Vec<PartLine> {
    let role = if cluster.is_leader { "writes statuses" } else { "another pod writes statuses" };
    let mut lines = vec![(PartState::InOrder, format!("cluster: {} kinds are watched, {role}", cluster.kinds.len()))];
    let troubled = cluster.kinds.iter().filter(|kind| kind.state != "live" || !kind.is_synced);
    lines.extend(troubled.map(|kind| {
        let text = format!(
            "cluster: the watch of {} is {}, nothing heard for {} s; do: see the log, and docs/kubernetes.md",
            kind.kind,
            kind.state,
            kind.age.as_secs()
        );
        (PartState::Attention, text)
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigProblem, PendingSetting};
    use crate::telemetry::{LiveConfig, RejectedConfig};

    #[test]
    fn readyz_names_the_pending_guards_and_what_to_do() {
        let state = Readiness::default();
        let guards = [state.block("ledger", "free space"), state.block("listener departments", "fetch a list")];
        let expected = "awaiting ledger\n  do: free space\nawaiting listener departments\n  do: fetch a list\n";
        assert_eq!(readiness_text(&state, &[]), (StatusCode::SERVICE_UNAVAILABLE, expected.to_owned()));
        drop(guards);
        assert_eq!(readiness_text(&state, &[]), (StatusCode::OK, "ready\n".to_owned()));
    }

    #[test]
    fn readyz_is_200_without_servers_and_names_their_subsystems() {
        let subsystems = ["cameras", "parking"].map(|id| Name::parse(id).expect("a name"));
        let lines = [
            "ready\n",
            "but every server of cameras is out of rotation\n",
            "but every server of parking is out of rotation\n",
        ];
        assert_eq!(readiness_text(&Readiness::default(), &subsystems), (StatusCode::OK, lines.concat()));
    }

    #[test]
    fn parts_that_are_not_in_order_say_what_to_do() {
        let at: Timestamp = "2026-11-24T04:00:00Z".parse().expect("a time");
        let status = ConfigStatus {
            live: LiveConfig { version: "0123456789ab".to_owned(), since: at, ..LiveConfig::default() },
            weakened: Vec::new(),
            restart_needed: vec![PendingSetting { path: "capacity.connections".to_owned(), live: None, file: None }],
            excluded: Vec::new(),
            changes: None,
            rejected: Some(RejectedConfig {
                version: "ba9876543210".to_owned(),
                at,
                problems: vec![ConfigProblem::new("a", "missing")],
            }),
            last_good: None,
        };
        let lines = config_lines(&status);
        assert_eq!(lines.iter().filter(|(state, _)| *state == PartState::InOrder).count(), 1);
        let troubled: Vec<_> = lines.iter().filter(|(state, _)| *state != PartState::InOrder).collect();
        assert!(troubled.len() == 2 && troubled.iter().all(|(_, text)| text.contains("; do: ")), "{troubled:?}");
        let mut totals = LedgerTotals::default();
        assert_eq!(ledger_line(&totals, at).0, PartState::InOrder);
        totals.imbalance = -1;
        assert_eq!(ledger_line(&totals, at).0, PartState::Attention);
    }
}
