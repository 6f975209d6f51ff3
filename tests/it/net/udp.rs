//! `UdpSocket` does what std's does, in a coroutine and on a plain thread.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::{net, thread};

use plainsong::net::UdpSocket;
use plainsong::time::timeout;

use crate::util::{MOMENT, both, kind, run, until_parked, until_readable};

fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Two sockets and their addresses.
fn two() -> (UdpSocket, UdpSocket, SocketAddr, SocketAddr) {
    let (one, two) = (bind(), bind());
    let addresses = (one.local_addr().unwrap(), two.local_addr().unwrap());
    (one, two, addresses.0, addresses.1)
}

#[test]
fn datagrams_go_there_and_back() {
    both(|| {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            // The machine may have no IPv6.
            let Ok(server) = UdpSocket::bind(any) else { continue };
            let client = UdpSocket::bind(any).unwrap();
            let to = server.local_addr().unwrap();
            assert_eq!(client.send_to(b"ping", to).unwrap(), 4);
            let mut buf = [0; 16];
            let (len, from) = server.recv_from(&mut buf).unwrap();
            assert_eq!((&buf[..len], from), (&b"ping"[..], client.local_addr().unwrap()));
            assert_eq!(server.send_to(b"pong!", from).unwrap(), 5);
            assert_eq!(client.recv_from(&mut buf).unwrap(), (5, to));
        }
    });
}

#[test]
fn a_receiver_waits_for_a_sender() {
    run(|| {
        let (one, two, _, to) = two();
        let receiver = plainsong::spawn(move || {
            let mut buf = [0; 16];
            two.recv_from(&mut buf).map(|(len, _)| buf[..len].to_vec())
        });
        until_parked(&receiver);
        one.send_to(b"hello", to).unwrap();
        assert_eq!(receiver.join().unwrap().unwrap(), b"hello");
    });
}

