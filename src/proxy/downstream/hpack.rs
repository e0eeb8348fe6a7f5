//! Header blocks on the wire (HPACK, RFC 7541), parsed only as far as needed to find where each field begins.
//!
//! Guarantees:
//! - Pure: no I/O and no shared state. Only a position is kept of a block.
//! - The result does not depend on how the bytes of a block are split.
//! - A block has at most [`SIZE_UPDATES_MAX`] dynamic table size updates, all before the first field (RFC 7541 section
//!   4.2).
//!
//! Leaves to h2: names, values, and every other fault of the encoding.

/// The maximum number of dynamic table size updates in one block. An encoder needs at most two, its smallest size and
/// its last (RFC 7541 section 4.2). h2 accepts any number of them, at 8 ns each, and at the beginning of each
/// CONTINUATION as well.
const SIZE_UPDATES_MAX: u8 = 2;
/// The bits of the largest integer that is decoded. h2 rejects longer integers.
const INTEGER_BITS_MAX: u32 = 28;

/// Too many size updates, or one after a field. The value is its position in the given bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnexpectedSizeUpdate(pub(crate) usize);

/// Parses the header block of one head or trailer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeaderBlockWalk {
    state: WalkState,
    updates: u8,
    has_fields: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum WalkState {
    /// Before the first byte of a field or of a size update.
    #[default]
    Begin,
    /// In an integer with a full prefix (section 5.1).
    Integer { read: u32, bits: u32, then: AfterInteger },
    /// Before the length of a string (section 5.2).
    Length(FieldString),
    /// In a string; the number is its remaining bytes.
    String(u32, FieldString),
}

/// What follows an integer.
#[derive(Clone, Copy, Debug)]
enum AfterInteger {
    Begin,
    Length(FieldString),
    String(FieldString),
}

/// One of the two strings of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldString {
    Name,
    Value,
}

impl HeaderBlockWalk {
    /// Parses the next bytes of the block.
    pub(crate) fn walk(&mut self, bytes: &[u8]) -> Result<(), UnexpectedSizeUpdate> {
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            let at = self.state;
            if matches!((at, *byte), (WalkState::Begin, 0x80..=0xfe)) {
                self.has_fields = true; // an index of one byte is a whole field, and most fields are one
                position += 1;
                continue;
            }
            position += match at {
                WalkState::Begin if self.is_unexpected_update(*byte) => return Err(UnexpectedSizeUpdate(position)),
                WalkState::String(left, text) => self.skip_string(bytes.len() - position, left, text),
                _ => self.consume(*byte),
            };
        }
        Ok(())
    }

    /// Whether the bytes so far end with a complete field or size update.
    pub(crate) fn is_between_fields(&self) -> bool {
        matches!(self.state, WalkState::Begin)
    }

    /// Parses the first byte of a field or of a size update. Returns true for a size update that is not allowed.
    fn is_unexpected_update(&mut self, byte: u8) -> bool {
        let is_update = byte & 0b1110_0000 == 0b0010_0000;
        if !is_update {
            self.has_fields = true;
            return false;
        }
        self.updates = self.updates.saturating_add(1);
        self.has_fields || self.updates > SIZE_UPDATES_MAX
    }

    fn consume(&mut self, byte: u8) -> usize {
        self.state = match self.state {
            WalkState::Begin => begin_field(byte),
            WalkState::Length(text) => begin_integer(byte, 7, AfterInteger::String(text)),
            WalkState::Integer { read, bits, then } => {
                let read = read.saturating_add(u32::from(byte & 0x7f) << bits.min(INTEGER_BITS_MAX - 7));
                match byte & 0x80 == 0 {
                    true => after_integer(then, read),
                    false => WalkState::Integer { read, bits: bits + 7, then },
                }
            }
            WalkState::String(..) => self.state,
        };
        1
    }

    /// Skips the bytes of a string that have arrived.
    fn skip_string(&mut self, available: usize, left: u32, text: FieldString) -> usize {
        let skipped = available.min(left as usize);
        let left = left - u32::try_from(skipped).unwrap_or(left);
        self.state = if left == 0 { after_string(text) } else { WalkState::String(left, text) };
        skipped
    }
}

