//! `TcpStream` does what std's does, in a coroutine and on a plain thread.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;
use std::{net, thread};

use plainsong::net::TcpStream;
use plainsong::process::ChildStdout;

use crate::util::{
    MOMENT, alone, both, full_listener, kind, limit_descriptors, listen, once_asleep, pair,
    panic_of, reset, run, std_pair, until_parked, until_readable, watch,
};

#[test]
fn a_time_out_of_zero_is_no_time_out() {
    both(|| {
        let (ours, _theirs) = pair();
        let zero = Some(Duration::ZERO);
        assert_eq!(kind(ours.set_read_timeout(zero)), ErrorKind::InvalidInput);
        assert_eq!(kind(ours.set_write_timeout(zero)), ErrorKind::InvalidInput);
        let address = ours.local_addr().unwrap();
        let connected = TcpStream::connect_timeout(&address, Duration::ZERO);
        assert_eq!(kind(connected), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_read_that_takes_too_long_would_block() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        ours.set_read_timeout(Some(MOMENT)).unwrap();
        let mut buf = [0; 8];
        assert_eq!(kind(ours.read(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(ours.peek(&mut buf)), ErrorKind::WouldBlock);
        // The connection still works, and its next wait is a new one.
        ours.set_read_timeout(None).unwrap();
        theirs.write_all(b"late").unwrap();
        assert_eq!(ours.read(&mut buf).unwrap(), 4);
    });
}

#[test]
fn a_write_that_takes_too_long_would_block() {
    both(|| {
        let (mut ours, _theirs) = pair();
        ours.set_write_timeout(Some(MOMENT)).unwrap();
        let error = loop {
            if let Err(error) = ours.write(&[7; 65536]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn clones_share_time_outs_and_mode() {
    both(|| {
        let (ours, _theirs) = pair();
        let mut clone = ours.try_clone().unwrap();
        let timeout = Some(Duration::from_millis(7));
        ours.set_read_timeout(timeout).unwrap();
        ours.set_write_timeout(timeout).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), timeout);
        assert_eq!(clone.write_timeout().unwrap(), timeout);
        ours.set_read_timeout(None).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), None);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(kind(clone.read(&mut [0; 8])), ErrorKind::WouldBlock);
    });
}

#[test]
fn the_longest_time_out_is_no_error() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        ours.set_read_timeout(Some(Duration::MAX)).unwrap();
        ours.set_write_timeout(Some(Duration::MAX)).unwrap();
        theirs.write_all(b"x").unwrap();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(ours.write(b"x").unwrap(), 1);
        let address = ours.peer_addr().unwrap();
        // Nothing listens there, but the time-out itself is accepted.
        assert_eq!(
            kind(TcpStream::connect_timeout(&address, Duration::MAX)),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn non_blocking_reads_see_what_has_come() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        let mut writer = theirs.try_clone().unwrap();
        let peer = thread::spawn(move || writer.write_all(b"first"));
        // A read that waits and is short.
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
        peer.join().unwrap().unwrap();
        ours.set_nonblocking(true).unwrap();
        assert_eq!(kind(ours.read(&mut [0; 64])), ErrorKind::WouldBlock);
        theirs.write_all(b"second").unwrap();
        until_readable(&ours);
        assert_eq!(ours.peek(&mut [0; 64]).unwrap(), 6);
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 6);
        theirs.shutdown(Shutdown::Write).unwrap();
        until_readable(&ours);
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0);
    });
}

