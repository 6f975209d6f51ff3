//! `httpd`, driven by clients that mean well and by others.

use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::{Client, Program};

/// The server itself, because the limits of the example would take a minute.
#[allow(dead_code)]
#[path = "../../examples/httpd/http/mod.rs"]
mod http;

/// A reply.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

impl Client {
    fn head(&mut self) -> Answer {
        let line = self.line();
        let status = line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{line:?}"));
        let status = status[..3].parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "");
                return Answer { status, headers, body: String::new() };
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        assert!(answer.header("Date").is_some_and(is_date), "{answer:?}");
        let length = answer.header("Content-Length").unwrap().parse().unwrap();
        answer.body = String::from_utf8(self.receive(length)).unwrap();
        answer
    }

    fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn is_date(text: &str) -> bool {
    let shape = text.chars().map(|c| match c {
        '0'..='9' => '0',
        'A'..='Z' | 'a'..='z' => 'a',
        other => other,
    });
    shape.collect::<String>() == "aaa, 00 aaa 0000 00:00:00 aaa"
}

const GET: &str = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
const HELLO: &str = "Hello, World!\n";

#[test]
fn httpd_keeps_a_connection_alive_and_answers_each_request() {
    let (server, address) = Program::serve("httpd");
    let mut client = Client::connect(&address);
    for _ in 0..3 {
        let answer = client.ask(GET);
        assert_eq!((answer.status, &*answer.body), (200, HELLO));
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("Connection"), None);
    }
    let answer = client.ask("GET /json?pretty HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.body, "{\"message\":\"Hello, World!\",\"answered\":4}\n");
    let answer = client.ask("GET http://here/none HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(answer.status, 404);
    let answer = client.ask("DELETE / HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")));
    let answer = client.ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nsong");
    assert_eq!((answer.status, &*answer.body), (200, "song"));
    client.end();
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn httpd_serves_metrics_for_prometheus() {
    let (server, address) = Program::serve("httpd");
    let mut client = Client::connect(&address);
    let answer = client.ask("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4"));
    // The main coroutine, which accepts, and the one of this connection.
    assert!(
        answer.body.contains("\nplainsong_coroutines{run=\"0\",worker=\"0\"} 2\n"),
        "{answer:?}"
    );
    assert!(answer.body.contains("worker=\"0\",wait=\"read descriptor\"} 1\n"), "{answer:?}");
    server.stop();
}

#[test]
fn httpd_leaves_the_body_out_for_head() {
    let (server, address) = Program::serve("httpd");
    let mut client = Client::connect(&address);
    client.send("HEAD / HTTP/1.1\r\nHost: here\r\n\r\n");
    let length = HELLO.len().to_string();
    assert_eq!(client.head().header("Content-Length"), Some(&*length));
    // The next bytes are the next answer, so there was no body.
    assert_eq!(client.ask(GET).body, HELLO);
    server.stop();
}

