//! Addresses as text: numbers are read as std reads them, and what is no address is an error of the
//! right kind. Names are left out, as looking them up asks the network.

#![no_main]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use plainsong::net::ToSocketAddrs;

fuzz_target!(|text: &str| {
    let host_and_port = text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match host_and_port {
        Some((host, Ok(_))) if text.parse::<SocketAddr>().is_err() => {
            let is_name = !host.is_empty() && host.parse::<IpAddr>().is_err();
            // std looks up an empty host too.
            if is_name || host.is_empty() {
                if host.is_empty() {
                    let error = ToSocketAddrs::to_socket_addrs(text).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidInput);
                }
                return;
            }
        }
        _ => {}
    }
    let ours = ToSocketAddrs::to_socket_addrs(text).map(Iterator::collect::<Vec<_>>);
    let stds = std::net::ToSocketAddrs::to_socket_addrs(text).map(Iterator::collect::<Vec<_>>);
    match (ours, stds) {
        (Ok(ours), Ok(stds)) => assert_eq!(ours, stds),
        (Err(ours), Err(stds)) => {
            assert_eq!((ours.kind(), stds.kind()), (ErrorKind::InvalidInput, stds.kind()));
            assert!(ours.to_string().contains("HOST:PORT"), "an error without advice: {ours}");
        }
        (ours, stds) => panic!("{text:?}: {ours:?}, and std says {stds:?}"),
    }
});
