//! Warnings about a configuration: oddities that do not prevent its use. `check` prints them.
//!
//! Guarantees:
//! - Nothing on the disk is changed.
//! - A list in a warning is given by its first entries and its length.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, access};

use crate::policy::{ConnectionMode, DownstreamProtocol, PolicySnapshot, Subsystem};

use super::loading::configuration::Configuration;
use super::loading::tls_loader::LoadedTls;
use super::settings::gateway_settings::{GatewaySettings, ListenerSettings};

/// The most entries of a list that are named.
const NAMES_LISTED_MAX: usize = 5;

/// All warnings, each with the key or the file that it is about.
pub fn warnings(configuration: &Configuration) -> Vec<String> {
    let Configuration { settings, snapshot, tls, .. } = configuration;
    let mut found: Vec<String> = tls.listeners.iter().flat_map(|(_, tls)| tls.warnings.clone()).collect();
    let mut seen = HashSet::new(); // listeners may share files
    found.retain(|warning| seen.insert(warning.clone()));
    found.extend(subsystem_warnings(tls));
    found.extend(unwritable_ledger(&settings.ledger_path));
    found.extend(exposed_admin(settings));
    found.extend(ungranted_departments(snapshot));
    found.extend(idle_grants(snapshot));
    found.extend(unused_backends(snapshot));
    found.extend(plain_listeners(settings, snapshot));
    found.extend(unverified_callers(settings));
    if settings.listeners.iter().all(|listener| listener.protocol != DownstreamProtocol::Http) {
        found.extend(unserved_hosts(snapshot, tls));
    }
    found
}

/// Oddities of the files of subsystems.
fn subsystem_warnings(tls: &LoadedTls) -> impl Iterator<Item = String> {
    let each = tls.subsystems.iter().flat_map(|(name, tls)| tls.warnings.iter().map(move |warning| (name, warning)));
    each.map(|(name, warning)| format!("subsystem {name}: {warning}"))
}

/// Warns of a ledger that the current user cannot write.
fn unwritable_ledger(book: &Path) -> Option<String> {
    let folder = &Path::new(".").join(book.parent().unwrap_or(Path::new(""))); // the parent of a bare name is empty
    let what = match folder.ancestors().find(|folder| folder.exists()) {
        Some(there) if !there.is_dir() => format!("{} is not a folder", there.display()),
        Some(there) if access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok() => return unwritable_file(book),
        Some(there) if there == folder => {
            format!("this user (uid {}) may not write the folder {}", user_id(), folder.display())
        }
        _ => {
            format!(
                "the folder {} does not exist, and this user (uid {}) may not create it",
                folder.display(),
                user_id()
            )
        }
    };
    Some(format!("ledger.path: {what}; {ACCESS_ADVICE}"))
}

const ACCESS_ADVICE: &str = "the user of `serve` needs this permission, otherwise the start fails with exit code 74";

fn unwritable_file(book: &Path) -> Option<String> {
    let is_unwritable = book.exists() && access(book, Access::WRITE_OK | Access::READ_OK).is_err();
    is_unwritable.then(|| {
        format!("ledger.path: this user (uid {}) may not write {}; {ACCESS_ADVICE}", user_id(), book.display())
    })
}

fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Warns of an admin listener that other machines can reach.
fn exposed_admin(settings: &GatewaySettings) -> Option<String> {
    let admin = settings.admin.filter(|admin| !admin.ip().is_loopback())?;
    Some(format!(
        "admin.address: {admin} may be reachable from other machines, and the admin listener has no authentication; \
         bind it to 127.0.0.1, or let only the network of operators reach it"
    ))
}

/// Warns of listeners of plain HTTP: that other machines reach, or on which no command can be authenticated.
fn plain_listeners(settings: &GatewaySettings, snapshot: &PolicySnapshot) -> Vec<String> {
    let mut found = Vec::new();
    let is_plain = |listener: &ListenerSettings| listener.protocol == DownstreamProtocol::Http;
    for (index, listener) in settings.listeners.iter().enumerate().filter(|(_, listener)| is_plain(listener)) {
        let path = format!("listeners[{index}].protocol");
        if !listener.address.ip().is_loopback() {
            let address = listener.address;
            found.push(format!("{path}: plain HTTP on {address}: others on the network can read and change commands"));
        }
        if snapshot.anonymous_department(&listener.name).is_err() {
            let name = &listener.name;
            found.push(format!(
                "{path}: every command on {name} is refused as unauthenticated, because plain HTTP has no client \
                 certificates; give a department `callers: [{{ listener: {name} }}]`"
            ));
        }
    }
    found
}

/// What `clientAuth.mode: allowInsecureFallback` and `anyAuthority` mean, in words.
pub(crate) const UNVERIFIED_ACCEPTED: &str = "callers whose certificate fails verification are accepted as callers \
                                              without a certificate (mode: allowInsecureFallback, anyAuthority)";

/// Warns of listeners that accept callers whose certificate fails verification: once for each `clientAuth`.
fn unverified_callers(settings: &GatewaySettings) -> Vec<String> {
    let mut found = Vec::new();
    for (index, _, files) in settings.tls_listeners() {
        let auths = files.client_auths().filter(|(_, auth)| auth.accepts_unverified());
        let keys = auths.map(|(certificate, _)| files.key_of_client_auth(certificate));
        found.extend(keys.map(|key| format!("listeners[{index}].tls{key}.mode: {UNVERIFIED_ACCEPTED}")));
    }
    found
}

