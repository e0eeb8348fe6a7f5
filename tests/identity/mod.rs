//! Caller identity:
//! - mTLS client certificates and chains, certificate revocation lists (CRL), live revocation on open connections;
//! - SNI and `Host` / `:authority` matching (421 Misdirected Request);
//! - spoofed headers, and the PROXY protocol behind a load balancer.

mod certificate_matrix;
mod client_certificates;
mod crl;
mod header_spoofing;
mod live_revocation;
mod proxy_protocol;
mod sni_and_host;
