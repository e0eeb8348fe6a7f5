//! The ledger's files: symbolic links, locks, removed files, folders without write permission.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::ledger::audit::{export, ledger_info};

use super::audit::{assert_sound, closed};
use super::*;

/// Starts a second gateway on `path`. Returns the error.
fn refused(bench: &LedgerBench, path: PathBuf) -> String {
    let settings = LedgerSettings { path, ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|_| ()));
    opened.expect_err("two gateways have opened one ledger").to_string()
}

/// Opens a ledger whose keeper reports the reason for its end.
fn watched(bench: &LedgerBench) -> (Ledger, Meter, mpsc::Receiver<LedgerError>) {
    let (failed, failures) = mpsc::channel();
    let failed = Box::new(move |error| failed.send(error).expect("the receiver is open"));
    let (ledger, mut seeds) = Ledger::open(bench.settings(1), bench.clock.clone(), failed).expect("a ledger");
    (ledger, seeds.remove(0).into_meter(), failures)
}

#[test]
fn second_gateway_is_refused_for_every_name_and_lock() {
    let bench = LedgerBench::new();
    let (ledger, _meter, failures) = watched(&bench);
    let beside = |name: &str| bench.folder.path().join(name);
    let me = format!("process {}", std::process::id());
    symlink("ledger.db", beside("other.db")).expect("a link of the file");
    symlink(bench.folder.path(), beside("folder")).expect("a link of the folder");
    for name in ["other.db", "folder/ledger.db", "folder/other.db"] {
        let error_text = refused(&bench, beside(name));
        assert!(error_text.contains(&me), "{name}: {error_text}");
    }
    std::fs::rename(bench.path().with_extension("lock"), beside("ledger.was-lock")).expect("the lock file is renamed");
    let error_text = refused(&bench, bench.path());
    assert!(error_text.contains("the same file as the book of another running gateway"), "{error_text}");
    let why = failures.recv_timeout(Duration::from_secs(20)).expect("the first gateway ends as well").to_string();
    assert!(why.contains("ledger.lock was replaced"), "{why}");
    drop(ledger);
}

/// Like a file mounted into two containers: lock file and folder differ.
#[test]
fn second_gateway_with_its_own_lock_file_is_refused_by_the_inode_of_the_book() {
    let bench = LedgerBench::new();
    let (_ledger, _meter) = bench.open_one();
    let other = tempfile::tempdir().expect("a folder");
    let mounted = other.path().join("ledger.db");
    std::fs::hard_link(bench.path(), &mounted).expect("another name");
    let error_text = refused(&bench, mounted.clone());
    assert!(error_text.contains("has 2 hard links") && error_text.contains("-samefile"), "{error_text}");
    std::fs::remove_file(mounted).expect("the other name is removed");
    let book = std::fs::File::open(bench.path()).expect("the book"); // its close would affect this process's SQLite
    assert!(matches!(book.try_lock(), Err(std::fs::TryLockError::WouldBlock)), "the inode itself is locked");
    std::mem::forget(book);
}

#[test]
fn book_with_two_hard_links_and_dangling_link_are_refused() {
    let bench = closed();
    std::fs::hard_link(bench.path(), bench.folder.path().join("copy.db")).expect("another name");
    let error_text = refused(&bench, bench.path());
    assert!(error_text.contains("has 2 hard links") && error_text.contains("mv"), "{error_text}");
    assert_sound(&bench.path(), "readers do not mind");
    let nothing = bench.folder.path().join("nothing.db");
    symlink("none/ledger.db", &nothing).expect("a link");
    let error_text = refused(&bench, nothing);
    assert!(error_text.contains("a symbolic link to a file that is not there"), "{error_text}");
}

#[test]
fn ledger_is_read_and_corrected_through_a_link() {
    let bench = LedgerBench::new();
    let (_ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok); // in the tally only
    let link = bench.folder.path().join("link.db");
    symlink("ledger.db", &link).expect("a link");
    assert_eq!(brief(&usage_of_files(&link)), [("ok", 1, 3)]);
    assert_sound(&link, "through a link");
    assert!(ledger_info(&link).expect("info").is_kept);
}

#[test]
fn displaced_file_ends_the_keeper_within_a_second_without_loss() {
    for (extension, keeps) in [("lock", true), ("tally", true), ("db-wal", true), ("db-shm", true), ("db", false)] {
        let bench = LedgerBench::new();
        let (ledger, meter, failures) = watched(&bench);
        admit(&meter, &bench.clock).settle(Finished::Ok); // possibly not folded yet
        let begun = std::time::Instant::now();
        std::fs::remove_file(bench.path().with_extension(extension)).expect("the file existed");
        let why = failures.recv_timeout(Duration::from_secs(20)).expect("the keeper ends").to_string();
        assert!(why.contains(&format!("ledger.{extension} was removed")), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{extension}: {:?}", begun.elapsed());
        assert!(matches!(wait(ledger.reader().totals()), Err(LedgerError::Stopped)));
        drop((ledger, meter));
        if keeps {
            assert_eq!(brief(&bench.files()), [("ok", 1, 3)], "{extension}");
            let (ledger, _) = bench.open_one();
            assert_sound(&bench.path(), extension);
            ledger.close().expect("closed");
        }
    }
}

#[test]
fn close_never_removes_a_foreign_tally() {
    let bench = LedgerBench::new();
    let (ledger, _meter, _failures) = watched(&bench);
    let tally = bench.path().with_extension(TALLY_EXTENSION);
    std::fs::remove_file(&tally).expect("the file existed");
    std::fs::write(&tally, "another's").expect("written");
    assert!(ledger.close().is_err(), "the error is reported");
    assert_eq!(std::fs::read(&tally).expect("it is there"), b"another's");
}

/// Removes the write permission until dropped. Root becomes the user `nobody` for this.
struct UnwritableFolder<'a>(&'a LedgerBench);

