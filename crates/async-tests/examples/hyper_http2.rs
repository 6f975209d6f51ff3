//! A server of hyper for HTTP/2 on plainsong's sockets: each request is a coroutine of its own.
//!
//! ```text
//! cargo run --release -p async-tests --example hyper_http2 127.0.0.1:8080
//! curl --http2-prior-knowledge -d 'hello' http://127.0.0.1:8080
//! ```

use std::convert::Infallible;
use std::error::Error;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use plainsong::net::TcpListener;
use plainsong_compat::Async;
use plainsong_compat::hyper::{Executor, Timer};

/// Sends the body back.
async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    Ok(Response::new(request.into_body()))
}

fn main() -> Result<(), Box<dyn Error>> {
    plainsong::run(|| {
        let listener = TcpListener::bind(async_tests::address())?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(|stream| {
            let mut server = http2::Builder::new(Executor);
            server.timer(Timer);
            plainsong::block_on(server.serve_connection(Async::new(stream), service_fn(echo)))
        })?;
        Ok(())
    })
}
