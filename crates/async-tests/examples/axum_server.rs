//! An axum `Router`, served from coroutines without tokio's runtime. Its handlers may use all of
//! plainsong that is a future.
//!
//! ```text
//! cargo run --release -p async-tests --example axum_server 127.0.0.1:8080
//! curl http://127.0.0.1:8080/greet/you
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use plainsong::net::TcpListener;
use plainsong::time::Sleep;
use plainsong_compat::{Async, hyper::Timer};
use tower_service::Service;

async fn greet(Path(name): Path<String>) -> String {
    Sleep::new(Duration::from_millis(1)).await;
    format!("hello, {name}\n")
}

fn main() -> Result<(), Box<dyn Error>> {
    let router = Router::new()
        .route("/", get(|| async { "plainsong\n" }))
        .route("/greet/{name}", get(greet));
    plainsong::run(|| {
        let listener = TcpListener::bind(async_tests::address())?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(move |stream| {
            let service = service_fn(|request| router.clone().call(request));
            let mut server = http1::Builder::new();
            server.timer(Timer);
            plainsong::block_on(server.serve_connection(Async::new(stream), service))
        })?;
        Ok(())
    })
}
