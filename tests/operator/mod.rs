//! Operations: command line, admin listener (`/metrics`, readiness), config reload, live listeners, graceful shutdown
//! (drain, GOAWAY), logging, access log, traces, the manual, alerts, dashboards, the view of a running gateway, its
//! diagnosis, migration, exact hours in Prometheus, reports from them and their reconciliation with the ledger, usage
//! pages of departments, and third-party tools (nginx, Prometheus, curl, openssl, sqlite3).

mod access_log;
mod admin_listener;
mod alert_rules;
mod all_surfaces;
mod backfill;
mod command_line;
mod config_reload;
mod dashboards;
mod diagnose;
mod graceful_shutdown;
mod last_good;
mod live_listeners;
mod logging;
mod manual;
mod migrate;
mod reconciliation;
mod remembered_heads;
mod scrape_jobs;
mod scraped_usage;
mod sealed_hours;
pub(crate) mod third_party_tools;
mod top;
mod traces;
mod usage_page;
