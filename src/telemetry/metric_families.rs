//! The declarations of all families of `/metrics`: the names, labels and meanings that dashboards and alerts rely on.
//!
//! Guarantees:
//! - `ALL_FAMILIES` is complete, and each name occurs once. `docs/metrics.md` explains each family.
//! - Numbers of the ledger are whole and shown exactly below 2^53 (about 9 x 10^15). Above that, a float loses the last
//!   digits; the ledger keeps them.
//!
//! Leaves to `scrape`: filling the families.

use super::family_spec::FamilySpec;

const COMMAND_LABELS: &[&str] = &["department", "subsystem", "command"];
const SUBSYSTEM_LABELS: &[&str] = &["department", "subsystem"];
const KIND_LABELS: &[&str] = &["kind"];
const QUOTA_LABELS: &[&str] = &["department", "per", "measure"];
const UPSTREAM_LABELS: &[&str] = &["subsystem", "upstream"];

// Counted by the ledger. These counters continue over restarts.

pub(crate) const COMMANDS: FamilySpec = FamilySpec::counter(
    "tallygate_commands_total",
    &["department", "subsystem", "command", "outcome"],
    "Commands by outcome, including refused ones; from the ledger.",
);
pub(crate) const COMMAND_UNITS: FamilySpec = FamilySpec::counter(
    "tallygate_command_units_total",
    COMMAND_LABELS,
    "Units of ended commands; commands that never reached a subsystem cost none; from the ledger.",
);
pub(crate) const REQUEST_BYTES: FamilySpec =
    FamilySpec::counter("tallygate_request_bytes_total", SUBSYSTEM_LABELS, "Bytes of request bodies; from the ledger.");
pub(crate) const RESPONSE_BYTES: FamilySpec = FamilySpec::counter(
    "tallygate_response_bytes_total",
    SUBSYSTEM_LABELS,
    "Bytes of response bodies; from the ledger.",
);
pub(crate) const IN_FLIGHT: FamilySpec = FamilySpec::gauge(
    "tallygate_commands_in_flight",
    &["subsystem"],
    "Admitted commands that have not ended; from the ledger.",
);
pub(crate) const DEPARTMENT_IN_FLIGHT: FamilySpec = FamilySpec::gauge(
    "tallygate_department_commands_in_flight",
    &["department"],
    "Admitted commands of a department that have not ended; from the ledger.",
);
pub(crate) const PERIOD_COMMANDS: FamilySpec = FamilySpec::gauge(
    "tallygate_usage_period_commands",
    &["department", "period"],
    "Ended commands of a calendar month, including refused ones, as in report usage.",
);
pub(crate) const PERIOD_UNITS: FamilySpec = FamilySpec::gauge(
    "tallygate_usage_period_units",
    &["department", "period"],
    "Units of ended commands of a calendar month, as in report usage.",
);
pub(crate) const IMBALANCE: FamilySpec = FamilySpec::gauge(
    "tallygate_ledger_imbalance",
    &[],
    "Commands received - refused - finished - in flight; anything but 0 is a defect.",
);
pub(crate) const MENDED: FamilySpec = FamilySpec::counter(
    "tallygate_ledger_mended_windows_total",
    &[],
    "Hours of the book that differed from the tally and were rewritten before they were sealed; anything but 0 means \
     that another program writes into the book.",
);
pub(crate) const SYNCED: FamilySpec = FamilySpec::gauge(
    "tallygate_ledger_synced_timestamp_seconds",
    &[],
    "Time of the last sync of the tally to the disk, in Unix time.",
);
pub(crate) const FOLDED: FamilySpec = FamilySpec::gauge(
    "tallygate_ledger_folded_timestamp_seconds",
    &[],
    "Time of the last fold of the tally into the book, in Unix time.",
);
pub(crate) const SYNC_DURATION: FamilySpec = FamilySpec::histogram(
    "tallygate_ledger_sync_duration_seconds",
    &[],
    "Duration of a sync of the tally to the disk.",
);

// Measured since the process started.

