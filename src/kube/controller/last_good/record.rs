//! The form of the last good configuration, with the endpoints that its documents name, in its file: a line with the
//! format, a line of JSON, and a line with the
//! SHA-256 of both.
//!
//! Guarantees:
//! - A file that was not written to its end, or that was altered, is refused with the reason.
//! - Bounded: at most [`RECORD_BYTES_MAX`]. Writing needs no copy of the documents.
//!
//! Leaves to others: files (`record_disk`), when to write (`record_keeper`).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::kube::controller::data_plane::EndpointList;
use crate::kube::objects::ObjectKey;
use crate::kube::translate::{DocumentList, MemoryTextMap, NamedDocument};
use crate::model::hex_text;
use crate::policy::ServiceEndpoints;

/// The first line. Another format of the rest has another line.
const FORMAT: &str = "tallygate last good configuration, format 1";

/// What the last line begins with.
const CHECKSUM: &str = "sha256 ";

/// The largest record. 5,000 routes have about 10 MB.
pub(super) const RECORD_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The configuration of a cluster as it was made live.
#[derive(Clone, Debug, PartialEq)]
pub struct LastGoodConfig {
    /// When it was written.
    pub written_at: Timestamp,
    /// A text that differs whenever documents or texts differ.
    pub version: String,
    /// The documents, each with the name of its object.
    pub documents: DocumentList,
    /// The certificates, keys and authorities that the documents name.
    pub texts: MemoryTextMap,
    /// The endpoints of the Services that the documents name.
    pub endpoints: EndpointList,
}

/// The same, borrowed for writing.
pub(in crate::kube::controller) struct RecordToWrite<'a> {
    pub(super) written_at: Timestamp,
    pub(super) version: &'a str,
    pub(super) documents: &'a DocumentList,
    pub(super) texts: &'a MemoryTextMap,
    pub(super) endpoints: &'a EndpointList,
}

/// The fields that are not JSON yet.
#[derive(Serialize)]
struct RecordFields<'a> {
    written_at: Timestamp,
    version: &'a str,
    #[serde(serialize_with = "encoded")]
    texts: &'a MemoryTextMap,
    #[serde(serialize_with = "named")]
    endpoints: &'a EndpointList,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody {
    written_at: Timestamp,
    version: String,
    documents: Vec<(String, Value)>,
    texts: BTreeMap<String, ByteString>,
    endpoints: Vec<(String, String, ServiceEndpoints)>,
}

/// Why a record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Another format, or another kind of file.
    #[error("its first line is {0:?}, and this version reads {FORMAT:?}")]
    Format(String),
    /// The last line is missing.
    #[error("it ends before its checksum: it was not written to its end, or it was cut off")]
    Torn,
    /// The checksum differs.
    #[error("its checksum differs: it was altered or damaged after it was written")]
    Checksum,
    /// The content has another form.
    #[error("its content cannot be read: {0}")]
    Content(String),
}

/// Texts may be binary, so they are written as base64.
fn encoded<S: Serializer>(texts: &&MemoryTextMap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(texts.0.iter().map(|(name, text)| (name, ByteString(text.to_vec()))))
}

/// Services as namespace and name.
fn named<S: Serializer>(endpoints: &&EndpointList, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(endpoints.iter().map(|(service, ports)| (&*service.namespace, &*service.name, ports)))
}

/// Writes a record.
///
/// # Errors
/// Those of `out`, and [`io::ErrorKind::FileTooLarge`] if the record would have more than [`RECORD_BYTES_MAX`] bytes.
pub(super) fn write_record(out: impl Write, record: &RecordToWrite<'_>) -> io::Result<()> {
    let mut out = DigestWriter { out, digest: Sha256::new(), room: RECORD_BYTES_MAX };
    writeln!(out, "{FORMAT}")?;
    write_body(&mut out, record)?;
    writeln!(out)?;
    let digest = std::mem::take(&mut out.digest).finalize();
    writeln!(out, "{CHECKSUM}{}", hex_text(&digest))?;
    out.flush()
}

/// Writes the line of JSON. Documents are JSON already: they are written as they are.
fn write_body(mut out: impl Write, record: &RecordToWrite<'_>) -> io::Result<()> {
    let RecordToWrite { written_at, version, documents, texts, endpoints } = record;
    let fields = RecordFields { written_at: *written_at, version, texts, endpoints };
    let fields = serde_json::to_string(&fields)?;
    let others = fields.strip_suffix('}').unwrap_or(&fields);
    write!(out, "{others},\"documents\":[")?;
    for (position, document) in documents.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        write!(out, "{comma}[{},{}]", serde_json::to_string(&**document.name())?, document.text())?;
    }
    write!(out, "]}}")
}

