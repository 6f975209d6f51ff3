//! The server of `plainsong.rs`, with one of the facilities that look into a running program.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use plainsong::inspect;

/// With the flight recorder on.
pub fn recorded(address: SocketAddr) -> io::Result<()> {
    inspect::recorder().start(100_000);
    super::plainsong::serve(address)
}

/// With times measured, and all metrics written for Prometheus once a second.
pub fn measured(address: SocketAddr) -> io::Result<()> {
    inspect::measure_times(true);
    plainsong::run(|| {
        plainsong::spawn(|| {
            loop {
                plainsong::time::sleep(Duration::from_secs(1));
                std::hint::black_box(inspect::metrics().prometheus().to_string());
            }
        });
        super::plainsong::listen(address)
    })
}

/// With the watchdog on.
pub fn watched(address: SocketAddr) -> io::Result<()> {
    // There is no other place to report a closed standard error.
    let report = |stall: &inspect::Stall| drop(writeln!(io::stderr(), "{stall}"));
    inspect::watchdog(Duration::from_millis(100), report)?;
    super::plainsong::serve(address)
}
