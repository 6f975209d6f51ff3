//! Sockets that several threads use at once, each with a runtime of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, net, thread};

use plainsong::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use plainsong::time::timeout;
use plainsong::{spawn, spawn_anywhere, yield_now};

use crate::util::{
    Folder, MOMENT, alone, descriptors, listen, on_another, pair, run_on, runtime, until,
    until_parked, watch,
};

/// Runs `body` as a coroutine of another thread.
fn elsewhere<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(|| plainsong::run(body))
}

/// A stream of either kind.
trait Stream: Send + Sync + 'static {
    fn another(&self) -> Self;
    fn end(&self, how: Shutdown);
}

macro_rules! stream {
    ($($type:ty),*) => {$(
        impl Stream for $type {
            fn another(&self) -> Self {
                self.try_clone().unwrap()
            }

            fn end(&self, how: Shutdown) {
                self.shutdown(how).unwrap();
            }
        }
    )*};
}

stream!(TcpStream, UnixStream);

/// Each end of a connection is written to on one thread and read from on another, by turns.
fn read_here_write_there<S: Stream>(ours: Arc<S>, theirs: Arc<S>)
where
    for<'a> &'a S: Read + Write,
{
    const ROUNDS: u32 = 2000;
    let talk = |first: bool, stream: &Arc<S>| {
        let writer = Arc::clone(stream);
        let reader = Arc::clone(stream);
        let (turn, next) = mpsc::channel();
        // Each direction of this end has a thread of its own.
        let reader = elsewhere(move || {
            for round in 0..ROUNDS {
                let mut number = [0; 4];
                (&*reader).read_exact(&mut number).unwrap();
                assert_eq!(u32::from_ne_bytes(number), round);
                // The writer of this end may have ended.
                let _ = turn.send(());
            }
            assert_eq!((&*reader).read(&mut [0; 8]).unwrap(), 0);
        });
        let writer = elsewhere(move || {
            for round in 0..ROUNDS {
                if !first || round > 0 {
                    next.recv().unwrap();
                }
                (&*writer).write_all(&round.to_ne_bytes()).unwrap();
            }
            writer.end(Shutdown::Write);
        });
        [reader, writer]
    };
    let threads = [talk(true, &ours), talk(false, &theirs)];
    threads.into_iter().flatten().for_each(|thread| thread.join().unwrap());
}

/// A TCP connection from a runtime that has ended.
fn tcp_pair() -> (TcpStream, TcpStream) {
    elsewhere(|| {
        let (listener, address) = listen();
        let client = plainsong::spawn(move || TcpStream::connect(address).unwrap());
        let (server, _) = listener.accept().unwrap();
        (server, client.join().unwrap())
    })
    .join()
    .unwrap()
}

#[test]
fn a_connection_accepted_on_one_thread_and_used_on_others() {
    watch(|| {
        let (one, two) = tcp_pair();
        read_here_write_there::<TcpStream>(Arc::new(one), Arc::new(two));
    });
}

#[test]
fn a_unix_connection_used_on_several_threads() {
    watch(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let acceptor = elsewhere(move || listener.accept().unwrap().0);
        let client = UnixStream::connect(&path).unwrap();
        read_here_write_there::<UnixStream>(Arc::new(acceptor.join().unwrap()), Arc::new(client));
    });
}

/// Two threads write and two read, with full buffers: nothing is lost.
fn two_readers_two_writers<S: Stream>(ours: S, theirs: S)
where
    for<'a> &'a S: Read + Write,
{
    const BYTES: usize = 4 << 20;
    let (ours, theirs) = (Arc::new(ours), Arc::new(theirs));
    let left = Arc::new(AtomicUsize::new(2));
    let writers = [(); 2].map(|()| {
        let (stream, left) = (Arc::clone(&ours), Arc::clone(&left));
        elsewhere(move || {
            (&*stream).write_all(&vec![7; BYTES]).unwrap();
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                stream.end(Shutdown::Write);
            }
        })
    });
    let readers = [(); 2].map(|()| {
        let stream = Arc::clone(&theirs);
        elsewhere(move || {
            // Two readers in each runtime, so that one event must wake both.
            let other = Arc::clone(&stream);
            let other = plainsong::spawn(move || io::copy(&mut &*other, &mut io::sink()).unwrap());
            io::copy(&mut &*stream, &mut io::sink()).unwrap() + other.join().unwrap()
        })
    });
    let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert_eq!(read, 2 * BYTES as u64);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn readers_and_writers_of_several_threads_lose_nothing() {
    watch(|| {
        let (one, two) = tcp_pair();
        two_readers_two_writers::<TcpStream>(one, two);
        let (one, two) = UnixStream::pair().unwrap();
        two_readers_two_writers::<UnixStream>(one, two);
    });
}

