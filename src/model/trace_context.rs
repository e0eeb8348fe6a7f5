//! The place of a command in a distributed trace.
//!
//! Source: W3C Trace Context.

/// The place of a command in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: that of the caller, or a new one.
    pub trace_id: u128,
    /// The span of the command.
    pub span_id: u64,
    /// The caller's span, if the caller has one.
    pub parent: Option<ParentSpan>,
}

/// The span of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentSpan {
    /// Its id.
    pub span_id: u64,
    /// Whether the caller records it.
    pub is_sampled: bool,
}

/// A command while traces are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandTrace {
    /// Its place.
    pub context: TraceContext,
    /// Whether it becomes a span.
    pub is_sampled: bool,
}
