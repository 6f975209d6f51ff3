//! A server on all workers of a runtime.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net as unix;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::{io, net, thread};

use plainsong::CancellationToken;
use plainsong::net::{Server, TcpListener, TcpStream, UnixListener};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::util::{Folder, kind, listen, runtime, watch};

/// Sends four bytes and returns the four that come back.
fn ask(stream: &mut (impl Read + Write)) -> Vec<u8> {
    stream.write_all(b"ping").unwrap();
    let mut reply = vec![0; 4];
    stream.read_exact(&mut reply).unwrap();
    reply
}

fn echo<T: Read + Write>(mut conn: T) -> io::Result<()> {
    let mut line = [0; 4];
    conn.read_exact(&mut line)?;
    conn.write_all(&line)
}

#[test]
fn each_worker_has_a_handler_of_its_own_and_gets_some_connections_which_stay() {
    watch(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let clients = thread::spawn(move || {
            // The kernel distributes connections by their ports: of so many, each worker gets some.
            for _ in 0..200 {
                assert_eq!(ask(&mut net::TcpStream::connect(address).unwrap()), b"ping");
            }
            stopper.cancel();
        });
        static THREADS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let server = Server::new(listener).stop_with(&stop);
        let result = server.serve_on(&runtime(3), || {
            MADE.fetch_add(1, Ordering::Relaxed);
            let home = thread::current().id();
            let count = Rc::new(Cell::new(0)); // not `Send`
            move |conn: TcpStream| {
                assert_eq!(thread::current().id(), home);
                count.set(count.get() + 1);
                THREADS.lock().unwrap().insert(format!("{home:?}"));
                echo(conn)
            }
        });
        result.unwrap();
        clients.join().unwrap();
        assert_eq!(MADE.load(Ordering::Relaxed), 3);
        assert_eq!(THREADS.lock().unwrap().len(), 3);
    });
}