#[test]
fn non_blocking_reads_see_what_has_come_after_one_that_waited() {
    run(|| {
        let (mut ours, mut theirs) = pair();
        let mut writer = theirs.try_clone().unwrap();
        plainsong::spawn(move || writer.write_all(b"first"));
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(b"second").unwrap();
        until_readable(&ours);
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 6);
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
        assert_eq!(&buf[..4], b"peek");
        drop(theirs);
        assert_eq!(ours.peek(&mut buf).unwrap(), 0);
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
fn options_are_kept() {
    both(|| {
        let (ours, _theirs) = pair();
        ours.set_nodelay(true).unwrap();
        assert!(ours.nodelay().unwrap());
        ours.set_ttl(17).unwrap();
        assert_eq!(ours.ttl().unwrap(), 17);
        assert_eq!(ours.linger().unwrap(), None);
        ours.set_linger(Some(Duration::from_secs(3))).unwrap();
        assert_eq!(ours.linger().unwrap(), Some(Duration::from_secs(3)));
        ours.set_linger(None).unwrap();
        assert_eq!(ours.linger().unwrap(), None);
        assert!(ours.take_error().unwrap().is_none());
    });
}

#[test]
fn take_error_gives_the_error_once() {
    both(|| {
        let (ours, theirs) = pair();
        reset(theirs);
        until_readable(&ours);
        let error = ours.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(ours.take_error().unwrap().is_none());
    });
}

#[test]
fn a_refused_connection_names_the_address() {
    both(|| {
        let free = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for error in [
            TcpStream::connect(free).unwrap_err(),
            TcpStream::connect_timeout(&free, Duration::from_secs(30)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(error.to_string().contains(&free.to_string()), "{error}");
        }
    });
}

#[test]
fn connect_gives_up_after_its_time() {
    both(|| {
        let (_listener, address, _waiting) = full_listener();
        let error = TcpStream::connect_timeout(&address, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    });
}

#[test]
fn a_connection_has_addresses_until_it_ends() {
    both(|| {
        let (ours, theirs) = pair();
        assert_eq!(ours.peer_addr().unwrap(), theirs.local_addr().unwrap());
        assert_eq!(ours.local_addr().unwrap(), theirs.peer_addr().unwrap());
        reset(theirs);
        until_readable(&ours);
        assert_eq!(kind(ours.peer_addr()), ErrorKind::NotConnected);
        assert_eq!(kind(ours.shutdown(Shutdown::Both)), ErrorKind::NotConnected);
    });
}

#[test]
fn writing_to_an_ended_connection_is_a_broken_pipe() {
    both(|| {
        let (mut ours, _theirs) = pair();
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kind(ours.write(b"x")), ErrorKind::BrokenPipe);
        assert_eq!(kind(ours.write(b"x")), ErrorKind::BrokenPipe);
    });
}

#[test]
fn conversions_keep_the_connection() {
    both(|| {
        let (theirs, mut peer) = std_pair();
        let fd = OwnedFd::from(theirs);
        let number = fd.as_raw_fd();
        let ours = TcpStream::from(fd);
        assert_eq!(ours.as_raw_fd(), number);
        let mut back = net::TcpStream::from(ours);
        peer.write_all(b"std").unwrap();
        // Blocking again: otherwise an empty read would fail.
        let mut buf = [0; 3];
        back.read_exact(&mut buf).unwrap();
        let reader = thread::spawn(move || {
            let mut buf = [0; 3];
            back.read_exact(&mut buf).map(|()| (buf, back))
        });
        peer.write_all(b"two").unwrap();
        let (buf, back) = reader.join().unwrap().unwrap();
        assert_eq!(&buf, b"two");

        let mut ours = TcpStream::from(OwnedFd::from(TcpStream::from(back)));
        peer.write_all(b"own").unwrap();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 3);
        let number = ours.as_raw_fd();
        assert_eq!(ours.into_raw_fd(), number);
        // The raw descriptor stays open until the process ends.
    });
}

#[test]
fn a_connection_that_is_given_up_needs_no_other_descriptor() {
    alone(a_connection_that_is_given_up_needs_no_other_descriptor, || {
        let exchange = || {
            let (mut ours, mut peer) = pair();
            let (one, mut other) = std::io::pipe().unwrap();
            let mut one = ChildStdout::from(OwnedFd::from(one));
            // Both reads wait, so both descriptors are registered.
            let peer = once_asleep(move || peer.write_all(b"x").map(|()| peer));
            assert_eq!(ours.read(&mut [0]).unwrap(), 1);
            let _peer = peer.join().unwrap().unwrap();
            let other = once_asleep(move || other.write_all(b"x").map(|()| other));
            assert_eq!(one.read(&mut [0]).unwrap(), 1);
            let _other = other.join().unwrap().unwrap();
            limit_descriptors(3);
            let number = ours.as_raw_fd();
            let back = net::TcpStream::from(ours);
            assert_eq!(back.as_raw_fd(), number);
            let number = one.as_raw_fd();
            assert_eq!(one.into_raw_fd(), number);
            limit_descriptors(500);
            // They are deregistered, so they can be registered again.
            let mut again = TcpStream::from(back);
            again.set_read_timeout(Some(MOMENT)).unwrap();
            assert_eq!(kind(again.read(&mut [0])), ErrorKind::WouldBlock);
        };
        plainsong::run(exchange);
        exchange();
    });
}

#[test]
fn the_mode_goes_along_into_std() {
    both(|| {
        let (ours, _peer) = pair();
        ours.set_nonblocking(true).unwrap();
        let mut std = net::TcpStream::from(ours);
        assert_eq!(kind(std.read(&mut [0; 8])), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_connection_outlives_its_run_and_its_thread() {
    watch(|| {
        let (mut ours, mut peer) = pair();
        let mut echo = move |stream: &mut TcpStream| {
            // This read waits first, and is short.
            let mut writer = peer.try_clone().unwrap();
            let helper = thread::spawn(move || writer.write_all(b"ping"));
            assert_eq!(stream.read(&mut [0; 64]).unwrap(), 4);
            helper.join().unwrap().unwrap();
            stream.write_all(b"pong").unwrap();
            peer.read_exact(&mut [0; 4]).unwrap();
        };
        (ours, echo) = thread::spawn(move || {
            plainsong::run(|| echo(&mut ours));
            plainsong::run(|| echo(&mut ours));
            // A plain thread now, with a reactor that has seen the descriptor.
            echo(&mut ours);
            echo(&mut ours);
            (ours, echo)
        })
        .join()
        .unwrap();
        echo(&mut ours);
        thread::spawn(move || {
            plainsong::run(|| echo(&mut ours));
            plainsong::run(|| echo(&mut ours));
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_short_read_in_a_run_does_not_spoil_reads_after_it() {
    watch(|| {
        let (mut ours, mut peer) = pair();
        let mut writer = peer.try_clone().unwrap();
        plainsong::run(|| {
            plainsong::spawn(move || writer.write_all(b"first"));
            assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
        });
        peer.write_all(b"second").unwrap();
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 6);
    });
}

#[test]
fn one_connection_in_two_runtimes_at_once() {
    watch(|| {
        let (ours, mut peer) = pair();
        let reader = ours.try_clone().unwrap();
        let reader = thread::spawn(move || {
            plainsong::run(|| {
                let mut bytes = Vec::new();
                (&reader).read_to_end(&mut bytes).map(|_| bytes)
            })
        });
        let writer = thread::spawn(move || {
            plainsong::run(|| (&ours).write_all(&[9; 1 << 20]).map(|()| ours))
        });
        let mut sent = vec![0; 1 << 20];
        peer.read_exact(&mut sent).unwrap();
        assert!(sent.iter().all(|&byte| byte == 9));
        let _ours = writer.join().unwrap().unwrap();
        peer.write_all(&[3; 1 << 20]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), vec![3; 1 << 20]);
    });
}

#[test]
fn that_a_connection_with_clones_needs_a_descriptor_to_be_given_up_is_said() {
    alone(that_a_connection_with_clones_needs_a_descriptor_to_be_given_up_is_said, || {
        let (ours, _peer) = pair();
        let _clone = ours.try_clone().unwrap();
        limit_descriptors(3);
        let message = panic_of(|| net::TcpStream::from(ours));
        assert!(message.contains("descriptor"), "{message}");
    });
}

#[test]
fn connections_one_after_the_other_and_side_by_side() {
    run(|| {
        let (listener, address) = listen();
        let server = plainsong::spawn(move || {
            listener
                .incoming()
                .take(20)
                .map(|stream| {
                    let mut byte = [0];
                    stream.unwrap().read_exact(&mut byte).map(|()| byte[0])
                })
                .collect::<Result<Vec<_>, _>>()
        });
        for n in 0..10 {
            TcpStream::connect(address).unwrap().write_all(&[n]).unwrap();
        }
        let mut open: Vec<_> =
            (10..20).map(|n| (n, TcpStream::connect(address).unwrap())).collect();
        for (n, stream) in open.iter_mut().rev() {
            stream.write_all(&[*n]).unwrap();
        }
        assert_eq!(server.join().unwrap().unwrap(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_shutdown_ends_the_waits_of_other_coroutines() {
    for how in [Shutdown::Read, Shutdown::Both] {
        run(move || {
            let (ours, mut theirs) = pair();
            let clone = ours.try_clone().unwrap();
            let reader = plainsong::spawn(move || (&clone).read(&mut [0; 8]));
            until_parked(&reader);
            ours.shutdown(how).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
            if how == Shutdown::Read {
                // The other direction still works, and ends on its own.
                (&ours).write_all(b"x").unwrap();
                ours.shutdown(Shutdown::Write).unwrap();
                let mut rest = Vec::new();
                theirs.read_to_end(&mut rest).unwrap();
                assert_eq!(rest, b"x");
            }
        });
    }
    run(|| {
        let (ours, _theirs) = pair();
        let clone = ours.try_clone().unwrap();
        let writer = plainsong::spawn(move || (&clone).write_all(&vec![0; 64 << 20]));
        until_parked(&writer);
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kind(writer.join().unwrap()), ErrorKind::BrokenPipe);
    });
}

#[test]
fn shutdown_by_another_thread_ends_a_wait() {
    run(|| {
        let (ours, _theirs) = pair();
        let clone = ours.try_clone().unwrap();
        let reader = plainsong::spawn(move || (&clone).read(&mut [0; 8]));
        until_parked(&reader);
        let closer = thread::spawn(move || ours.shutdown(Shutdown::Both));
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        closer.join().unwrap().unwrap();
    });
}
