//! An HTTP/1.1 server: one coroutine for each connection, and each is an ordinary loop that reads a
//! request and answers it.
//!
//! It keeps connections alive, accepts pipelined requests and chunked bodies, and sets limits of
//! size and time for every client; see `http/mod.rs`. This file is only the site.
//!
//! ```text
//! cargo run --release --example httpd [ADDR]
//! curl -i http://127.0.0.1:4915/
//! curl -i http://127.0.0.1:4915/echo -d 'some text'
//! curl -i http://127.0.0.1:4915/metrics
//! ```

#[path = "../args/mod.rs"]
mod args;
mod http;

use std::cell::Cell;
use std::io;

use http::{Reply, Request, Sent};
use plainsong::inspect;
use plainsong::net::TcpListener;

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const PROMETHEUS: (&str, &str) = ("Content-Type", "text/plain; version=0.0.4");

fn main() -> io::Result<()> {
    inspect::measure_times(true);
    plainsong::run(|| {
        let listener = TcpListener::bind(args::address())?;
        println!("listening on {}", listener.local_addr()?);
        let server = http::Server::new(http::Limits::default());
        // The connections share the site without a lock, because they are all on this thread.
        let site = Site::default();
        listener
            .serve(move |conn| server.attend(&conn, |request, reply| site.answer(request, reply)))
    })
}

/// The pages.
#[derive(Default)]
struct Site {
    answered: Cell<u64>,
}

impl Site {
    fn answer(&self, request: &Request<'_>, reply: Reply<'_>) -> Sent {
        self.answered.set(self.answered.get() + 1);
        let path = request.target.split('?').next().unwrap_or_default();
        match (path, request.method) {
            ("/", "GET" | "HEAD") => reply.send(200, &[TEXT], b"Hello, World!\n"),
            ("/json", "GET" | "HEAD") => {
                let answered = self.answered.get();
                let json = format!("{{\"message\":\"Hello, World!\",\"answered\":{answered}}}\n");
                reply.send(200, &[JSON], json.as_bytes())
            }
            ("/echo", "POST") => {
                let kind = request.header("Content-Type").unwrap_or("application/octet-stream");
                reply.send(200, &[("Content-Type", kind)], request.body)
            }
            ("/metrics", "GET" | "HEAD") => {
                let text = inspect::metrics().prometheus().to_string();
                reply.send(200, &[PROMETHEUS], text.as_bytes())
            }
            ("/" | "/json" | "/metrics", _) => {
                reply.send(405, &[TEXT, ("Allow", "GET, HEAD")], b"only GET here\n")
            }
            ("/echo", _) => reply.send(405, &[TEXT, ("Allow", "POST")], b"only POST here\n"),
            _ => reply.send(404, &[TEXT], b"there is no such page\n"),
        }
    }
}