pub(crate) const COMMAND_DURATION: FamilySpec = FamilySpec::histogram(
    "tallygate_command_duration_seconds",
    &["subsystem"],
    "Time from the admission of a command to its end, including the whole response.",
);
pub(crate) const GATEWAY_DURATION: FamilySpec = FamilySpec::histogram(
    "tallygate_gateway_duration_seconds",
    &[],
    "Time that the gateway added to a command before it was sent to the subsystem.",
);
pub(crate) const CONNECTIONS_OPEN: FamilySpec =
    FamilySpec::gauge("tallygate_connections_open", &[], "Open client connections.");
pub(crate) const CONNECTIONS_ACCEPTED: FamilySpec =
    FamilySpec::counter("tallygate_connections_accepted_total", &[], "Accepted client connections.");
pub(crate) const HANDSHAKES_FAILED: FamilySpec = FamilySpec::counter(
    "tallygate_tls_handshakes_failed_total",
    &["reason"],
    "Failed TLS handshakes with clients, by reason.",
);
pub(crate) const LIMIT_HITS: FamilySpec = FamilySpec::counter(
    "tallygate_limit_hits_total",
    &["limit"],
    "Connections or waits that were ended by a capacity limit of the gateway.",
);
pub(crate) const LOG_LINES_DROPPED: FamilySpec = FamilySpec::counter(
    "tallygate_log_lines_dropped_total",
    &[],
    "Log lines that were dropped because a write failed or the queue was full.",
);
pub(crate) const ACCESS_LINES_WRITTEN: FamilySpec =
    FamilySpec::counter("tallygate_access_log_lines_written_total", &[], "Lines of the access log that were written.");
pub(crate) const ACCESS_LINES_DROPPED: FamilySpec = FamilySpec::counter(
    "tallygate_access_log_lines_dropped_total",
    &["reason"],
    "Lines of the access log that were dropped, by reason: queue_full, disk_full, reader_gone, write_failed.",
);
pub(crate) const ACCESS_LINES_LEFT_OUT: FamilySpec = FamilySpec::counter(
    "tallygate_access_log_lines_left_out_total",
    &[],
    "Commands without a line of the access log, because of its sample.",
);
pub(crate) const SPANS_EXPORTED: FamilySpec =
    FamilySpec::counter("tallygate_spans_exported_total", &[], "Spans of traces that the collector took.");
pub(crate) const SPANS_DROPPED: FamilySpec = FamilySpec::counter(
    "tallygate_spans_dropped_total",
    &["reason"],
    "Spans of traces that were dropped, by reason: queue_full, collector_away, rejected.",
);
pub(crate) const MIRRORED: FamilySpec = FamilySpec::counter(
    "tallygate_mirrored_requests_total",
    &["result"],
    "Requests selected for mirroring to another subsystem, by result of the copy; not counted as commands.",
);
pub(crate) const UPSTREAM_ATTEMPTS: FamilySpec = FamilySpec::counter(
    "tallygate_upstream_attempts_total",
    UPSTREAM_LABELS,
    "Attempts to send a request to an upstream; a retry is another attempt.",
);
pub(crate) const UPSTREAM_RETRIES: FamilySpec = FamilySpec::counter(
    "tallygate_upstream_retries_total",
    UPSTREAM_LABELS,
    "Attempts after an earlier one of the same command had failed, or was refused, after it was sent.",
);
pub(crate) const UPSTREAM_FAILURES: FamilySpec = FamilySpec::counter(
    "tallygate_upstream_failures_total",
    &["subsystem", "upstream", "reason"],
    "Attempts that failed, by reason: connect, reset, timeout, malformed_answer, refused.",
);
pub(crate) const UPSTREAM_EJECTED: FamilySpec = FamilySpec::gauge(
    "tallygate_upstream_ejected",
    UPSTREAM_LABELS,
    "Number of reasons why an upstream is out of rotation (failed commands, failed health checks); 0 is healthy.",
);
pub(crate) const UPSTREAM_CHECKS: FamilySpec = FamilySpec::counter(
    "tallygate_upstream_health_checks_total",
    &["subsystem", "upstream", "result"],
    "Health checks of an upstream, by result: passed, failed.",
);
pub(crate) const UPSTREAM_CONNECTIONS: FamilySpec = FamilySpec::gauge(
    "tallygate_upstream_connections_open",
    UPSTREAM_LABELS,
    "Connections to an upstream, active or idle.",
);
pub(crate) const UPSTREAM_REQUESTS: FamilySpec =
    FamilySpec::gauge("tallygate_upstream_requests_in_flight", UPSTREAM_LABELS, "Requests in flight to an upstream.");

