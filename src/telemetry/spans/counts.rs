//! What became of spans, for `/metrics`.

use crate::telemetry::counters::EventCounter;

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDropReason {
    /// The queue was full: the collector is away, or too slow.
    QueueFull,
    /// The collector gave no answer that accepts them, also when asked again.
    CollectorAway,
    /// The collector refused them.
    Rejected,
}

impl SpanDropReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::CollectorAway, Self::Rejected];

    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::CollectorAway => "collector_away",
            Self::Rejected => "rejected",
        }
    }
}

/// Spans since the process started. Each sampled command that ends is counted once.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: EventCounter,
    dropped: [EventCounter; SpanDropReason::ALL.len()],
}

impl SpanCounts {
    /// Spans that the collector took.
    pub fn exported(&self) -> u64 {
        self.exported.get()
    }

    /// Spans that were dropped for this reason.
    pub fn dropped(&self, reason: SpanDropReason) -> u64 {
        self.dropped[reason as usize].get()
    }

    /// Spans that were dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        SpanDropReason::ALL.into_iter().map(|reason| self.dropped(reason)).sum()
    }

    pub(crate) fn add_exported(&self, spans: u64) {
        self.exported.add(spans);
    }

    pub(crate) fn add_dropped(&self, reason: SpanDropReason, spans: u64) {
        self.dropped[reason as usize].add(spans);
    }
}