impl<'a> UnwritableFolder<'a> {
    fn make(bench: &'a LedgerBench) -> Self {
        set_modes(bench.folder.path(), (0o555, 0o444));
        Self(bench)
    }
}

impl Drop for UnwritableFolder<'_> {
    fn drop(&mut self) {
        set_modes(self.0.folder.path(), (0o755, 0o644));
    }
}

fn set_modes(folder: &Path, (of_folder, of_files): (u32, u32)) {
    use std::os::unix::fs::PermissionsExt;
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    set(folder, of_folder).expect("the folder's mode");
    for file in std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        set(&file.path(), of_files).expect("a file's mode");
    }
}

/// Runs a test of this program as a user without write permission: root becomes `nobody`, other users stay as they are.
fn as_reader(test: &str, bench: &LedgerBench) -> (bool, String) {
    let reach = tempfile::tempdir().expect("a folder");
    set_modes(reach.path(), (0o755, 0o644));
    let me = reach.path().join("reader"); // the user `nobody` cannot look into every folder
    std::fs::copy(std::env::current_exe().expect("this program"), &me).expect("a copy of this program");
    let is_root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    let mut command = if is_root { Command::new("setpriv") } else { Command::new(&me) };
    if is_root {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&me);
    }
    command.args(["--exact", &format!("ledger::tests::files_and_locks::{test}"), "--ignored", "--nocapture"]);
    let ended = command.env(READS, bench.path()).output().expect("a child");
    let error_text = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8_lossy(&error_text).into_owned())
}

/// The variable with the path that the child reads.
const READS: &str = "TALLYGATE_TEST_READS";

#[test]
#[ignore = "a child of the test below"]
fn reads_every_ledger_file() {
    let Some(path) = std::env::var_os(READS).map(PathBuf::from) else { return };
    assert!(std::fs::File::create(path.with_extension("mine")).is_err(), "this user has no write permission");
    assert!(!usage_of_files(&path).is_empty());
    assert_sound(&path, "where nobody may write");
    assert!(!ledger_info(&path).expect("info").is_kept);
    let mut parts = 0;
    let mut count = |_| {
        parts += 1;
        Ok(())
    };
    export(&path, &mut count).expect("an export");
    assert!(parts > 3, "{parts}");
}

#[test]
fn closed_ledger_is_readable_without_write_permission() {
    let bench = closed();
    for with_lock in [true, false] {
        if !with_lock {
            std::fs::remove_file(bench.path().with_extension("lock")).expect("the file existed");
        }
        let before = std::fs::read(bench.path()).expect("the book");
        let unwritable = UnwritableFolder::make(&bench);
        let (succeeded, error_text) = as_reader("reads_every_ledger_file", &bench);
        assert!(succeeded && error_text.contains("1 passed"), "with its lock: {with_lock}: {error_text}");
        drop(unwritable);
        assert_eq!(std::fs::read(bench.path()).expect("the book"), before);
    }
}

#[test]
fn book_with_unreadable_log_on_read_only_storage_is_refused_with_a_remedy() {
    let bench = LedgerBench::new();
    let (_ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let copy = copied(&bench, &["db", "db-wal", TALLY_EXTENSION]);
    let unwritable = UnwritableFolder::make(&copy);
    let (succeeded, error_text) = as_reader("reads_every_ledger_file", &copy);
    assert!(succeeded || error_text.contains("UnreadableLog"), "{error_text}");
    drop(unwritable);
    assert_sound(&copy.path(), "where its reader may write");
}

fn copied(bench: &LedgerBench, extensions: &[&str]) -> LedgerBench {
    let copy = LedgerBench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    for extension in extensions {
        std::fs::copy(bench.path().with_extension(extension), copy.path().with_extension(extension)).expect("a copy");
    }
    copy
}

#[test]
fn copy_without_its_log_is_reported() {
    let bench = LedgerBench::new();
    let (_ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let copy = copied(&bench, &["db", TALLY_EXTENSION]);
    for error_text in [
        LedgerFiles::open(&copy.path()).expect_err("nothing to read").to_string(),
        ledger_info(&copy.path()).expect_err("nothing to read").to_string(),
    ] {
        assert!(error_text.contains("a copy without the book's log") && error_text.contains("-wal"), "{error_text}");
    }
}

/// The copied pages are from different moments: the worker's own sums are older than the slots.
#[test]
fn tally_copied_while_counting_is_a_note_and_otherwise_a_finding() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    wait(ledger.reader().fold_now()).expect("a fold");
    let copy = copied(&bench, &["db", "db-wal"]);
    let tally = bench.path().with_extension(TALLY_EXTENSION);
    let mut torn = std::fs::read(&tally).expect("the tally");
    let held: Vec<_> = (0..9).map(|_| admit(&meter, &bench.clock)).collect();
    let later = std::fs::read(&tally).expect("the tally");
    let own = 9 * crate::ledger::tally::slot::SLOT_BYTES; // the header's page, and the worker's own slot
    torn[own..].copy_from_slice(&later[own..]);
    std::fs::write(copy.path().with_extension(TALLY_EXTENSION), &torn).expect("a copy");
    let verdict = assert_sound(&copy.path(), "a copy");
    let note = verdict.notes.join("\n");
    assert!(
        note.contains(
            "0 commands are in flight according to its sums, 9 according to its slots; this tally was copied"
        ),
        "{note}"
    );
    drop(ledger); // like a crash
    std::fs::write(&tally, &torn).expect("the file itself is written");
    assert_eq!(super::audit::found(&bench), ["balance at epoch 1, worker 0"]);
    drop(held);
}
