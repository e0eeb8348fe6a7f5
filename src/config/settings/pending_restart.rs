//! The settings that are read once, at start, as text by path: the differences that a reload cannot apply.
//!
//! Guarantees: every field of [`GatewaySettings`] that a running gateway keeps is listed here under the key that
//! documents it. `docs/configuration.md` marks those keys with `*`; a test compares the two.
//!
//! Listeners, the admin listener and the access log are not listed: a reload changes them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use super::gateway_settings::{CapacitySettings, GatewaySettings};

/// A setting that waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PendingSetting {
    /// The key of the setting: `capacity.idle`.
    pub path: String,
    /// The value in the running gateway; `None` if the setting is not set there.
    pub live: Option<String>,
    /// The value in the configuration file; `None` if the setting is not set there.
    pub file: Option<String>,
}

impl GatewaySettings {
    /// The settings in which `new` differs from the settings of this gateway's start. They wait for a restart.
    pub fn needs_restart(&self, new: &Self) -> Vec<PendingSetting> {
        let (mut live, mut file) = (self.static_values(), new.static_values());
        live.retain(|path, value| match file.get(path) {
            Some(same) if same == value => file.remove(path).is_none(),
            _ => true,
        });
        let mut paths: Vec<String> = live.keys().chain(file.keys()).cloned().collect();
        paths.sort();
        paths.dedup();
        let pending = |path: String| PendingSetting { live: live.remove(&path), file: file.remove(&path), path };
        paths.into_iter().map(pending).collect()
    }

    /// All static settings, by their paths.
    pub(super) fn static_values(&self) -> BTreeMap<String, String> {
        let mut read = BTreeMap::new();
        let mut note = |path: &str, value: &dyn Display| drop(read.insert(path.to_owned(), value.to_string()));
        note("gateway", &self.gateway);
        note("ledger.path", &self.ledger_path.display());
        note("ledger.syncEvery", &duration_text(self.sync_every));
        note("ledger.compactAfter", &self.compact_after.map_or("never".to_owned(), duration_text));
        note("calendar.offset", &self.calendar);
        note("workers", &self.workers);
        note("shutdown.delay", &duration_text(self.shutdown.delay));
        note("shutdown.quiet", &self.shutdown.quiet.map_or("none".to_owned(), duration_text));
        note("shutdown.grace", &duration_text(self.shutdown.grace));
        self.capacity.record_static_values(&mut note);
        if let Some(tracing) = &self.tracing {
            note("tracing.endpoint", &tracing.endpoint);
            note("tracing.sample", &sample_text(tracing.one_of));
            note("tracing.parentBased", &tracing.is_parent_based);
            note("tracing.serviceName", &tracing.service_name);
            note("tracing.timeout", &duration_text(tracing.timeout));
            note("tracing.queue", &tracing.queue);
        }
        read
    }
}

impl CapacitySettings {
    fn record_static_values(&self, note: &mut impl FnMut(&str, &dyn Display)) {
        let mut count = |key: &str, value: usize| note(&format!("capacity.{key}"), &value);
        if let Some(connections) = self.connections {
            count("connections", connections);
        }
        if let Some(commands) = self.connection_commands {
            count("connectionCommands", commands);
        }
        count("departmentConnections", self.department_connections);
        count("addressConnections", self.address_connections);
        count("handshakes", self.handshakes);
        count("inFlight", self.in_flight);
        count("series", self.series);
        count("headFields", self.head_fields);
        count("upstreamIdle", self.upstream_idle);
        let mut time = |key: &str, value: Duration| note(&format!("capacity.{key}"), &duration_text(value));
        time("handshake", self.handshake);
        time("headTime", self.head_time);
        time("idle", self.idle);
        time("bodyIdle", self.body_idle);
        time("responseIdle", self.response_idle);
        time("connectionAge", self.connection_age);
        time("upstreamIdleTime", self.upstream_idle_time);
        note("capacity.headBytes", &format!("{}B", self.head_bytes));
        note("capacity.bodyRate", &format!("{}B", self.body_rate));
    }
}

/// A part of the traces as a configuration writes it.
fn sample_text(one_of: u32) -> String {
    match one_of {
        0 => "none".to_owned(),
        1 => "all".to_owned(),
        one_of => format!("1/{one_of}"),
    }
}

/// A duration as a configuration writes it, in the largest unit that yields a whole number.
fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = units.into_iter().find(|(_, length)| milliseconds > 0 && milliseconds.is_multiple_of(*length));
    whole.map_or_else(|| format!("{milliseconds}ms"), |(unit, length)| format!("{}{unit}", milliseconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_configured() {
        for (milliseconds, shown) in
            [(0, "0ms"), (250, "250ms"), (1_000, "1s"), (90_000, "90s"), (3_600_000, "1h"), (92 * 86_400_000, "92d")]
        {
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), shown);
        }
    }
}
