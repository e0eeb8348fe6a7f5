//! Why a Prometheus lacks an hour, or has it several times.

/// The cause of a difference, in the order in which causes are tried: the first that applies is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HourCause {
    /// The hour is not sealed, so `/metrics/hours` has not offered it yet.
    NotFinal,
    /// The Prometheus did not scrape the gateway before this hour: it began later, or its retention has removed it.
    NoData,
    /// The Prometheus scraped nothing in the time in which the hour was offered.
    ServerDown,
    /// Every scrape in that time failed.
    GatewayUnreachable,
    /// A scrape succeeded, and the samples are not there, or only some of them.
    SampleRefused,
    /// Several series have different values, and those of one equal the ledger.
    SeveralSources,
}

impl HourCause {
    /// All causes, in their order.
    pub const ALL: [Self; 6] = [
        Self::NotFinal,
        Self::NoData,
        Self::ServerDown,
        Self::GatewayUnreachable,
        Self::SampleRefused,
        Self::SeveralSources,
    ];

    /// The name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFinal => "not_final",
            Self::NoData => "no_data",
            Self::ServerDown => "prometheus_down",
            Self::GatewayUnreachable => "gateway_unreachable",
            Self::SampleRefused => "sample_refused",
            Self::SeveralSources => "several_sources",
        }
    }

    /// The name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotFinal => "not final yet",
            Self::NoData => "no data in Prometheus",
            Self::ServerDown => "Prometheus was down",
            Self::GatewayUnreachable => "gateway unreachable",
            Self::SampleRefused => "sample refused",
            Self::SeveralSources => "several sources",
        }
    }

    /// What is known, and what to do.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotFinal => {
                "these hours are not sealed: wait until a minute after their end; is the gateway running?"
            }
            Self::NoData => {
                "no sample of `up` of this job in these hours or the month before: retention, a scrape that began \
                 later, or another --job; load them with --missing"
            }
            Self::ServerDown => "no sample of `up` while they were offered; load them with --missing",
            Self::GatewayUnreachable => "`up` was 0 while they were offered; load them with --missing",
            Self::SampleRefused => {
                "scrapes succeeded, and samples are missing: look for out_of_order_time_window, sample_limit, \
                 metric_relabel_configs and honor_timestamps of the job; load them with --missing"
            }
            Self::SeveralSources => {
                "series of several gateways, or relabelled ones, under one name: choose those of this ledger with \
                 --matcher, or name all ledgers and --sum-by"
            }
        }
    }

    /// Whether the hour is absent from the Prometheus, so that it can be loaded.
    pub const fn is_absence(self) -> bool {
        !matches!(self, Self::NotFinal | Self::SeveralSources)
    }

    /// Of an hour that is sealed and absent: the cause, from the scrapes in the time in which it was offered. `success`
    /// is whether one of them succeeded, `None` without a scrape.
    pub const fn of_absent_hour(success: Option<bool>, was_scraped_before: bool) -> Self {
        match (success, was_scraped_before) {
            (Some(true), _) => Self::SampleRefused,
            (Some(false), _) => Self::GatewayUnreachable,
            (None, true) => Self::ServerDown,
            (None, false) => Self::NoData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_of_an_absent_hour_follows_from_its_scrapes() {
        for (success, before, expected) in [
            (Some(true), false, HourCause::SampleRefused),
            (Some(false), true, HourCause::GatewayUnreachable),
            (None, true, HourCause::ServerDown),
            (None, false, HourCause::NoData),
        ] {
            assert_eq!(HourCause::of_absent_hour(success, before), expected);
            assert!(expected.is_absence());
        }
    }

    #[test]
    fn manual_explains_every_cause() {
        let manual = include_str!("../../../docs/reports.md");
        for cause in HourCause::ALL {
            assert!(manual.contains(&format!("| {} | `{}` |", cause.title(), cause.name())), "{}", cause.name());
        }
    }
}
