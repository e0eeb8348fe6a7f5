//! Upstreams (the servers of subsystems):
//! - connection pools, HTTP/1.1, HTTP/2, TLS and Unix sockets;
//! - load balancing (least requests, weights, sticky routing by header), the queue for a free server, slow start;
//! - backends: shares by weight, headers of a share, backends without servers, backends of several subsystems;
//! - active health checks, outlier ejection, failure attribution;
//! - retries and the retry budget, idempotent replay, request mirroring;
//! - timeouts of a subsystem, of a command and of an attempt.

mod active_health_checks;
mod backends;
mod command_timeouts;
mod failure_attribution;
mod http2_retries;
mod idempotent_replay;
mod load_balancing;
mod pools_and_ejection;
mod request_mirroring;
mod retries;
mod server_certificates;
mod upstream_protocols;
mod weighted_balancing;
