//! HTTP by `may_minihttp`, as in its own examples.

use std::io;
use std::net::SocketAddr;

use bytes::BufMut;
use may_minihttp::{HttpServer, HttpService, Request, Response};

use super::MESSAGE;
use crate::load::TEXT;

#[derive(Clone)]
struct Site;

impl HttpService for Site {
    fn call(
        &mut self,
        request: Request<'_, '_, '_>,
        response: &mut Response<'_>,
    ) -> io::Result<()> {
        match request.path() {
            "/plaintext" => response.header("Content-Type: text/plain").body(TEXT),
            "/json" => {
                response.header("Content-Type: application/json");
                serde_json::to_writer(response.body_mut().writer(), &MESSAGE)?;
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

/// Serves each client in a coroutine, on one worker a core.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    may::config().set_workers(std::thread::available_parallelism()?.get());
    let server = HttpServer(Site).start(address)?;
    server.join().map_err(|_| io::Error::other("the server has panicked"))
}
