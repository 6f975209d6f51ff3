//! `UnixDatagram` does what std's does, in a coroutine and on a plain thread.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::os::unix::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use plainsong::net::UnixDatagram;
use plainsong::signal::{SIGUSR1, Signals};
use plainsong::time::timeout;

use crate::sys::interrupter;
use crate::util::{
    Folder, MOMENT, alone, both, both_wait, kind, run, uninterrupted, until_parked, until_readable,
};

/// Fills the queue of the receiver; returns how many datagrams it holds.
fn fill(send: impl Fn() -> std::io::Result<usize>) -> usize {
    let sent = std::iter::repeat_with(send).take_while(|sent| match sent {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    });
    sent.count()
}

#[test]
fn named_sockets_know_each_other() {
    both(|| {
        let folder = Folder::new();
        let (a, b) = (folder.join("a"), folder.join("b"));
        let (one, two) = (UnixDatagram::bind(&a).unwrap(), UnixDatagram::bind(&b).unwrap());
        assert_eq!(one.local_addr().unwrap().as_pathname(), Some(&*a));
        assert_eq!(one.send_to(b"hello", &b).unwrap(), 5);
        let mut buf = [0; 16];
        let (len, from) = two.peek_from(&mut buf).unwrap();
        assert_eq!((&buf[..len], from.as_pathname()), (&b"hello"[..], Some(&*a)));
        let (len, from) = two.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..len], from.as_pathname()), (&b"hello"[..], Some(&*a)));
        assert_eq!(two.send_to_addr(b"back", &from).unwrap(), 4);
        assert_eq!(one.recv(&mut buf).unwrap(), 4);
    });
}

#[test]
fn senders_with_the_longest_names() {
    both(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        let room = 108 - folder.join("").as_os_str().len();
        // The longest name of the system, which std cannot show, and the longest of std.
        for (len, known) in [(room, false), (room - 1, true)] {
            let name = folder.join("c".repeat(len));
            let client = net::UnixDatagram::unbound().unwrap();
            let address = rustix::net::SocketAddrUnix::new(&name).unwrap();
            rustix::net::bind(&client, &address).unwrap();
            client.send_to(b"hello", &path).unwrap();
            let (len, from) = server.peek_from(&mut [0; 8]).unwrap();
            assert_eq!((len, from.as_pathname()), (5, known.then_some(&*name)));
            assert_eq!(server.recv_from(&mut [0; 8]).unwrap().0, 5);
        }
    });
}

#[test]
fn sockets_without_a_name() {
    both(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (server, client) =
            (UnixDatagram::bind(&path).unwrap(), UnixDatagram::unbound().unwrap());
        assert!(client.local_addr().unwrap().is_unnamed());
        assert_eq!(kind(client.peer_addr()), ErrorKind::NotConnected);
        client.send_to(b"from nobody", &path).unwrap();
        let mut buf = [0; 16];
        let (len, from) = server.peek_from(&mut buf).unwrap();
        assert!(len == 11 && from.is_unnamed());
        let (len, from) = server.recv_from(&mut buf).unwrap();
        assert!(len == 11 && from.is_unnamed());

        client.connect(&path).unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
        client.send(b"connected").unwrap();
        assert_eq!(server.recv(&mut buf).unwrap(), 9);
        // It can be connected to another socket.
        let other = folder.join("other");
        let second = UnixDatagram::bind(&other).unwrap();
        client.connect(&other).unwrap();
        client.send(b"second").unwrap();
        assert_eq!(second.recv(&mut buf).unwrap(), 6);
    });
}

