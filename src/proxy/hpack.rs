//! Header blocks as they come over the wire (RFC 7541), read as far as it takes to see where each field begins.
//!
//! Guarantees: pure; however a block is cut, the verdict is the same; nothing is kept of it but a position. At most
//! [`SIZE_UPDATES_MAX`] dynamic table size updates, all of them before the first field (section 4.2). Leaves names, values,
//! and everything that is wrong with an encoding to h2.

/// Updates of the dynamic table's size in one block: an encoder needs at most two, its smallest size and its last (RFC 7541
/// section 4.2). h2 takes any number of them, at 8 ns each, and at the beginning of each CONTINUATION as well.
const SIZE_UPDATES_MAX: u8 = 2;
/// The largest integer that is followed; what is longer, h2 refuses.
const INTEGER_BITS_MAX: u32 = 28;

/// Too many size updates, or one after a field: where in the bytes that were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OddUpdate(pub(super) usize);

/// Follows the block of one head or trailer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockWalk {
    at: At,
    updates: u8,
    has_fields: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// Before the first byte of a field or of a size update.
    #[default]
    Begin,
    /// In an integer whose first byte was full (section 5.1).
    Integer { read: u32, bits: u32, then: Then },
    /// Before the length of a string (section 5.2).
    Length(Text),
    /// In a string of which so many bytes are to come.
    String(u32, Text),
}

/// What an integer is followed by.
#[derive(Clone, Copy, Debug)]
enum Then {
    Begin,
    Length(Text),
    String(Text),
}

/// Which string of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Value,
}

impl BlockWalk {
    /// Looks at the next bytes of the block.
    pub(super) fn walk(&mut self, bytes: &[u8]) -> Result<(), OddUpdate> {
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            let at = self.at;
            position += match at {
                At::Begin if self.is_odd(*byte) => return Err(OddUpdate(position)),
                At::String(left, text) => self.skip(bytes.len() - position, left, text),
                _ => self.take(*byte),
            };
        }
        Ok(())
    }

    /// Whether the bytes so far end with a whole field or size update.
    pub(super) fn is_between_fields(&self) -> bool {
        matches!(self.at, At::Begin)
    }

    /// Takes the first byte of a field or of a size update; whether it is an update that may not be there.
    fn is_odd(&mut self, byte: u8) -> bool {
        let is_update = byte & 0b1110_0000 == 0b0010_0000;
        if !is_update {
            self.has_fields = true;
            return false;
        }
        self.updates = self.updates.saturating_add(1);
        self.has_fields || self.updates > SIZE_UPDATES_MAX
    }

    fn take(&mut self, byte: u8) -> usize {
        self.at = match self.at {
            At::Begin => begun(byte),
            At::Length(text) => integer(byte, 7, Then::String(text)),
            At::Integer { read, bits, then } => {
                let read = read.saturating_add(u32::from(byte & 0x7f) << bits.min(INTEGER_BITS_MAX - 7));
                match byte & 0x80 == 0 {
                    true => after(then, read),
                    false => At::Integer { read, bits: bits + 7, then },
                }
            }
            At::String(..) => self.at,
        };
        1
    }

    /// Skips what has come of a string.
    fn skip(&mut self, come: usize, left: u32, text: Text) -> usize {
        let skipped = come.min(left as usize);
        let left = left - u32::try_from(skipped).unwrap_or(left);
        self.at = if left == 0 { after_string(text) } else { At::String(left, text) };
        skipped
    }
}

/// What the first byte of a field or an update begins (section 6).
fn begun(byte: u8) -> At {
    let (prefix, is_literal) = match byte {
        0b1000_0000.. => (7, false),
        0b0100_0000.. => (6, true),
        0b0010_0000.. => (5, false),
        _ => (4, true),
    };
    let has_name = byte & ((1 << prefix) - 1) == 0;
    integer(
        byte,
        prefix,
        match (is_literal, has_name) {
            (false, _) => Then::Begin,
            (true, true) => Then::Length(Text::Name),
            (true, false) => Then::Length(Text::Value),
        },
    )
}

/// The first byte of an integer.
fn integer(byte: u8, prefix: u32, then: Then) -> At {
    let full = (1 << prefix) - 1;
    let read = u32::from(byte) & full;
    if read == full { At::Integer { read, bits: 0, then } } else { after(then, read) }
}

fn after(then: Then, read: u32) -> At {
    match then {
        Then::Begin => At::Begin,
        Then::Length(text) => At::Length(text),
        Then::String(text) if read == 0 => after_string(text),
        Then::String(text) => At::String(read, text),
    }
}

fn after_string(text: Text) -> At {
    match text {
        Text::Name => At::Length(Text::Value),
        Text::Value => At::Begin,
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
            block.extend(std::iter::repeat_n(b' ', usize::from(length))); // a blank would begin an update
            block.extend([0x7f, 0x81, 0x02]); // 127 + 1 + (2 << 7)
            block.extend(std::iter::repeat_n(b'?', 384));
        }
        block.extend([0x0f, 0x01, 0x00, 0xff, 0x00]); // a name of index 16 with no value, an index of 127
        block
    }

    /// Where the walk ends, if so many bytes come at a time.
    fn walked(block: &[u8], at_a_time: usize) -> Option<usize> {
        let mut walk = BlockWalk::default();
        let mut before = 0;
        for piece in block.chunks(at_a_time) {
            if let Err(OddUpdate(at)) = walk.walk(piece) {
                return Some(before + at);
            }
            before += piece.len();
        }
        assert!(matches!(walk.at, At::Begin), "{walk:?}");
        None
    }

    #[test]
    fn two_updates_before_the_first_field_are_taken_however_they_are_cut() {
        for updates in [&b""[..], b"\x20", b"\x3f\xe1\x1f", b"\x20\x3f\xe1\x1f"] {
            let block = [updates, &fields()].concat();
            for at_a_time in 1..=block.len() {
                assert_eq!(walked(&block, at_a_time), None, "{updates:?}, {at_a_time} bytes at a time");
            }
        }
    }

    #[test]
    fn a_third_update_and_one_after_a_field_are_found_where_they_stand() {
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
    fn an_integer_without_end_is_followed_without_harm() {
        let mut walk = BlockWalk::default();
        assert_eq!(walk.walk(&[0xff; 4096]), Ok(()));
        let mut string = BlockWalk::default();
        assert_eq!(string.walk(&[&[0x00, 0x7f][..], &[0xff; 64], &[0x7f], &[0x20; 4096]].concat()), Ok(()));
    }
}