pub(crate) const COMMANDS_QUEUED: FamilySpec = FamilySpec::gauge(
    "tallygate_commands_queued",
    &["subsystem"],
    "Commands in the wait queue, because all healthy servers have reached maxRequests.",
);
pub(crate) const QUEUE_FAILURES: FamilySpec = FamilySpec::counter(
    "tallygate_queue_failures_total",
    &["subsystem", "reason"],
    "Commands that the wait queue rejected, by reason: full, timeout.",
);

// Supplied by the composition root.

pub(crate) const QUOTA_USED: FamilySpec = FamilySpec::gauge(
    "tallygate_quota_used_ratio",
    QUOTA_LABELS,
    "Used fraction of a quota in the current day or month; 1 is all of it.",
);
pub(crate) const QUOTA_GRANTED: FamilySpec = FamilySpec::gauge(
    "tallygate_quota_granted",
    QUOTA_LABELS,
    "Configured quotas: units or commands per day or month.",
);
pub(crate) const QUOTA_ELAPSED: FamilySpec = FamilySpec::gauge(
    "tallygate_quota_elapsed_ratio",
    &["per", "period"],
    "Elapsed fraction of the current day and month, the periods of quotas; 1 is its end.",
);
pub(crate) const QUOTA_WARNED: FamilySpec = FamilySpec::gauge(
    "tallygate_quota_warned_percent",
    QUOTA_LABELS,
    "Highest threshold of a quota that was reached in the current day or month, in percent; also 100 once it refused a \
     command.",
);
pub(crate) const DEPARTMENT_LIMIT: FamilySpec = FamilySpec::gauge(
    "tallygate_department_limit",
    &["department", "limit"],
    "Configured limits: rate (commands per second), burst, concurrent (commands).",
);
pub(crate) const CERTIFICATE_EXPIRY: FamilySpec = FamilySpec::gauge(
    "tallygate_certificate_expiry_timestamp_seconds",
    &["role", "name"],
    "Expiry of a certificate or revocation list, in Unix time.",
);
pub(crate) const EXPIRED_LISTS_ACCEPTED: FamilySpec = FamilySpec::gauge(
    "tallygate_expired_revocation_allowed",
    &["listener"],
    "1 for a listener with expiredRevocation: allow; absent otherwise.",
);
pub(crate) const CONFIG_INFO: FamilySpec =
    FamilySpec::gauge("tallygate_config_info", &["version"], "The version of the live configuration; always 1.");
pub(crate) const CONFIG_REJECTED: FamilySpec = FamilySpec::gauge(
    "tallygate_config_rejected",
    &["version"],
    "1 while the last configuration was rejected and an older one is live.",
);
pub(crate) const CONFIG_EXCLUDED: FamilySpec = FamilySpec::gauge(
    "tallygate_config_excluded_sources",
    &[],
    "Sources that the live configuration leaves out, because each of them has problems of its own.",
);
pub(crate) const CONFIG_RESTART: FamilySpec = FamilySpec::gauge(
    "tallygate_config_restart_needed",
    &[],
    "1 while the live configuration has settings that need a restart, else 0.",
);
pub(crate) const BUILD_INFO: FamilySpec =
    FamilySpec::gauge("tallygate_build_info", &["version"], "The version of the program; always 1.");

// Of a Kubernetes controller. The label `kind` has the kinds that it watches.

pub(crate) const KUBE_OBJECTS: FamilySpec =
    FamilySpec::gauge("tallygate_kube_objects", KIND_LABELS, "Objects that the controller knows.");
pub(crate) const KUBE_WATCH_SYNCED: FamilySpec =
    FamilySpec::gauge("tallygate_kube_watch_synced", KIND_LABELS, "1 once all objects of a kind were listed, else 0.");
