//! The layout of HTTP/2 frames (RFC 9113 sections 4.1 and 6): lengths, types and flags.

/// The length of a frame head.
pub(crate) const FRAME_HEAD_LENGTH: usize = 9;

/// Frame types.
pub(crate) const DATA_FRAME: u8 = 0;
pub(crate) const HEADERS_FRAME: u8 = 1;
pub(crate) const RST_STREAM_FRAME: u8 = 3;
pub(crate) const SETTINGS_FRAME: u8 = 4;
pub(crate) const CONTINUATION_FRAME: u8 = 9;

/// Flags of SETTINGS.
pub(crate) const ACK_FLAG: u8 = 0x1;
/// Flags of HEADERS and CONTINUATION.
pub(crate) const END_HEADERS_FLAG: u8 = 0x4;
pub(crate) const PADDED_FLAG: u8 = 0x8;
pub(crate) const PRIORITY_FLAG: u8 = 0x20;
