//! Readiness for wakers: adapters outside of the library are written with these calls.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use plainsong::io::{Interest, Pollable, pipe};
use plainsong::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use plainsong::process::{Command, Stdio};
use plainsong::{block_on, spawn, yield_now};

use crate::util::{Folder, MOMENT, on_another, pair, run, run_on, until_parked, watch};

/// Counts its calls.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A waker and its count of calls.
fn counted() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), Waker::from(count))
}

/// The two ends of a TCP connection.
fn connection() -> (TcpStream, TcpStream) {
    let (one, two) = pair();
    (one, two.into())
}

/// Takes all readiness to read away from a stream, and returns what was there.
fn drain(mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), [0; 64]);
    loop {
        match read(&mut buf) {
            Ok(0) => return all,
            Ok(len) => all.extend_from_slice(&buf[..len]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return all;
            }
        }
    }
}

/// A test of one pair of streams: data wakes a future that reads, and room one that writes.
macro_rules! streams_wake_futures {
    ($pair:expr) => {
        let (reader, writer) = $pair;
        let text = spawn(move || {
            let mut text = Vec::new();
            block_on(async {
                loop {
                    reader.readable().await.unwrap();
                    let mut buf = [0; 1 << 16];
                    match reader.try_read(&mut buf) {
                        Ok(0) => break,
                        Ok(len) => text.extend_from_slice(&buf[..len]),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            });
            text
        });
        until_parked(&text);
        let sent: Vec<u8> = (0..20_000_000u32).map(|n| n as u8).collect();
        block_on(async {
            let (mut rest, mut full) = (&sent[..], false);
            while !rest.is_empty() {
                poll_fn(|cx| writer.poll_write_ready(cx)).await.unwrap();
                match writer.try_write(rest) {
                    Ok(len) => rest = &rest[len..],
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        full = true;
                    }
                }
            }
            assert!(full, "the test sends more than there is room for");
        });
        drop(writer);
        assert_eq!(text.join().unwrap(), sent);
    };
}

#[test]
fn futures_wait_for_streams_of_all_kinds() {
    run(|| {
        streams_wake_futures!(connection());
        streams_wake_futures!(UnixStream::pair().unwrap());
        streams_wake_futures!(pipe().unwrap());
        streams_wake_futures!({
            let (one, two) = StdStream::pair().unwrap();
            (Pollable::new(one).unwrap(), Pollable::new(two).unwrap())
        });
        let mut cat = Command::new("cat");
        let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        streams_wake_futures!((cat.stdout.take().unwrap(), cat.stdin.take().unwrap()));
        assert!(cat.wait().unwrap().success());
    });
}

#[test]
fn futures_wait_for_connections_and_datagrams() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = spawn(move || block_on(poll_fn(|cx| listener.poll_accept(cx))).unwrap());
        until_parked(&accepted);
        let stream = TcpStream::connect(address).unwrap();
        assert_eq!(accepted.join().unwrap().1, stream.local_addr().unwrap());

        let folder = Folder::new();
        let listener = UnixListener::bind(folder.join("socket")).unwrap();
        let accepted = spawn(move || block_on(poll_fn(|cx| listener.poll_accept(cx))).unwrap());
        until_parked(&accepted);
        UnixStream::connect(folder.join("socket")).unwrap();
        accepted.join().unwrap();

        let (one, two) = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap()).into();
        let (here, there) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let received = spawn(move || {
            let mut buf = [0; 10];
            assert_eq!(two.try_recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
            loop {
                block_on(two.readable()).unwrap();
                match two.try_recv_from(&mut buf) {
                    Ok((len, from)) => return (buf[..len].to_vec(), from),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        });
        yield_now();
        assert_eq!(one.try_send_to(b"hello", there).unwrap(), 5);
        assert_eq!(received.join().unwrap(), (b"hello".to_vec(), here));

        let (one, two) = UnixDatagram::pair().unwrap();
        let received = spawn(move || {
            let mut buf = [0; 10];
            let mut lens = Vec::new();
            while lens.last() != Some(&0) {
                block_on(two.readable()).unwrap();
                match two.try_recv(&mut buf) {
                    Ok(len) => lens.push(len),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if lens.len() == 1 {
                    // A receive ends for a socket that is shut down, as one that waits does.
                    two.shutdown(std::net::Shutdown::Read).unwrap();
                }
            }
            lens
        });
        until_parked(&received);
        assert_eq!(one.try_send(b"hello").unwrap(), 5);
        assert_eq!(received.join().unwrap(), [5, 0]);
    });
}

#[test]
fn wakers_and_coroutines_wait_in_one_list() {
    run(|| {
        let (reader, mut writer) = connection();
        let reader = Rc::new(reader);
        let waiting: Vec<_> = (0..4)
            .map(|n| {
                let reader = reader.clone();
                spawn(move || match n % 2 {
                    0 => (&*reader).read(&mut [0; 1]).unwrap(),
                    _ => block_on(async {
                        loop {
                            reader.readable().await.unwrap();
                            match reader.try_read(&mut [0; 1]) {
                                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                                result => return result.unwrap(),
                            }
                        }
                    }),
                })
            })
            .collect();
        waiting.iter().for_each(until_parked);
        writer.write_all(b"four").unwrap();
        assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap() == 1));
    });
}

