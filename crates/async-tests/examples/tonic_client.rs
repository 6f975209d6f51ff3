//! A gRPC client of tonic, whose calls are plain functions. tokio runs on the same thread.
//!
//! ```text
//! cargo run --release -p async-tests --example tonic_server 127.0.0.1:50051
//! cargo run --release -p async-tests --example tonic_client 127.0.0.1:50051
//! ```

use std::error::Error;

use async_tests::greeter::Client;

fn main() -> Result<(), Box<dyn Error>> {
    plainsong_tokio::run(|| {
        let mut client = Client::connect(async_tests::address())?;
        println!("{}", client.greet("you")?);
        for number in client.count(3)? {
            println!("{}", number?);
        }
        Ok(())
    })?
}
