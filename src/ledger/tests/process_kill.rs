//! A real `kill -9` of a counting process: no acknowledged count is lost, no command is counted twice.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

/// The variable with the path of the child's ledger. Without it the child does nothing.
const PATH: &str = "TALLYGATE_TEST_LEDGER";
const KILLS: usize = 5;

#[test]
fn sigkill_loses_no_answered_command_and_counts_none_twice() {
    let bench = LedgerBench::new();
    let mut before = 0;
    for kill in 1..=KILLS {
        let answered = before + count_until_killed(&bench.path(), 20 * kill);
        let rows = bench.files();
        let counted: u64 = rows.iter().map(|row| row.totals.commands).sum();
        assert!(counted >= answered, "{counted} counted, {answered} answered");
        // The child acknowledges each batch after counting it, so at most one batch is counted and not acknowledged.
        assert!(counted <= answered + BUNCH, "{counted} counted, {answered} answered");
        before = counted;
    }
    let (ledger, _) = bench.open_one();
    assert_eq!(wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows"), bench.files());
    assert_eq!(bench.number("SELECT count(*) FROM epoch WHERE ending = 'process died'"), KILLS as i64);
}

/// The number of commands between two acknowledgements of the child.
const BUNCH: u64 = 500;

/// Lets a child count, and kills it after `answers` acknowledgements. Returns the number of acknowledged commands.
fn count_until_killed(path: &Path, answers: usize) -> u64 {
    let mut child = start_child(path);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = output.lines().map_while(Result::ok).filter(|line| line.ends_with("counted"));
    let before = lines.by_ref().take(answers).count();
    child.kill().expect("killed");
    child.wait().expect("the end");
    assert_eq!(before, answers, "the child ended by itself");
    (before + lines.count()) as u64 * BUNCH
}

fn start_child(path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([
        "--exact",
        "ledger::tests::process_kill::child_process_that_counts_until_it_is_killed",
        "--ignored",
        "--nocapture",
    ]);
    command.env(PATH, path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a child")
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn child_process_that_counts_until_it_is_killed() {
    use std::io::Write;
    let Some(path) = std::env::var_os(PATH) else { return };
    let settings = LedgerSettings { path: path.into(), ..LedgerBench::new().settings(1) };
    let opened = Ledger::open(settings, Clock::system(), Box::new(|error| panic!("{error}")));
    let (_ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    let clock = Clock::system();
    let mut output = std::io::stdout();
    loop {
        for _ in 0..BUNCH {
            admit(&meter, &clock).settle(Finished::Ok);
        }
        meter.tick();
        writeln!(output, "counted").expect("the reader is open");
    }
}
