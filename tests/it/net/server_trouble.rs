//! The options of a server, and its words about trouble.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use plainsong::net::{Outcome, Server, TcpListener, TcpStream, UnixListener, UnixStream};
use plainsong::sync::Event;
use plainsong::{CancellationToken, Runtime, yield_now};

use crate::util::{Folder, alone, descriptors, dying, limit_descriptors, run, until};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn serve<R: Outcome>(handler: impl Fn(TcpStream) -> R + 'static) -> SocketAddr {
    let (listener, address) = listener();
    plainsong::spawn(move || listener.serve(handler));
    address
}

/// Reads until the server has closed the connection.
fn until_closed(address: SocketAddr) {
    TcpStream::connect(address).unwrap().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_handler_may_return_any_error_that_can_be_displayed_or_never_return() {
    run(|| {
        let text = serve(|_| Err::<(), _>("a text".to_owned()));
        let boxed = serve(|_| -> Result<u64, Box<dyn Error>> { Ok("7".parse()?) });
        let shared = serve(|_| -> Result<(), Box<dyn Error + Send + Sync>> { Ok(()) });
        for address in [text, boxed, shared] {
            until_closed(address);
        }
        let copies = serve(|conn| io::copy(&mut &conn, &mut &conn));
        let diverges = serve(|mut conn| -> ! {
            conn.write_all(b"x").unwrap();
            loop {
                plainsong::time::sleep(Duration::MAX);
            }
        });
        for address in [copies, diverges] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    });
}

#[test]
fn an_error_goes_to_the_hook_with_its_client_after_the_connection_has_closed() {
    run(|| {
        let (listener, address) = listener();
        let (sender, errors) = mpsc::channel();
        let server = Server::new(listener)
            .on_error(move |error, peer| sender.send((error.to_string(), *peer)).unwrap());
        let counters = server.counters();
        plainsong::spawn(move || server.serve(|_| Err::<(), _>("mine alone")));
        let mut client = TcpStream::connect(address).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let mut found = None;
        until(|| {
            found = errors.try_recv().ok();
            found.is_some()
        });
        assert_eq!(found, Some(("mine alone".to_owned(), client.local_addr().unwrap())));
        assert_eq!((counters.accepted(), counters.failed(), counters.active()), (1, 1, 0));
    });
}

#[test]
fn a_unix_server_names_its_client_too() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (sender, errors) = mpsc::channel();
        let server = Server::new(UnixListener::bind(&path).unwrap())
            .on_error(move |_, peer| sender.send(peer.is_unnamed()).unwrap());
        plainsong::spawn(move || server.serve(|_| Err::<(), _>("mine alone")));
        let mut client = UnixStream::connect(&path).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        until(|| errors.try_recv() == Ok(true));
    });
}

#[test]
fn without_a_hook_a_line_tells_of_errors_but_not_of_each() {
    let body = || {
        plainsong::run(|| {
            let address = serve(|_| Err::<(), _>("mine\nalone"));
            for _ in 0..20 {
                until_closed(address);
                yield_now();
            }
        });
        std::process::exit(1);
    };
    let Some(output) = dying(without_a_hook_a_line_tells_of_errors_but_not_of_each, body) else {
        return;
    };
    let lines = output.lines().filter(|line| line.contains("failed: mine\\nalone")).count();
    assert!((1..20).contains(&lines), "{output}");
    assert!(output.contains("plainsong: the connection from 127.0.0.1:"), "{output}");
}

#[test]
fn a_server_without_descriptors_says_when_it_pauses_and_when_it_resumes() {
    alone(a_server_without_descriptors_says_when_it_pauses_and_when_it_resumes, || {
        plainsong::run(|| {
            let (listener, address) = listener();
            let log = Arc::new(Mutex::new(Vec::new()));
            let theirs = Arc::clone(&log);
            let server = Server::new(listener).on_pause(move |error| {
                theirs.lock().unwrap().push(error.and_then(io::Error::raw_os_error));
            });
            let counters = server.counters();
            plainsong::spawn(move || server.serve(|conn| io::copy(&mut &conn, &mut &conn)));
            let mut client = net::TcpStream::connect(address).unwrap();
            limit_descriptors(descriptors() as u64 + 4);
            let rest: Vec<_> =
                std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            until(|| counters.pauses() == 1);
            assert_eq!(*log.lock().unwrap(), [Some(libc::EMFILE)]);
            drop(rest);
            client.write_all(b"x").unwrap();
            let client = TcpStream::from(client);
            (&client).read_exact(&mut [0]).unwrap();
            assert_eq!(*log.lock().unwrap(), [Some(libc::EMFILE), None]);
        });
    });
}

#[test]
fn a_limited_server_leaves_further_clients_in_the_queue() {
    run(|| {
        let (listener, address) = listener();
        let release = Rc::new(Event::new());
        let server = Server::new(listener).max_connections(2);
        let (counters, gate) = (server.counters(), Rc::clone(&release));
        plainsong::spawn(move || {
            server.serve(move |conn| {
                gate.wait();
                drop(conn);
            })
        });
        let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        until(|| counters.active() == 2);
        for _ in 0..100 {
            yield_now();
        }
        assert_eq!(counters.accepted(), 2);
        release.set();
        for mut client in clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(counters.accepted(), 3);
    });
}

#[test]
fn a_limited_server_that_is_full_can_be_stopped() {
    run(|| {
        let (listener, address) = listener();
        let stop = CancellationToken::new();
        let server =
            Server::new(listener).max_connections(1).stop_with(&stop).grace(Duration::ZERO);
        let counters = server.counters();
        let ended = plainsong::spawn(move || server.serve(|conn| io::copy(&mut &conn, &mut &conn)));
        let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        until(|| counters.active() == 1);
        stop.cancel();
        ended.join().unwrap().unwrap();
        assert_eq!(counters.accepted(), 1);
    });
}

#[test]
fn a_limit_holds_for_all_workers_together() {
    crate::util::watch(|| {
        let (listener, address) = listener();
        let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let clients = {
            let stop = stop.clone();
            thread::spawn(move || {
                let clients: Vec<_> = (0..8)
                    .map(|_| {
                        thread::spawn(move || {
                            let mut client = net::TcpStream::connect(address).unwrap();
                            client.read_exact(&mut [0]).unwrap();
                        })
                    })
                    .collect();
                for client in clients {
                    client.join().unwrap();
                }
                stop.cancel();
            })
        };
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let peak = Arc::clone(&most);
        Server::new(listener)
            .max_connections(1)
            .stop_with(&stop)
            .serve_on(&runtime, move || {
                let (active, most) = (Arc::clone(&active), Arc::clone(&peak));
                move |mut conn: TcpStream| {
                    most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    yield_now();
                    active.fetch_sub(1, Ordering::SeqCst);
                    conn.write_all(b"x")
                }
            })
            .unwrap();
        clients.join().unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_panic_of_a_handler_gives_its_slot_back() {
    run(|| {
        let (listener, address) = listener();
        let served = Rc::new(Cell::new(0));
        let (count, log) = (Rc::clone(&served), Rc::new(RefCell::new(Vec::<u8>::new())));
        let server = Server::new(listener).max_connections(1);
        plainsong::spawn(move || {
            server.serve(move |_| {
                count.set(count.get() + 1);
                let _log = log.borrow_mut();
                // Without a message, as of a panic of the library's own.
                std::panic::resume_unwind(Box::new("one connection's panic"))
            })
        });
        for _ in 0..3 {
            until_closed(address);
        }
        assert_eq!(served.get(), 3);
    });
}
