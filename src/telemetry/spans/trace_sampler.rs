//! Which traces are sampled.
//!
//! Source: OpenTelemetry specification, "Trace SDK", samplers `TraceIdRatioBased` and `ParentBased`.

use crate::config::TracingSettings;
use crate::model::TraceContext;

/// Chooses the traces that are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceSampler {
    /// A trace is chosen if the lower 63 bits of its id are less.
    bound: u64,
    is_parent_based: bool,
}

impl TraceSampler {
    pub(crate) fn new(settings: &TracingSettings) -> Self {
        let all: u64 = 1 << 63;
        let bound = all.checked_div(u64::from(settings.one_of)).unwrap_or(0);
        Self { bound, is_parent_based: settings.is_parent_based }
    }

    /// Whether the command becomes a span. Every service that samples by the same ratio chooses the same traces.
    pub(crate) fn samples(&self, context: &TraceContext) -> bool {
        match context.parent {
            Some(parent) if self.is_parent_based => parent.is_sampled,
            _ => (context.trace_id as u64) >> 1 < self.bound, // the lower half of the id, as other samplers do
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ParentSpan;
    use crate::telemetry::spans::export::tests::settings;

    #[test]
    fn parent_decides_unless_it_is_told_otherwise() {
        let context = |trace_id, is_sampled: Option<bool>| TraceContext {
            trace_id,
            span_id: 1,
            parent: is_sampled.map(|is_sampled| ParentSpan { span_id: 2, is_sampled }),
        };
        let (first, last) = (7 << 64, u128::from(u64::MAX));
        for (one_of, is_parent_based, context, expected) in [
            (1, true, context(last, None), true),
            (0, true, context(first, None), false),
            (0, true, context(first, Some(true)), true),
            (1, true, context(first, Some(false)), false),
            (1, false, context(first, Some(false)), true),
            (2, true, context(first, None), true),
            (2, true, context(last, None), false),
        ] {
            let settings = TracingSettings { one_of, is_parent_based, ..settings(9) };
            assert_eq!(TraceSampler::new(&settings).samples(&context), expected, "1/{one_of} {context:?}");
        }
        let sampler = TraceSampler::new(&TracingSettings { one_of: 4, ..settings(9) });
        let chosen = (0..64_u128).filter(|part| sampler.samples(&context(part << 58, None))).count();
        assert_eq!(chosen, 16, "one of four");
    }
}
