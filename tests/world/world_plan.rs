//! The plan of a world: its configuration, subsystems and grants, before the gateway starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tallygate::clock::Clock;

use super::pki::{Identity, Leaf, Pki, spiffe};
use super::processes::ANY_PORT;
use super::subsystem::Server;
use super::{ACCESS_LOG, CallerLog, Gateway, World};

/// A city that has not been started.
pub struct Plan {
    folder: tempfile::TempDir,
    pki: Pki,
    document: Value,
    clock: Clock,
    servers: BTreeMap<String, Server>,
    identities: BTreeMap<String, Identity>,
}

impl Plan {
    /// Returns a plan of a gateway without subsystems.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(&folder.path().join("pki"), "ca");
        pki.issue_server();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let document = json!({
            "listeners": [{
                "name": "departments",
                "address": ANY_PORT.to_string(),
                "tls": {
                    "certificate": "pki/server.pem",
                    "key": "pki/server.key",
                    "clientAuth": { "mode": "required", "authorities": ["pki/ca.pem"] },
                },
            }],
            "admin": { "address": ANY_PORT.to_string() },
            "ledger": { "path": "data/ledger.db", "durability": "process", "syncEvery": "50ms" },
            "calendar": { "offset": "+08:00" },
            "workers": 1,
            "shutdown": { "delay": "1ms", "grace": "10s" },
            "accessLog": { "output": ACCESS_LOG },
            "departments": [],
            "subsystems": [],
            "grants": [],
        });
        let (servers, identities) = (BTreeMap::new(), BTreeMap::new());
        Self { folder, pki, document, clock: Clock::system(), servers, identities }
    }

    /// Returns the plan of [`World::city`].
    pub fn city() -> Self {
        let plan = Self::empty().subsystem("cameras");
        let plan = plan.department("traffic-police").department("logistics").department("archive");
        plan.grant("traffic-police", "cameras", &["*"]).grant("logistics", "cameras", &["snapshot.read"])
    }

    /// Adds a department that is identified by [`Leaf::department`].
    pub fn department(mut self, id: &str) -> Self {
        self.push("departments", json!({ "id": id, "name": id, "callers": [{ "uri": spiffe(id) }] }));
        self.identities.insert(id.into(), self.pki.issue(&Leaf::department(id)));
        self
    }

    /// Adds a subsystem with the usual commands, and starts its server.
    pub fn subsystem(mut self, id: &str) -> Self {
        let server = Server::start();
        self.push("subsystems", usual_subsystem(id, &server));
        self.servers.insert(id.into(), server);
        self
    }

    /// Adds a grant.
    pub fn grant(mut self, department: &str, subsystem: &str, commands: &[&str]) -> Self {
        self.push("grants", json!({ "department": department, "subsystem": subsystem, "commands": commands }));
        self
    }

    /// Replaces the servers of `cameras`.
    pub fn cameras_at(self, address: SocketAddr) -> Self {
        self.edit(|document| {
            document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://{address}") }]);
        })
    }

    /// Sends commands to `cameras` over HTTP/2.
    pub fn http2_cameras(self) -> Self {
        self.edit(|document| document["subsystems"][0]["protocol"] = json!("http2"))
    }

    /// Changes the configuration.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.document);
        self
    }

    /// Changes the configuration, with access to the authority.
    pub fn with_pki(self, use_it: impl FnOnce(&Pki)) -> Self {
        use_it(&self.pki);
        self
    }

    /// Sets the world's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the gateway in this process, at ports that the kernel assigns.
    pub async fn start(self) -> World {
        let mut world = self.assemble();
        world.start_here().await;
        world
    }

    /// Starts the real binary, at reserved addresses.
    pub async fn start_process(self) -> World {
        let mut world = self.build();
        world.start_process().await;
        world
    }

    /// Returns the world without a running gateway. Its configuration names reserved addresses, for the real binary and
    /// for tests that read the configuration.
    pub fn build(self) -> World {
        let mut world = self.assemble();
        world.reserve_addresses();
        world
    }

    fn assemble(self) -> World {
        let mut world = World {
            folder: self.folder,
            pki: self.pki,
            document: self.document,
            clock: self.clock,
            servers: self.servers,
            gateway: Gateway::Stopped,
            log: CallerLog::default(),
            identities: self.identities,
            foreign_server: false,
            answered_here: BTreeMap::new(),
            sent_again: 0,
            access_log_is_whole: true,
            closed: false,
        };
        world.write(|_| ());
        world
    }

    fn push(&mut self, list: &str, entry: Value) {
        self.document[list].as_array_mut().unwrap().push(entry);
    }
}

/// The commands that every subsystem of the tests serves below its prefix.
pub fn usual_subsystem(id: &str, server: &Server) -> Value {
    json!({
        "id": id,
        "path": format!("/{id}"),
        "upstreams": [{ "url": format!("http://{}", server.address) }],
        "timeouts": { "connect": "1s", "response": "5s", "idle": "5s" },
        "commands": [
            { "id": "snapshot.submit", "match": { "method": "POST", "path": "/v1/snapshots" } },
            { "id": "snapshot.read", "match": { "method": "GET", "path": "/v1/snapshots/{id}" } },
            { "id": "do", "match": { "path": "/do/{script}" }, "units": 3 },
        ],
        "otherCommands": "refuse",
    })
}
