//! Tests of the room as a whole: handshakes in memory, verification of chains, problems of files.

#[cfg(test)]
mod chain_verification;
#[cfg(test)]
mod file_problems;
#[cfg(test)]
mod handshakes;