/// Reads a record.
///
/// # Errors
/// [`RecordFault`], with what is wrong.
pub(super) fn read_record(content: &[u8]) -> Result<LastGoodConfig, RecordFault> {
    let first_end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    let first = &content[..first_end];
    if first != FORMAT.as_bytes() {
        let shown = String::from_utf8_lossy(&first[..first.len().min(FORMAT.len() * 2)]).into_owned();
        return Err(RecordFault::Format(shown));
    }
    let rest = content.strip_suffix(b"\n").ok_or(RecordFault::Torn)?;
    let last_begin = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (checked, last) = rest.split_at(last_begin);
    let found = last.strip_prefix(CHECKSUM.as_bytes()).ok_or(RecordFault::Torn)?;
    if found != hex_text(&Sha256::digest(checked)).as_bytes() {
        return Err(RecordFault::Checksum);
    }
    let body = checked.get(first_end + 1..).unwrap_or_default();
    let body: RecordBody = serde_json::from_slice(body).map_err(|error| RecordFault::Content(error.to_string()))?;
    let texts = body.texts.into_iter().map(|(name, text)| (name, Bytes::from(text.0)));
    let endpoints = body.endpoints.into_iter();
    let endpoints = endpoints.map(|(namespace, name, ports)| (ObjectKey::new(&namespace, &name), ports));
    Ok(LastGoodConfig {
        written_at: body.written_at,
        version: body.version,
        documents: body.documents.iter().map(|(name, content)| Arc::new(NamedDocument::new(name, content))).collect(),
        texts: MemoryTextMap(texts.collect()),
        endpoints: endpoints.collect(),
    })
}

/// Hashes and counts what is written.
struct DigestWriter<W> {
    out: W,
    digest: Sha256,
    room: u64,
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.room {
            let why = format!("the configuration has more than {RECORD_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.room -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Records for tests.
#[cfg(test)]
pub(in crate::kube::controller) mod samples {
    use serde_json::json;

    use super::*;

    pub(in crate::kube::controller) fn sample() -> LastGoodConfig {
        let text = |name: &str, text: &'static [u8]| (format!("memory:{name}"), Bytes::from_static(text));
        LastGoodConfig {
            written_at: "2026-11-30T04:00:00Z".parse().expect("a time"),
            version: "0123456789abcdef".to_owned(),
            documents: vec![
                Arc::new(NamedDocument::new("Gateway a/web", &json!({ "listeners": [{ "name": "web" }] }))),
                Arc::new(NamedDocument::new("HTTPRoute a/cart", &json!({ "subsystems": [{ "id": "ü\n" }] }))),
            ]
            .into(),
            texts: MemoryTextMap([text("a/web/tls.crt", b"PEM\n"), text("a/crl", &[0, 255, 10])].into()),
            endpoints: vec![(
                ObjectKey::new("a", "cart"),
                ServiceEndpoints::from([("http".into(), vec![([10, 0, 0, 1], 80).into()])]),
            )],
        }
    }

    pub(in crate::kube::controller) fn to_write(config: &LastGoodConfig) -> RecordToWrite<'_> {
        let LastGoodConfig { written_at, version, documents, texts, endpoints } = config;
        RecordToWrite { written_at: *written_at, version, documents, texts, endpoints }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{sample, to_write};
    use super::*;

    fn written(config: &LastGoodConfig) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_record(&mut bytes, &to_write(config)).expect("memory takes it");
        bytes
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        let config = sample();
        assert_eq!(read_record(&written(&config)), Ok(config));
    }

    #[test]
    fn record_that_is_cut_off_anywhere_is_refused() {
        let whole = written(&sample());
        for length in 0..whole.len() {
            let fault = read_record(&whole[..length]).expect_err("not whole");
            assert!(matches!(fault, RecordFault::Torn | RecordFault::Format(_)), "{length}: {fault}");
        }
    }

    #[test]
    fn record_with_any_altered_byte_is_refused() {
        let whole = written(&sample());
        for place in 0..whole.len() {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            assert!(read_record(&altered).is_err(), "byte {place}");
        }
    }

    #[test]
    fn faults_say_what_is_wrong() {
        let newer = String::from_utf8(written(&sample())).expect("text").replace("format 1", "format 2");
        let fault = read_record(newer.as_bytes()).expect_err("another format").to_string();
        assert!(fault.contains("format 2") && fault.contains("reads \"tallygate last good configuration, format 1\""));
        let mut other = format!("{FORMAT}\n{{\"documents\":7}}\n").into_bytes();
        let digest = hex_text(&Sha256::digest(&other));
        other.extend(format!("{CHECKSUM}{digest}\n").into_bytes());
        assert!(matches!(read_record(&other), Err(RecordFault::Content(_))));
        assert!(matches!(read_record(b""), Err(RecordFault::Format(_))));
    }

    #[test]
    fn record_above_its_bound_is_not_written() {
        let mut out = DigestWriter { out: Vec::new(), digest: Sha256::new(), room: 5 };
        assert_eq!(out.write(b"abc").ok(), Some(3));
        assert_eq!(out.write(b"def").map_err(|error| error.kind()), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(out.out, b"abc");
    }
}
