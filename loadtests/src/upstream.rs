//! `loadtests upstream`: a very cheap subsystem that responds with 128 bytes and counts requests by department.
//!
//! Guarantees:
//! - A request is counted, under the department that the proxy named, before its response.
//! - The cost is below that of the measured proxy: one thread, HTTP/1.1 keep-alive, only requests without a body.
//! - The program prints its addresses as one line of JSON and runs until it is stopped.
//! - With `--log FILE` each request is a line in the log before its response.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::account::Account;
use crate::http;
use crate::pki::{DEPARTMENTS, department};

/// The largest request head that is read, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// The fields with the department's name: Tallygate's by its contract, the peers' by their configuration.
const DEPARTMENT_FIELDS: [&[u8]; 2] = [b"x-tallygate-department", b"x-department"];

/// The addresses of a running upstream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// The address for the proxy.
    pub traffic: SocketAddr,
    /// The control address: `GET /counts`, `GET /reset`.
    pub control: SocketAddr,
}

impl Addresses {
    /// The counts since the start or the last reset.
    pub fn counts(&self) -> Result<Account> {
        serde_json::from_str(&http::get(self.control, "/counts")?).context("reading the upstream's counts")
    }

    /// Resets the counts.
    pub fn reset(&self) -> Result<()> {
        http::get(self.control, "/reset").map(drop)
    }
}

/// The options of the upstream.
#[derive(Clone, Debug, clap::Args)]
pub struct Upstream {
    /// Append `DEPARTMENT_HEADER REQUEST-ID` to this file for each request, before its response
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Milliseconds between a request and its response
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
}

/// Requests by department; the last counter is for unknown departments.
#[derive(Debug, Default)]
struct Counts {
    requests: [u64; DEPARTMENTS + 1],
    log: Option<File>,
}

impl Counts {
    fn count(&mut self, head: &[u8]) {
        let index = named_department(head).unwrap_or(DEPARTMENTS);
        self.requests[index] += 1;
        let Some(log) = &mut self.log else { return };
        let id = field(head, b"x-request-id").map_or_else(|| "-".into(), String::from_utf8_lossy);
        let line = format!("{} {id}\n", name(index));
        log.write_all(line.as_bytes()).expect("the log takes a line: without it the run proves nothing");
    }

    fn account(&self) -> Account {
        (0..=DEPARTMENTS).map(name).zip(self.requests).filter(|(_, count)| *count > 0).collect()
    }
}

/// The department with this index, or the name for unknown departments.
fn name(index: usize) -> String {
    if index < DEPARTMENTS { department(index) } else { "unknown department".to_owned() }
}

/// Serves until the process is stopped.
pub async fn serve(options: Upstream) -> Result<()> {
    let log = options.log.map(|path| File::options().create(true).append(true).open(path)).transpose();
    let log = log.context("opening the upstream's log")?;
    let traffic = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the upstream")?;
    let control = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the upstream's control")?;
    let addresses = Addresses { traffic: traffic.local_addr()?, control: control.local_addr()? };
    println!("{}", serde_json::to_string(&addresses)?);
    let counts = Rc::new(RefCell::new(Counts { log, ..Counts::default() }));
    let controls = accept(control, Rc::clone(&counts), (answer_control, Duration::ZERO));
    let requests = accept(traffic, counts, (answer_traffic, Duration::from_millis(options.delay_ms)));
    tokio::task::LocalSet::new().run_until(async { tokio::join!(controls, requests) }).await;
    Ok(())
}

/// A function that appends the response to one request head to the output.
type Answer = fn(&RefCell<Counts>, &[u8], &mut Vec<u8>);

async fn accept(listener: TcpListener, counts: Rc<RefCell<Counts>>, how: (Answer, Duration)) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let counts = Rc::clone(&counts);
        tokio::task::spawn_local(async move {
            let _ = converse(stream, &counts, how).await; // a connection that the proxy closes is not an error here
        });
    }
}

/// Reads heads and writes responses until the peer closes or a head is too long.
async fn converse(
    mut stream: TcpStream,
    counts: &RefCell<Counts>,
    (answer, delay): (Answer, Duration),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(HEAD_LIMIT);
    let mut output = Vec::with_capacity(1024);
    while input.len() < HEAD_LIMIT && stream.read_buf(&mut input).await? > 0 {
        let mut begin = 0;
        while let Some(length) = head_length(&input[begin..]) {
            answer(counts, &input[begin..begin + length], &mut output);
            begin += length;
        }
        input.drain(..begin);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        stream.write_all(&output).await?;
        output.clear();
    }
    Ok(())
}

fn answer_traffic(counts: &RefCell<Counts>, head: &[u8], output: &mut Vec<u8>) {
    counts.borrow_mut().count(head);
    output.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n");
    output.extend_from_slice(&[b'x'; 128]);
}

fn answer_control(counts: &RefCell<Counts>, head: &[u8], output: &mut Vec<u8>) {
    let mut counts = counts.borrow_mut();
    if head.starts_with(b"GET /reset ") {
        counts.requests = [0; DEPARTMENTS + 1];
    }
    let body = serde_json::to_string(&counts.account()).unwrap_or_default(); // strings and numbers always serialise
    output.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

/// The length of the first head, if it is complete.
pub fn head_length(input: &[u8]) -> Option<usize> {
    input.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4)
}

/// The value of a field in a head. The first line is skipped, because it is not a field.
pub fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// The index of the department in the head: `dept-3`, or nginx's whole subject `CN=dept-3`.
fn named_department(head: &[u8]) -> Option<usize> {
    let value = DEPARTMENT_FIELDS.iter().find_map(|name| field(head, name))?;
    let name = value.strip_prefix(b"CN=").unwrap_or(value);
    let number: usize = std::str::from_utf8(name.strip_prefix(b"dept-")?).ok()?.parse().ok()?;
    (1..=DEPARTMENTS).contains(&number).then(|| number - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_counted_for_the_department_in_the_proxy_header() {
        let cases: [(&[u8], &str); 5] = [
            (b"GET / HTTP/1.1\r\nhost: a\r\nx-tallygate-department: dept-1\r\n\r\n", "dept-1"),
            (b"GET / HTTP/1.1\r\nX-Department: CN=dept-8\r\n\r\n", "dept-8"),
            (b"GET / HTTP/1.1\r\nX-Department: dept-9\r\n\r\n", "unknown department"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "unknown department"),
            (b"GET /x-department:dept-1 HTTP/1.1\r\nX-Departments: dept-1\r\n\r\n", "unknown department"),
        ];
        for (head, expected) in cases {
            let mut counts = Counts::default();
            counts.count(head);
            assert_eq!(counts.account(), Account::from([(expected.to_owned(), 1)]), "{}", head.escape_ascii());
        }
    }

    #[test]
    fn head_ends_with_its_empty_line() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nGET"), Some(18));
    }
}