/// Waits on one thread, in a coroutine or not, and ends the wait by a shutdown on another.
fn ended_elsewhere<S: Stream>(pair: fn() -> (S, S))
where
    for<'a> &'a S: Read + Write,
{
    for round in 0..50 {
        let (ours, _theirs) = pair();
        let reader = ours.another();
        let started = Arc::new(Barrier::new(2));
        let start = Arc::clone(&started);
        let wait = move || {
            start.wait();
            (&reader).read(&mut [0; 8]).unwrap()
        };
        let waiting = if round % 2 == 0 { elsewhere(wait) } else { thread::spawn(wait) };
        let ender = elsewhere(move || {
            started.wait();
            // Before, while or after the other begins to wait.
            (0..round).for_each(|_| thread::yield_now());
            ours.end(if round % 3 == 0 { Shutdown::Both } else { Shutdown::Read });
        });
        assert_eq!(waiting.join().unwrap(), 0);
        ender.join().unwrap();
    }
}

#[test]
fn a_shutdown_on_one_thread_ends_a_wait_on_another() {
    watch(|| {
        ended_elsewhere::<TcpStream>(tcp_pair);
        ended_elsewhere::<UnixStream>(|| UnixStream::pair().unwrap());
    });
}

#[test]
fn a_shutdown_ends_waits_to_write_on_other_threads() {
    watch(|| {
        let (ours, _theirs) = tcp_pair();
        let ours = Arc::new(ours);
        let (full, is_full) = mpsc::channel();
        let writers = [(); 2].map(|()| {
            let (ours, full) = (Arc::clone(&ours), full.clone());
            elsewhere(move || {
                let writer = plainsong::spawn(move || {
                    loop {
                        if let Err(error) = (&*ours).write(&[0; 65536]) {
                            break error.kind();
                        }
                    }
                });
                until_parked(&writer);
                full.send(()).unwrap();
                writer.join().unwrap()
            })
        });
        (0..2).for_each(|_| is_full.recv().unwrap());
        ours.shutdown(Shutdown::Write).unwrap();
        for writer in writers {
            assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn a_clone_dropped_on_one_thread_leaves_the_wait_on_another() {
    watch(|| {
        for _ in 0..50 {
            let (ours, mut theirs) = pair();
            let clone = ours.try_clone().unwrap();
            let (parked, is_parked) = mpsc::channel();
            let waiting = elsewhere(move || {
                let reader = plainsong::spawn(move || (&clone).read(&mut [0; 8]).unwrap());
                until_parked(&reader);
                parked.send(()).unwrap();
                reader.join().unwrap()
            });
            // When this end is dropped here, both reactors have registered it.
            let ours = elsewhere(move || {
                let moment = Duration::from_nanos(1);
                assert!(timeout(moment, || (&ours).read(&mut [0; 8])).is_err());
                ours
            });
            let ours = ours.join().unwrap();
            is_parked.recv().unwrap();
            drop(ours);
            theirs.write_all(b"still here").unwrap();
            assert_eq!(waiting.join().unwrap(), 8);
        }
    });
}

#[test]
fn the_last_clone_may_be_dropped_anywhere() {
    watch(|| {
        for _ in 0..50 {
            let (ours, mut theirs) = pair();
            let clones = [(); 3].map(|()| ours.try_clone().unwrap());
            drop(ours);
            // Each thread's reactor registers the descriptor, and each thread drops its clone at
            // its own time: the last one closes the descriptor for all.
            let threads = clones.map(|clone| {
                elsewhere(move || {
                    assert!(timeout(Duration::ZERO, || (&clone).read(&mut [0; 8])).is_err());
                    let moment = Duration::from_micros(10);
                    assert!(timeout(moment, || (&clone).read(&mut [0; 8])).is_err());
                    drop(clone);
                    // The next descriptor with the same number belongs to another connection.
                    let (mut next, mut peer) = pair();
                    peer.write_all(b"x").unwrap();
                    assert_eq!(next.read(&mut [0; 8]).unwrap(), 1);
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}

#[test]
fn wakes_are_not_lost_between_two_reactors() {
    // Two readers in two runtimes get one byte at a time, and the next byte is sent only after one
    // of them has confirmed the last. A lost wake would leave both waiting for ever.
    watch(|| {
        let (ours, mut theirs) = pair();
        let ours = Arc::new(ours);
        let (got, next) = mpsc::channel();
        let readers = [(); 2].map(|()| {
            let (ours, got) = (Arc::clone(&ours), got.clone());
            elsewhere(move || {
                // Every read is short, so the next one may park without a system call.
                let mut buf = [0; 8];
                while (&*ours).read(&mut buf).unwrap() > 0 {
                    got.send(()).unwrap();
                }
            })
        });
        for _ in 0..5000 {
            theirs.write_all(b"x").unwrap();
            next.recv().unwrap();
        }
        drop(theirs);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn datagrams_for_several_threads_each_come_once() {
    fn receive_on_two<S: Send + Sync + 'static>(
        socket: S,
        receive: fn(&S) -> io::Result<u8>,
        send: impl Fn(u8),
    ) {
        let socket = Arc::new(socket);
        let (got, received) = mpsc::channel();
        let receivers = [(); 2].map(|()| {
            let (socket, got) = (Arc::clone(&socket), got.clone());
            elsewhere(move || {
                loop {
                    let number = receive(&socket).unwrap();
                    if number == u8::MAX {
                        return;
                    }
                    got.send(number).unwrap();
                }
            })
        });
        for round in 0..200 {
            // Two datagrams at once, then one.
            send(round);
            send(round);
            let mut both = [received.recv().unwrap(), received.recv().unwrap()];
            both.sort_unstable();
            assert_eq!(both, [round, round]);
            send(round);
            assert_eq!(received.recv().unwrap(), round);
        }
        send(u8::MAX);
        send(u8::MAX);
        receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
    }
    watch(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sender = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let receive = |socket: &UdpSocket| {
            let mut buf = [0; 16];
            assert_eq!(socket.recv_from(&mut buf)?.0, 1);
            Ok(buf[0])
        };
        receive_on_two(socket, receive, move |number| {
            sender.send_to(&[number], address).unwrap();
        });
        let (socket, sender) = UnixDatagram::pair().unwrap();
        let receive = |socket: &UnixDatagram| {
            let mut buf = [0; 16];
            assert_eq!(socket.recv(&mut buf)?, 1);
            Ok(buf[0])
        };
        receive_on_two(socket, receive, move |number| {
            sender.send(&[number]).unwrap();
        });
    });
}

#[test]
fn a_unix_datagram_socket_shut_down_elsewhere() {
    watch(|| {
        for round in 0..50 {
            let (one, two) = UnixDatagram::pair().unwrap();
            let one = Arc::new(one);
            let receiver = Arc::clone(&one);
            let wait = move || [(); 2].map(|()| receiver.recv(&mut [0; 8]).unwrap());
            let waiting = if round % 2 == 0 { elsewhere(wait) } else { thread::spawn(wait) };
            // This datagram is received in spite of the shutdown right after it.
            two.send(b"last").unwrap();
            one.shutdown(Shutdown::Read).unwrap();
            assert_eq!(waiting.join().unwrap(), [4, 0]);
        }
    });
}

#[test]
fn several_threads_accept_from_one_listener() {
    watch(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let tcp = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let unix = Arc::new(UnixListener::bind(&path).unwrap());
        let address = tcp.local_addr().unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let servers = [(); 2].map(|()| {
            let (tcp, unix) = (Arc::clone(&tcp), Arc::clone(&unix));
            let served = Arc::clone(&served);
            elsewhere(move || {
                let count = Arc::clone(&served);
                let over_tcp = plainsong::spawn(move || {
                    tcp.serve(move |mut conn| {
                        count.fetch_add(1, Ordering::SeqCst);
                        conn.write_all(b"x")
                    })
                });
                let count = Arc::clone(&served);
                let over_unix = plainsong::spawn(move || {
                    unix.serve(move |mut conn| {
                        count.fetch_add(1, Ordering::SeqCst);
                        conn.write_all(b"x")
                    })
                });
                while served.load(Ordering::SeqCst) < 400 {
                    plainsong::time::sleep(Duration::from_micros(100));
                }
                over_tcp.cancel();
                over_unix.cancel();
            })
        });
        for _ in 0..200 {
            let mut stream = net::TcpStream::connect(address).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
            let mut stream = StdUnixStream::connect(&path).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
        }
        servers.into_iter().for_each(|server| server.join().unwrap());
    });
}

#[test]
fn one_coroutine_goes_on_while_another_thread_uses_its_socket() {
    watch(|| {
        let (ours, mut theirs) = pair();
        let ours = Arc::new(ours);
        let elsewhere_too = Arc::clone(&ours);
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        // A plain thread reads the bytes that a coroutine waits for. The coroutine must go on
        // waiting.
        let plain = thread::spawn(move || {
            for _ in 0..100 {
                (&*elsewhere_too).read_exact(&mut [0; 1]).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        plainsong::run(|| {
            let count = Arc::clone(&done);
            let reader = plainsong::spawn(move || {
                let moment = Duration::from_micros(50);
                while count.load(Ordering::SeqCst) < 100 {
                    // Replaces the byte that it has taken from the other.
                    if timeout(moment, || (&*ours).read_exact(&mut [0; 1])).is_ok() {
                        theirs.write_all(b"y").unwrap();
                    }
                    if count.load(Ordering::SeqCst) < 100 {
                        theirs.write_all(b"x").unwrap();
                    }
                }
            });
            until(|| reader.is_finished());
            reader.join().unwrap();
        });
        plain.join().unwrap();
    });
}

#[test]
fn workers_of_one_runtime_read_write_and_end_the_same_connections() {
    watch(|| {
        let runtime = plainsong::Runtime::builder().workers(3).build().unwrap();
        runtime.run(|| {
            let jobs: Vec<_> = (0..60)
                .map(|_| {
                    let (one, two) = UnixStream::pair().unwrap();
                    let writer = one.try_clone().unwrap();
                    let echo = plainsong::spawn_anywhere(move || {
                        io::copy(&mut &two, &mut &two).unwrap();
                    });
                    let writer = plainsong::spawn_anywhere(move || {
                        (&writer).write_all(&[5; 300_000]).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    let reader = plainsong::spawn_anywhere(move || {
                        let mut bytes = Vec::new();
                        let mut part = [0; 10_000];
                        while bytes.len() < 300_000 {
                            let len = (&one).read(&mut part).unwrap();
                            bytes.extend_from_slice(&part[..len]);
                        }
                        bytes.iter().all(|&byte| byte == 5)
                    });
                    (echo, writer, reader)
                })
                .collect();
            for (echo, writer, reader) in jobs {
                assert!(reader.join().unwrap());
                writer.join().unwrap();
                echo.join().unwrap();
            }
        });
    });
}

#[test]
fn connections_are_served_on_all_workers() {
    run_on(3, || {
        let (listener, address) = listen();
        let clients: Vec<_> = (0..30)
            .map(|n: u8| {
                std::thread::spawn(move || {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    for round in 0..20 {
                        stream.write_all(&[n, round]).unwrap();
                        let mut back = [0; 2];
                        stream.read_exact(&mut back).unwrap();
                        assert_eq!(back, [n, round]);
                    }
                })
            })
            .collect();
        let serve = |mut stream: TcpStream| {
            let mut bytes = [0; 2];
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).unwrap();
            }
        };
        let serving: Vec<_> = (0..30)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                spawn_anywhere(move || serve(stream))
            })
            .collect();
        serving.into_iter().for_each(|one| one.join().unwrap());
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn a_stream_goes_from_worker_to_worker() {
    run_on(2, || {
        let (mut ours, mut theirs) = crate::util::pair();
        for round in 0..200u32 {
            let expected = round.to_be_bytes();
            let read = move |mut stream: TcpStream| {
                let mut bytes = [0; 64];
                // A short read, after which this worker takes the socket for drained.
                let n = stream.read(&mut bytes).unwrap();
                assert_eq!(bytes[..n], expected);
                stream
            };
            if round % 2 == 0 {
                let moved = on_another(move || read(ours));
                theirs.write_all(&expected).unwrap();
                ours = moved.join().unwrap();
            } else {
                let local = spawn(move || read(ours));
                yield_now();
                theirs.write_all(&expected).unwrap();
                ours = local.join().unwrap();
            }
        }
    });
}

#[test]
fn a_socket_that_outlives_runs_keeps_none_of_their_descriptors() {
    alone(a_socket_that_outlives_runs_keeps_none_of_their_descriptors, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let runtime = runtime(2);
        let once = || {
            let listener = listener.clone();
            runtime.run(|| {
                let waits =
                    on_another(move || timeout(MOMENT, || drop(listener.accept())).is_err());
                assert!(waits.join().unwrap());
            });
        };
        once();
        once();
        let before = descriptors();
        (0..50).for_each(|_| once());
        let after = descriptors();
        assert!(after <= before + 4, "{before} descriptors became {after}");
    });
}