#[test]
fn a_try_takes_what_is_there_and_waits_for_nothing() {
    run(|| {
        let (reader, writer) = connection();
        let would_block = |result: std::io::Result<usize>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock)
        };
        would_block(reader.try_read(&mut [0; 1]));
        assert_eq!(writer.try_write_vectored(&[&b"he"[..], b"llo"].map(IoSlice::new)).unwrap(), 5);
        block_on(reader.readable()).unwrap();
        let (mut one, mut two) = ([0; 2], [0; 9]);
        let bufs = &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(reader.try_read_vectored(bufs).unwrap(), 5);
        would_block(reader.try_io(Interest::READABLE, || Err(ErrorKind::WouldBlock.into())));
        assert_eq!(writer.try_io(Interest::WRITABLE, || Ok(7)).unwrap(), 7);
    });
}

#[test]
fn a_ready_descriptor_is_not_reported_after_it_was_drained() {
    run(|| {
        let (reader, mut writer) = connection();
        let (count, waker) = counted();
        let mut cx = Context::from_waker(&waker);
        writer.write_all(b"hello").unwrap();
        block_on(reader.readable()).unwrap();
        assert_eq!(drain(|buf| reader.try_read(buf)), b"hello");
        assert!(reader.poll_read_ready(&mut cx).is_pending());
        assert_eq!(count.get(), 0);
        writer.write_all(b"again").unwrap();
        while count.get() == 0 {
            plainsong::time::sleep(MOMENT);
        }
        assert!(reader.poll_read_ready(&mut cx).is_ready());
        assert_eq!((drain(|buf| reader.try_read(buf)), count.get()), (b"again".to_vec(), 1));
    });
}

#[test]
fn a_dropped_future_leaves_no_waker() {
    run(|| {
        let (reader, mut writer) = connection();
        drain(|buf| reader.try_read(buf));
        let (count, waker) = counted();
        block_on(async {
            for _ in 0..50 {
                let mut ready = pin!(reader.readable());
                // The first poll registers the socket, whose state is not known before that.
                while ready.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    assert!(reader.try_read(&mut [0; 1]).is_err());
                    ready.set(reader.readable());
                }
            }
        });
        assert_eq!(Arc::strong_count(&count), 2, "the test's own two");
        writer.write_all(b"hello").unwrap();
        block_on(reader.readable()).unwrap();
        assert_eq!(count.get(), 0);
    });
}

#[test]
fn only_the_waker_of_the_last_poll_is_kept() {
    run(|| {
        let (reader, mut writer) = connection();
        let [first, last] = [counted(), counted()];
        while reader.poll_read_ready(&mut Context::from_waker(&first.1)).is_ready() {
            assert!(reader.try_read(&mut [0; 1]).is_err());
        }
        assert!(reader.poll_read_ready(&mut Context::from_waker(&last.1)).is_pending());
        assert_eq!(Arc::strong_count(&first.0), 2);
        writer.write_all(b"hello").unwrap();
        block_on(reader.readable()).unwrap();
        assert_eq!((first.0.get(), last.0.get()), (0, 1));
        drop(reader);
        assert_eq!(Arc::strong_count(&last.0), 2);
    });
}

#[test]
fn without_a_run_it_is_an_error() {
    let (count, waker) = counted();
    let mut cx = Context::from_waker(&waker);
    let mut refused = |stream: &UnixStream| match stream.poll_read_ready(&mut cx) {
        Poll::Ready(Err(error)) => assert!(error.to_string().contains("no plainsong runtime")),
        other => panic!("{other:?}"),
    };
    let (reader, _writer) = UnixStream::pair().unwrap();
    refused(&reader);
    // Also after a run on this thread and on another one, which wake what waits at their end.
    let theirs = waker.clone();
    let reader = watch(|| {
        plainsong::run(move || {
            while reader.poll_read_ready(&mut Context::from_waker(&theirs)).is_ready() {
                assert!(reader.try_read(&mut [0; 1]).is_err());
            }
            reader
        })
    });
    assert_eq!(count.get(), 1, "the end of the run has woken it");
    refused(&reader);
    drain(|buf| reader.try_read(buf));
}

#[test]
fn a_waker_that_panics_ends_only_itself() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("a waker's own"));
        }
    }
    run(|| {
        let (reader, mut writer) = connection();
        let waker = Waker::from(Arc::new(Panics));
        while reader.poll_read_ready(&mut Context::from_waker(&waker)).is_ready() {
            assert!(reader.try_read(&mut [0; 1]).is_err());
        }
        writer.write_all(b"hello").unwrap();
        block_on(reader.readable()).unwrap();
        assert_eq!(drain(|buf| reader.try_read(buf)), b"hello");
    });
}

#[test]
fn a_future_that_is_always_ready_starves_no_coroutine() {
    run(|| {
        let (_reader, writer) = connection();
        let other = spawn(|| ());
        let done = Rc::new(std::cell::Cell::new(false));
        let theirs = done.clone();
        spawn(move || {
            other.join().unwrap();
            theirs.set(true);
        });
        block_on(async {
            while !done.get() {
                writer.writable().await.unwrap();
            }
        });
    });
}

#[test]
fn two_workers_wait_for_one_socket() {
    run_on(2, || {
        let (reader, mut writer) = connection();
        let reader = Arc::new(reader);
        let wait = |reader: Arc<TcpStream>| {
            block_on(async {
                loop {
                    reader.readable().await.unwrap();
                    match reader.try_read(&mut [0; 1]) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        result => return result.unwrap(),
                    }
                }
            })
        };
        let (theirs, ours) = (reader.clone(), reader);
        let there = on_another(move || wait(theirs));
        let here = spawn(move || wait(ours));
        writer.write_all(b"ab").unwrap();
        assert_eq!((here.join().unwrap(), there.join().unwrap()), (1, 1));
    });
}
