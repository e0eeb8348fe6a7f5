//! Caller identity:
//! - mTLS client certificates and chains, certificate revocation lists (CRL), live revocation on open connections;
//! - SNI and `Host` / `:authority` matching (421 Misdirected Request);
//! - several certificates on one listener, each with its own authorities; certificates and keys in memory;
//! - callers whose certificate fails verification, where they are accepted, or refused at each request as in nginx;
//! - Departments of Kubernetes, with the realms of their authorities;
//! - plain HTTP listeners and callers without a certificate;
//! - spoofed headers, and the PROXY protocol behind a load balancer.

mod certificate_matrix;
mod certificates_by_name;
mod client_certificates;
mod crl;
mod departments_in_kubernetes;
mod header_spoofing;
mod live_revocation;
mod plain_listeners;
mod proxy_protocol;
mod refused_requests;
mod sni_and_host;
mod texts_in_memory;
mod unaccepted_certificates;