#[test]
fn abstract_names_need_no_file() {
    both(|| {
        let name = format!("plainsong-dgram-{:?}", thread::current().id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let server = UnixDatagram::bind_addr(&address).unwrap();
        assert_eq!(server.local_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        let client = UnixDatagram::unbound().unwrap();
        client.send_to_addr(b"one", &address).unwrap();
        client.connect_addr(&address).unwrap();
        client.send(b"two").unwrap();
        let mut buf = [0; 8];
        assert_eq!(server.recv(&mut buf).unwrap(), 3);
        assert_eq!(server.recv(&mut buf).unwrap(), 3);
        let again = UnixDatagram::bind_addr(&address).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
        assert!(again.to_string().contains(&name), "{again}");
    });
}

#[test]
fn names_that_are_not_available_are_reported() {
    both(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let shown = format!("{path:?}");
        let socket = UnixDatagram::unbound().unwrap();
        for error in [socket.connect(&path).unwrap_err(), socket.send_to(b"x", &path).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        drop(UnixDatagram::bind(&path).unwrap());
        let taken = UnixDatagram::bind(&path).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        assert!(taken.to_string().contains(&shown), "{taken}");
        let refused = socket.connect(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(refused.to_string().contains(&shown), "{refused}");
        let long = folder.join("x".repeat(200));
        assert_eq!(kind(UnixDatagram::bind(&long)), ErrorKind::InvalidInput);
        assert_eq!(kind(socket.connect(&long)), ErrorKind::InvalidInput);
        assert_eq!(kind(socket.send_to(b"x", &long)), ErrorKind::InvalidInput);
    });
}

#[test]
fn each_datagram_is_received_by_itself() {
    both(|| {
        let (one, two) = UnixDatagram::pair().unwrap();
        for len in [3, 0, 5000, 1, 0] {
            assert_eq!(one.send(&vec![len as u8; len]).unwrap(), len);
        }
        for len in [3, 0, 5000, 1, 0] {
            let mut buf = [9; 6000];
            assert_eq!(two.recv(&mut buf).unwrap(), len);
            assert!(buf[..len].iter().all(|&byte| byte == len as u8));
        }
        // A datagram is cut to the buffer; peeking takes nothing.
        one.send(b"truncated").unwrap();
        one.send(b"next").unwrap();
        let mut buf = [0; 5];
        assert_eq!(two.peek(&mut buf[..2]).unwrap(), 2);
        assert_eq!(two.recv(&mut buf).unwrap(), 5);
        assert_eq!(&buf, b"trunc");
        assert_eq!(two.recv(&mut buf).unwrap(), 4);
        two.set_nonblocking(true).unwrap();
        assert_eq!(kind(two.recv(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(two.peek(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(two.peek_from(&mut buf)), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_datagram_behind_one_that_was_waited_for() {
    run(|| {
        let (one, two) = UnixDatagram::pair().unwrap();
        let receiver = plainsong::spawn(move || {
            let mut buf = [0; 64];
            [(); 3].map(|()| two.recv(&mut buf).unwrap())
        });
        until_parked(&receiver);
        for text in [&b"a"[..], b"", b"ccc"] {
            one.send(text).unwrap();
        }
        assert_eq!(receiver.join().unwrap(), [1, 0, 3]);
    });
}

#[test]
fn time_outs_are_those_of_std() {
    both(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let one = UnixDatagram::bind(&path).unwrap();
        assert_eq!((one.read_timeout().unwrap(), one.write_timeout().unwrap()), (None, None));
        let zero = Some(Duration::ZERO);
        assert_eq!(kind(one.set_read_timeout(zero)), ErrorKind::InvalidInput);
        assert_eq!(kind(one.set_write_timeout(zero)), ErrorKind::InvalidInput);
        let time = Some(MOMENT);
        one.set_read_timeout(time).unwrap();
        one.set_write_timeout(time).unwrap();
        assert_eq!((one.read_timeout().unwrap(), one.write_timeout().unwrap()), (time, time));
        assert_eq!(kind(one.recv(&mut [0; 8])), ErrorKind::WouldBlock);
        assert_eq!(kind(one.recv_from(&mut [0; 8])), ErrorKind::WouldBlock);
        assert_eq!(kind(one.peek(&mut [0; 8])), ErrorKind::WouldBlock);
        // A receiver whose queue is full, by name and connected.
        let full = folder.join("full");
        let _receiver = net::UnixDatagram::bind(&full).unwrap();
        assert!(fill(|| one.send_to(b"x", &full)) > 0);
        one.connect(&full).unwrap();
        assert_eq!(fill(|| one.send(b"x")), 0);
    });
}

/// Sends a thousand numbers, which are more than a queue holds.
fn send_all(send: impl Fn(&[u8]) -> std::io::Result<usize>) {
    for n in 0..1000_u32 {
        assert_eq!(send(&n.to_ne_bytes()).unwrap(), 4);
    }
}

fn receive_all(socket: &net::UnixDatagram) {
    for n in 0..1000_u32 {
        let mut buf = [0; 8];
        assert_eq!(socket.recv(&mut buf).unwrap(), 4);
        assert_eq!(buf[..4], n.to_ne_bytes());
    }
}

#[test]
fn a_sender_waits_for_room_in_the_queue() {
    // By name: no event tells that there is room.
    both_wait(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let theirs = net::UnixDatagram::bind(&path).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        let send = move || {
            let _folder = folder;
            send_all(|data| ours.send_to(data, &path));
        };
        (send, move || receive_all(&theirs))
    });
    // Connected to a name.
    both_wait(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let theirs = net::UnixDatagram::bind(&path).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.connect(&path).unwrap();
        (move || send_all(|data| ours.send(data)), move || receive_all(&theirs))
    });
    both_wait(|| {
        let (ours, theirs) = net::UnixDatagram::pair().unwrap();
        let ours = UnixDatagram::from(ours);
        (move || send_all(|data| ours.send(data)), move || receive_all(&theirs))
    });
}

#[test]
fn a_sender_waits_for_room_that_another_has_taken() {
    both_wait(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let receiver = net::UnixDatagram::bind(&path).unwrap();
        let other = net::UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let taken = fill(|| other.send_to(b"other", &path));
        // None of the received datagrams are from this socket, so it gets no event.
        let ours = UnixDatagram::unbound().unwrap();
        let send = move || {
            let _folder = folder;
            assert_eq!(ours.send_to(b"me", &path).unwrap(), 2);
        };
        let receive = move || {
            (0..taken).for_each(|_| assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5));
            assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 2);
        };
        (send, receive)
    });
}

#[test]
fn a_sender_that_waits_leaves_the_processor_alone() {
    both(|| {
        let used = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let folder = Folder::new();
        let path = folder.join("socket");
        let _receiver = net::UnixDatagram::bind(&path).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let before = used();
        fill(|| ours.send_to(b"x", &path));
        let used = used() - before;
        // It slept for nearly all of a tenth of a second.
        assert!(used < Duration::from_millis(40), "{used:?} of processor time");
    });
}

#[test]
fn a_sender_by_name_tries_again_after_one_that_was_connected_gave_up() {
    run(|| {
        let folder = Folder::new();
        let (a, b) = (folder.join("a"), folder.join("b"));
        let _full = net::UnixDatagram::bind(&a).unwrap();
        let other = net::UnixDatagram::bind(&b).unwrap();
        let ours = UnixDatagram::unbound().unwrap();
        ours.set_write_timeout(Some(MOMENT)).unwrap();
        ours.connect(&a).unwrap();
        fill(|| ours.send(b"x"));
        assert_eq!(ours.send_to(b"elsewhere", &b).unwrap(), 9);
        assert_eq!(other.recv(&mut [0; 16]).unwrap(), 9);
    });
}

#[test]
fn a_sender_that_waits_can_be_cancelled() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let receiver = net::UnixDatagram::bind(&path).unwrap();
        let ours = Rc::new(UnixDatagram::unbound().unwrap());
        ours.set_nonblocking(true).unwrap();
        let sent = fill(|| ours.send_to(b"x", &path));
        ours.set_nonblocking(false).unwrap();
        let (theirs, there) = (Rc::clone(&ours), path.clone());
        let sender = plainsong::spawn(move || theirs.send_to(b"never", there));
        until_parked(&sender);
        sender.cancel();
        assert!(sender.join().unwrap_err().is_cancelled());
        ours.connect(&path).unwrap();
        assert!(timeout(MOMENT, || ours.send(b"never")).is_err());
        // Only the datagrams that were sent have arrived.
        receiver.set_nonblocking(true).unwrap();
        assert_eq!(fill(|| receiver.recv(&mut [0; 8])), sent);
    });
}

#[test]
fn shutting_down_ends_what_waits() {
    run(|| {
        let (one, two) = UnixDatagram::pair().unwrap();
        let receiver = one.try_clone().unwrap();
        let receiver = plainsong::spawn(move || receiver.recv(&mut [0; 8]));
        until_parked(&receiver);
        one.shutdown(Shutdown::Read).unwrap();
        assert_eq!(receiver.join().unwrap().unwrap(), 0);
        let (len, from) = one.recv_from(&mut [0; 8]).unwrap();
        assert!(len == 0 && from.is_unnamed());
        assert_eq!(one.peek(&mut [0; 8]).unwrap(), 0);
        assert_eq!(one.peek_from(&mut [0; 8]).unwrap().0, 0);
        assert_eq!(kind(two.send(b"x")), ErrorKind::BrokenPipe);
        one.send(b"the other way").unwrap();
        assert_eq!(two.recv(&mut [0; 16]).unwrap(), 13);
        drop(two);
        assert_eq!(kind(one.send(b"x")), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_receiver_that_gives_up_takes_nothing() {
    run(|| {
        let (one, two) = UnixDatagram::pair().unwrap();
        assert!(timeout(MOMENT, || two.recv_from(&mut [0; 8])).is_err());
        assert!(timeout(MOMENT, || two.peek_from(&mut [0; 8])).is_err());
        one.send(b"kept").unwrap();
        until_readable(&two);
        assert_eq!(two.recv(&mut [0; 8]).unwrap(), 4);
    });
}

#[test]
fn clones_and_conversions() {
    both(|| {
        let (one, two) = net::UnixDatagram::pair().unwrap();
        let time = Some(Duration::from_millis(20));
        one.set_read_timeout(time).unwrap();
        let ours = UnixDatagram::from(OwnedFd::from(one));
        let clone = ours.try_clone().unwrap();
        assert_eq!(clone.read_timeout().unwrap(), time);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(kind(clone.recv(&mut [0; 8])), ErrorKind::WouldBlock);
        ours.set_nonblocking(false).unwrap();
        drop(ours);
        two.send(b"still here").unwrap();
        assert_eq!(clone.recv(&mut [0; 16]).unwrap(), 10);
        assert!(clone.take_error().unwrap().is_none());
        assert!(format!("{clone:?}").contains("UnixDatagram"));
        let back = net::UnixDatagram::from(clone);
        assert_eq!(back.read_timeout().unwrap(), time);
        assert_eq!(kind(uninterrupted(|| back.recv(&mut [0; 8]))), ErrorKind::WouldBlock);
    });
}

/// Linux interrupts a `poll` that does not wait, too, when a signal is pending.
#[test]
fn a_try_is_not_interrupted_by_signals() {
    alone(a_try_is_not_interrupted_by_signals, || {
        run(|| {
            let _signals = Signals::new([SIGUSR1]).unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&over);
            let interrupt = interrupter(SIGUSR1);
            let storm = thread::spawn(move || {
                while !seen.load(Ordering::Relaxed) {
                    interrupt();
                }
            });
            let (ours, _theirs) = UnixDatagram::pair().unwrap();
            for _ in 0..20_000 {
                assert_eq!(ours.try_recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            }
            over.store(true, Ordering::Relaxed);
            storm.join().unwrap();
        });
    });
}
