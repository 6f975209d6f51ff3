//! A gRPC server of tonic on plainsong's sockets: each call is a coroutine of its own.
//!
//! ```text
//! cargo run --release -p async-tests --example tonic_server 127.0.0.1:50051
//! cargo run --release -p async-tests --example tonic_client 127.0.0.1:50051
//! ```

use std::error::Error;

use async_tests::greeter::Greeter;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use plainsong::net::TcpListener;
use plainsong_compat::Async;
use plainsong_compat::hyper::{Executor, Timer};
use tonic::service::Routes;
use tower::Service;

fn main() -> Result<(), Box<dyn Error>> {
    plainsong::run(|| {
        let listener = TcpListener::bind(async_tests::address())?;
        println!("listening on {}", listener.local_addr()?);
        let routes = Routes::new(Greeter).prepare();
        listener.serve(move |stream| {
            let service = service_fn(|request| routes.clone().call(request));
            let mut server = http2::Builder::new(Executor);
            server.timer(Timer);
            plainsong::block_on(server.serve_connection(Async::new(stream), service))
        })?;
        Ok(())
    })
}
