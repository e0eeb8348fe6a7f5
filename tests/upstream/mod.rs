//! Subsystems and their servers: pools, load balancing, health, retries, mirroring.

mod active_health_checks;
mod failure_attribution;
mod http2_retries;
mod idempotent_replay;
mod load_balancing;
mod pools_and_ejection;
mod request_mirroring;
mod retries;
mod upstream_protocols;
mod weighted_balancing;
