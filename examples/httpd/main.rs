//! An HTTP/1.1 server: one coroutine a connection, each an ordinary loop that reads a request and answers it.
//!
//! It keeps connections alive, takes pipelined requests and chunked bodies, and holds every client to limits
//! of size and time; see `http/mod.rs`. This file is the site alone.
//!
//! ```text
//! cargo run --release --example httpd [ADDR]
//! curl -i http://127.0.0.1:4915/
//! curl -i http://127.0.0.1:4915/echo -d 'some text'
//! ```

mod http;

use std::cell::Cell;
use std::io;

use http::{Reply, Request, Sent};
use plainsong::net::TcpListener;

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let listener = TcpListener::bind(address)?;
        println!("listening on {}", listener.local_addr()?);
        let server = http::Server::new(http::Limits::default());
        // All connections share it, and none needs a lock: they are on one thread.
        let site = Site::default();
        listener
            .serve(move |conn| server.attend(&conn, |request, reply| site.answer(request, reply)))
    })
}

/// What is served.
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
            ("/" | "/json", _) => {
                reply.send(405, &[TEXT, ("Allow", "GET, HEAD")], b"only GET here\n")
            }
            ("/echo", _) => reply.send(405, &[TEXT, ("Allow", "POST")], b"only POST here\n"),
            _ => reply.send(404, &[TEXT], b"there is no such page\n"),
        }
    }
}
