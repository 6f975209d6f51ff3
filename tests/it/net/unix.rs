//! `UnixStream` and `UnixListener` do what std's do, in a coroutine and on a plain thread.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use std::{io, thread};

use plainsong::net::{UnixListener, UnixStream};
use plainsong::time::timeout;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::util::{
    Folder, MOMENT, both, both_wait, kind, run, uninterrupted, until, until_parked, until_readable,
};

/// A connection: this library's end, and std's.
fn pair() -> (UnixStream, net::UnixStream) {
    let (ours, theirs) = net::UnixStream::pair().unwrap();
    (UnixStream::from(ours), theirs)
}

/// A listener that accepts nothing and whose queue is full, and the clients that fill it.
fn full_listener(path: &Path) -> (net::UnixListener, Vec<net::UnixStream>) {
    let listener = net::UnixListener::bind(path).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let address = rustix::net::SocketAddrUnix::new(path).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = net::UnixStream::from(
            rustix::net::socket(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                None,
            )
            .unwrap(),
        );
        client.set_nonblocking(true).unwrap();
        match rustix::net::connect(&client, &address) {
            Ok(()) => clients.push(client),
            Err(error) => {
                assert_eq!(error, rustix::io::Errno::AGAIN);
                return (listener, clients);
            }
        }
    }
}

#[test]
fn a_listener_and_its_clients() {
    both(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        let theirs = path.clone();
        let client = thread::spawn(move || {
            let mut stream = net::UnixStream::connect(&theirs).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let (mut stream, peer) = listener.accept().unwrap();
        assert!(peer.is_unnamed());
        assert!(stream.peer_addr().unwrap().is_unnamed());
        assert_eq!(stream.local_addr().unwrap().as_pathname(), Some(&*path));
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        stream.write_all(b"world!").unwrap();
        drop(stream);
        assert_eq!(client.join().unwrap(), "world!");
    });
}

#[test]
fn ours_connect_to_ours() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let acceptor = plainsong::spawn(move || {
            for stream in listener.incoming().take(2) {
                stream.unwrap().write_all(b"x").unwrap();
            }
            // A reference can be iterated over, as with std's listener.
            for stream in (&listener).into_iter().take(1) {
                stream.unwrap().write_all(b"x").unwrap();
            }
        });
        until_parked(&acceptor);
        for _ in 0..3 {
            let mut stream = UnixStream::connect(&path).unwrap();
            assert_eq!(stream.peer_addr().unwrap().as_pathname(), Some(&*path));
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
        acceptor.join().unwrap();
    });
}

#[test]
fn abstract_names_need_no_file() {
    both(|| {
        let name = format!("plainsong-{:?}", thread::current().id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let bound = listener.local_addr().unwrap();
        assert_eq!(bound.as_abstract_name(), Some(name.as_bytes()));
        let again = UnixListener::bind_addr(&address).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
        assert!(again.to_string().contains(&name), "{again}");
        // A client that has a name too.
        let client = format!("{name}-client");
        let named = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let abstract_name =
            |name: &str| rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&named, &abstract_name(&client)).unwrap();
        rustix::net::connect(&named, &abstract_name(&name)).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.as_abstract_name(), Some(client.as_bytes()));
        assert_eq!(stream.peer_addr().unwrap().as_abstract_name(), Some(client.as_bytes()));
        let ours = UnixStream::connect_addr(&address).unwrap();
        assert_eq!(ours.peer_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        assert!(listener.accept().unwrap().1.is_unnamed());
    });
}

#[test]
fn a_peer_with_a_path() {
    both(|| {
        let folder = Folder::new();
        let room = 108 - folder.join("").as_os_str().len();
        // The longest that the system takes, the longest that std takes, and a short one.
        for name in ["c".repeat(room), "c".repeat(room - 1), "client".to_owned()] {
            let (server, client) = (folder.join("server"), folder.join(&name));
            let listener = UnixListener::bind(&server).unwrap();
            let named = rustix::net::socket(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                None,
            )
            .unwrap();
            let path = |path: &Path| rustix::net::SocketAddrUnix::new(path).unwrap();
            rustix::net::bind(&named, &path(&client)).unwrap();
            rustix::net::connect(&named, &path(&server)).unwrap();
            assert_eq!(listener.accept().unwrap().1.as_pathname(), Some(&*client));
            std::fs::remove_file(&server).unwrap();
        }
    });
}

