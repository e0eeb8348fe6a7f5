//! Commands that compare a ledger with the hours that a Prometheus remembers.

pub(super) mod scraped_usage;