#[test]
fn each_datagram_is_received_by_itself() {
    both(|| {
        let (one, two, _, to) = two();
        one.connect(to).unwrap();
        for len in [3, 0, 1400, 1, 0] {
            assert_eq!(one.send(&vec![len as u8; len]).unwrap(), len);
        }
        // Each of these reads is short, and there is another datagram behind it.
        for len in [3, 0, 1400, 1, 0] {
            let mut buf = [9; 2000];
            assert_eq!(two.recv(&mut buf).unwrap(), len);
            assert!(buf[..len].iter().all(|&byte| byte == len as u8));
        }
        two.set_nonblocking(true).unwrap();
        assert_eq!(kind(two.recv(&mut [0; 8])), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_datagram_behind_one_that_was_waited_for() {
    run(|| {
        let (one, two, _, to) = two();
        let receiver = plainsong::spawn(move || {
            let mut buf = [0; 64];
            [(); 3].map(|()| two.recv(&mut buf).unwrap())
        });
        until_parked(&receiver);
        for text in [&b"a"[..], b"", b"ccc"] {
            one.send_to(text, to).unwrap();
        }
        assert_eq!(receiver.join().unwrap(), [1, 0, 3]);
    });
}

#[test]
fn what_does_not_fit_is_dropped() {
    both(|| {
        let (one, two, _, to) = two();
        one.send_to(b"truncated", to).unwrap();
        one.send_to(b"next", to).unwrap();
        let mut buf = [0; 5];
        assert_eq!(two.recv(&mut buf).unwrap(), 5);
        assert_eq!(&buf, b"trunc");
        assert_eq!(two.recv(&mut buf).unwrap(), 4);
        // Into an empty buffer nothing is copied.
        one.send_to(b"gone", to).unwrap();
        assert_eq!(two.recv(&mut []).unwrap(), 0);
        // More than fits into a datagram.
        assert!(one.send_to(&[0; 70_000], to).is_err());
    });
}

#[test]
fn peek_takes_nothing_away() {
    both(|| {
        let (one, two, from, to) = two();
        one.send_to(b"peeked", to).unwrap();
        let mut buf = [0; 16];
        assert_eq!(two.peek_from(&mut buf).unwrap(), (6, from));
        assert_eq!(two.peek_from(&mut buf[..3]).unwrap(), (3, from));
        assert_eq!(two.peek(&mut buf).unwrap(), 6);
        assert_eq!(two.peek(&mut buf[..2]).unwrap(), 2);
        assert_eq!(two.recv_from(&mut buf).unwrap(), (6, from));
        two.set_nonblocking(true).unwrap();
        assert_eq!(kind(two.peek(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(two.peek_from(&mut buf)), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    both(|| {
        let (one, two, from, to) = two();
        assert_eq!(kind(one.peer_addr()), ErrorKind::NotConnected);
        assert!(one.send(b"to whom").is_err());
        one.connect(to).unwrap();
        assert_eq!(one.peer_addr().unwrap(), to);
        bind().send_to(b"noise", from).unwrap();
        two.send_to(b"signal", from).unwrap();
        let mut buf = [0; 16];
        assert_eq!(one.recv(&mut buf).unwrap(), 6);
        assert_eq!(&buf[..6], b"signal");
        // It can be connected to another socket.
        one.connect(from).unwrap();
        assert_eq!(one.peer_addr().unwrap(), from);
    });
}

#[test]
fn a_peer_that_is_not_there_refuses() {
    both(|| {
        let free = net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let one = bind();
        one.connect(free).unwrap();
        one.send(b"anybody?").unwrap();
        assert_eq!(kind(one.recv(&mut [0; 8])), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn advice_is_given_only_where_it_fits() {
    run(|| {
        let error = bind().connect((Ipv4Addr::BROADCAST, 4915)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(!error.to_string().contains("ports below"), "{error}");
    });
}

#[test]
fn a_refusal_ends_a_wait() {
    run(|| {
        let free = net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let one = bind();
        one.connect(free).unwrap();
        let sender = one.try_clone().unwrap();
        let receiver = plainsong::spawn(move || one.recv(&mut [0; 8]));
        until_parked(&receiver);
        sender.send(b"anybody?").unwrap();
        assert_eq!(kind(receiver.join().unwrap()), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn time_outs_are_those_of_std() {
    both(|| {
        let one = bind();
        assert_eq!((one.read_timeout().unwrap(), one.write_timeout().unwrap()), (None, None));
        let time = Some(MOMENT);
        one.set_read_timeout(time).unwrap();
        one.set_write_timeout(time).unwrap();
        assert_eq!((one.read_timeout().unwrap(), one.write_timeout().unwrap()), (time, time));
        let zero = Some(Duration::ZERO);
        assert_eq!(kind(one.set_read_timeout(zero)), ErrorKind::InvalidInput);
        assert_eq!(kind(one.set_write_timeout(zero)), ErrorKind::InvalidInput);
        let mut buf = [0; 8];
        assert_eq!(kind(one.recv_from(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(one.recv(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(one.peek_from(&mut buf)), ErrorKind::WouldBlock);
        assert_eq!(kind(one.peek(&mut buf)), ErrorKind::WouldBlock);
        // The socket still works.
        one.set_read_timeout(Some(Duration::from_secs(1000))).unwrap();
        one.send_to(b"late", one.local_addr().unwrap()).unwrap();
        assert_eq!(one.recv(&mut buf).unwrap(), 4);
    });
}

#[test]
fn clones_share_time_outs_and_mode_and_outlive_each_other() {
    both(|| {
        let (one, two, _, to) = two();
        let clone = two.try_clone().unwrap();
        let time = Some(Duration::from_millis(7));
        two.set_read_timeout(time).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), time);
        clone.set_nonblocking(true).unwrap();
        assert_eq!(kind(two.recv(&mut [0; 8])), ErrorKind::WouldBlock);
        clone.set_nonblocking(false).unwrap();
        drop(two);
        one.send_to(b"still here", to).unwrap();
        assert_eq!(clone.recv(&mut [0; 16]).unwrap(), 10);
    });
}

#[test]
fn two_clones_receive_each_datagram_once() {
    run(|| {
        let (one, two, _, to) = two();
        let clone = two.try_clone().unwrap();
        let receivers = [two, clone].map(|socket| {
            plainsong::spawn(move || {
                let mut buf = [0; 8];
                socket.recv(&mut buf).map(|len| buf[..len].to_vec()).unwrap()
            })
        });
        receivers.iter().for_each(until_parked);
        one.send_to(b"a", to).unwrap();
        one.send_to(b"b", to).unwrap();
        let mut received = receivers.map(|receiver| receiver.join().unwrap());
        received.sort();
        assert_eq!(received, [b"a", b"b"]);
    });
}

#[test]
fn many_send_through_one_socket_at_once() {
    run(|| {
        let (one, two, _, to) = two();
        one.connect(to).unwrap();
        let senders: Vec<_> = (0..20u8)
            .map(|n| {
                let one = one.try_clone().unwrap();
                plainsong::spawn(move || one.send(&[n]).unwrap())
            })
            .collect();
        let mut received: Vec<u8> = (0..20)
            .map(|_| {
                let mut buf = [0; 8];
                assert_eq!(two.recv(&mut buf).unwrap(), 1);
                buf[0]
            })
            .collect();
        received.sort_unstable();
        assert_eq!(received, (0..20).collect::<Vec<_>>());
        senders.into_iter().for_each(|sender| assert_eq!(sender.join().unwrap(), 1));
    });
}

#[test]
fn addresses_are_tried_in_turn() {
    both(|| {
        let taken = bind();
        let taken = taken.local_addr().unwrap();
        let error = UdpSocket::bind(taken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let one = UdpSocket::bind(&[taken, any][..]).unwrap();
        assert_ne!(one.local_addr().unwrap(), taken);

        // An IPv4 socket cannot be connected to an IPv6 address.
        let other: SocketAddr = "[::1]:7".parse().unwrap();
        one.connect(&[other, taken][..]).unwrap();
        assert_eq!(one.peer_addr().unwrap(), taken);
        assert!(one.connect(other).unwrap_err().to_string().contains("[::1]:7"));

        let nobody: &[SocketAddr] = &[];
        assert_eq!(kind(UdpSocket::bind(nobody)), ErrorKind::InvalidInput);
        assert_eq!(kind(one.connect(nobody)), ErrorKind::InvalidInput);
        assert_eq!(kind(one.send_to(b"x", nobody)), ErrorKind::InvalidInput);
        assert_eq!(kind(one.send_to(b"x", "nonsense")), ErrorKind::InvalidInput);
    });
}

#[test]
fn options_are_kept() {
    both(|| {
        let one = bind();
        one.set_ttl(17).unwrap();
        assert_eq!(one.ttl().unwrap(), 17);
        for on in [true, false] {
            one.set_broadcast(on).unwrap();
            assert_eq!(one.broadcast().unwrap(), on);
            one.set_multicast_loop_v4(on).unwrap();
            assert_eq!(one.multicast_loop_v4().unwrap(), on);
        }
        one.set_multicast_ttl_v4(9).unwrap();
        assert_eq!(one.multicast_ttl_v4().unwrap(), 9);
        assert!(one.take_error().unwrap().is_none());
        assert!(format!("{one:?}").contains("UdpSocket"));
        if let Ok(six) = UdpSocket::bind("[::1]:0") {
            for on in [true, false] {
                six.set_multicast_loop_v6(on).unwrap();
                assert_eq!(six.multicast_loop_v6().unwrap(), on);
            }
        }
    });
}

#[test]
fn groups_are_joined_and_left_as_with_std() {
    both(|| {
        // Some machines cannot join a group: ours must give the same result as std's.
        let (ours, std) = (bind(), net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let kind_of = |result: std::io::Result<()>| result.map_err(|error| error.kind());
        let (group, interface) = (Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::LOCALHOST);
        assert_eq!(
            kind_of(ours.join_multicast_v4(&group, &interface)),
            kind_of(std.join_multicast_v4(&group, &interface))
        );
        assert_eq!(
            kind_of(ours.leave_multicast_v4(&group, &interface)),
            kind_of(std.leave_multicast_v4(&group, &interface))
        );
        // No address of a group.
        assert!(ours.join_multicast_v4(&Ipv4Addr::LOCALHOST, &interface).is_err());
        assert!(ours.leave_multicast_v4(&group, &interface).is_err());
        assert!(ours.join_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
        assert!(ours.leave_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
    });
}

#[test]
fn conversions_keep_the_socket_with_its_time_outs() {
    both(|| {
        let theirs = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = theirs.local_addr().unwrap();
        let time = Some(Duration::from_millis(20));
        theirs.set_read_timeout(time).unwrap();
        let ours = UdpSocket::from(OwnedFd::from(theirs));
        assert_eq!(ours.local_addr().unwrap(), address);
        assert_eq!(ours.read_timeout().unwrap(), time);
        assert_eq!(kind(ours.recv(&mut [0; 8])), ErrorKind::WouldBlock);
        ours.set_write_timeout(time).unwrap();
        ours.set_read_timeout(None).unwrap();
        let theirs = net::UdpSocket::from(ours);
        assert_eq!((theirs.read_timeout().unwrap(), theirs.write_timeout().unwrap()), (None, time));
        // In blocking mode again.
        let reader = thread::spawn(move || theirs.recv(&mut [0; 8]));
        bind().send_to(b"std", address).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 3);
    });
}

#[test]
fn a_receiver_that_gives_up_takes_nothing() {
    run(|| {
        let (one, two, from, to) = two();
        assert!(timeout(MOMENT, || two.recv_from(&mut [0; 8])).is_err());
        assert!(timeout(MOMENT, || two.peek(&mut [0; 8])).is_err());
        one.send_to(b"kept", to).unwrap();
        until_readable(&two);
        assert_eq!(two.recv_from(&mut [0; 8]).unwrap(), (4, from));
    });
}

#[test]
fn a_flood_does_not_keep_the_others_from_running() {
    run(|| {
        let (one, two, _, to) = two();
        one.connect(to).unwrap();
        // Sends without end, and never has to wait.
        let flood = plainsong::spawn(move || {
            loop {
                one.send(&[0; 1000]).unwrap();
            }
        });
        for _ in 0..1000 {
            assert_eq!(two.recv(&mut [0; 2000]).unwrap(), 1000);
        }
        flood.cancel();
        assert!(flood.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn sockets_may_be_used_and_sent_anywhere() {
    fn check<T: Send + Sync + std::panic::UnwindSafe + 'static>() {}
    check::<UdpSocket>();
    check::<plainsong::net::TcpStream>();
    check::<plainsong::net::TcpListener>();
    check::<plainsong::net::UnixStream>();
    check::<plainsong::net::UnixListener>();
    check::<plainsong::net::UnixDatagram>();
}