#[test]
fn names_that_are_not_available_are_reported() {
    both(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let shown = format!("{path:?}");
        let absent = UnixStream::connect(&path).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        assert!(absent.to_string().contains(&shown), "{absent}");

        let listener = UnixListener::bind(&path).unwrap();
        let taken = UnixListener::bind(&path).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        assert!(taken.to_string().contains(&shown), "{taken}");

        // The file stays, as with std.
        drop(listener);
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(refused.to_string().contains(&shown), "{refused}");
        assert_eq!(kind(UnixListener::bind(&path)), ErrorKind::AddrInUse);

        let long = folder.join("x".repeat(200));
        assert_eq!(kind(UnixListener::bind(&long)), ErrorKind::InvalidInput);
        assert_eq!(kind(UnixStream::connect(&long)), ErrorKind::InvalidInput);
        // An abstract name is not a path.
        assert_eq!(kind(UnixListener::bind("\0name")), ErrorKind::InvalidInput);
        assert_eq!(kind(UnixStream::connect("\0name")), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_empty_path_is_what_std_makes_of_it() {
    both(|| {
        // The system chooses an abstract name.
        let listener = UnixListener::bind("").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.as_abstract_name().is_some());
        let _stream = UnixStream::connect_addr(&address).unwrap();
        let ours = kind(UnixStream::connect(""));
        assert_eq!(ours, net::UnixStream::connect("").unwrap_err().kind());
    });
}

#[test]
fn a_pair_is_connected_both_ways() {
    both(|| {
        let (mut one, mut two) = UnixStream::pair().unwrap();
        for text in [&b"there"[..], b"and back"] {
            one.write_all(text).unwrap();
            let mut got = vec![0; text.len()];
            two.read_exact(&mut got).unwrap();
            assert_eq!(got, text);
            (one, two) = (two, one);
        }
        assert!(one.local_addr().unwrap().is_unnamed() && one.peer_addr().unwrap().is_unnamed());
        assert!(one.take_error().unwrap().is_none());
        drop(one);
        assert_eq!(two.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(kind(two.write(b"x")), ErrorKind::BrokenPipe);
    });
}

#[test]
fn vectored_calls_fill_and_drain_all_buffers() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cdef")];
        assert_eq!(ours.write_vectored(&parts).unwrap(), 6);
        let mut got = [0; 6];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abcdef");
        theirs.write_all(b"ghijkl").unwrap();
        let (mut left, mut right) = ([0; 2], [0; 8]);
        let mut bufs = [IoSliceMut::new(&mut left), IoSliceMut::new(&mut right)];
        assert_eq!(ours.read_vectored(&mut bufs).unwrap(), 6);
        assert_eq!((&left, &right[..4]), (b"gh", &b"ijkl"[..]));
    });
}

#[test]
fn peek_takes_nothing_away() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"peek").unwrap();
        let mut buf = [0; 8];
        assert_eq!(ours.peek(&mut buf).unwrap(), 4);
        assert_eq!(ours.peek(&mut buf[..2]).unwrap(), 2);
        assert_eq!(ours.read(&mut buf).unwrap(), 4);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(kind(ours.peek(&mut buf)), ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(ours.peek(&mut buf).unwrap(), 0);
    });
}

