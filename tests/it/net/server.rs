//! `Server`: stopping, the grace period, and handlers that panic or do not end.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{net, thread as system};

use plainsong::CancellationToken;
use plainsong::net::{Server, TcpStream, UnixListener, UnixStream};
use plainsong::time::sleep;

use crate::util::{
    Folder, HOUR, MOMENT, OnDrop, alone, descriptors, limit_descriptors, listen, run, until,
    until_parked, until_waits_for, watch,
};

fn echo(mut conn: TcpStream) -> std::io::Result<()> {
    let mut line = [0; 4];
    conn.read_exact(&mut line)?;
    plainsong::yield_now();
    conn.write_all(&line)
}

#[test]
fn what_is_queued_is_served() {
    run(|| {
        let (listener, address) = listen();
        // All clients are connected, and the server is stopped, before anything is accepted.
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let mut client = net::TcpStream::connect(address).unwrap();
                client.write_all(b"ping").unwrap();
                client
            })
            .collect();
        let stop = CancellationToken::new();
        stop.cancel();
        let served = Rc::new(Cell::new(0));
        let count = Rc::clone(&served);
        let server = Server::new(listener).stop_with(&stop);
        let result = server.serve(move |conn| {
            count.set(count.get() + 1);
            echo(conn)
        });
        result.unwrap();
        assert_eq!(served.get(), 100);
        for mut client in clients {
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).unwrap();
            assert_eq!(reply, b"ping");
        }
        assert_eq!(
            net::TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn a_server_that_stops_leaves_the_clones_of_its_listener_as_they_were() {
    run(|| {
        let (listener, address) = listen();
        let clone = listener.try_clone().unwrap();
        let staying = plainsong::spawn(move || clone.serve(echo));
        for _ in 0..3 {
            let stop = CancellationToken::new();
            let server = Server::new(listener.try_clone().unwrap()).stop_with(&stop);
            let stopping = plainsong::spawn(move || server.serve(echo));
            until_parked(&stopping);
            stop.cancel();
            stopping.join().unwrap().unwrap();
            // The other server still waits for connections.
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"ping").unwrap();
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).unwrap();
            assert_eq!(reply, b"ping");
            assert!(!staying.is_finished());
        }
    });
}

#[test]
fn a_unix_server_serves_queued_clients_and_then_refuses() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
                client.write_all(b"ping").unwrap();
                client
            })
            .collect();
        let stop = CancellationToken::new();
        stop.cancel();
        let kept = Rc::new(RefCell::new(Vec::new()));
        let keep = Rc::clone(&kept);
        let server = Server::new(listener).stop_with(&stop);
        let result = server.serve(move |mut conn: UnixStream| {
            // A clone does not keep the connection open.
            keep.borrow_mut().push(conn.try_clone()?);
            let mut line = [0; 4];
            conn.read_exact(&mut line)?;
            conn.write_all(&line)
        });
        result.unwrap();
        for mut client in clients {
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).unwrap();
            assert_eq!(reply, b"ping");
        }
        assert_eq!(kept.borrow().len(), 100);
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn no_client_that_got_in_is_lost() {
    watch(|| {
        for round in 0..20 {
            let answered = Arc::new(AtomicUsize::new(0));
            let stop = CancellationToken::new();
            let (sender, address) = std::sync::mpsc::channel();
            let theirs = stop.clone();
            let server = system::spawn(move || {
                plainsong::run(|| {
                    let (listener, address) = listen();
                    sender.send(address).unwrap();
                    Server::new(listener).stop_with(&theirs).grace(HOUR).serve(echo)
                })
            });
            let address = address.recv().unwrap();
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let answered = Arc::clone(&answered);
                    system::spawn(move || {
                        // Until nothing listens any more.
                        while let Ok(mut client) = net::TcpStream::connect(address) {
                            let mut reply = Vec::new();
                            let sent = client.write_all(b"ping");
                            match sent.and_then(|()| client.read_to_end(&mut reply)) {
                                Ok(4) => answered.fetch_add(1, Ordering::Relaxed),
                                // The kernel resets a client that connected after the queue was
                                // drained, just before the listener was closed.
                                _ => break,
                            };
                        }
                    })
                })
                .collect();
            while answered.load(Ordering::Relaxed) < round * 3 {
                system::yield_now();
            }
            stop.cancel();
            server.join().unwrap().unwrap();
            clients.into_iter().for_each(|client| client.join().unwrap());
        }
    });
}

#[test]
fn handlers_finish_within_the_grace() {
    run(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let server = Server::new(listener).stop_with(&stop).grace(HOUR);
        let serving = plainsong::spawn(move || server.serve(echo));
        let mut client = TcpStream::connect(address).unwrap();
        plainsong::yield_now();
        stop.cancel();
        until_parked(&serving);
        until(|| net::TcpStream::connect(address).is_err());
        assert!(!serving.is_finished(), "a handler is at work");
        client.write_all(b"late").unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, b"late");
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn handlers_are_cancelled_after_the_grace() {
    for grace in [Duration::ZERO, MOMENT] {
        run(move || {
            let (listener, address) = listen();
            let stop = CancellationToken::new();
            let cleaned = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&cleaned);
            let server = Server::new(listener).stop_with(&stop).grace(grace);
            let serving = plainsong::spawn(move || {
                server.serve(move |_conn| {
                    let _guard = OnDrop(|| {
                        sleep(Duration::from_micros(20));
                        theirs.set(theirs.get() + 1);
                    });
                    sleep(HOUR);
                })
            });
            let clients = [(); 5].map(|()| net::TcpStream::connect(address).unwrap());
            until_parked(&serving);
            stop.cancel();
            serving.join().unwrap().unwrap();
            assert_eq!(cleaned.get(), 5);
            for mut client in clients {
                assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
            }
        });
    }
}

