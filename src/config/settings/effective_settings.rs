//! The settings that are in effect, as text by key, for operators: what the file says, and the defaults of the rest.
//!
//! Guarantees: keys and certificates are shown as the paths of their files; no value is a secret.
//!
//! Leaves to others: departments, subsystems and grants, which are policy.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use super::access_log::{AccessLogFormat, AccessLogOutput, AccessLogSettings};
use super::gateway_settings::{GatewaySettings, ListenerSettings};

/// Takes the value of a key.
type Note<'n> = &'n mut dyn FnMut(&str, &dyn Display);

impl GatewaySettings {
    /// The settings in effect: of those that are read once, the values of this gateway's start; of those that a reload
    /// applies, the values of `reloaded`.
    #[must_use]
    pub fn effective_values(&self, reloaded: &Self) -> BTreeMap<String, String> {
        let mut values = self.static_values();
        let mut note = |key: &str, value: &dyn Display| drop(values.insert(key.to_owned(), value.to_string()));
        match &reloaded.admin {
            Some(address) => note("admin.address", address),
            None => note("admin.address", &"none"),
        }
        if !reloaded.admin_hosts.is_empty() {
            note("admin.hosts", &reloaded.admin_hosts.join(", "));
        }
        for listener in &reloaded.listeners {
            note_listener(listener, &mut note);
        }
        note_access_log(reloaded.access_log.as_ref(), &mut note);
        values
    }
}

fn note_listener(listener: &ListenerSettings, note: Note<'_>) {
    let key = |name: &str| format!("listeners[{}].{name}", listener.name);
    note(&key("address"), &listener.address);
    note(&key("protocol"), &listener.protocol.name());
    if let Some(connections) = listener.connections {
        note(&key("connections"), &connections);
    }
    for (number, files) in listener.tls.iter().flat_map(|tls| &tls.certificates).enumerate() {
        note(&key(&format!("certificate[{number}]")), &files.certificate.display());
        note(&key(&format!("key[{number}]")), &files.key.display());
        if let Some(callers) = &files.client_auth {
            note(&key(&format!("authorities[{number}]")), &paths_text(&callers.authorities));
            note(&key(&format!("revocation[{number}]")), &paths_text(&callers.revocation_lists));
        }
    }
}

fn paths_text(paths: &[impl AsRef<Path>]) -> String {
    let shown: Vec<_> = paths.iter().map(|path| path.as_ref().display().to_string()).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

fn note_access_log(settings: Option<&AccessLogSettings>, note: Note<'_>) {
    let Some(settings) = settings else { return note("accessLog", &"off") };
    match &settings.output {
        AccessLogOutput::Stdout => note("accessLog.output", &"stdout"),
        AccessLogOutput::File(path) => note("accessLog.output", &path.display()),
    }
    let format = match settings.format {
        AccessLogFormat::Json => "json",
        AccessLogFormat::Logfmt => "logfmt",
    };
    note("accessLog.format", &format);
    note("accessLog.query", &settings.has_query);
    note("accessLog.queue.lines", &settings.queue.lines);
}

#[cfg(test)]
mod tests {
    use crate::config::compile_text;
    use crate::config::test_fixtures::EXAMPLE;
    use crate::model::NameInterner;

    #[test]
    fn defaults_and_listeners_are_shown() {
        let configuration = compile_text(EXAMPLE, std::path::Path::new("/etc/tallygate"), &NameInterner::default())
            .expect("it compiles");
        let settings = configuration.settings;
        let values = settings.effective_values(&settings);
        for key in ["capacity.inFlight", "calendar.offset", "shutdown.grace", "admin.address", "accessLog", "workers"] {
            let is_there = values.keys().any(|one| one == key || one.starts_with(&format!("{key}.")));
            assert!(is_there, "{key}: {values:#?}");
        }
        assert!(values.keys().any(|key| key.starts_with("listeners[") && key.ends_with("].address")), "{values:#?}");
    }
}
