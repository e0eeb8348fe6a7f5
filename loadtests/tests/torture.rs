//! A short torture run with the programs built for the tests. `make torture` is the long run.

use std::path::Path;
use std::process::Command;

#[test]
fn six_kills_lose_no_answered_command_and_count_none_twice() {
    let loadtests = Path::new(env!("CARGO_BIN_EXE_loadtests"));
    let tallygate = loadtests.with_file_name("tallygate");
    assert!(tallygate.exists(), "{} is not built; run the tests of the whole workspace", tallygate.display());
    let mut command = Command::new(loadtests);
    command.args(["torture", "--kills", "6", "--kinds", "plain,growth,recovery", "--tallygate"]).arg(tallygate);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let result = String::from_utf8_lossy(&output.stdout);
    assert!(result.contains("| **lost** | 0 | 0 |") && result.contains("| **double** | 0 | 0 |"), "{result}{said}");
    assert!(result.contains("6 kills under load"), "{result}");
}