/// The state after the first byte of a field or of a size update (section 6).
fn begin_field(byte: u8) -> WalkState {
    let (prefix, is_literal) = match byte {
        0b1000_0000.. => (7, false),
        0b0100_0000.. => (6, true),
        0b0010_0000.. => (5, false),
        _ => (4, true),
    };
    let has_name = byte & ((1 << prefix) - 1) == 0;
    begin_integer(
        byte,
        prefix,
        match (is_literal, has_name) {
            (false, _) => AfterInteger::Begin,
            (true, true) => AfterInteger::Length(FieldString::Name),
            (true, false) => AfterInteger::Length(FieldString::Value),
        },
    )
}

/// The state after the first byte of an integer.
fn begin_integer(byte: u8, prefix: u32, then: AfterInteger) -> WalkState {
    let full = (1 << prefix) - 1;
    let read = u32::from(byte) & full;
    if read == full { WalkState::Integer { read, bits: 0, then } } else { after_integer(then, read) }
}

fn after_integer(then: AfterInteger, read: u32) -> WalkState {
    match then {
        AfterInteger::Begin => WalkState::Begin,
        AfterInteger::Length(text) => WalkState::Length(text),
        AfterInteger::String(text) if read == 0 => after_string(text),
        AfterInteger::String(text) => WalkState::String(read, text),
    }
}

fn after_string(text: FieldString) -> WalkState {
    match text {
        FieldString::Name => WalkState::Length(FieldString::Value),
        FieldString::Value => WalkState::Begin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.4.1 to C.4.3, with Huffman, in one block; then a literal with a long name and value.
    fn fields() -> Vec<u8> {
        let mut block = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff".to_vec();
        block.extend(b"\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49");
        block.extend(b"\xe9\x5b\xb8\xe8\xb4\xbf");
        for length in [0x20_u8, 126] {
            block.extend([0x10, length]);
            // In another place, a blank would begin a size update.
            block.extend(std::iter::repeat_n(b' ', usize::from(length)));
            block.extend([0x7f, 0x81, 0x02]); // 127 + 1 + (2 << 7)
            block.extend(std::iter::repeat_n(b'?', 384));
        }
        block.extend([0x0f, 0x01, 0x00, 0xff, 0x00]); // a name of index 16 with no value, an index of 127
        block
    }

    /// The position where the walk fails if the block arrives in pieces of `at_a_time` bytes.
    fn walked(block: &[u8], at_a_time: usize) -> Option<usize> {
        let mut walk = HeaderBlockWalk::default();
        let mut before = 0;
        for piece in block.chunks(at_a_time) {
            if let Err(UnexpectedSizeUpdate(at)) = walk.walk(piece) {
                return Some(before + at);
            }
            before += piece.len();
        }
        assert!(matches!(walk.state, WalkState::Begin), "{walk:?}");
        None
    }

    #[test]
    fn two_size_updates_before_the_first_field_are_accepted_for_every_split() {
        for updates in [&b""[..], b"\x20", b"\x3f\xe1\x1f", b"\x20\x3f\xe1\x1f"] {
            let block = [updates, &fields()].concat();
            for at_a_time in 1..=block.len() {
                assert_eq!(walked(&block, at_a_time), None, "{updates:?}, {at_a_time} bytes at a time");
            }
        }
    }

    #[test]
    fn third_size_update_and_size_update_after_a_field_are_located() {
        let after = fields().len();
        for (block, at) in [
            (vec![0x20, 0x20, 0x20], 2),
            (vec![0x3f, 0xe1, 0x1f, 0x20, 0x3f], 4),
            ([&fields()[..], b"\x20"].concat(), after),
            ([&b"\x20"[..], &fields(), b"\x20\x82"].concat(), after + 1),
        ] {
            for at_a_time in 1..=block.len() {
                assert_eq!(walked(&block, at_a_time), Some(at), "{block:?}, {at_a_time} bytes at a time");
            }
        }
    }

    #[test]
    fn endless_integer_is_skipped() {
        let mut walk = HeaderBlockWalk::default();
        assert_eq!(walk.walk(&[0xff; 4096]), Ok(()));
        let mut string = HeaderBlockWalk::default();
        assert_eq!(string.walk(&[&[0x00, 0x7f][..], &[0xff; 64], &[0x7f], &[0x20; 4096]].concat()), Ok(()));
    }
}
