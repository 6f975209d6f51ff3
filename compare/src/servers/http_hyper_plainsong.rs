//! HTTP by hyper on plainsong's sockets, without another runtime. The pages are those of
//! `http_hyper.rs`.

use std::io;
use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use plainsong::net::TcpStream;
use plainsong_compat::Async;

/// Serves each client in a coroutine; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    plainsong::run(|| {
        plainsong::net::serve(address, |conn| {
            if let Err(error) = attend(conn) {
                super::report(&error);
            }
        })
    })
}

fn attend(conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let service = service_fn(super::http_hyper::answer);
    let mut http = http1::Builder::new();
    let served = http.pipeline_flush(true).serve_connection(Async::new(conn), service);
    plainsong::block_on(served).map_err(io::Error::other)
}