#[test]
fn httpd_closes_when_asked_to_and_after_http_1_0() {
    let (server, address) = Program::serve("httpd");
    for (request, closes) in [
        ("GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: here\r\nConnection: upgrade, Close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false),
    ] {
        let mut client = Client::connect(&address);
        let answer = client.ask(request);
        assert_eq!((answer.status, answer.closes()), (200, closes), "{request:?}");
        if closes {
            assert!(client.is_closed(), "{request:?}");
        } else {
            assert_eq!(answer.header("Connection"), Some("keep-alive"));
            assert_eq!(client.ask(request).body, HELLO);
        }
    }
    // A request that is pipelined behind the last one is not answered.
    let mut client = Client::connect(&address);
    let answer =
        client.ask(&format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n{GET}"));
    assert!(answer.closes() && client.is_closed());
    server.stop();
}

/// Requests of each kind, and the bodies of their replies.
const PIPELINE: [(&str, &str); 4] = [
    (GET, HELLO),
    ("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nplain", "plain"),
    (
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
         5;ext=\"a;b\"\r\nplain\r\n00004\r\nsong\r\n0;last\r\nTrailer: one\r\nAnother: two\r\n\r\n",
        "plainsong",
    ),
    ("GET /none HTTP/1.1\r\nHost: h\r\n\r\n", "there is no such page\n"),
];

#[test]
fn httpd_answers_pipelined_requests_in_order_however_they_are_cut() {
    let (server, address) = Program::serve("httpd");
    let requests = PIPELINE.map(|(request, _)| request).concat();
    // The first sends all of it ten times at once, the second sends byte by byte.
    for (piece, times) in [(usize::MAX, 10), (1, 1), (2, 1), (3, 1), (7, 2), (64, 5)] {
        let text = requests.repeat(times);
        let mut client = Client::connect(&address);
        let mut sender = client.0.get_ref().try_clone().unwrap();
        sender.set_nodelay(true).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let pieces = text.as_bytes().chunks(piece.min(text.len()));
                pieces.into_iter().for_each(|piece| sender.write_all(piece).unwrap());
            });
            for _ in 0..times {
                for (request, body) in PIPELINE {
                    assert_eq!(client.answer().body, body, "{request:?} in pieces of {piece}");
                }
            }
        });
        client.end();
        assert!(client.is_closed());
    }
    server.stop();
}

#[test]
fn httpd_answers_thousands_of_pipelined_requests_to_a_client_that_reads_late() {
    const REQUESTS: usize = 200_000;
    let (server, address) = Program::serve("httpd");
    let mut client = Client::connect(&address);
    let sender = client.0.get_ref().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let some = GET.repeat(1000);
            (0..REQUESTS / 1000).for_each(|_| (&sender).write_all(some.as_bytes()).unwrap());
            sender.shutdown(Shutdown::Write).unwrap();
        });
        for _ in 0..REQUESTS {
            assert_eq!(client.answer().body, HELLO);
        }
    });
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn httpd_says_continue_to_a_client_that_waits_for_it() {
    let (server, address) = Program::serve("httpd");
    let mut client = Client::connect(&address);
    let head =
        "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head);
    assert_eq!((&*client.line(), &*client.line()), ("HTTP/1.1 100 Continue", ""));
    assert_eq!(client.ask("song").body, "song");
    // A client that does not wait does not get it.
    assert_eq!(client.ask(&format!("{head}song")).body, "song");
    // A client that would send too much is refused before it does.
    let long = head.replace("Length: 4", "Length: 4000000000");
    assert_eq!(client.ask(&long).status, 413);
    assert!(client.is_closed());
    server.stop();
}

/// Sends a request that must be refused with a reason, and no request after it may be answered.
#[track_caller]
fn refused(address: &str, status: u16, request: &str) {
    let mut client = Client::connect(address);
    client.send(request);
    client.send(GET);
    let answer = client.answer();
    let shown = &request[..request.len().min(200)];
    assert_eq!((answer.status, answer.closes()), (status, true), "{shown:?}: {answer:?}");
    assert!(answer.body.len() > 10, "{shown:?}: no reason was given");
    assert!(client.is_closed(), "{shown:?}: something behind it was answered");
}

