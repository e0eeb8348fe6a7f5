//! The remainder of a request that has no response: generic over the request and over the id of the session that
//! refused it.
//!
//! Guarantees: the variant shows whether the server can have processed the request.
//!
//! Leaves to others: whether it is sent again (`resend`).
