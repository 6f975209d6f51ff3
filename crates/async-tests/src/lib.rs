//! Examples and tests of async crates on plainsong. They are a crate of their own because of what
//! they depend on.

use std::env;
use std::net::SocketAddr;

pub mod greeter;
pub mod redis_sync;

/// The address in the first argument, or one of this machine with any port.
pub fn address() -> SocketAddr {
    match env::args().nth(1) {
        Some(text) => text.parse().expect("the first argument is an address, as 127.0.0.1:8080"),
        None => SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}
