//! Commands that read hours from a Prometheus.

mod ledger_hours;
mod missing_hours;
pub(super) mod reconcile;
pub(super) mod remembered_heads;
mod scrape_history;
pub(super) mod scraped_usage;
mod subsystem_file;