#[test]
fn a_port_that_somebody_else_has_is_an_error() {
    watch(|| {
        let taken = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = runtime(2).serve(address, || |_: TcpStream| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        // A port of a server on all workers is taken as well.
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let other = thread::spawn(move || {
            assert_eq!(ask(&mut net::TcpStream::connect(address).unwrap()), b"ping");
            let error = runtime(2).serve(address, || |_: TcpStream| ()).unwrap_err();
            stopper.cancel();
            error.kind()
        });
        Server::new(listener).stop_with(&stop).serve_on(&runtime(2), || echo::<TcpStream>).unwrap();
        assert_eq!(other.join().unwrap(), ErrorKind::AddrInUse);
    });
}

#[test]
fn what_is_queued_at_any_worker_is_served_after_the_stop() {
    watch(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        static SERVED: AtomicUsize = AtomicUsize::new(0);
        let stopper = stop.clone();
        // No worker can accept until all clients are connected and the server has been stopped.
        let gate: &'static Mutex<()> = Box::leak(Box::default());
        let closed = gate.lock().unwrap();
        let server = thread::spawn(move || {
            Server::new(listener).stop_with(&stop).serve_on(&runtime(2), move || {
                drop(gate.lock().unwrap());
                |conn: TcpStream| {
                    SERVED.fetch_add(1, Ordering::Relaxed);
                    echo(conn)
                }
            })
        });
        let mut clients: Vec<_> =
            (0..100).map(|_| net::TcpStream::connect(address).unwrap()).collect();
        stopper.cancel();
        drop(closed);
        for client in &mut clients {
            assert_eq!(ask(client), b"ping");
        }
        server.join().unwrap().unwrap();
        assert_eq!(SERVED.load(Ordering::Relaxed), 100);
        let refused = net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_handler_that_panics_costs_its_own_connection() {
    watch(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let clients = thread::spawn(move || {
            for turn in 0..40 {
                let mut client = net::TcpStream::connect(address).unwrap();
                if turn % 2 == 0 {
                    client.write_all(b"oops").unwrap();
                    // Reset or ended, depending on whether the line had been read.
                    let _ = client.read_to_end(&mut Vec::new());
                } else {
                    assert_eq!(ask(&mut client), b"ping");
                }
            }
            stopper.cancel();
        });
        let server = Server::new(listener).stop_with(&stop);
        let result = server.serve_on(&runtime(2), || {
            |mut conn: TcpStream| {
                let mut line = [0; 4];
                conn.read_exact(&mut line).unwrap();
                assert_ne!(&line, b"oops");
                conn.write_all(&line).unwrap();
            }
        });
        result.unwrap();
        clients.join().unwrap();
    });
}

#[test]
fn a_factory_that_panics_ends_the_server_on_all_workers() {
    watch(|| {
        let (listener, address) = listen();
        let made = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            Server::new(listener).serve_on(&runtime(3), || {
                assert_ne!(made.fetch_add(1, Ordering::Relaxed), 1, "the second");
                |_: TcpStream| ()
            })
        }));
        let payload = result.unwrap_err();
        assert!(payload.downcast_ref::<String>().unwrap().contains("the second"));
        let refused = net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn unix_sockets_are_accepted_by_all_workers() {
    watch(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let clients = thread::spawn(move || {
            for _ in 0..100 {
                assert_eq!(ask(&mut unix::UnixStream::connect(&path).unwrap()), b"ping");
            }
            stopper.cancel();
        });
        let server = Server::new(listener).stop_with(&stop);
        server.serve_on(&runtime(2), || echo::<plainsong::net::UnixStream>).unwrap();
        clients.join().unwrap();
    });
}

#[test]
fn handlers_that_are_left_when_the_grace_is_over_are_cancelled_on_all_workers() {
    watch(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let clients = thread::spawn(move || {
            let mut clients: Vec<_> =
                (0..20).map(|_| net::TcpStream::connect(address).unwrap()).collect();
            for client in &mut clients {
                assert_eq!(ask(client), b"ping");
            }
            stopper.cancel();
            // They end although no client has ended its side.
            for client in &mut clients {
                assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
            }
        });
        let server = Server::new(listener).stop_with(&stop).grace(std::time::Duration::ZERO);
        server.serve_on(&runtime(2), || |conn| io::copy(&mut &conn, &mut &conn)).unwrap();
        clients.join().unwrap();
    });
}

#[test]
fn connections_at_all_workers_have_the_listeners_ttl() {
    watch(|| {
        let (listener, address) = listen();
        listener.set_ttl(77).unwrap();
        let stop = CancellationToken::new();
        let (sender, ttls) = channel();
        thread::scope(|s| {
            s.spawn(|| {
                (0..64).for_each(|_| _ = ask(&mut net::TcpStream::connect(address).unwrap()));
                stop.cancel();
            });
            let server = Server::new(listener).stop_with(&stop);
            let tell = || {
                let sender = sender.clone();
                move |conn: TcpStream| {
                    sender.send(conn.ttl().unwrap()).unwrap();
                    echo(conn)
                }
            };
            server.serve_on(&runtime(2), tell).unwrap();
        });
        assert_eq!(ttls.try_iter().collect::<Vec<_>>(), [77; 64]);
    });
}

#[test]
fn a_listener_for_ipv6_only_is_so_on_all_workers() {
    watch(|| {
        let fd = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        sockopt::set_ipv6_v6only(&fd, true).unwrap();
        rustix::net::bind(&fd, &net::SocketAddr::from((net::Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        rustix::net::listen(&fd, 16).unwrap();
        let listener = TcpListener::from(fd);
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        thread::scope(|s| {
            let refused = s.spawn(|| {
                ask(&mut net::TcpStream::connect(("::1", port)).unwrap());
                let refused = net::TcpStream::connect(("127.0.0.1", port));
                stop.cancel();
                kind(refused)
            });
            let server = Server::new(listener).stop_with(&stop);
            server.serve_on(&runtime(2), || echo).unwrap();
            assert_eq!(refused.join().unwrap(), ErrorKind::ConnectionRefused);
        });
    });
}
