//! `tallygate top` against a running gateway: into a pipe, as JSON, and on a terminal of 80 columns and 24 rows; and
//! what it says where no gateway answers.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::world::{READ, World, run, stderr, stdout, tool, within};

/// Runs `tallygate top`. Returns exit code, stdout and stderr.
async fn top(admin: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
    command.args(["top", "--interval", "1", "--admin", admin]).args(arguments);
    let ended = run(command).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

/// Sends commands, one refused among three, until it is told to stop.
async fn traffic(world: &World, is_over: &Cell<bool>) {
    let client = world.client("traffic-police");
    while !is_over.get() {
        for path in [READ, READ, "/nothing"] {
            client.get(path).await;
        }
    }
}

#[tokio::test]
async fn overview_of_a_running_gateway_is_text_in_a_pipe_and_json() {
    let world = World::city().start().await;
    let admin = format!("http://{}", world.admin_address());
    let is_over = Cell::new(false);
    let both = async {
        let both = (top(&admin, &[]).await, top(&admin, &["--format", "json"]).await);
        is_over.set(true);
        both
    };
    let ((ended, json), ()) = futures_util::join!(both, traffic(&world, &is_over));
    let (code, text, err) = ended;
    assert_eq!((code, err.as_str()), (0, ""));
    let begins = |words: &str| text.lines().any(|line| line.starts_with(words));
    for words in
        ["state     ready", "config    ", "ledger    balances; synced ", "DEPARTMENT ", "SUBSYSTEM ", "ends      "]
    {
        assert!(begins(words), "{words}: {text}");
    }
    assert!(begins("traffic-police") && begins("cameras") && !text.contains('\x1b'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
    let (code, out, err) = json;
    assert_eq!((code, err.as_str()), (0, ""));
    let shown: Value = serde_json::from_str(&out).unwrap();
    let row =
        shown["departments"].as_array().unwrap().iter().find(|row| row["department"] == "traffic-police").unwrap();
    let rate = |key: &str| row[key].as_f64().unwrap();
    assert!(rate("commands_per_second") > 1.0, "{out}");
    let refused = rate("refused_per_second");
    assert!(refused > 0.2 && refused < rate("commands_per_second"), "one of three is refused: {out}");
    assert_eq!((&shown["ready"], &shown["ledger"]["imbalance"]), (&Value::from(true), &Value::from(0)));
    let cameras = shown["subsystems"].as_array().unwrap().iter().find(|row| row["subsystem"] == "cameras").unwrap();
    assert!(
        cameras["servers"].as_u64() >= Some(1) && cameras["servers_out"] == Value::from(Vec::<Value>::new()),
        "{out}"
    );
    assert!(shown["certificates"].as_array().unwrap().iter().any(|end| end["role"] == "server"), "{out}");
    world.close().await;
}

/// `script` (util-linux) runs the command on a terminal of its own.
#[tokio::test]
async fn view_on_a_terminal_fits_it_and_ends_with_a_key() {
    let world = World::city().start().await;
    let admin = world.admin_address();
    let program = env!("CARGO_BIN_EXE_tallygate");
    let mut script = tool("script");
    let inside = format!(
        "stty cols 80 rows 24; stty -a | head -n 1; {program} top --interval 1 --admin {admin}; stty -a | grep -o ' icanon'"
    );
    script.args(["--quiet", "--return", "--command", &inside, "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut script = script.spawn().unwrap();
    let (mut keys, mut terminal) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let shown = within(
        "the view ends with a key",
        tokio::task::spawn_blocking(move || {
            let (mut shown, mut part) = (String::new(), [0; 4096]);
            // Two pages: the second one is of the time since the first.
            while shown.matches("\x1b[H").count() < 2 || !shown.contains("ends      ") {
                let read = terminal.read(&mut part).unwrap();
                assert!(read > 0, "it ended by itself: {shown}");
                shown += &String::from_utf8_lossy(&part[..read]);
            }
            keys.write_all(b"q").unwrap();
            terminal.read_to_string(&mut shown).unwrap();
            shown
        }),
    )
    .await
    .unwrap();
    assert!(script.wait().unwrap().success(), "{shown:?}");
    let after = shown.split("\x1b[?1049l").nth(1).unwrap_or_else(|| panic!("the screen is not given back: {shown:?}"));
    assert!(after.contains("icanon"), "keys are handled as before: {after:?}");
    let pages: Vec<&str> = shown.split("\x1b[H").skip(1).map(|page| page.split("\x1b[J").next().unwrap()).collect();
    for page in pages {
        let lines: Vec<String> = page.split('\n').map(|line| without_codes(line.trim_end_matches('\r'))).collect();
        assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        assert!(lines[0].starts_with("tallygate ") && lines[0].ends_with(" UTC"), "{lines:#?}");
    }
    world.close().await;
}

/// A line without codes of the terminal.
fn without_codes(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text += part.split_once(|character: char| character.is_ascii_alphabetic()).unwrap().1;
    }
    text
}

/// A server that gives every client this answer, or none.
fn foreign_server(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            match answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes())),
                None => held.push(stream),
            }
        }
    });
    address
}

#[tokio::test]
async fn gateway_that_does_not_answer_is_a_sentence_and_exit_code_74() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let html = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<!DOCTYPE html><html>\n<body>login</body>";
    let exporter = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nnode_load1 0.5\n";
    for (address, expected) in [
        (
            closed,
            "no connection: Connection refused (os error 111); is the gateway running, and is --admin the address",
        ),
        (
            foreign_server(Some(html)),
            "the answer is not that of a gateway (<!DOCTYPE html><html>); is --admin the address",
        ),
        (foreign_server(Some(exporter)), "the answer is not that of a gateway (it lacks tallygate_build_info)"),
        (
            foreign_server(None),
            "no answer within 5 seconds; the gateway hangs, is overloaded, or something else listens",
        ),
    ] {
        let (code, out, err) = top(&address.to_string(), &["--once"]).await;
        assert!(code == 74 && out.is_empty(), "{code} {out}");
        let begins = format!("tallygate: GET http://{address}/metrics: {expected}");
        assert!(err.starts_with(&begins), "{begins}\n{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    let (code, _, err) = top("https://gate:9090", &[]).await;
    assert_eq!((code, err.contains("the admin listener has no TLS; write http://127.0.0.1:9090")), (2, true), "{err}");
}
