//! The table of `docs/cancel-safety.md`: each reader gets a stream in pieces of 7 bytes, and is
//! interrupted where it would wait for the next piece.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use plainsong::io::{DuplexStream, LineReader, duplex};
use plainsong::time::{fail_after, timeout};

/// The outcome of a call of a reader.
enum Step {
    Got(String),
    End,
    Failed(io::Error),
}

impl Step {
    fn of(result: io::Result<String>) -> Self {
        result.map_or_else(Self::Failed, Self::Got)
    }
}

/// Makes something that reads from a stream, as a function to call again and again.
type Make = fn(DuplexStream) -> Box<dyn FnMut() -> Step>;

#[derive(Clone, Copy)]
enum Interruption {
    Unwind,
    Error,
}

use Interruption::{Error, Unwind};

/// Calls `next` until it must wait or is at the end. `true` for the end.
fn read(
    next: &mut dyn FnMut() -> Step,
    by: Interruption,
    all: &mut String,
) -> Result<bool, String> {
    loop {
        let step = catch_unwind(AssertUnwindSafe(|| match by {
            Unwind => timeout(Duration::ZERO, &mut *next).ok(),
            Error => Some(fail_after(Duration::ZERO, &mut *next)),
        }));
        match step {
            Err(_) => return Err("panics".to_owned()),
            Ok(None) => return Ok(false),
            Ok(Some(Step::Got(item))) => all.push_str(&item),
            Ok(Some(Step::End)) => return Ok(true),
            Ok(Some(Step::Failed(error))) if error.kind() == ErrorKind::TimedOut => {
                return Ok(false);
            }
            Ok(Some(Step::Failed(error))) => return Err(error.to_string()),
        }
    }
}

/// Everything that is read from `bytes`, in pieces of this size.
fn in_pieces(bytes: &[u8], size: usize, make: Make, by: Interruption) -> Result<String, String> {
    let (mut far, near) = duplex(1 << 20);
    let mut next = make(near);
    let mut all = String::new();
    for piece in bytes.chunks(size) {
        far.write_all(piece).unwrap();
        if read(&mut next, by, &mut all)? {
            return Ok(all);
        }
    }
    drop(far);
    // A reader that goes in circles would not come to the end by itself.
    for _ in 0..100 {
        if read(&mut next, by, &mut all)? {
            return Ok(all);
        }
    }
    Err("does not come to the end".to_owned())
}

/// The effect of an interruption on a reader.
fn verdict(bytes: &[u8], make: Make, by: Interruption) -> &'static str {
    let whole = in_pieces(bytes, bytes.len(), make, Error).unwrap();
    assert!(!whole.is_empty());
    if in_pieces(bytes, 7, make, by) == Ok(whole) { "right" } else { "breaks" }
}

fn text() -> Vec<u8> {
    (0..20).fold(String::new(), |text, n| text + &format!("line {n} of twenty\n")).into()
}

fn numbers() -> Vec<u8> {
    (0..20).fold(String::new(), |text, n| text + &format!("{{\"number\": {}}} ", 1000 + n)).into()
}

fn rows() -> Vec<u8> {
    (0..20).fold(String::from("a,b\n"), |text, n| text + &format!("{n},\"row, {n}\"\n")).into()
}

fn frames() -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..20 {
        let message = format!("message {n} of twenty");
        bytes.extend([0x81, message.len() as u8]);
        bytes.extend(message.as_bytes());
    }
    bytes
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for n in 0..3 {
        let mut header = tar::Header::new_gnu();
        header.set_size(700);
        header.set_cksum();
        archive.append_data(&mut header, format!("file{n}"), &[b'a' + n; 700][..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn zlib() -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&text()).unwrap();
    encoder.finish().unwrap()
}

fn zstandard() -> Vec<u8> {
    zstd::encode_all(&*text(), 1).unwrap()
}

/// The outcome of a call of `read`.
fn piece(mut reader: impl Read) -> Step {
    let mut bytes = [0; 64];
    match reader.read(&mut bytes) {
        Ok(0) => Step::End,
        read => Step::of(read.map(|len| String::from_utf8_lossy(&bytes[..len]).into_owned())),
    }
}

fn read_line(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let (mut reader, mut line) = (BufReader::new(near), String::new());
    Box::new(move || match reader.read_line(&mut line) {
        Ok(0) => Step::End,
        read => Step::of(read.map(|_| std::mem::take(&mut line))),
    })
}

fn read_until(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let (mut reader, mut line) = (BufReader::new(near), Vec::new());
    Box::new(move || match reader.read_until(b'\n', &mut line) {
        Ok(0) => Step::End,
        read => Step::of(read.map(|_| String::from_utf8(std::mem::take(&mut line)).unwrap())),
    })
}

fn read_to_end(mut near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let (mut bytes, mut over) = (Vec::new(), false);
    Box::new(move || {
        if std::mem::replace(&mut over, false) {
            return Step::End;
        }
        let read = near.read_to_end(&mut bytes);
        over = read.is_ok();
        Step::of(read.map(|_| String::from_utf8(std::mem::take(&mut bytes)).unwrap()))
    })
}

fn lines(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let mut lines = BufReader::new(near).lines();
    Box::new(move || lines.next().map_or(Step::End, Step::of))
}

fn line_reader(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let mut lines = LineReader::new(BufReader::new(near));
    Box::new(move || lines.next().map_or(Step::End, Step::of))
}

fn tungstenite(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    use tungstenite::protocol::{Role, WebSocket};
    let mut socket = WebSocket::from_raw_socket(near, Role::Client, None);
    Box::new(move || match socket.read() {
        Ok(message) => Step::Got(message.to_string()),
        Err(tungstenite::Error::Io(error)) => Step::Failed(error),
        // These messages have no closing one.
        Err(tungstenite::Error::Protocol(error)) if error.to_string().contains("closing") => {
            Step::End
        }
        Err(error) => Step::Failed(io::Error::other(error.to_string())),
    })
}

fn csv(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let mut records = csv::Reader::from_reader(near).into_records();
    Box::new(move || match records.next() {
        None => Step::End,
        Some(Ok(record)) => Step::Got(format!("{record:?}")),
        Some(Err(error)) => match error.into_kind() {
            csv::ErrorKind::Io(error) => Step::Failed(error),
            kind => Step::Failed(io::Error::other(format!("{kind:?}"))),
        },
    })
}

fn tar(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    // The entries borrow from it. The test ends soon.
    let archive = Box::leak(Box::new(tar::Archive::new(near)));
    let (mut entries, mut open) = (archive.entries().unwrap(), None);
    let mut bytes = [0; 64];
    Box::new(move || {
        if open.is_none() {
            match entries.next() {
                None => return Step::End,
                Some(Err(error)) => return Step::Failed(error),
                Some(Ok(entry)) => open = Some(entry),
            }
        }
        let read = open.as_mut().unwrap().read(&mut bytes);
        if matches!(read, Ok(0)) {
            open = None;
        }
        Step::of(read.map(|len| String::from_utf8_lossy(&bytes[..len]).into_owned()))
    })
}

fn json(near: DuplexStream) -> Box<dyn FnMut() -> Step> {
    let mut values = serde_json::Deserializer::from_reader(near).into_iter::<serde_json::Value>();
    Box::new(move || match values.next() {
        None => Step::End,
        Some(value) => Step::of(value.map(|value| value.to_string()).map_err(io::Error::from)),
    })
}

/// The name of a reader, its stream, how it is made, and the verdicts: after an unwind, after an
/// error.
type Row = (&'static str, fn() -> Vec<u8>, Make, [&'static str; 2]);

