//! Tests of the TLS files of a configuration: how often they are read, by which clock, and which are watched.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::cli::trial_authority::{CertificateAuthority, ValidityPeriod};
use crate::config::{ConfigLoader, LoadResult};
use crate::identity::{DiskFiles, MemoryOrDisk, MemoryTexts, PemText};
use crate::model::NameInterner;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Two listeners with the same files, and two subsystems with the same authority.
const MAIN: &str = "\
ledger: { path: l.db }
listeners:
  - name: a
    address: \"127.0.0.1:1\"
    tls: &files
      certificate: server.pem
      key: server.key
      clientAuth: { mode: required, authorities: [ca.pem], revocation: [revoked.crl] }
  - { name: b, address: \"127.0.0.1:2\", tls: *files }
departments: [{ id: police, callers: [{ dns: police }] }]
subsystems:
  - id: cameras
    path: /cameras
    upstreams: [{ url: \"https://127.0.0.1:3\" }]
    otherCommands: allow
    tls: { authorities: [ca.pem], certificate: server.pem, key: server.key }
  - id: signals
    path: /signals
    upstreams: [{ url: \"https://127.0.0.1:4\" }]
    otherCommands: allow
    tls: { authorities: [ca.pem] }
";

/// The files of the disk, with the number of times that each was read.
#[derive(Clone, Debug, Default)]
struct CountingSource(Arc<Mutex<BTreeMap<String, usize>>>);

impl PemSource for CountingSource {
    fn read_pem(&self, name: &Path) -> io::Result<PemText> {
        let file = name.file_name().expect("a file").to_string_lossy().into_owned();
        *self.0.lock().expect("no panic").entry(file).or_default() += 1;
        DiskFiles.read_pem(name)
    }
}

/// A time at which the system clock would refuse the certificates: they are not valid yet.
fn now() -> Timestamp {
    "2126-06-15T12:00:00Z".parse().expect("a time")
}

/// A folder with [`MAIN`] and its files: the certificate is valid for 90 days, the revocation list for 30.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let days = |days| ValidityPeriod::days(now(), days);
    let authority = CertificateAuthority::create(folder.path(), "City", days(365)).expect("an authority");
    authority.issue_server(&["localhost".to_owned()], days(90)).expect("a server certificate");
    authority.renew_revocation_list(days(30)).expect("a list");
    fs::write(folder.path().join("gateway.yaml"), MAIN).expect("a file");
    folder
}

fn loader(folder: &TempDir, clock: &Clock, source: &CountingSource) -> ConfigLoader {
    let path = folder.path().join("gateway.yaml");
    ConfigLoader::with_pem_source(&path, clock.clone(), Box::new(source.clone()))
}

#[test]
fn each_file_is_read_once_per_load() {
    let (folder, source) = (folder(), CountingSource::default());
    let mut loader = loader(&folder, &Clock::manual(now()), &source);
    for load in 1..=2 {
        let configuration = loader.load(&NameInterner::default()).configuration.expect("no problems");
        let LoadedTls { listeners, subsystems } = configuration.tls;
        let names = |files: &[crate::identity::FileDigest]| -> Vec<String> {
            files.iter().map(|file| file.path.file_name().expect("a file").to_string_lossy().into_owned()).collect()
        };
        assert_eq!(listeners.len(), 2);
        assert!(listeners.iter().all(|(_, tls)| names(&tls.files) == ["server.pem", "ca.pem", "revoked.crl"]));
        assert_eq!(subsystems.len(), 2);
        assert_eq!(names(&subsystems[0].1.files), ["ca.pem", "server.pem"], "no digest of a key");
        let counts = source.0.lock().expect("no panic").clone();
        let expected = ["ca.pem", "revoked.crl", "server.key", "server.pem"].map(|file| (file.to_owned(), load));
        assert_eq!(counts, BTreeMap::from(expected));
    }
}

#[test]
fn files_are_judged_by_the_clock_of_the_loader() {
    let (folder, clock) = (folder(), Clock::manual(now()));
    let mut loader = loader(&folder, &clock, &CountingSource::default());
    assert!(loader.load(&NameInterner::default()).configuration.is_ok());
    clock.advance(91 * DAY);
    let found = loader.load(&NameInterner::default()).configuration.expect_err("expired").0;
    let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "listeners[0].tls.certificate",
            "listeners[0].tls.clientAuth.revocation[0]",
            "listeners[1].tls.certificate",
            "listeners[1].tls.clientAuth.revocation[0]",
            "subsystems[0].tls",
        ]
    );
}

#[test]
fn files_of_a_rejected_configuration_are_watched() {
    let folder = folder();
    let key = folder.path().join("server.key");
    fs::rename(&key, folder.path().join("elsewhere.key")).expect("renamed");
    let mut loader = loader(&folder, &Clock::manual(now()), &CountingSource::default());
    let LoadResult { configuration, mut watch } = loader.load(&NameInterner::default());
    assert!(configuration.is_err_and(|problems| problems.0[0].path == "listeners[0].tls.key"));
    assert!(!watch.has_changed());
    fs::rename(folder.path().join("elsewhere.key"), &key).expect("renamed");
    assert!(watch.has_changed(), "the key is there");
}

#[test]
fn texts_in_memory_are_not_watched() {
    let folder = folder();
    let texts = MemoryTexts::default();
    let text = std::fs::read(folder.path().join("server.pem")).expect("a file");
    texts.set("memory:ns/a/tls.crt", text).expect("room");
    let main = MAIN.replace("certificate: server.pem\n", "certificate: memory:ns/a/tls.crt\n");
    fs::write(folder.path().join("gateway.yaml"), main).expect("a file");
    let source = Box::new(MemoryOrDisk(texts));
    let mut loader = ConfigLoader::with_pem_source(&folder.path().join("gateway.yaml"), Clock::manual(now()), source);
    let LoadResult { configuration, mut watch } = loader.load(&NameInterner::default());
    assert!(configuration.is_ok(), "{configuration:?}");
    let there = folder.path().join("memory:ns/a");
    fs::create_dir_all(&there).expect("a folder");
    fs::write(there.join("tls.crt"), "").expect("a file");
    assert!(!watch.has_changed(), "no file of that name");
}
