//! `serve`: one coroutine for each connection, and a server that survives their failures.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use std::{io, net};

use plainsong::net::{TcpListener, TcpStream};
use plainsong::time::timeout;

use crate::util::{
    alone, descriptors, limit_descriptors, limit_memory, listen, panic_of, resident, run, until,
    until_waits_for,
};

/// Starts a server on a free port.
fn start<R: plainsong::net::Outcome + 'static>(
    handler: impl Fn(TcpStream) -> R + 'static,
) -> SocketAddr {
    start_with_handle(handler).0
}

fn start_with_handle<R: plainsong::net::Outcome + 'static>(
    handler: impl Fn(TcpStream) -> R + 'static,
) -> (SocketAddr, plainsong::JoinHandle<io::Result<()>>) {
    let (listener, address) = listen();
    (address, plainsong::spawn(move || listener.serve(handler)))
}

fn echo(conn: TcpStream) -> io::Result<u64> {
    io::copy(&mut &conn, &mut &conn)
}

fn exchange(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn the_five_line_server() {
    run(|| {
        let free = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        plainsong::spawn(move || {
            plainsong::net::serve(free, |conn| io::copy(&mut &conn, &mut &conn).map(drop))
        });
        plainsong::yield_now();
        exchange(free);
    });
}

#[test]
fn handlers_need_not_be_send_and_may_return_anything() {
    run(|| {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&seen);
        let unit = start(move |conn| log.borrow_mut().push(conn.peer_addr().unwrap()));
        let failing = start(|_| io::Result::<()>::Err(io::Error::other("mine alone")));
        for address in [unit, failing, unit, failing] {
            let mut stream = TcpStream::connect(address).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(seen.borrow().len(), 2);
    });
}

#[test]
fn a_connection_closes_with_its_handler_though_clones_are_left() {
    run(|| {
        let kept = Rc::new(RefCell::new(Vec::new()));
        let keep = Rc::clone(&kept);
        let address = start(move |conn: TcpStream| {
            keep.borrow_mut().push(conn.try_clone().unwrap());
            if keep.borrow().len() == 2 {
                panic::quietly();
            }
        });
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(kept.borrow().len(), 3);
    });
}

/// Panics without a message, so that the output of the test stays short.
mod panic {
    pub(super) fn quietly() -> ! {
        std::panic::resume_unwind(Box::new("quietly"))
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_handler_that_panics_ten_thousand_times_loses_nothing() {
    alone(a_handler_that_panics_ten_thousand_times_loses_nothing, || {
        std::panic::set_hook(Box::new(|_| {}));
        plainsong::run(|| {
            let address = start(|mut conn: TcpStream| {
                let _held = vec![1u8; 4096];
                let read = conn.read(&mut [0; 1]);
                assert!(read.is_err(), "ten thousand of these");
            });
            let rounds = |count| {
                let clients: Vec<_> = (0..50)
                    .map(|_| {
                        plainsong::spawn(move || {
                            for _ in 0..count / 50 {
                                let mut stream = TcpStream::connect(address).unwrap();
                                stream.write_all(b"x").unwrap();
                                assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
                            }
                        })
                    })
                    .collect();
                for client in clients {
                    client.join().unwrap();
                }
            };
            rounds(2000);
            let before = (descriptors(), resident());
            rounds(10_000);
            assert_eq!(descriptors(), before.0);
            let grown = resident().saturating_sub(before.1);
            assert!(grown < 2048, "{grown} KiB more after ten thousand panics");
        });
    });
}

#[test]
fn a_server_without_descriptors_goes_on_when_it_has_some() {
    alone(a_server_without_descriptors_goes_on_when_it_has_some, || {
        plainsong::run(|| {
            let served = Rc::new(Cell::new(0));
            let count = Rc::clone(&served);
            let (address, server) = start_with_handle(move |conn| {
                count.set(count.get() + 1);
                echo(conn)
            });
            exchange(address);
            // Clients in the kernel's queue, and then no more descriptors.
            let clients: Vec<_> =
                (0..20).map(|_| net::TcpStream::connect(address).unwrap()).collect();
            limit_descriptors(descriptors() as u64 + 4);
            let rest = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok());
            let mut rest: Vec<_> = rest.collect();
            // The server fails to accept, and tries again later.
            until_waits_for(&server, "a timer");
            assert!(served.get() < 21);
            // With a few descriptors the server goes on, one connection after the other.
            rest.truncate(rest.len().saturating_sub(3));
            for mut client in clients {
                client.write_all(b"x").unwrap();
                let stream = TcpStream::from(client);
                (&stream).read_exact(&mut [0]).unwrap();
            }
            assert_eq!(served.get(), 21);
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn a_server_out_of_address_space_serves_later() {
    alone(a_server_out_of_address_space_serves_later, || {
        plainsong::run(|| {
            let served = Rc::new(Cell::new(0));
            let count = Rc::clone(&served);
            let (address, server) = start_with_handle(move |conn| {
                count.set(count.get() + 1);
                echo(conn)
            });
            exchange(address);
            // More clients than there are reserved stacks, and no memory for other stacks.
            let clients: Vec<_> =
                (0..100).map(|_| net::TcpStream::connect(address).unwrap()).collect();
            limit_memory(Some(1 << 20));
            until_waits_for(&server, "a timer");
            limit_memory(None);
            assert!(served.get() < 100);
            for mut client in clients {
                client.write_all(b"x").unwrap();
                let stream = TcpStream::from(client);
                (&stream).read_exact(&mut [0]).unwrap();
            }
            assert_eq!(served.get(), 101);
        });
    });
}

#[test]
fn the_end_of_a_run_closes_the_connections_of_its_server() {
    crate::util::watch(|| {
        let clients = plainsong::run(|| {
            let address = start(echo);
            let clients: Vec<_> = (0..10)
                .map(|_| {
                    exchange(address);
                    net::TcpStream::connect(address).unwrap()
                })
                .collect();
            let mut last = TcpStream::connect(address).unwrap();
            last.write_all(b"x").unwrap();
            last.read_exact(&mut [0]).unwrap();
            clients
        });
        for mut client in clients {
            // A reset, if the connection was still in the listener's queue.
            let ended = client.read(&mut [0; 8]);
            assert!(matches!(ended, Ok(0)) || ended.is_err());
        }
    });
}

#[test]
fn serving_needs_a_runtime() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let message = panic_of(|| listener.serve(echo));
    assert!(message.contains("plainsong::run"), "{message}");
}

#[test]
fn many_servers_at_once() {
    run(|| {
        let addresses: Vec<_> = (0..50).map(|_| start(echo)).collect();
        let done = Rc::new(Cell::new(0));
        for &address in &addresses {
            let done = Rc::clone(&done);
            plainsong::spawn(move || {
                exchange(address);
                done.set(done.get() + 1);
            });
        }
        until(|| done.get() == addresses.len());
    });
}

#[test]
fn what_cannot_be_listened_on_is_an_error_at_once() {
    run(|| {
        // A socket from another program may be of any kind.
        let datagrams = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::from(OwnedFd::from(datagrams));
        let error = timeout(Duration::from_secs(30), || listener.serve(|_| ())).unwrap();
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    });
}
