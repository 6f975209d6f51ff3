//! Sockets, files and children where their behaviour must be std's: beside std.

use std::error::Error;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream, UnixDatagram, UnixListener, UnixStream};
use plainsong::process::Command;
use plainsong::time::{sleep, timeout};
use plainsong::yield_now;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::util::{Folder, MOMENT, both, pair, run, until_parked};

const READ: Duration = Duration::from_secs(4);
const WRITE: Duration = Duration::from_secs(8);

fn with_timeouts<T: AsFd>(socket: T, read: Duration, write: Duration) -> T {
    set_socket_timeout(&socket, Timeout::Recv, Some(read)).unwrap();
    set_socket_timeout(&socket, Timeout::Send, Some(write)).unwrap();
    socket
}

fn tcp_listener() -> net::TcpListener {
    net::TcpListener::bind("127.0.0.1:0").unwrap()
}

fn abstract_name(name: &str) -> unix::SocketAddr {
    unix::SocketAddr::from_abstract_name(format!("plainsong-{name}-{}", std::process::id()))
        .unwrap()
}

/// The number of the system's error.
fn number(error: &io::Error) -> Option<i32> {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.unwrap_or(error).raw_os_error()
}

#[test]
fn a_socket_of_another_kind_gives_all_that_is_there() {
    run(|| {
        let (datagrams, sender) = UnixDatagram::pair().unwrap();
        let datagrams = TcpStream::from(OwnedFd::from(datagrams));
        let read = || (&datagrams).read(&mut [0; 8]).unwrap();
        assert!(timeout(MOMENT, read).is_err(), "there is nothing to read yet");
        sender.send(b"one").unwrap();
        sender.send(b"three").unwrap();
        assert_eq!([read(), read()], [3, 5]);
        let try_read = || datagrams.try_read(&mut [0; 8]);
        sender.send(b"one").unwrap();
        sender.send(b"three").unwrap();
        yield_now();
        assert_eq!([try_read().unwrap(), try_read().unwrap()], [3, 5]);
    });
}

