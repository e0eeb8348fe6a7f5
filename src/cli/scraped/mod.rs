//! Commands that read hours from a Prometheus.

pub(super) mod scraped_usage;
