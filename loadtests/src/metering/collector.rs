//! A collector of traces that takes everything, at little cost: it reads requests and answers each with 200.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// The answer of OTLP over HTTP to spans that are all accepted: an empty message.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
/// The largest body that is read.
const BODY_MAX: u64 = 64 * 1024 * 1024;

/// Starts a collector on a thread, which ends with the process.
pub fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the collector")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer_all(&stream)); // an error ends the connection
        }
    });
    Ok(address)
}

fn answer_all(stream: &TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            length = field.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(length);
        }
        io::copy(&mut reader.by_ref().take(length.min(BODY_MAX)), &mut io::sink())?;
        writer.write_all(ANSWER)?;
    }
}