pub(crate) const KUBE_WATCH_STATE: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_watch_state",
    &["kind", "state"],
    "1 for the state of a watch: starting, live, missing_api, forbidden, unreachable.",
);
pub(crate) const KUBE_WATCH_AGE: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_watch_age_seconds",
    KIND_LABELS,
    "Time since the API server last said anything about a kind.",
);
pub(crate) const KUBE_WATCH_RESTARTS: FamilySpec = FamilySpec::counter(
    "tallygate_kube_watch_restarts_total",
    KIND_LABELS,
    "Lists of all objects of a kind after the first one.",
);
pub(crate) const KUBE_WATCH_ERRORS: FamilySpec =
    FamilySpec::counter("tallygate_kube_watch_errors_total", KIND_LABELS, "Faults of a watch.");
pub(crate) const KUBE_EXCLUDED: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_excluded_objects",
    KIND_LABELS,
    "Documents of objects that the live configuration leaves out; those of files under the kind file.",
);
pub(crate) const KUBE_LEADER: FamilySpec =
    FamilySpec::gauge("tallygate_kube_leader", &[], "1 if this process writes statuses and events, else 0.");
pub(crate) const KUBE_TRANSLATIONS: FamilySpec =
    FamilySpec::counter("tallygate_kube_translations_total", &[], "Translations of the objects to a configuration.");
pub(crate) const KUBE_TRANSLATION_TIME: FamilySpec =
    FamilySpec::counter("tallygate_kube_translation_seconds_total", &[], "Time that translations took, in seconds.");
pub(crate) const KUBE_APPLIES: FamilySpec = FamilySpec::counter(
    "tallygate_kube_applies_total",
    &["result"],
    "Configurations handed to the data plane, by result: live, rejected.",
);
pub(crate) const KUBE_APPLY_TIME: FamilySpec = FamilySpec::counter(
    "tallygate_kube_apply_seconds_total",
    &[],
    "Time until configurations were live or rejected, in seconds.",
);
pub(crate) const KUBE_STATUS_WRITES: FamilySpec = FamilySpec::counter(
    "tallygate_kube_status_writes_total",
    &["result"],
    "Writes of statuses, by result: written, conflict, failed, dropped.",
);
pub(crate) const KUBE_STATUS_WAITING: FamilySpec =
    FamilySpec::gauge("tallygate_kube_statuses_waiting", &[], "Statuses that wait to be written.");
pub(crate) const KUBE_EVENTS: FamilySpec = FamilySpec::counter(
    "tallygate_kube_events_total",
    &["result"],
    "Events about objects that are not in order, by result: written, dropped.",
);
pub(crate) const KUBE_ANNOTATIONS: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_ingress_annotations",
    &["verdict"],
    "Annotations of ingress-nginx at Ingresses of this controller, by verdict: taken, differs, lost, unknown.",
);
pub(crate) const KUBE_LAST_GOOD_SERVED: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_last_good_served",
    &[],
    "1 while the last good configuration of the disk is served, because the cluster's own is not known yet, else 0.",
);
pub(crate) const KUBE_LAST_GOOD_AGE: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_last_good_age_seconds",
    &[],
    "Time since the last good configuration was written, while it is served; absent otherwise.",
);
pub(crate) const KUBE_LAST_GOOD_WRITTEN: FamilySpec = FamilySpec::gauge(
    "tallygate_kube_last_good_written_timestamp_seconds",
    &[],
    "When this process last wrote the last good configuration, in Unix time; absent before that.",
);

// The process metrics that every Prometheus exporter shows.

pub(crate) const PROCESS_CPU: FamilySpec =
    FamilySpec::counter("process_cpu_seconds_total", &[], "User and system CPU time spent, in seconds.");
pub(crate) const PROCESS_MEMORY: FamilySpec =
    FamilySpec::gauge("process_resident_memory_bytes", &[], "Resident memory, in bytes.");
pub(crate) const PROCESS_VIRTUAL: FamilySpec =
    FamilySpec::gauge("process_virtual_memory_bytes", &[], "Virtual memory, in bytes.");
pub(crate) const PROCESS_FDS: FamilySpec = FamilySpec::gauge("process_open_fds", &[], "Open file descriptors.");
pub(crate) const PROCESS_FDS_MAX: FamilySpec =
    FamilySpec::gauge("process_max_fds", &[], "Maximum number of open file descriptors.");
pub(crate) const PROCESS_THREADS: FamilySpec =
    FamilySpec::gauge("process_threads", &[], "Number of threads of the process.");
