//! HTTP on plainsong: the server of `examples/httpd`, with the pages of the comparison.

use std::io;
use std::net::SocketAddr;

use super::MESSAGE;
use crate::load::TEXT;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../examples/httpd/http/mod.rs"]
mod http;

/// Serves each client in a coroutine; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    plainsong::run(|| {
        let server = http::Server::new(http::Limits::default());
        plainsong::net::serve(address, move |conn| {
            let mut json = Vec::new();
            server.attend(&conn, |request, reply| match request.target {
                "/plaintext" => reply.send(200, &[("Content-Type", "text/plain")], TEXT.as_bytes()),
                "/json" => {
                    json.clear();
                    match serde_json::to_writer(&mut json, &MESSAGE) {
                        Ok(()) => reply.send(200, &[("Content-Type", "application/json")], &json),
                        Err(_) => reply.send(500, &[], b""),
                    }
                }
                _ => reply.send(404, &[], b""),
            })
        })
    })
}
