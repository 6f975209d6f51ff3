//! The HTTP server of the examples: on any input it answers and ends, and how the bytes are cut
//! into segments makes no difference.

#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plainsong::net::{TcpListener, TcpStream};
use plainsong::{spawn, yield_now};

#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/httpd/http/mod.rs"]
mod http;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    cuts: [u8; 4],
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    plainsong::run(|| {
        let (seen, answer) = exchange(&[input.bytes]);
        let mut rest = input.bytes;
        let mut pieces = Vec::new();
        for cut in input.cuts {
            let (piece, others) = rest.split_at(usize::from(cut).min(rest.len()));
            pieces.push(piece);
            rest = others;
        }
        pieces.push(rest);
        let (seen_in_pieces, answer_in_pieces) = exchange(&pieces);
        assert_eq!(seen, seen_in_pieces);
        // A connection that was reset may have lost its answer. Of two reasons to refuse a request,
        // the server gives the one that it finds first, which depends on the segments.
        if let (Some(whole), Some(in_pieces)) = (answer, answer_in_pieces) {
            let is_ok = |answer: &str| answer.starts_with("HTTP/1.1 200");
            assert_eq!(is_ok(&whole), is_ok(&in_pieces));
        }
    });
});

/// The requests that the server's handler saw, and its answer, unless that was reset.
fn exchange(pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (conn, _) = listener.accept().unwrap();
    let server = spawn(move || {
        let day = Duration::from_secs(86400);
        let limits = http::Limits {
            head_bytes: 1024,
            body_bytes: 1024,
            head_time: day,
            body_time: day,
            idle_time: day,
            send_time: day,
        };
        let mut seen = Vec::new();
        let attended = http::Server::new(limits).attend(&conn, |request, reply| {
            seen.push(format!("{} {} {:?}", request.method, request.target, request.body));
            reply.send(200, &[], request.body)
        });
        // A client that closes early is an error.
        drop(attended);
        seen
    });
    let reader = client.try_clone().unwrap();
    let reader = spawn(move || {
        let mut answer = Vec::new();
        (&reader).read_to_end(&mut answer).map(|_| answer)
    });
    for piece in pieces {
        if (&client).write_all(piece).is_err() {
            break;
        }
        (0..3).for_each(|_| yield_now());
    }
    // The server may have closed it already.
    _ = client.shutdown(Shutdown::Write);
    let seen = server.join().unwrap();
    let answer = reader.join().unwrap().ok();
    (seen, answer.map(|answer| String::from_utf8_lossy(&answer).into_owned()))
}