pub(crate) const PROCESS_START: FamilySpec =
    FamilySpec::gauge("process_start_time_seconds", &[], "Start time of the process, in Unix time.");

/// All families, for tests of properties that every family must have.
#[cfg(test)]
pub(crate) const ALL_FAMILIES: [&FamilySpec; 73] = [
    &COMMANDS,
    &COMMAND_UNITS,
    &REQUEST_BYTES,
    &RESPONSE_BYTES,
    &IN_FLIGHT,
    &DEPARTMENT_IN_FLIGHT,
    &PERIOD_COMMANDS,
    &PERIOD_UNITS,
    &IMBALANCE,
    &MENDED,
    &SYNCED,
    &FOLDED,
    &SYNC_DURATION,
    &COMMAND_DURATION,
    &GATEWAY_DURATION,
    &CONNECTIONS_OPEN,
    &CONNECTIONS_ACCEPTED,
    &HANDSHAKES_FAILED,
    &LIMIT_HITS,
    &LOG_LINES_DROPPED,
    &ACCESS_LINES_WRITTEN,
    &ACCESS_LINES_DROPPED,
    &ACCESS_LINES_LEFT_OUT,
    &SPANS_EXPORTED,
    &SPANS_DROPPED,
    &COMMANDS_QUEUED,
    &QUEUE_FAILURES,
    &MIRRORED,
    &UPSTREAM_ATTEMPTS,
    &UPSTREAM_RETRIES,
    &UPSTREAM_FAILURES,
    &UPSTREAM_EJECTED,
    &UPSTREAM_CHECKS,
    &UPSTREAM_CONNECTIONS,
    &UPSTREAM_REQUESTS,
    &QUOTA_USED,
    &QUOTA_GRANTED,
    &QUOTA_ELAPSED,
    &QUOTA_WARNED,
    &DEPARTMENT_LIMIT,
    &CERTIFICATE_EXPIRY,
    &EXPIRED_LISTS_ACCEPTED,
    &CONFIG_INFO,
    &CONFIG_REJECTED,
    &CONFIG_EXCLUDED,
    &CONFIG_RESTART,
    &KUBE_OBJECTS,
    &KUBE_WATCH_SYNCED,
    &KUBE_WATCH_STATE,
    &KUBE_WATCH_AGE,
    &KUBE_WATCH_RESTARTS,
    &KUBE_WATCH_ERRORS,
    &KUBE_EXCLUDED,
    &KUBE_LEADER,
    &KUBE_TRANSLATIONS,
    &KUBE_TRANSLATION_TIME,
    &KUBE_APPLIES,
    &KUBE_APPLY_TIME,
    &KUBE_STATUS_WRITES,
    &KUBE_STATUS_WAITING,
    &KUBE_EVENTS,
    &KUBE_ANNOTATIONS,
    &KUBE_LAST_GOOD_SERVED,
    &KUBE_LAST_GOOD_AGE,
    &KUBE_LAST_GOOD_WRITTEN,
    &BUILD_INFO,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
    &PROCESS_VIRTUAL,
    &PROCESS_FDS,
    &PROCESS_FDS_MAX,
    &PROCESS_THREADS,
    &PROCESS_START,
];

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::proto::MetricType;

    #[test]
    fn every_declaration_is_valid_and_unique() {
        let mut names = std::collections::HashSet::new();
        for family in ALL_FAMILIES {
            assert!(family.describe().is_ok(), "{}", family.name);
            assert!(names.insert(family.name), "{} is declared twice", family.name);
        }
    }

    #[test]
    fn names_are_accepted_by_promtool() {
        for family in ALL_FAMILIES {
            let total = family.name.ends_with("_total");
            assert_eq!(total, family.kind == MetricType::COUNTER, "{}", family.name);
            let taken = ["_bucket", "_count", "_sum"];
            assert!(!taken.iter().any(|suffix| family.name.ends_with(suffix)), "{}", family.name);
            assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{}", family.name);
        }
    }

    #[test]
    fn manual_explains_every_family() {
        let manual = include_str!("../../docs/metrics.md");
        for family in ALL_FAMILIES {
            assert!(manual.contains(&format!("`{}`", family.name)), "docs/metrics.md lacks {}", family.name);
        }
    }
}