/// Warns of departments without a grant.
fn ungranted_departments(snapshot: &PolicySnapshot) -> Option<String> {
    let (without, all) = snapshot.departments_without_grant();
    if without.len() == all {
        return Some("grants: no department may run any command; every command is refused as forbidden".to_owned());
    }
    let names: Vec<_> = without.iter().map(|policy| policy.department.id.as_str()).collect();
    let verb = if names.len() == 1 { "department has" } else { "departments have" };
    (!names.is_empty()).then(|| format!("grants: {} {verb} no grant: {}", names.len(), first_names(&names)))
}

/// Warns of rules that allow nothing new.
fn idle_grants(snapshot: &PolicySnapshot) -> Option<String> {
    let idle = snapshot.unused_rules().into_iter().map(|rule| format!("grants[{}] {:?}", rule.index, rule.pattern));
    let idle: Vec<String> = idle.collect();
    let names: Vec<_> = idle.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| {
        format!("grants: these grants have no effect, because earlier grants allow the same: {}", first_names(&names))
    })
}

/// Warns of backends that no command names: their servers get no commands.
fn unused_backends(snapshot: &PolicySnapshot) -> Option<String> {
    let names: Vec<_> = snapshot.unused_backends().map(|backend| backend.id.as_str()).collect();
    (!names.is_empty()).then(|| format!("backends: no command names these backends: {}", first_names(&names)))
}

/// Warns of hosts of subsystems that no listener serves: every request for them is misdirected.
fn unserved_hosts(snapshot: &PolicySnapshot, tls: &LoadedTls) -> Vec<String> {
    let is_served = |host: &str| {
        let suffix = host.starts_with('*').then(|| host.trim_start_matches('*'));
        tls.listeners.iter().any(|(_, tls)| match suffix {
            Some(suffix) => tls.hosts.has_host_below(suffix),
            None => tls.hosts.hosts_for_sni(Some(host)).is_some(),
        })
    };
    // Hosts that are passed through need no certificate here.
    let served_here = |subsystem: &&Arc<Subsystem>| subsystem.tls_mode != Some(ConnectionMode::Passthrough);
    let placed = snapshot.subsystems.iter().enumerate().filter(|(_, subsystem)| served_here(subsystem));
    let unserved = placed.flat_map(|(index, subsystem)| {
        let hosts = subsystem.scope.hosts.iter().filter(|host| !is_served(host));
        hosts.map(move |host| {
            let id = &subsystem.id;
            format!("subsystems[{index}].hosts: no listener serves {host}, a host of {id}; add it to tls.serverNames")
        })
    });
    unserved.collect()
}

fn first_names(names: &[&str]) -> String {
    let first = names.iter().take(NAMES_LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_LISTED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile_text;
    use crate::model::NameInterner;

    fn configuration(admin: &str, grants: &str) -> Configuration {
        let departments: String = (1..=8)
            .map(|number| format!("  - {{ id: d{number}, callers: [{{ dns: d{number}.example }}] }}\n"))
            .collect();
        let text = format!(
            "listeners: [{{ name: a, address: \"127.0.0.1:1\", tls: {{ certificate: c, key: k }} }}]
admin: {{ address: \"{admin}\" }}
ledger: {{ path: data/l.db }}
departments:
{departments}subsystems:
  - {{ id: s, upstreams: [{{ url: \"http://127.0.0.1:1\" }}], commands: [{{ id: c, match: {{ path: /c }} }}, {{ id: e, match: {{ path: /e }} }}] }}
grants: {grants}
"
        );
        compile_text(&text, Path::new("/nowhere"), &NameInterner::default()).expect("no problems")
    }

    fn about<'a>(warnings: &'a [String], key: &str) -> Vec<&'a str> {
        warnings.iter().map(String::as_str).filter(|warning| warning.starts_with(key)).collect()
    }

    #[test]
    fn departments_without_grants_are_a_warning() {
        let of = |grants: &str| warnings(&configuration("127.0.0.1:9", grants));
        let none = of("[]");
        assert_eq!(
            about(&none, "grants"),
            ["grants: no department may run any command; every command is refused as forbidden"]
        );
        let one = of("[{ department: d2, subsystem: s, commands: [c] }]");
        assert_eq!(about(&one, "grants"), ["grants: 7 departments have no grant: d1, d3, d4, d5, d6 and 2 more"]);
    }

    #[test]
    fn redundant_grant_is_a_warning() {
        let all = (1..=8).map(|number| format!("{{ department: d{number}, subsystem: s, commands: [\"*\"] }}"));
        let grants =
            format!("[{}, {{ department: d3, subsystem: s, commands: [c] }}]", all.collect::<Vec<_>>().join(", "));
        let found = warnings(&configuration("127.0.0.1:9", &grants));
        assert_eq!(
            about(&found, "grants"),
            ["grants: these grants have no effect, because earlier grants allow the same: grants[8] \"c\""]
        );
    }

    #[test]
    fn reachable_admin_listener_is_a_warning() {
        for (admin, warned) in
            [("127.0.0.1:9", 0), ("127.3.0.1:9", 0), ("[::1]:9", 0), ("0.0.0.0:9", 1), ("[::]:9", 1), ("10.0.0.1:9", 1)]
        {
            assert_eq!(about(&warnings(&configuration(admin, "[]")), "admin.address").len(), warned, "{admin}");
        }
    }

    #[test]
    fn impossible_ledger_path_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        assert_eq!(unwritable_ledger(&at("new/deep/l.db")), None, "serve makes the folders");
        assert_eq!(unwritable_ledger(Path::new("not-there/l.db")), None, "a path is relative to the working directory");
        assert_eq!(unwritable_ledger(Path::new("not-there.db")), None);
        std::fs::write(at("file"), "").expect("a file");
        assert!(unwritable_ledger(&at("file/l.db")).is_some_and(|message| message.contains("file is not a folder")));
        assert!(
            unwritable_ledger(Path::new("/proc/self/new/l.db"))
                .is_none_or(|message| message.contains("may not create it"))
        );
    }
}
