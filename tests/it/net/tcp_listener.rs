//! `TcpListener` does what std's does.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::{net, thread};

use plainsong::net::{TcpListener, TcpStream};

use crate::util::{alone, both, descriptors, kind, limit_descriptors, listen, run, until_parked};

#[test]
fn accepts_in_the_order_of_connecting() {
    both(|| {
        let (listener, address) = listen();
        let clients: Vec<_> = (0..10).map(|_| net::TcpStream::connect(address).unwrap()).collect();
        for (client, stream) in clients.iter().zip(listener.incoming()) {
            assert_eq!(stream.unwrap().peer_addr().unwrap(), client.local_addr().unwrap());
        }
    });
}

#[test]
fn accept_tells_the_peer() {
    both(|| {
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(stream.local_addr().unwrap(), client.peer_addr().unwrap());
    });
}

#[test]
fn non_blocking_listeners_and_their_clones() {
    both(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(kind(clone.accept()), ErrorKind::WouldBlock);
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        crate::util::until_readable(&clone);
        let (mut stream, _) = clone.accept().unwrap();
        // A stream accepted by a non-blocking listener blocks, as with std on Linux.
        client.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
    });
}

#[test]
fn conversions_keep_the_listener() {
    both(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from(OwnedFd::from(listener));
        assert_eq!(listener.local_addr().unwrap(), address);
        listener.set_ttl(9).unwrap();
        assert_eq!(listener.ttl().unwrap(), 9);
        assert!(listener.take_error().unwrap().is_none());
        let client = thread::spawn(move || net::TcpStream::connect(address));
        listener.accept().unwrap();
        client.join().unwrap().unwrap();
        let listener = net::TcpListener::from(listener);
        let client = thread::spawn(move || net::TcpStream::connect(address));
        listener.accept().unwrap();
        client.join().unwrap().unwrap();
    });
}

#[test]
fn several_coroutines_accept_from_one_listener() {
    run(|| {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let acceptors: Vec<_> = (0..4)
            .map(|_| {
                let listener = Rc::clone(&listener);
                plainsong::spawn(move || {
                    for _ in 0..25 {
                        listener.accept().unwrap();
                    }
                })
            })
            .collect();
        acceptors.iter().for_each(until_parked);
        let clients: Vec<_> =
            (0..100).map(|_| plainsong::spawn(move || TcpStream::connect(address))).collect();
        for client in clients {
            client.join().unwrap().unwrap();
        }
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
    });
}

#[test]
fn threads_and_coroutines_accept_from_one_listener() {
    run(|| {
        let (listener, address) = listen();
        let clone = listener.try_clone().unwrap();
        let thread = thread::spawn(move || clone.accept().map(drop));
        let coroutine = plainsong::spawn(move || listener.accept().map(drop));
        let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        coroutine.join().unwrap().unwrap();
        thread.join().unwrap().unwrap();
    });
}

#[test]
fn accept_fails_without_descriptors_and_works_again() {
    alone(accept_fails_without_descriptors_and_works_again, || {
        plainsong::run(|| {
            let (listener, address) = listen();
            let _client = net::TcpStream::connect(address).unwrap();
            limit_descriptors(descriptors() as u64 + 8);
            let rest: Vec<_> =
                std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            let error = listener.accept().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            drop(rest);
            listener.accept().unwrap();
        });
    });
}
