//! Who calls: certificates, revocation, SNI, spoofed headers, the PROXY protocol.

mod certificate_matrix;
mod client_certificates;
mod crl;
mod header_spoofing;
mod live_revocation;
mod proxy_protocol;
mod sni_and_host;