#[test]
fn httpd_refuses_everything_but_requests() {
    let (server, address) = Program::serve("httpd");
    for request in [
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET here HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET https:/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "G\x01T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: one\r\nHost: two\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nFolded: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nNul: \0\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01",
    ] {
        refused(&address, 400, request);
    }
    refused(&address, 505, "GET / \r\n\r\n");
    refused(&address, 505, "GET / HTTP/2.0\r\nHost: h\r\n\r\n");
    refused(&address, 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    refused(&address, 417, "GET / HTTP/1.1\r\nHost: h\r\nExpect: the worst\r\n\r\n");
    server.stop();
}

#[test]
fn httpd_refuses_what_two_readers_could_understand_in_two_ways() {
    let (server, address) = Program::serve("httpd");
    let post = |headers: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
    };
    for (headers, body) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
        ("Content-Length: 4\r\nContent-Length: 4\r\n", "song"),
        ("Content-Length: 4\r\nContent-length: 5\r\n", "songs"),
        ("Content-Length: 0\r\nContent-Length: 4\r\n", "song"),
        ("Content-Length: 4, 4\r\n", "song"),
        ("Content-Length: +4\r\n", "song"),
        ("Content-Length: -4\r\n", "song"),
        ("Content-Length: 0x4\r\n", "song"),
        ("Content-Length: 4 4\r\n", "song"),
        ("Content-Length:\r\n", "song"),
        ("Content-Length : 4\r\n", "song"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nsongs\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "-4\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0x4\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\nsong\n0\n\n"),
        ("Transfer-Encoding: chunked\r\n", "10000000000000000\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nno colon\r\n\r\n"),
        // A line before a chunk is its size, and extensions in the form that the RFC gives them.
        ("Transfer-Encoding: chunked\r\n", "\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", ";a\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", " \r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "\t0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0 \r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4 \r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4 ;a\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4; a\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;;a\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;=a\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a=\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a=b c\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a=\"b\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a=\"b\"c\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a\nb\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a\0b\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a\rb\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4;a=\"\n\"\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4,\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\r\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "00000000000000004\r\nsong\r\n0\r\n\r\n"),
        // Bare LF, at each place where a line ends.
        ("Transfer-Encoding: chunked\r\n", "4\nsong\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nsong\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nsong\r\n0\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nsong\r\n0\r\n\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nTrailer: one\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nTrailer: one\r\n\n"),
        ("Transfer-Encoding: chunked\n", "0\r\n\r\n"),
        ("Content-Length: 0\nContent-Type: text/plain\r\n", ""),
        // A reader that merges trailers into the headers would see another message.
        ("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 4\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\ntransfer-encoding: identity\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nHost: other\r\n\r\n"),
    ] {
        refused(&address, 400, &post(headers, body));
    }
    for coding in ["gzip, chunked", "chunked, identity", "identity", "xchunked", "\"chunked\"", ""]
    {
        refused(&address, 501, &post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n"));
    }
    refused(&address, 400, "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    server.stop();
}

#[test]
fn httpd_refuses_heads_that_two_readers_could_understand_in_two_ways() {
    let (server, address) = Program::serve("httpd");
    for head in [
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        // One empty line may precede a request, and it ends as lines do.
        "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http:/// HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://a@b/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://[::1/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h?a HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        refused(&address, 400, head);
    }
    for host in [
        "a b",
        "a/b@c",
        "a/b",
        "a@b",
        "[::1",
        "::1",
        "[]",
        "[1::2::3]",
        "[::1]x",
        "[::1]:x",
        "a:b:80",
        "h:65536",
        "h:+80",
        ":80",
        "a\tb",
        "a?b",
        "a#b",
        "\u{e9}",
        "a,b c",
        "\"a\"",
    ] {
        refused(&address, 400, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    let mut client = Client::connect(&address);
    for host in
        ["", "h", "h:", "h:80", "a-b.example", "127.0.0.1:4915", "[::1]", "[::1]:4915", "%41"]
    {
        let answer = client.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 200, "{host}");
    }
    for target in ["http://h", "http://h/?a=b", "HTTP://h:80/"] {
        let answer = client.ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.status, 200, "{target}");
    }
    server.stop();
}

#[test]
fn httpd_refuses_without_a_body_where_only_the_head_was_asked_for() {
    let (server, address) = Program::serve("httpd");
    for (status, rest) in [
        (400, "/ HTTP/1.1\r\n\r\n"),
        (400, "/ HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "/ HTTP/1.1\nHost: h\n\n"),
        (505, "/ HTTP/2.0\r\nHost: h\r\n\r\n"),
        (413, "/ HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n"),
        (400, "/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
    ] {
        let mut client = Client::connect(&address);
        client.send(&format!("HEAD {rest}"));
        let answer = client.head();
        assert_eq!((answer.status, answer.closes()), (status, true), "{rest:?}");
        assert!(client.is_closed(), "{rest:?}: there was a body");
    }
    server.stop();
}

#[test]
fn httpd_takes_an_empty_line_behind_a_body_for_nothing() {
    // There is no time for a head that comes in pieces, and these come whole.
    let limits = http::Limits { head_time: Duration::ZERO, ..http::Limits::default() };
    let mut client = Client::connect(&serve_bodies(limits, 4).to_string());
    for _ in 0..3 {
        let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nsong\r\n";
        assert_eq!(client.ask(request).status, 200);
    }
    client.end();
    assert!(client.is_closed());
}

#[test]
fn httpd_takes_extensions_of_chunks_for_nothing() {
    let (server, address) = Program::serve("httpd");
    let mut client = Client::connect(&address);
    for extension in ["", ";a", ";a=b", ";a=\"b c\"", ";a=\"\\\"\";b", ";a=\"\t;\""] {
        let answer = client.ask(&format!(
            "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             4{extension}\r\nsong\r\n0000{extension}\r\n\r\n"
        ));
        assert_eq!((answer.status, &*answer.body), (200, "song"), "{extension:?}");
    }
    server.stop();
}

#[test]
fn httpd_holds_requests_to_their_limits() {
    let (server, address) = Program::serve("httpd");
    let long = "x".repeat(20_000);
    refused(&address, 414, &format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"));
    refused(&address, 431, &format!("GET / HTTP/1.1\r\nHost: h\r\nLong: {long}\r\n\r\n"));
    let many = "Header: value\r\n".repeat(64);
    refused(&address, 431, &format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n"));
    let post = "POST /echo HTTP/1.1\r\nHost: h\r\n";
    refused(&address, 413, &format!("{post}Content-Length: 1048577\r\n\r\n"));
    refused(&address, 413, &format!("{post}Content-Length: 99999999999999999999999\r\n\r\n"));
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    refused(&address, 413, &format!("{chunked}ffffffffffffffff\r\n"));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    refused(&address, 413, &format!("{chunked}{}", chunk.repeat(17)));
    refused(&address, 400, &format!("{chunked}4;{long}\r\nsong\r\n0\r\n\r\n"));
    // Also when all of it comes at once.
    refused(&address, 400, &format!("{chunked}4;{:x<5000}\r\nsong\r\n0\r\n\r\n", ""));
    refused(&address, 431, &format!("{chunked}0\r\nLong: {long}\r\n\r\n"));

    // Everything up to the limits is accepted.
    let mut client = Client::connect(&address);
    let all = "x".repeat(1024 * 1024);
    let answer = client.ask(&format!("{post}Content-Length: {}\r\n\r\n{all}", all.len()));
    assert!(answer.status == 200 && answer.body == all);
    let answer = client.ask(&format!("{chunked}{}0\r\n\r\n", chunk.repeat(16)));
    assert!(answer.status == 200 && answer.body == all);
    let many = "Header: value\r\n".repeat(63);
    assert_eq!(client.ask(&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")).status, 200);
    server.stop();
}

#[test]
fn httpd_survives_clients_that_leave_in_the_middle() {
    let (server, address) = Program::serve("httpd");
    for request in [
        "G",
        "GET / HTTP/1.1\r\nHost",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nso",
    ] {
        let mut client = Client::connect(&address);
        client.send(request);
        client.end();
        assert_eq!(client.answer().status, 400);
        assert!(client.is_closed());
        // And without waiting for an answer.
        Client::connect(&address).send(request);
    }
    assert_eq!(Client::connect(&address).ask(GET).body, HELLO);
    server.stop();
}

/// Serves a long body with these limits in a thread of its own, which ends with the process.
fn serve_with(limits: http::Limits) -> SocketAddr {
    serve_bodies(limits, 1024 * 1024)
}

fn serve_bodies(limits: http::Limits, bytes: usize) -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        plainsong::run(|| {
            let listener = plainsong::net::TcpListener::bind("127.0.0.1:0").unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let server = http::Server::new(limits);
            listener.serve(move |conn| {
                let body = "x".repeat(bytes);
                server.attend(&conn, |_, reply| reply.send(200, &[], body.as_bytes()))
            })
        })
    });
    receiver.recv().unwrap()
}

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn httpd_gives_a_head_that_comes_byte_by_byte_no_more_time() {
    let address = serve_with(http::Limits { head_time: SHORT, ..http::Limits::default() });
    let mut client = Client::connect(&address.to_string());
    let mut sender = client.0.get_ref().try_clone().unwrap();
    thread::spawn(move || {
        let mut endless = b"GET / HTTP/1.1\r\n".iter().chain(b"a: b\r\n".iter().cycle());
        while endless.next().is_some_and(|byte| sender.write_all(&[*byte]).is_ok()) {
            thread::sleep(Duration::from_millis(2));
        }
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (408, true));
}

#[test]
fn httpd_gives_a_body_that_does_not_come_no_more_time() {
    let address = serve_with(http::Limits { body_time: SHORT, ..http::Limits::default() });
    for framing in ["Content-Length: 9", "Transfer-Encoding: chunked"] {
        let mut client = Client::connect(&address.to_string());
        let answer = client.ask(&format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
        assert_eq!((answer.status, answer.closes()), (408, true));
        assert!(client.is_closed());
    }
}

#[test]
fn httpd_has_all_the_time_for_a_head_or_body_while_the_client_does_not_read() {
    let limits = http::Limits { head_time: SHORT, body_time: SHORT, ..http::Limits::default() };
    // Both are often cut in the middle where they fill the server's buffer.
    let filler = format!("X: {}\r\n", "x".repeat(50));
    for (bytes, request) in [
        (14, format!("GET / HTTP/1.1\r\nHost: here\r\n{filler}\r\n")),
        (400, format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 900\r\n\r\n{:900}", "")),
    ] {
        let mut client = Client::connect(&serve_bodies(limits, bytes).to_string());
        let sender = client.0.get_ref().try_clone().unwrap();
        let (some, mut sent) = (request.repeat(1000), 0);
        sender.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Until nothing of it is taken any more: the server waits for its answers to be read.
        while let Ok(taken) = (&sender).write(&some.as_bytes()[sent % some.len()..]) {
            sent += taken;
        }
        sender.shutdown(Shutdown::Write).unwrap();
        for _ in 0..sent / request.len() {
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn httpd_closes_a_connection_that_is_idle_for_long() {
    let address = serve_with(http::Limits { idle_time: SHORT, ..http::Limits::default() });
    let mut client = Client::connect(&address.to_string());
    assert_eq!(client.ask(GET).status, 200);
    assert!(client.is_closed());
}

#[test]
fn httpd_waits_for_a_client_that_reads_slowly_but_not_for_one_that_does_not() {
    let address = serve_with(http::Limits { send_time: SHORT, ..http::Limits::default() });
    // More than the sockets' buffers hold, and nothing of it is read until the server has given up.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    stream.write_all(GET.repeat(20).as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(500));
    let mut received = 0;
    let mut reader = std::io::BufReader::new(stream);
    // An end or a reset: either way it is over.
    while let Ok(1..) = reader.fill_buf().map(<[u8]>::len) {
        let len = reader.buffer().len();
        received += len;
        reader.consume(len);
    }
    assert!(received < 20 * 1024 * 1024, "{received} bytes: the server has waited");
    // Others were served meanwhile and still are.
    let mut client = Client::connect(&address.to_string());
    client.send(GET);
    let mut head = [0; 12];
    client.0.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}