#[test]
fn time_outs_are_those_of_std() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        assert_eq!((ours.read_timeout().unwrap(), ours.write_timeout().unwrap()), (None, None));
        let zero = Some(Duration::ZERO);
        assert_eq!(kind(ours.set_read_timeout(zero)), ErrorKind::InvalidInput);
        assert_eq!(kind(ours.set_write_timeout(zero)), ErrorKind::InvalidInput);
        let time = Some(MOMENT);
        ours.set_read_timeout(time).unwrap();
        ours.set_write_timeout(time).unwrap();
        assert_eq!((ours.read_timeout().unwrap(), ours.write_timeout().unwrap()), (time, time));
        assert_eq!(kind(ours.read(&mut [0; 8])), ErrorKind::WouldBlock);
        assert_eq!(kind(ours.peek(&mut [0; 8])), ErrorKind::WouldBlock);
        let error = loop {
            if let Err(error) = ours.write(&[7; 65536]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        ours.set_read_timeout(None).unwrap();
        theirs.write_all(b"late").unwrap();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 4);
    });
}

#[test]
fn clones_share_time_outs_and_mode_and_outlive_each_other() {
    both(|| {
        let (ours, mut theirs) = pair();
        let mut clone = ours.try_clone().unwrap();
        let time = Some(Duration::from_millis(7));
        ours.set_read_timeout(time).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), time);
        clone.set_nonblocking(true).unwrap();
        assert_eq!(kind((&ours).read(&mut [0; 8])), ErrorKind::WouldBlock);
        clone.set_nonblocking(false).unwrap();
        drop(ours);
        theirs.write_all(b"still here").unwrap();
        assert_eq!(clone.read(&mut [0; 16]).unwrap(), 10);
        drop(clone);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn shutting_down_ends_what_waits() {
    run(|| {
        let (ours, mut theirs) = pair();
        let reader = ours.try_clone().unwrap();
        let reader = plainsong::spawn(move || (&reader).read(&mut [0; 8]));
        until_parked(&reader);
        ours.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        // The other direction still works.
        (&ours).write_all(b"x").unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 1);
        let writer = ours.try_clone().unwrap();
        let writer = plainsong::spawn(move || {
            loop {
                if let Err(error) = (&writer).write(&[0; 4096]) {
                    break error;
                }
            }
        });
        until_parked(&writer);
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writer.join().unwrap().kind(), ErrorKind::BrokenPipe);
        // The written bytes arrive, and then the end.
        io::copy(&mut theirs, &mut io::sink()).unwrap();
    });
}

#[test]
fn many_bytes_both_ways() {
    run(|| {
        let (one, two) = UnixStream::pair().unwrap();
        let text: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let echo = plainsong::spawn(move || {
            io::copy(&mut &two, &mut &two).unwrap();
        });
        let writer = one.try_clone().unwrap();
        let sent = text.clone();
        let writer = plainsong::spawn(move || {
            (&writer).write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&one).read_to_end(&mut received).unwrap();
        assert!(received == text);
        writer.join().unwrap();
        echo.join().unwrap();
    });
}

/// Sends bytes with a descriptor.
fn send_with(stream: &net::UnixStream, bytes: &[u8], fd: impl AsFd) {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let parts = [IoSlice::new(bytes)];
    rustix::net::sendmsg(stream, &parts, &mut ancillary, SendFlags::empty()).unwrap();
}

#[test]
fn bytes_behind_a_descriptor_that_was_passed_are_not_stuck() {
    run(|| {
        let (ours, theirs) = pair();
        let lens = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&lens);
        let reader = plainsong::spawn(move || {
            let mut buf = [0; 64];
            while log.borrow().iter().sum::<usize>() < 9 {
                let len = (&ours).read(&mut buf).unwrap();
                log.borrow_mut().push(len);
            }
        });
        // Its first read was short, and it waits; then both pieces arrive as one event.
        (&theirs).write_all(b"x").unwrap();
        until(|| lens.borrow().len() == 1);
        until_parked(&reader);
        send_with(&theirs, b"with", &theirs);
        (&theirs).write_all(b"more").unwrap();
        reader.join().unwrap();
        // A read stops after the bytes that came with a descriptor.
        assert_eq!(*lens.borrow(), [1, 4, 4]);
    });
}

