//! Tests of caller identity: mTLS handshakes in memory, verification of certificate chains with CRLs and name
//! constraints, SNI, and problems of certificate files.

#[cfg(test)]
mod chain_verification;
#[cfg(test)]
mod file_problems;
#[cfg(test)]
mod handshakes;
