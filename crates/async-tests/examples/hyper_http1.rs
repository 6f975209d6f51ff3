//! A server of hyper for HTTP/1 on plainsong's sockets: each connection is a coroutine, and there
//! is no other runtime.
//!
//! ```text
//! cargo run --release -p async-tests --example hyper_http1 127.0.0.1:8080
//! curl -d 'hello' http://127.0.0.1:8080
//! ```

use std::convert::Infallible;
use std::error::Error;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use plainsong::net::TcpListener;
use plainsong_compat::{Async, hyper::Timer};

/// Sends the body back.
async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    Ok(Response::new(request.into_body()))
}

fn main() -> Result<(), Box<dyn Error>> {
    plainsong::run(|| {
        let listener = TcpListener::bind(async_tests::address())?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(|stream| {
            let mut server = http1::Builder::new();
            server.timer(Timer);
            plainsong::block_on(server.serve_connection(Async::new(stream), service_fn(echo)))
        })?;
        Ok(())
    })
}
