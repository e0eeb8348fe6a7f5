//! A close notice (`CloseNotice`): asks a connection and its streams to close, and sets the deadline at which commands
//! in flight are cut off.
//!
//! Guarantees:
//! - A notice can be withdrawn until its deadline.
//! - A connection with a notice accepts no more requests.
//!
//! Leaves to others: why a connection is closed (`worker::peer`), and the close itself (`downstream`).
