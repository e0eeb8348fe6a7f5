//! Tells a connection and its streams to close, and when what is still in flight is cut off (`CloseNotice`).
//!
//! Guarantees: a notice may be withdrawn until the deadline; a connection that has received one takes no more
//! requests.
//! Leaves to others: why a connection is closed (`worker::peer`), and closing it (`downstream`).
