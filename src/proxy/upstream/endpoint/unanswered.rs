//! The remainder of a request that has no response: generic over the request and over the id of the session that
//! refused it.
//!
//! Guarantees: the variant shows whether the server can have processed the request.
//!
//! Leaves to others: whether it is sent again (`resend`).

/// The remainder of a request whose exchange failed.
pub(crate) enum UnansweredRequest<R, S> {
    /// The whole request: nothing was sent.
    Unsent(R),
    /// The server has processed nothing of the request (RFC 9113 section 8.7). Holds the request, if all that was taken
    /// of its body is buffered, and the session that refused it.
    Refused(Option<R>, S),
    /// A kept connection ended before the first byte of a response. The request is safe and has no body, so it may be
    /// resent (RFC 9110 section 9.2.2).
    StaleConnection(R),
    /// Nothing: the server may have processed the request.
    MaybeProcessed,
}

impl<R, S> UnansweredRequest<R, S> {
    /// The same remainder, with the request in another form.
    pub(crate) fn map_request<T>(self, form: impl FnOnce(R) -> T) -> UnansweredRequest<T, S> {
        match self {
            Self::Unsent(request) => UnansweredRequest::Unsent(form(request)),
            Self::Refused(request, session) => UnansweredRequest::Refused(request.map(form), session),
            Self::StaleConnection(request) => UnansweredRequest::StaleConnection(form(request)),
            Self::MaybeProcessed => UnansweredRequest::MaybeProcessed,
        }
    }
}
