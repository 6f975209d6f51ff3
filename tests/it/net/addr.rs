//! Names and addresses: how they resolve, and what a failure says.

use std::io::ErrorKind;
use std::net;
use std::net::SocketAddr;
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use plainsong::time::timeout;

use crate::util::{MOMENT, both, kind, run};

#[test]
fn addresses_that_are_not_available_are_named() {
    both(|| {
        let taken = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");

        for malformed in ["", "localhost", ":", "127.0.0.1:", "127.0.0.1:99999", ":80:", "[::1:80"]
        {
            let error = TcpListener::bind(malformed).unwrap_err();
            let shown = format!("{malformed:?}");
            let host = malformed.rsplit_once(':').map_or(malformed, |(host, _)| host);
            assert!(
                error.to_string().contains(&shown)
                    || error.to_string().contains(&format!("{host:?}")),
                "{malformed:?}: {error}"
            );
            assert!(TcpStream::connect(malformed).is_err());
        }
        assert_eq!(kind(TcpListener::bind("nonsense")), ErrorKind::InvalidInput);

        let error = TcpStream::connect("no-such-host.invalid:80").unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
        let error = TcpListener::bind(("no-such-host.invalid", 80)).unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
        assert_eq!(kind(TcpStream::connect(&[][..])), ErrorKind::InvalidInput);
    });
}

#[test]
fn names_and_numbers_resolve_as_with_std() {
    both(|| {
        use plainsong::net::ToSocketAddrs as _;
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ip = listener.local_addr().unwrap().ip().to_string();
        let _a = TcpStream::connect((ip.as_str(), port)).unwrap();
        let _b = TcpStream::connect((ip.clone(), port)).unwrap();
        let _c = TcpStream::connect(("localhost", port)).unwrap();
        let addresses: Vec<_> = "[::1]:7".to_socket_addrs().unwrap().collect();
        assert_eq!(addresses, ["[::1]:7".parse::<SocketAddr>().unwrap()]);
        // The first address that works is taken.
        let free = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let both = [free, listener.local_addr().unwrap()];
        assert_eq!(TcpStream::connect(&both[..]).unwrap().peer_addr().unwrap(), both[1]);
    });
}

#[test]
fn resolving_does_not_stop_the_thread() {
    run(|| {
        // All look-ups run at once, and this coroutine goes on meanwhile.
        let lookups: Vec<_> = (0..20)
            .map(|n| {
                plainsong::spawn(move || {
                    TcpStream::connect((format!("no-{n}.invalid"), 80)).is_err()
                })
            })
            .collect();
        plainsong::yield_now();
        plainsong::yield_now();
        assert!(lookups.into_iter().all(|lookup| lookup.join().unwrap()));
    });
}

/// Addresses whose look-up waits, as that of a name does.
struct Slow(Vec<SocketAddr>);

impl plainsong::net::ToSocketAddrs for Slow {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
        plainsong::time::sleep(if self.0.is_empty() { Duration::MAX } else { MOMENT });
        Ok(self.0.clone().into_iter())
    }
}

#[test]
fn addresses_that_take_their_time_are_waited_for_or_given_up() {
    both(|| {
        let taken = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let holder = net::TcpListener::bind(taken).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        // For `bind`, the first address is taken; for `connect`, the first address refuses.
        let listener = TcpListener::bind(Slow(vec![taken, any])).unwrap();
        assert_ne!(listener.local_addr().unwrap(), taken);
        drop(holder);
        let there = Slow(vec![taken, listener.local_addr().unwrap()]);
        TcpStream::connect(there).unwrap();

        assert!(timeout(MOMENT, || TcpStream::connect(Slow(vec![]))).is_err());
        assert!(timeout(MOMENT, || TcpListener::bind(Slow(vec![]))).is_err());
        assert!(timeout(MOMENT, || UdpSocket::bind(Slow(vec![]))).is_err());
        let socket = UdpSocket::bind(any).unwrap();
        assert!(timeout(MOMENT, || socket.send_to(b"x", Slow(vec![]))).is_err());
        assert!(timeout(MOMENT, || socket.connect(Slow(vec![]))).is_err());
    });
}

#[test]
fn resolving_a_name() {
    run(|| {
        let resolving = plainsong::spawn(|| {
            loop {
                drop(TcpStream::connect("localhost:1"));
                drop(ToSocketAddrs::to_socket_addrs(&"localhost:1"));
            }
        });
        // It may be cancelled between two waits.
        plainsong::yield_now();
        resolving.cancel();
        assert!(resolving.join().unwrap_err().is_cancelled());
    });
}
