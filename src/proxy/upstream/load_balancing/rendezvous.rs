//! Sticky routing by rendezvous hashing: each server gets a score for a key, and the best score owns the key.
//!
//! Guarantees: the same bytes, names and weights lead to the same server in every gateway, on every machine and with
//! every version of Tallygate. The hash is FNV-1a of 64 bits, mixed by the finalizer of MurmurHash3, and all arithmetic
//! uses integers.
//!
//! Leaves to others: which servers take part (`load_balancing`).

use std::cmp::Reverse;

/// FNV-1a, 64 bits (RFC 9923).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
/// `fmix64` of MurmurHash3.
const FMIX64: [u64; 2] = [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53];

/// The fractional bits of a logarithm.
const FRACTION_BITS: u32 = 32;
/// The extra bits that are kept when a logarithm is divided by a weight; 6 + 32 + 20 of 64 bits are used.
const KEPT_BITS: u32 = 20;

/// The key for sticky routing: a hash of a header's value, of a session, or of the department; and the server that a
/// persistent session is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashKey {
    hash: u64,
    /// The position of that server.
    pinned: Option<u16>,
}

impl HashKey {
    /// The key of these bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let fnv = bytes.iter().fold(FNV_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
        Self { hash: mix_hash(fnv), pinned: None }
    }

    /// The same key, with the server that its session is at.
    pub(crate) fn pinned_to(self, position: usize) -> Self {
        Self { pinned: u16::try_from(position).ok(), ..self }
    }

    /// The position of the server that its session is at.
    pub(crate) fn pinned(self) -> Option<usize> {
        self.pinned.map(usize::from)
    }

    /// The key as the hash of a server's name.
    pub(crate) fn server_hash(self) -> u64 {
        self.hash
    }

    /// The score of a server with this seed: the largest one owns the key, if all weights are equal.
    pub(crate) fn score(self, seed: u64) -> u64 {
        mix_hash(self.hash ^ seed)
    }

    /// The score of a server with a weight of at least 1: the largest one owns the key.
    ///
    /// A draw `u` in `0..1` becomes `-log2(u) / weight`, and the smallest value wins. The first of several
    /// exponentially distributed waits belongs to each in proportion to its rate, so a server gets keys in proportion
    /// to its weight. A change of a weight moves only keys to or from its own server. Equal weights give the same owner
    /// as no weights.
    pub(crate) fn weighted_score(self, seed: u64, weight: u64) -> (Reverse<u64>, u64) {
        let draw = self.score(seed);
        (Reverse((negative_log2(draw) << KEPT_BITS) / weight.max(1)), draw)
    }
}

fn mix_hash(mut hash: u64) -> u64 {
    for factor in FMIX64 {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// `-log2(draw / 2^64)` with [`FRACTION_BITS`] fractional bits: at least `2^-FRACTION_BITS`, at most 64.
fn negative_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    let mut mantissa = draw << zeros; // in `1..2`, with 63 fractional bits
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        // Squaring doubles the logarithm: its next bit is 1 if the square has reached 2.
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let digit = u64::from(square >> 64 != 0);
        fraction = fraction << 1 | digit;
        mantissa = u64::try_from(square >> digit).unwrap_or(u64::MAX);
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_their_reference_values() {
        assert_eq!(mix_hash(1), 0xb456_bcfc_34c2_cb2c, "fmix64");
        for (bytes, fnv) in [("", FNV_BASIS), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(HashKey::from_bytes(bytes.as_bytes()).hash, mix_hash(fnv), "{bytes:?}, of RFC 9923");
        }
    }

    #[test]
    fn logarithms_are_exact_to_the_last_digit() {
        let one = 1 << FRACTION_BITS;
        for (draw, expected) in [(0, 64 * one), (1, 64 * one), (1 << 32, 32 * one), (1 << 63, one)] {
            assert_eq!(negative_log2(draw), expected, "{draw:x}");
        }
        // log2(3) is 1.5849625007211561814..., with a fraction of 2_512_394_809 / 2^32.
        assert_eq!(negative_log2(3 << 62), one - 2_512_394_809);
        assert_eq!(negative_log2(u64::MAX), 1);
    }
}
