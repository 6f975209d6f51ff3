//! A client of hyper on plainsong's sockets. It prints the answer to one request.
//!
//! ```text
//! cargo run --release -p async-tests --example hyper_client 127.0.0.1:8080
//! ```

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use plainsong::net::TcpStream;
use plainsong_compat::Async;

fn main() -> Result<(), Box<dyn Error>> {
    plainsong::run(|| {
        let address = async_tests::address();
        let stream = Async::new(TcpStream::connect(address)?);
        let (mut client, connection) = plainsong::block_on(http1::handshake(stream))?;
        // The connection lives in a coroutine of its own, which ends with the client.
        plainsong::spawn(|| plainsong::block_on(connection));
        let request = Request::post("/").header("host", address.to_string());
        let request = request.body(Full::new(Bytes::from("hello")))?;
        let answer = plainsong::block_on(client.send_request(request))?;
        println!("{}", answer.status());
        let body = plainsong::block_on(answer.into_body().collect())?.to_bytes();
        println!("{}", String::from_utf8_lossy(&body));
        Ok(())
    })
}