#[test]
fn handlers_that_look_at_the_token_end_by_themselves() {
    run(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let theirs = stop.clone();
        let server = Server::new(listener).stop_with(&stop).grace(HOUR);
        let serving = plainsong::spawn(move || {
            server.serve(move |mut conn| {
                let idle = theirs.run_until_cancelled(|| conn.read(&mut [0]));
                assert!(idle.is_none());
                conn.write_all(b"bye").unwrap();
            })
        });
        let mut client = TcpStream::connect(address).unwrap();
        until_parked(&serving);
        stop.cancel();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "bye");
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn cancelled_instead_of_stopped() {
    run(|| {
        for stopped_before in [false, true] {
            let (listener, address) = listen();
            let stop = CancellationToken::new();
            let at_work = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&at_work);
            let server = Server::new(listener).stop_with(&stop).grace(HOUR);
            let serving = plainsong::spawn(move || {
                server.serve(move |_conn| {
                    theirs.set(theirs.get() + 1);
                    let _guard = OnDrop(|| {
                        plainsong::yield_now();
                        theirs.set(theirs.get() - 1);
                    });
                    sleep(HOUR);
                })
            });
            let _clients = [(); 3].map(|()| net::TcpStream::connect(address).unwrap());
            until(|| at_work.get() == 3);
            if stopped_before {
                stop.cancel();
                until(|| net::TcpStream::connect(address).is_err());
            }
            serving.cancel();
            assert!(serving.join().unwrap_err().is_cancelled());
            assert_eq!(at_work.get(), 0, "they have ended when `serve` has");
        }
    });
}

#[test]
fn a_handler_that_panics_costs_its_own_connection() {
    run(|| {
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let server = Server::new(listener).stop_with(&stop);
        let serving = plainsong::spawn(move || {
            server.serve(|mut conn| {
                let mut line = [0; 4];
                conn.read_exact(&mut line).unwrap();
                if &line == b"fail" {
                    std::panic::resume_unwind(Box::new("its own"));
                }
                conn.write_all(&line).unwrap();
            })
        });
        for (request, reply) in [("fail", ""), ("ping", "ping"), ("fail", ""), ("pong", "pong")] {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            let mut received = String::new();
            client.read_to_string(&mut received).unwrap();
            assert_eq!(received, reply);
        }
        stop.cancel();
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn a_handler_that_never_gives_up_does_not_hold_the_server() {
    alone(a_handler_that_never_gives_up_does_not_hold_the_server, || {
        plainsong::run(|| {
            let (listener, address) = listen();
            let stop = CancellationToken::new();
            let at_work = Rc::new(Cell::new(false));
            let theirs = Rc::clone(&at_work);
            let server = Server::new(listener).stop_with(&stop).grace(Duration::ZERO);
            let serving = plainsong::spawn(move || {
                server.serve(move |_conn| {
                    theirs.set(true);
                    loop {
                        let _ = catch_unwind(|| sleep(HOUR));
                    }
                })
            });
            let _client = net::TcpStream::connect(address).unwrap();
            until(|| at_work.get());
            stop.cancel();
            serving.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_stop_without_descriptors_left() {
    alone(a_stop_without_descriptors_left, || {
        plainsong::run(|| {
            let (listener, address) = listen();
            let stop = CancellationToken::new();
            let at_work = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&at_work);
            let server = Server::new(listener).stop_with(&stop).grace(MOMENT);
            let serving = plainsong::spawn(move || {
                server.serve(move |_conn| {
                    theirs.set(theirs.get() + 1);
                    let _guard = OnDrop(|| theirs.set(theirs.get() - 1));
                    sleep(HOUR);
                })
            });
            let clients = [(); 4].map(|()| net::TcpStream::connect(address).unwrap());
            until(|| at_work.get() == 4);
            // One more client is connected, and no descriptor is left to accept it with.
            limit_descriptors(descriptors() as u64 + 4);
            let last = net::TcpStream::connect(address).unwrap();
            limit_descriptors(3);
            until_waits_for(&serving, "a timer");
            stop.cancel();
            // The server reports that it could not accept the last client, and has ended all
            // handlers.
            let error = serving.join().unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            assert_eq!(at_work.get(), 0);
            for mut client in clients.into_iter().chain([last]) {
                assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
            }
        });
    });
}

/// An `accept` takes a descriptor before it looks for a connection, so it says only that there is
/// none left.
#[test]
fn a_stop_without_descriptors_and_clients() {
    alone(a_stop_without_descriptors_and_clients, || {
        run(|| {
            let (listener, _) = listen();
            let stop = CancellationToken::new();
            let server = Server::new(listener).stop_with(&stop).grace(Duration::MAX);
            let serving = plainsong::spawn(move || server.serve(|_conn| ()));
            until_parked(&serving);
            limit_descriptors(3);
            stop.cancel();
            serving.join().unwrap().unwrap();
        });
    });
}

#[test]
fn many_servers_leave_nothing() {
    alone(many_servers_leave_nothing, || {
        let mut before = 0;
        for round in 0..40 {
            plainsong::run(|| {
                let (listener, address) = listen();
                let stop = CancellationToken::new();
                let server = Server::new(listener).stop_with(&stop);
                let serving = plainsong::spawn(move || server.serve(echo));
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(b"ping").unwrap();
                stop.cancel();
                let mut reply = [0; 4];
                client.read_exact(&mut reply).unwrap();
                serving.join().unwrap().unwrap();
            });
            if round == 5 {
                before = descriptors();
            }
        }
        assert_eq!(descriptors(), before);
    });
}
