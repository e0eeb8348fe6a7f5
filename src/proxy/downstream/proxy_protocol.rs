//! The PROXY protocol, versions 1 and 2: the header in which a TCP load balancer names the client's address.
//!
//! Guarantees:
//! - A header is accepted only from the addresses that the listener trusts, and those must send one.
//! - No byte after the header is read.
//! - A header has at most [`HEADER_MAX`] bytes.
//!
//! Leaves to others: the parsing (the crate `ppp`) and the time limit (that of the handshake that follows).

use std::io;
use std::net::IpAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The signature of version 2. Every header of version 1 is longer.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 allows 64 KiB of extensions. Balancers send a few hundred bytes.
const HEADER_MAX: usize = 2048;
/// The maximum line length of version 1, including the line end.
const V1_LINE_MAX: usize = 107;

/// Reads the header at the beginning of a connection. Returns the client's address, or `None` if the balancer sends no
/// address: for its own connections (`LOCAL`) or for an unknown client.
pub async fn read_proxy_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        read_v2_rest(stream, &mut header).await?;
        return parse_v2(&header);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(invalid_header("the connection does not begin with a PROXY header"));
    }
    read_v1_rest(stream, &mut header).await?;
    parse_v1(&header)
}

async fn read_v2_rest(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>) -> io::Result<()> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    header.extend(fixed);
    let rest = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header.len() + rest > HEADER_MAX {
        return Err(invalid_header("the header is too long"));
    }
    let begin = header.len();
    header.resize(begin + rest, 0);
    stream.read_exact(&mut header[begin..]).await.map(drop)
}

/// Reads byte by byte, because the length of the line is unknown and the bytes after it belong to TLS.
async fn read_v1_rest(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>) -> io::Result<()> {
    while !header.ends_with(b"\r\n") {
        if header.len() >= V1_LINE_MAX {
            return Err(invalid_header("the line of version 1 is too long"));
        }
        header.push(stream.read_u8().await?);
    }
    Ok(())
}

fn parse_v2(header: &[u8]) -> io::Result<Option<IpAddr>> {
    let header = v2::Header::try_from(header).map_err(|error| invalid_header(&error.to_string()))?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
        _ => None,
    })
}

fn parse_v1(header: &[u8]) -> io::Result<Option<IpAddr>> {
    let header = v1::Header::try_from(header).map_err(|error| invalid_header(&error.to_string()))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Unknown => None,
    })
}

fn invalid_header(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of a read, and the number of bytes left for TLS.
    async fn read_of(bytes: &[u8]) -> (Result<Option<String>, ()>, usize) {
        let mut rest = bytes;
        let read = read_proxy_header(&mut rest).await.map(|address| address.map(|address| address.to_string()));
        (read.map_err(drop), rest.len())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [V2_SIGNATURE, &[command, family][..], &length, body].concat()
    }

    #[tokio::test]
    async fn both_versions_give_the_address_and_leave_the_remaining_bytes() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xbb];
        let six = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 20]].concat();
        let with_extensions = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, address) in [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n".to_vec(), Some("2001:db8::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), Some("192.0.2.7")),
            (v2(0x21, 0x11, &with_extensions), Some("192.0.2.7")),
            (v2(0x21, 0x21, &six), Some("2001:db8::7")),
            (v2(0x20, 0x00, &[]), None), // LOCAL: a health check of the balancer itself
            (v2(0x20, 0x11, &four), None),
            (v2(0x21, 0x00, &[]), None),
        ] {
            let sent = [header, b"\x16\x03\x01".to_vec()].concat();
            assert_eq!(read_of(&sent).await, (Ok(address.map(str::to_owned)), 3), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn invalid_headers_are_refused() {
        for bytes in [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00".to_vec(), // TLS without a PROXY header
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4660\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 99999\r\n".to_vec(),
            [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            b"PROXY TCP4 192.0".to_vec(),
            b"PROX".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 4]),
            v2(0x21, 0x51, &[0; 12]),
            v2(0x21, 0x11, &[0; HEADER_MAX]),
        ] {
            assert_eq!(read_of(&bytes).await.0, Err(()), "{bytes:?}");
        }
    }
}