#[test]
fn connecting_waits_for_room_in_a_full_queue() {
    both_wait(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (listener, clients) = full_listener(&path);
        let in_queue = clients.len();
        let connect = move || {
            let _folder = folder;
            let mut ours = UnixStream::connect(&path).unwrap();
            assert_eq!(ours.read(&mut [0; 8]).unwrap(), 2);
        };
        let accept = move || {
            let accepted: Vec<_> = (0..=in_queue).map(|_| listener.accept().unwrap().0).collect();
            accepted.last().unwrap().write_all(b"in").unwrap();
            drop(clients);
        };
        (connect, accept)
    });
}

#[test]
fn connecting_to_a_full_queue_can_be_cancelled_and_lets_others_run() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (_listener, _clients) = full_listener(&path);
        let there = path.clone();
        let connecting = plainsong::spawn(move || UnixStream::connect(there).map(drop));
        until_parked(&connecting);
        assert_eq!(plainsong::spawn(|| 5).join().unwrap(), 5);
        until_parked(&connecting);
        connecting.cancel();
        assert!(connecting.join().unwrap_err().is_cancelled());
        assert!(timeout(MOMENT, || UnixStream::connect(&path)).is_err());
    });
}

#[test]
fn a_listener_that_is_dropped_refuses_clients_that_wait_for_room() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (listener, _clients) = full_listener(&path);
        let connecting = plainsong::spawn(move || UnixStream::connect(path));
        until_parked(&connecting);
        drop(listener);
        assert_eq!(kind(connecting.join().unwrap()), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn conversions_keep_the_socket_with_its_time_outs() {
    both(|| {
        let (theirs, mut peer) = net::UnixStream::pair().unwrap();
        let time = Some(Duration::from_millis(20));
        theirs.set_write_timeout(time).unwrap();
        let ours = UnixStream::from(OwnedFd::from(theirs));
        assert_eq!((ours.read_timeout().unwrap(), ours.write_timeout().unwrap()), (None, time));
        ours.set_read_timeout(time).unwrap();
        let mut back = net::UnixStream::from(ours);
        assert_eq!((back.read_timeout().unwrap(), back.write_timeout().unwrap()), (time, time));
        assert_eq!(kind(uninterrupted(|| back.read(&mut [0; 8]))), ErrorKind::WouldBlock);
        back.set_read_timeout(None).unwrap();
        let reader = thread::spawn(move || back.read(&mut [0; 8]));
        peer.write_all(b"std").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 3);

        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::from(net::UnixListener::bind(&path).unwrap());
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        listener.set_nonblocking(true).unwrap();
        assert_eq!(kind(listener.try_clone().unwrap().accept()), ErrorKind::WouldBlock);
        assert!(listener.take_error().unwrap().is_none());
        assert!(format!("{listener:?}").contains("socket"));
        assert_eq!(kind(net::UnixListener::from(listener).accept()), ErrorKind::WouldBlock);
    });
}

#[test]
fn two_readers_and_a_writer_lose_nothing() {
    run(|| {
        let (ours, mut theirs) = pair();
        let readers = [(); 2].map(|()| {
            let ours = ours.try_clone().unwrap();
            plainsong::spawn(move || io::copy(&mut &ours, &mut io::sink()).unwrap())
        });
        readers.iter().for_each(until_parked);
        let writer = thread::spawn(move || {
            for _ in 0..1000 {
                theirs.write_all(&[1; 100]).unwrap();
            }
        });
        let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert_eq!(read, 100_000);
        writer.join().unwrap();
    });
}

#[test]
fn a_read_that_gives_up_takes_nothing() {
    run(|| {
        let (mut ours, mut theirs) = pair();
        assert!(timeout(MOMENT, || (&ours).read(&mut [0; 8])).is_err());
        assert!(timeout(MOMENT, || ours.peek(&mut [0; 8])).is_err());
        theirs.write_all(b"kept").unwrap();
        until_readable(&ours);
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 4);
    });
}