const READERS: &[Row] = &[
    ("`Read::read`", text, |mut near| Box::new(move || piece(&mut near)), ["right", "right"]),
    ("`Read::read_to_end`, into the same buffer", text, read_to_end, ["right", "right"]),
    ("`BufRead::read_until`, into the same buffer", text, read_until, ["right", "right"]),
    ("`BufRead::read_line`, into the same buffer", text, read_line, ["breaks", "right"]),
    ("`BufRead::lines`", text, lines, ["breaks", "breaks"]),
    ("`plainsong::io::LineReader`", text, line_reader, ["right", "right"]),
    ("tungstenite, `WebSocket::read`", frames, tungstenite, ["breaks", "right"]),
    ("csv, `Reader::records`", rows, csv, ["breaks", "breaks"]),
    ("tar, `Archive::entries`", archive, tar, ["breaks", "breaks"]),
    ("serde_json, a stream of values", numbers, json, ["breaks", "breaks"]),
    (
        "flate2, `ZlibDecoder`",
        zlib,
        |near| {
            let mut decoder = flate2::read::ZlibDecoder::new(near);
            Box::new(move || piece(&mut decoder))
        },
        ["right", "right"],
    ),
    (
        "zstd, `Decoder`",
        zstandard,
        |near| {
            let mut decoder = zstd::Decoder::new(near).unwrap();
            Box::new(move || piece(&mut decoder))
        },
        ["right", "right"],
    ),
];

#[test]
fn each_reader_does_what_the_table_says() {
    // zstd's decoder is built on the stack in a debug build.
    let runtime = plainsong::Runtime::builder().stack_size(1 << 22).build().unwrap();
    runtime.run(|| {
        let (mut table, mut wrong) = (String::new(), Vec::new());
        for &(name, bytes, make, expected) in READERS {
            let bytes = bytes();
            let found = [Unwind, Error].map(|by| verdict(&bytes, make, by));
            writeln!(table, "| {name} | {} | {} |", found[0], found[1]).unwrap();
            if found != expected {
                wrong.push(name);
            }
        }
        assert!(wrong.is_empty(), "other than expected: {wrong:?}\n{table}");
        let page = include_str!("../../../docs/cancel-safety.md");
        for row in table.lines() {
            assert!(page.contains(row), "docs/cancel-safety.md should have the row\n{row}");
        }
    });
}

/// A session of TLS, of which each side is read in pieces.
#[test]
fn rustls_goes_on_after_unwinds_and_errors() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], secret.unwrap())
        .unwrap();
    let (client, server) = (Arc::new(client), Arc::new(server));
    for by in [Unwind, Error] {
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(&client), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut Cursor::new(bytes)).unwrap();
            server.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut bytes = Cursor::new(bytes);
            while bytes.position() < bytes.get_ref().len() as u64 {
                client.read_tls(&mut bytes).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        server.writer().write_all(&text()).unwrap();
        server.send_close_notify();
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        plainsong::run(|| {
            let (mut far, near) = duplex(1 << 20);
            let mut stream = rustls::StreamOwned::new(client, near);
            let mut all = String::new();
            for bytes in bytes.chunks(7) {
                far.write_all(bytes).unwrap();
                read(&mut || piece(&mut stream), by, &mut all).unwrap();
            }
            assert_eq!(all.as_bytes(), text());
        });
    }
}
