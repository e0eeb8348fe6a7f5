//! Parts that a loader uses again: the configuration is the same as without them, after any edits.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::config::ExcludedSource;
use crate::model::Name;
use crate::policy::{
    CallerOrigin, ConnectionMatch, DownstreamProtocol, PolicySnapshot, QueryPairs, RouteMatch, RouteRequest,
};

use super::*;

/// The documents of a city, in their order, and the source of chance.
struct City {
    documents: Vec<(String, MemoryDocument)>,
    random: fastrand::Rng,
    version: u64,
}

const LISTENERS: [&str; 3] = ["web", "plain", "raw"];
const HOSTS: [&str; 7] = ["a.example", "b.example", "*.example", "**.example", "x.b.example", "c.test", "d.test"];
const PATHS: [&str; 4] = ["/", "/a", "/a/b", "/c"];

impl City {
    fn new(seed: u64) -> Self {
        Self { documents: Vec::new(), random: fastrand::Rng::with_seed(seed), version: 0 }
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.random.usize(..from.len())]
    }

    /// A document of one of the kinds, under one of a few names.
    fn random_document(&mut self) -> (String, Value) {
        let number = self.random.usize(..9);
        match self.random.usize(..10) {
            0 => self.gateway(),
            1 => self.department(number),
            2 | 3 => self.backend(number),
            4 => self.grants(number),
            5 => self.connections(number),
            _ => self.route(number),
        }
    }

    fn gateway(&mut self) -> (String, Value) {
        let hosts = json!([{ "name": "v", "host": self.pick(&["a.example", "**.example", "*"]) }]);
        let mut listeners = vec![
            json!({ "name": "web", "address": "127.0.0.1:1", "protocol": "http", "virtualHosts": hosts, "publicPort": 80 }),
            json!({ "name": "plain", "address": "127.0.0.1:2", "protocol": "http" }),
            json!({ "name": "raw", "address": "127.0.0.1:3", "protocol": "tls" }),
        ];
        listeners.truncate(self.random.usize(2..=3));
        let callers: Vec<Value> =
            listeners.iter().map(|one| json!({ "listener": one["name"], "unclaimed": true })).collect();
        let name = self.pick(&["Gateway", "The Gateway"]);
        let department = json!({ "id": "gateway", "name": name, "callers": callers });
        ("gateway".to_owned(), json!({ "listeners": listeners, "departments": [department] }))
    }

    fn department(&mut self, number: usize) -> (String, Value) {
        let (id, dns) = (format!("d{}", number % 3), self.pick(&["one.example", "two.example", "three.example"]));
        let mut keys = json!({ "id": id, "name": id, "callers": [{ "dns": dns }] });
        if self.random.bool() {
            keys["limits"] = json!({ "rate": "7/s" });
        }
        (format!("department {number}"), json!({ "departments": [keys] }))
    }

    fn backend(&mut self, number: usize) -> (String, Value) {
        let protocol = if number % 5 == 4 { "tcp" } else { self.pick(&["http1", "http2"]) };
        let port = self.random.usize(1..3);
        let scheme = if protocol == "tcp" { "tcp" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        let backend = match self.random.bool() {
            true => json!({ "id": format!("b{}", number % 5), "protocol": protocol, "upstreams": [{ "url": url }] }),
            false => {
                let endpoints = json!({ "service": "apps/a", "port": "", "secure": false });
                json!({ "id": format!("b{}", number % 5), "protocol": protocol, "endpoints": endpoints })
            }
        };
        (format!("backend {number}"), json!({ "backends": [backend] }))
    }

    fn command(&mut self, id: &str) -> Value {
        let condition = match self.random.usize(..4) {
            0 => json!([{ "path": self.pick(&["/a", "/a/{id}", "/c"]), "method": "GET" }]),
            1 => json!([{ "path": self.pick(&["/a", "/c"]) }]),
            _ => json!([{ "pathPrefix": self.pick(&PATHS) }]),
        };
        let mut command = json!({ "id": id, "match": condition });
        let backend = self.pick(&["b0", "b0", "b1", "b1", "b2", "b2", "b3", "b3", "b4"]);
        match self.random.usize(..6) {
            0 => command["backends"] = json!([{ "status": 500 }, { "backend": backend, "weight": 3 }]),
            1 => command["redirect"] = json!({ "scheme": "https" }),
            2 => {
                command["backends"] = json!([{ "backend": backend }]);
                command["mirror"] = json!({ "subsystem": format!("s{}", self.random.usize(..9)) });
            }
            _ => command["backends"] = json!([{ "backend": backend }]),
        }
        if self.random.usize(..6) == 0 {
            command["addressLimits"] =
                json!({ "zone": "z", "rates": [{ "rate": self.pick(&["1/s", "1/s", "1/s", "2/s"]) }] });
        }
        command
    }

    /// A route, with its grants.
    fn route(&mut self, number: usize) -> (String, Value) {
        let id = format!("s{number}");
        let commands: Vec<Value> = (0..self.random.usize(1..3)).map(|at| self.command(&format!("c{at}"))).collect();
        let other = self.pick(&["next", "next", "next", "next", "next", "refuse", "allow"]);
        let mut subsystem =
            json!({ "id": id, "path": "/", "keepPath": true, "commands": commands, "otherCommands": other });
        if self.random.bool() {
            let mut hosts = vec![self.pick(&HOSTS), self.pick(&HOSTS)];
            hosts.dedup();
            subsystem["hosts"] = json!(hosts);
        }
        if self.random.bool() {
            subsystem["listeners"] = json!([self.pick(&["web", "web/v", "plain", "web", "web/v", "plain", "none"])]);
        }
        if self.random.usize(..3) == 0 {
            subsystem["upstreams"] = json!([{ "url": "http://127.0.0.1:9" }]);
        }
        let mut grant =
            json!({ "department": "gateway", "subsystem": id, "commands": [self.pick(&["*", "c0", "c1"])] });
        if self.random.usize(..3) == 0 {
            grant["limits"] = json!({ "rate": self.pick(&["1/s", "5/s"]) });
        }
        (format!("route {number}"), json!({ "subsystems": [subsystem], "grants": [grant] }))
    }

    fn connections(&mut self, number: usize) -> (String, Value) {
        let id = format!("t{}", number % 4);
        let command = json!({ "id": "connect", "backends": [{ "backend": self.pick(&["b4", "b4", "b4", "b3"]) }] });
        let mut subsystem = json!({ "id": id, "tlsMode": "passthrough", "listeners": ["raw"], "commands": [command] });
        subsystem["hosts"] = json!([self.pick(&HOSTS)]);
        if self.random.bool() {
            subsystem["department"] = json!(format!("d{}", self.random.usize(..3)));
        }
        (format!("connections {number}"), json!({ "subsystems": [subsystem] }))
    }

    fn grants(&mut self, number: usize) -> (String, Value) {
        let department = self.pick(&["d0", "d1", "d2", "gateway"]);
        let subsystem = format!("s{}", self.random.usize(..9));
        let grant = json!({ "department": department, "subsystem": subsystem, "commands": ["c0", "*"] });
        (format!("grants {number}"), json!({ "grants": [grant, grant] }))
    }

    /// Adds, replaces, removes or moves a document.
    fn edit(&mut self) {
        let count = self.documents.len();
        match self.random.usize(..8) {
            0 if count > 0 => {
                let position = self.random.usize(..count);
                self.remove(position);
            }
            1 if count > 0 => self.documents.swap(self.random.usize(..count), count - 1),
            2 if count > 0 => {
                // The same document again, with another name: its ids are taken.
                let (_, document) = self.documents[self.random.usize(..count)].clone();
                self.documents.retain(|(name, _)| name != "copy");
                self.documents.push(("copy".to_owned(), document));
            }
            _ => {
                let (name, value) = self.random_document();
                let document = MemoryDocument::readable_or_faulty(&name, &value);
                let known = self.documents.iter().position(|(known, _)| *known == name);
                match known {
                    Some(position) => self.documents[position].1 = document,
                    None => self.documents.insert(self.random.usize(..=count), (name, document)),
                }
            }
        }
    }

    /// Removes a document; one that others need less often.
    fn remove(&mut self, position: usize) {
        let is_needed = ["gateway", "backend"].iter().any(|kind| self.documents[position].0.starts_with(kind));
        if !is_needed || self.random.usize(..4) == 0 {
            self.documents.remove(position);
        }
    }

    fn publish(&mut self, shared: &SharedDocuments) {
        self.version += 1;
        let documents = self.documents.iter().map(|(_, document)| document.clone()).collect();
        shared.store(Arc::new(MemoryDocuments { version: self.version.to_string(), documents }));
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// Everything that a snapshot decides, as text.
fn decisions(snapshot: &PolicySnapshot) -> String {
    let mut text = format!(
        "{}\n{:#?}\n{:#?}\n{:#?}\n{:?} {:?}\n",
        snapshot.version,
        snapshot.departments,
        snapshot.subsystems,
        snapshot.backends,
        snapshot.total_rate,
        snapshot.forwards_certificates
    );
    let claims: BTreeMap<String, &str> =
        snapshot.claims().map(|(claim, policy)| (format!("{claim:?}"), policy.department.id.as_str())).collect();
    let unused: Vec<_> = snapshot.unused_backends().map(|backend| backend.id.as_str()).collect();
    let without: Vec<_> =
        snapshot.departments_without_grant().0.iter().map(|policy| policy.department.id.clone()).collect();
    writeln!(text, "{claims:?} {unused:?} {without:?} {:?} {}", snapshot.unused_rules(), snapshot.granted_series())
        .expect("text");
    write_routes(snapshot, &mut text);
    for department in snapshot.departments.iter() {
        for command in snapshot.subsystems.iter().flat_map(|one| one.commands.iter().chain(&one.other)) {
            let grant = snapshot.find_grant(department, command);
            let origin = grant.as_ref().and_then(|grant| snapshot.grant_origin(grant));
            let limits = snapshot.limits_on(department, command);
            writeln!(
                text,
                "{} {}: {origin:?} {limits:?}",
                department.department.id,
                command.header.to_str().expect("text")
            )
            .expect("text");
        }
    }
    for backend in &snapshot.backends {
        let found = snapshot.backend(backend.number).expect("a backend");
        assert!(Arc::ptr_eq(found, backend), "numbers are unique");
    }
    text
}

fn write_routes(snapshot: &PolicySnapshot, text: &mut String) {
    let headers = HeaderMap::new();
    for listener in LISTENERS.map(name) {
        let origin = CallerOrigin::listener(&listener);
        let claimed = snapshot.certified_department(origin, &[]).map(|policy| policy.department.id.clone());
        writeln!(text, "{listener} {claimed:?} {:?}", snapshot.public_port(&listener)).expect("text");
        for host in ["a.example", "b.example", "x.b.example", "y.x.b.example", "c.test", "d.test", "e.test"] {
            let connection = match snapshot.find_connection(&listener, Some(host)) {
                ConnectionMatch::Command { mode, subsystem, command } => {
                    format!("{mode:?} {} {}", subsystem.id, command.key.command)
                }
                ConnectionMatch::Http => "http".to_owned(),
                ConnectionMatch::None => "none".to_owned(),
            };
            let owner =
                snapshot.passthrough_department(&listener, Some(host)).map(|policy| policy.department.id.clone());
            writeln!(text, "{listener} {host} {connection} {owner:?}").expect("text");
            for (method, path) in [Method::GET, Method::POST].iter().flat_map(|method| PATHS.map(|path| (method, path)))
            {
                let query = QueryPairs::new(None);
                let request = RouteRequest { listener: &listener, host, method, path, query, headers: &headers };
                let route = match snapshot.find_route(&request) {
                    RouteMatch::Command { subsystem, command, matched } => {
                        format!("{} {} {matched:?}", subsystem.id, command.key.command)
                    }
                    RouteMatch::NoCommand { subsystem } => format!("no command of {}", subsystem.id),
                    RouteMatch::NoSubsystem => "no subsystem".to_owned(),
                };
                let all: Vec<_> = snapshot.subsystems_at(&request).iter().map(|one| one.id.as_str()).collect();
                let methods = snapshot.methods_at(&request);
                writeln!(text, "{method} {path} {route} {all:?} {methods:?}").expect("text");
            }
        }
    }
}

/// The configuration of a load, as far as it can be compared, with the snapshot.
fn outcome(
    loader: &mut ConfigLoader,
    numbers: &NameInterner,
) -> Result<(Arc<PolicySnapshot>, Vec<ExcludedSource>), String> {
    let loaded = loader.load(numbers).configuration;
    let Configuration { snapshot, mut excluded, settings, .. } = loaded.map_err(|problems| problems.to_string())?;
    assert!(settings.listeners.iter().all(|one| one.protocol != DownstreamProtocol::Https));
    excluded.sort_by(|one, other| one.source.cmp(&other.source)); // those of one round have no order
    Ok((snapshot, excluded))
}

#[test]
fn reuse_of_parts_changes_no_configuration() {
    let desk = LoaderBench::with(&[]);
    desk.write("gateway.yaml", "ledger: { path: l.db }\n");
    let (mut valid, mut excluding, mut reused) = (0, 0, 0);
    for seed in 0..30 {
        let (shared, numbers) = (SharedDocuments::default(), NameInterner::default());
        let fresh = || desk.loader().with_documents(Arc::clone(&shared));
        let (mut warm, mut city) = (fresh(), City::new(seed));
        let backends: Vec<_> = (0..5).map(|number| city.backend(number)).collect();
        for (name, value) in [city.gateway(), city.department(0)].into_iter().chain(backends) {
            city.documents.push((name.clone(), MemoryDocument::readable_or_faulty(&name, &value)));
        }
        let mut before: Option<(Arc<PolicySnapshot>, Arc<PolicySnapshot>)> = None;
        for step in 0..30 {
            (0..city.random.usize(1..4)).for_each(|_| city.edit());
            city.publish(&shared);
            let (one, other) = (outcome(&mut warm, &numbers), outcome(&mut fresh(), &numbers));
            let place = format!("seed {seed}, step {step}");
            let ((one, left_out), (other, also_left_out)) = match (one, other) {
                (Ok(one), Ok(other)) => (one, other),
                (one, other) => {
                    assert_eq!(one.err(), other.err(), "{place}");
                    continue;
                }
            };
            assert_eq!(left_out, also_left_out, "{place}");
            assert_eq!(decisions(&one), decisions(&other), "{place}");
            assert!(one.difference(&other).is_empty() && other.difference(&one).is_empty(), "{place}");
            if let Some((before, before_fresh)) = &before {
                assert_eq!(before.difference(&one), before_fresh.difference(&other), "{place}");
                let is_shared = |known: &Arc<_>| one.subsystems.iter().any(|new| Arc::ptr_eq(new, known));
                reused += before.subsystems.iter().filter(|known| is_shared(known)).count();
            }
            (valid, excluding) = (valid + 1, excluding + usize::from(!left_out.is_empty()));
            before = Some((one, other));
        }
    }
    assert!(valid > 800 && excluding > 100 && reused > 500, "{valid} {excluding} {reused}");
}

#[test]
fn one_more_document_compiles_one_subsystem() {
    let desk = LoaderBench::with(&[]);
    desk.write("gateway.yaml", "ledger: { path: l.db }\n");
    let (shared, numbers, mut city) = (SharedDocuments::default(), NameInterner::default(), City::new(1));
    let mut loader = desk.loader().with_documents(Arc::clone(&shared));
    let backend = |id: &str| json!({ "backends": [{ "id": id, "upstreams": [{ "url": "http://127.0.0.1:1" }] }] });
    let route = |id: &str, backend: &str| {
        let command = json!({ "id": "c", "match": [{ "pathPrefix": "/" }], "backends": [{ "backend": backend }] });
        let keys =
            json!({ "id": id, "hosts": [format!("{id}.example")], "commands": [command], "otherCommands": "next" });
        json!({ "subsystems": [keys], "grants": [{ "department": "gateway", "subsystem": id, "commands": ["*"] }] })
    };
    let of = |name: &str, value: &Value| (name.to_owned(), MemoryDocument::readable_or_faulty(name, value));
    let (gateway, keys) = city.gateway();
    city.documents.push(of(&gateway, &keys));
    city.documents.push(of("b", &backend("b")));
    city.documents.extend((0..50).map(|at| of("route", &route(&format!("r{at}"), "b"))));
    let mut compiled = |city: &mut City| {
        city.publish(&shared);
        let (_, excluded) = outcome(&mut loader, &numbers).expect("valid");
        assert!(excluded.is_empty(), "{excluded:?}");
        loader.compiled.as_ref().map(|parts| parts.compiled_subsystems)
    };
    assert_eq!(compiled(&mut city), Some(50));
    assert_eq!(compiled(&mut city), Some(0));
    city.documents.push(of("route", &route("last", "b")));
    assert_eq!(compiled(&mut city), Some(1));
    city.documents.insert(10, of("route", &route("between", "b")));
    assert_eq!(compiled(&mut city), Some(1));
    city.documents.insert(1, of("another", &backend("another")));
    city.documents.insert(20, of("route", &route("new", "another")));
    assert_eq!(compiled(&mut city), Some(1), "a backend more changes no other");
    city.documents.remove(30);
    assert_eq!(compiled(&mut city), Some(0));
    city.documents[2] = of("b", &backend("b"));
    assert_eq!(compiled(&mut city), Some(51), "their backend is another value");
}
