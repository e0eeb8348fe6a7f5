//! The families of a Kubernetes controller (`tallygate_kube_*`). Without a controller there are none.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus::proto::MetricFamily;

use super::cluster_view::{ClusterView, KindView};
use super::family_spec::{MetricSample, to_float};
use super::{ConfigStatus, metric_families};

/// The label of excluded sources that are files.
const FILE: &str = "file";

impl ClusterView {
    /// All families of the controller. `config` is the live configuration.
    pub(crate) fn families(&self, config: &ConfigStatus, now: Timestamp) -> Vec<MetricFamily> {
        let by_result = |results: &[(&'static str, u64)]| -> Vec<MetricSample<1>> {
            results.iter().map(|(result, count)| ([(*result).to_owned()], to_float(*count))).collect()
        };
        let served = self.last_good.served.as_ref();
        let written = self.last_good.written_at.map(|at| ([], at.as_duration().as_secs_f64()));
        let applied = [("live", self.applies.count - self.rejected_applies), ("rejected", self.rejected_applies)];
        let own = vec![
            metric_families::KUBE_LEADER.single_family(flag(self.is_leader)),
            metric_families::KUBE_EXCLUDED.family_of(self.excluded_samples(config)),
            metric_families::KUBE_TRANSLATIONS.single_family(to_float(self.translations.count)),
            metric_families::KUBE_TRANSLATION_TIME.single_family(self.translations.duration.as_secs_f64()),
            metric_families::KUBE_APPLIES.family_of(by_result(&applied)),
            metric_families::KUBE_APPLY_TIME.single_family(self.applies.duration.as_secs_f64()),
            metric_families::KUBE_STATUS_WRITES.family_of(by_result(&self.status_writes)),
            metric_families::KUBE_STATUS_WAITING.single_family(to_float(self.statuses_waiting)),
            metric_families::KUBE_EVENTS.family_of(by_result(&self.events)),
            metric_families::KUBE_ANNOTATIONS.family_of(by_result(&self.annotations)),
            metric_families::KUBE_LAST_GOOD_SERVED.single_family(flag(served.is_some())),
            metric_families::KUBE_LAST_GOOD_AGE.family_of(served.map(|served| ([], served.age(now).as_secs_f64()))),
            metric_families::KUBE_LAST_GOOD_WRITTEN.family_of(written),
        ];
        [self.watch_families(), own].concat()
    }

    fn watch_families(&self) -> Vec<MetricFamily> {
        let each = |read: fn(&KindView) -> f64| self.kinds.iter().map(move |one| ([one.kind.to_owned()], read(one)));
        let states = self.kinds.iter().map(|one| ([one.kind.to_owned(), one.state.to_owned()], 1.0));
        vec![
            metric_families::KUBE_OBJECTS.family_of(each(|one| to_float(one.objects))),
            metric_families::KUBE_WATCH_SYNCED.family_of(each(|one| flag(one.is_synced))),
            metric_families::KUBE_WATCH_STATE.family_of(states),
            metric_families::KUBE_WATCH_AGE.family_of(each(|one| one.age.as_secs_f64())),
            metric_families::KUBE_WATCH_RESTARTS.family_of(each(|one| to_float(one.relists))),
            metric_families::KUBE_WATCH_ERRORS.family_of(each(|one| to_float(one.faults))),
        ]
    }

    /// The sources that the configuration leaves out, by the kind of their object. Kinds are those of the watches.
    fn excluded_samples(&self, config: &ConfigStatus) -> Vec<MetricSample<1>> {
        let mut counts: BTreeMap<&str, u64> = self.kinds.iter().map(|one| (one.kind, 0)).collect();
        counts.insert(FILE, 0);
        for excluded in &config.excluded {
            let kind = excluded.source.split(' ').next().filter(|kind| counts.contains_key(kind)).unwrap_or(FILE);
            *counts.entry(kind).or_default() += 1;
        }
        counts.into_iter().map(|(kind, count)| ([kind.to_owned()], to_float(count))).collect()
    }
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::config::ExcludedSource;
    use crate::telemetry::{LastGoodView, LiveConfig, ServedLastGood, WorkTotals};

    fn kind(kind: &'static str, objects: u64) -> KindView {
        let (age, state) = (Duration::from_millis(1500), "live");
        KindView { kind, is_synced: true, state, objects, age, relists: 2, faults: 3 }
    }

    fn text(view: &ClusterView, excluded: &[&str]) -> String {
        let now: Timestamp = "2026-11-30T04:00:00Z".parse().expect("a time");
        let excluded = excluded.iter().map(|source| ExcludedSource { source: (*source).into(), problems: vec![] });
        let config = ConfigStatus {
            live: LiveConfig { version: String::new(), since: now, ..LiveConfig::default() },
            weakened: vec![],
            restart_needed: vec![],
            excluded: excluded.collect(),
            changes: None,
            rejected: None,
            last_good: None,
        };
        let families = view.families(&config, now);
        let families: Vec<_> = families.into_iter().filter(|family| !family.get_metric().is_empty()).collect();
        TextEncoder::new().encode_to_string(&families).expect("it renders")
    }

    #[test]
    fn controller_is_shown_with_a_bounded_number_of_series() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let served = ServedLastGood { written_at: at("2026-11-30T03:58:30Z"), since: at("2026-11-30T03:59:00Z") };
        let view = ClusterView {
            kinds: vec![kind("HTTPRoute", 5_000), kind("Ingress", 7)],
            translations: WorkTotals { count: 4, duration: Duration::from_millis(250) },
            applies: WorkTotals { count: 3, duration: Duration::from_millis(500) },
            rejected_applies: 1,
            status_writes: vec![("written", 9)],
            statuses_waiting: 2,
            events: vec![("written", 5), ("dropped", 1)],
            is_leader: true,
            annotations: vec![("unknown", 6)],
            last_good: LastGoodView { written_at: Some(Timestamp::UNIX_EPOCH), served: Some(served) },
        };
        let many: Vec<String> = (0..1_000).map(|number| format!("HTTPRoute a/r{number}")).collect();
        let mut excluded: Vec<&str> = many.iter().map(String::as_str).collect();
        excluded.extend(["/etc/tallygate/extra.yaml", "Ingress b/web"]);
        let text = text(&view, &excluded);
        for line in [
            r#"tallygate_kube_objects{kind="HTTPRoute"} 5000"#,
            r#"tallygate_kube_watch_synced{kind="Ingress"} 1"#,
            r#"tallygate_kube_watch_state{kind="Ingress",state="live"} 1"#,
            r#"tallygate_kube_watch_age_seconds{kind="Ingress"} 1.5"#,
            r#"tallygate_kube_watch_restarts_total{kind="Ingress"} 2"#,
            r#"tallygate_kube_watch_errors_total{kind="Ingress"} 3"#,
            r#"tallygate_kube_excluded_objects{kind="HTTPRoute"} 1000"#,
            r#"tallygate_kube_excluded_objects{kind="Ingress"} 1"#,
            r#"tallygate_kube_excluded_objects{kind="file"} 1"#,
            "tallygate_kube_leader 1",
            "tallygate_kube_translations_total 4",
            "tallygate_kube_translation_seconds_total 0.25",
            r#"tallygate_kube_applies_total{result="live"} 2"#,
            r#"tallygate_kube_applies_total{result="rejected"} 1"#,
            "tallygate_kube_apply_seconds_total 0.5",
            r#"tallygate_kube_status_writes_total{result="written"} 9"#,
            "tallygate_kube_statuses_waiting 2",
            r#"tallygate_kube_events_total{result="dropped"} 1"#,
            r#"tallygate_kube_ingress_annotations{verdict="unknown"} 6"#,
            "tallygate_kube_last_good_served 1",
            "tallygate_kube_last_good_age_seconds 90",
            "tallygate_kube_last_good_written_timestamp_seconds 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.lines().filter(|line| !line.starts_with('#')).count() < 40, "{text}");
    }

    #[test]
    fn age_is_absent_while_the_configuration_of_the_cluster_is_served() {
        let text = text(&ClusterView::default(), &[]);
        assert!(text.contains("\ntallygate_kube_last_good_served 0\n"), "{text}");
        assert!(!text.contains("last_good_age") && !text.contains("last_good_written"), "{text}");
    }
}