#[test]
fn a_read_without_room_answers_at_once() {
    run(|| {
        let (ours, mut theirs) = pair();
        let (one, mut two) = UnixStream::pair().unwrap();
        theirs.write_all(b"ab").unwrap();
        two.write_all(b"ab").unwrap();
        // These get less than they ask for: the sockets are drained.
        while (&ours).read(&mut [0; 8]).unwrap() == 0 {}
        assert_eq!((&one).read(&mut [0; 8]).unwrap(), 2);
        let (tcp, unix) = (ours.try_clone().unwrap(), one.try_clone().unwrap());
        let waits = plainsong::spawn(move || (&tcp).read(&mut [0; 8]));
        let also = plainsong::spawn(move || (&unix).read(&mut [0; 8]));
        until_parked(&waits);
        until_parked(&also);
        for stream in [&mut &ours as &mut dyn Read, &mut &one] {
            assert_eq!(stream.read(&mut []).unwrap(), 0);
            assert_eq!(stream.read_vectored(&mut []).unwrap(), 0);
            assert_eq!(stream.read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(), 0);
        }
        assert_eq!(ours.peek(&mut []).unwrap(), 0);
        assert_eq!(one.peek(&mut []).unwrap(), 0);
        drop((theirs, two));
        assert_eq!(waits.join().unwrap().unwrap(), 0);
        assert_eq!(also.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn a_server_ignores_the_time_out_and_the_mode_of_its_listener() {
    run(|| {
        let moment = Duration::from_millis(1);
        for nonblocking in [false, true] {
            let listener = with_timeouts(tcp_listener(), moment, moment);
            let address = listener.local_addr().unwrap();
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(nonblocking).unwrap();
            let server = plainsong::spawn(move || listener.serve(|conn| (&conn).write_all(b"x")));
            until_parked(&server);
            // The time-out passes.
            sleep(moment * 5);
            assert!(!server.is_finished());
            let mut text = Vec::new();
            TcpStream::connect(address).unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text, b"x");
        }
    });
}

#[test]
fn accepted_streams_have_the_time_outs_that_std_gives_them() {
    both(|| {
        let listener = with_timeouts(tcp_listener(), READ, WRITE);
        let address = listener.local_addr().unwrap();
        let _clients = [(); 2].map(|()| net::TcpStream::connect(address).unwrap());
        let (theirs, _) = listener.accept().unwrap();
        let (ours, _) = TcpListener::from(listener).accept().unwrap();
        assert_eq!(theirs.read_timeout().unwrap(), Some(READ));
        assert_eq!(ours.read_timeout().unwrap(), theirs.read_timeout().unwrap());
        assert_eq!(ours.write_timeout().unwrap(), theirs.write_timeout().unwrap());

        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = with_timeouts(unix::UnixListener::bind(&path).unwrap(), READ, WRITE);
        let _clients = [(); 2].map(|()| unix::UnixStream::connect(&path).unwrap());
        let (theirs, _) = listener.accept().unwrap();
        let (ours, _) = UnixListener::from(listener).accept().unwrap();
        assert_eq!(ours.read_timeout().unwrap(), theirs.read_timeout().unwrap());
        assert_eq!(ours.write_timeout().unwrap(), theirs.write_timeout().unwrap());
    });
}

#[test]
fn a_time_out_has_the_number_that_std_gives_it() {
    both(|| {
        let moment = Some(Duration::from_millis(1));
        let (ours, mut theirs) = pair();
        ours.set_read_timeout(moment).unwrap();
        theirs.set_read_timeout(moment).unwrap();
        let (mine, stds) =
            ((&ours).read(&mut [0]).unwrap_err(), theirs.read(&mut [0]).unwrap_err());
        assert_eq!(mine.kind(), stds.kind());
        assert_eq!(mine.raw_os_error(), stds.raw_os_error());
        assert!(mine.raw_os_error().is_some());
        let (one, _two) = UnixDatagram::pair().unwrap();
        one.set_read_timeout(moment).unwrap();
        assert_eq!(one.recv(&mut [0]).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    });
}

#[test]
fn an_error_that_main_returns_is_readable_and_has_its_number() {
    both(|| {
        let taken = tcp_listener();
        let address = taken.local_addr().unwrap();
        let refused = {
            let free = tcp_listener();
            free.local_addr().unwrap()
        };
        let folder = Folder::new();
        let path = folder.join("socket");
        let errors = [
            (TcpListener::bind(address).map(drop), libc::EADDRINUSE, "error: cannot listen on"),
            (TcpStream::connect(refused).map(drop), libc::ECONNREFUSED, "error: cannot connect to"),
            (UnixStream::connect(&path).map(drop), libc::ENOENT, "error: cannot connect to"),
        ];
        for (result, expected, text) in errors {
            let error = result.unwrap_err();
            assert_eq!(number(&error), Some(expected), "{error}");
            // This is how the end of `main` shows it.
            assert!(format!("{error:?}").contains(text), "{error:?}");
        }
        let error = TcpListener::bind("no address").unwrap_err();
        assert!(format!("{error:?}").contains("error: \"no address\" is not"), "{error:?}");
    });
}

#[test]
fn advice_on_an_abstract_name_is_not_about_files() {
    both(|| {
        let taken = abstract_name("taken");
        let _listener = UnixListener::bind_addr(&taken).unwrap();
        let datagrams = abstract_name("datagrams");
        let _datagram = UnixDatagram::bind_addr(&datagrams).unwrap();
        let errors = [
            (UnixListener::bind_addr(&taken).unwrap_err(), ErrorKind::AddrInUse),
            (UnixDatagram::bind_addr(&datagrams).unwrap_err(), ErrorKind::AddrInUse),
            (
                UnixStream::connect_addr(&abstract_name("nobody")).unwrap_err(),
                ErrorKind::ConnectionRefused,
            ),
        ];
        for (error, kind) in errors {
            assert_eq!(error.kind(), kind);
            assert!(!error.to_string().contains("file"), "{error}");
        }
    });
}

#[test]
fn a_read_without_room_still_shows_that_a_directory_cannot_be_read() {
    both(|| {
        let mine = plainsong::fs::File::open("/").unwrap().read(&mut []).unwrap_err();
        let stds = std::fs::File::open("/").unwrap().read(&mut []).unwrap_err();
        assert_eq!(mine.raw_os_error(), stds.raw_os_error());
    });
}

#[test]
fn a_loop_that_waits_for_a_child_that_has_ended_lets_others_run_and_can_be_cancelled() {
    run(|| {
        let mut child = Command::new("true").spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let ended = plainsong::spawn(move || {
            loop {
                child.wait().unwrap();
            }
        });
        yield_now();
        yield_now();
        ended.cancel();
        assert!(ended.join().unwrap_err().is_cancelled());

        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let mut waits = 0;
        let result = timeout(Duration::ZERO, || {
            child.wait().unwrap();
            waits += 1;
        });
        assert!(result.is_err());
        assert_eq!(waits, 0);
    });
}
