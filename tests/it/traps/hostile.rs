//! Peers that end, reset, stall and hurry at the worst moment.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::{net, thread};

use plainsong::net::TcpStream;
use rustix::net::SendFlags;

use crate::util::{both, kind, listen, pair, reset, run, until_parked};

/// Sends data and ends the stream, so close together that one event reports both.
fn data_and_end(mut peer: net::TcpStream, data: &[u8]) {
    peer.write_all(data).unwrap();
    drop(peer);
}

#[test]
fn data_and_end_before_the_first_poll() {
    both(|| {
        let (mut ours, theirs) = pair();
        data_and_end(theirs, b"all of it");
        let mut got = Vec::new();
        ours.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"all of it");
    });
}

#[test]
fn data_and_end_in_one_event_many_times() {
    run(|| {
        for round in 0..300 {
            let (mut ours, theirs) = pair();
            // The reader is parked, so both arrive as one event, and its read is short.
            let reader = plainsong::spawn(move || {
                let mut got = Vec::new();
                ours.read_to_end(&mut got).map(|_| got)
            });
            until_parked(&reader);
            data_and_end(theirs, &[1; 100]);
            assert_eq!(reader.join().unwrap().unwrap(), [1; 100], "round {round}");
        }
    });
}

#[test]
fn an_end_after_a_short_read_many_times() {
    run(|| {
        for round in 0..300 {
            let (ours, mut theirs) = pair();
            let reads = Rc::new(Cell::new(0));
            let seen = Rc::clone(&reads);
            let reader = plainsong::spawn(move || {
                let mut buf = [0; 64];
                while (&ours).read(&mut buf).unwrap() > 0 {
                    seen.set(seen.get() + 1);
                }
            });
            until_parked(&reader);
            theirs.write_all(b"short").unwrap();
            // In odd rounds the end comes while the reader waits again, in even rounds before that.
            while round % 2 == 1 && reads.get() == 0 {
                plainsong::yield_now();
            }
            theirs.shutdown(Shutdown::Write).unwrap();
            reader.join().unwrap();
            assert_eq!(reads.get(), 1);
        }
    });
}

#[test]
fn either_side_may_end_first() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        ours.write_all(b"request").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"request");
        data_and_end(theirs, b"answer");
        let mut got = Vec::new();
        ours.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"answer");

        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"question").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        ours.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"question");
        ours.write_all(b"reply").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"reply");
    });
}

#[test]
fn a_write_goes_on_after_the_peer_has_ended_its_side() {
    run(|| {
        let (mut ours, mut theirs) = pair();
        theirs.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).map(|_| got.len())
        });
        ours.write_all(&vec![1; 8 << 20]).unwrap();
        drop(ours);
        assert_eq!(reader.join().unwrap().unwrap(), 8 << 20);
    });
}

#[test]
fn a_reset_ends_a_read_and_a_write_that_wait() {
    run(|| {
        let (ours, theirs) = pair();
        let reader = ours.try_clone().unwrap();
        let reader = plainsong::spawn(move || kind((&reader).read(&mut [0; 8])));
        let writer = plainsong::spawn(move || kind((&ours).write_all(&vec![0; 64 << 20])));
        until_parked(&reader);
        until_parked(&writer);
        reset(theirs);
        let mut kinds = [reader.join().unwrap(), writer.join().unwrap()];
        // The first to ask gets the reset, and the other learns that the peer has closed.
        kinds.sort_by_key(|kind| *kind != ErrorKind::ConnectionReset);
        assert_eq!(kinds[0], ErrorKind::ConnectionReset);
        assert!(matches!(kinds[1], ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_reset_in_the_middle_of_a_write_is_an_error_on_a_thread_too() {
    both(|| {
        let (mut ours, mut theirs) = pair();
        let peer = thread::spawn(move || {
            theirs.read_exact(&mut vec![0; 1 << 20]).unwrap();
            reset(theirs);
        });
        let kind = kind(ours.write_all(&vec![0; 256 << 20]));
        assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind}");
        peer.join().unwrap();
    });
}

#[test]
fn sixty_four_mebibytes_arrive_whole() {
    run(|| {
        let (mut ours, theirs) = pair();
        let mut theirs = TcpStream::from(theirs);
        let data: Rc<[u8]> = (0..64 << 20).map(|n: u32| (n / 7 % 251) as u8).collect();
        let sent = Rc::clone(&data);
        let writer = plainsong::spawn(move || {
            ours.write_all(&sent)?;
            ours.shutdown(Shutdown::Write)
        });
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        writer.join().unwrap().unwrap();
        assert!(got[..] == data[..], "64 MiB came out different");
    });
}

#[test]
fn a_peer_that_never_reads_stops_only_its_own_coroutine() {
    run(|| {
        let (listener, address) = listen();
        plainsong::spawn(move || {
            listener.serve(|conn| {
                // A greedy client asks for a lot and reads nothing; the others ask for a little and
                // read it.
                let mut wanted = [0];
                (&conn).read_exact(&mut wanted)?;
                (&conn).write_all(&vec![0; usize::from(wanted[0]) << 20])
            })
        });
        let greedy: Vec<_> = (0..5)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&[100]).unwrap();
                stream
            })
            .collect();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[1]).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got.len(), 1 << 20);
        }
        drop(greedy);
    });
}

#[test]
fn thousands_of_connects_and_resets() {
    run(|| {
        let (listener, address) = listen();
        let served = Rc::new(Cell::new(0));
        let count = Rc::clone(&served);
        plainsong::spawn(move || {
            listener.serve(move |conn| {
                count.set(count.get() + 1);
                std::io::copy(&mut &conn, &mut &conn)
            })
        });
        let clients = thread::spawn(move || {
            for round in 0..4000 {
                let mut stream = net::TcpStream::connect(address).unwrap();
                if round % 2 == 0 {
                    let _ = stream.write_all(b"going");
                }
                reset(stream);
            }
        });
        // The server works while this coroutine keeps the thread busy.
        while !clients.is_finished() {
            plainsong::yield_now();
        }
        clients.join().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"still there").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got, "still there");
        assert!(served.get() > 0);
    });
}

/// Reads to the end in small steps, and returns the number of bytes.
fn count_bytes(stream: &TcpStream, step: usize) -> usize {
    let mut buf = vec![0; step];
    let mut total = 0;
    loop {
        match (&mut &*stream).read(&mut buf).unwrap() {
            0 => return total,
            n => total += n,
        }
    }
}

#[test]
fn bytes_behind_urgent_data_are_not_stuck() {
    both(|| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"before").unwrap();
        assert_eq!(rustix::net::send(&theirs, b"!", SendFlags::OOB).unwrap(), 1);
        theirs.write_all(b"behind").unwrap();
        let mut got = [0; 12];
        // A read stops at the mark; the urgent byte itself is not part of the stream.
        (&ours).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"beforebehind");
        drop(theirs);
        assert_eq!(count_bytes(&ours, 64), 0);
    });
}

#[test]
fn urgent_data_to_a_reader_that_waits() {
    run(|| {
        let got = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..100 {
            got.borrow_mut().clear();
            let (ours, mut theirs) = pair();
            let sink = Rc::clone(&got);
            let reader = plainsong::spawn(move || {
                let mut buf = [0; 64];
                loop {
                    match (&ours).read(&mut buf).unwrap() {
                        0 => break,
                        n => sink.borrow_mut().extend_from_slice(&buf[..n]),
                    }
                }
            });
            until_parked(&reader);
            theirs.write_all(b"before").unwrap();
            rustix::net::send(&theirs, b"!", SendFlags::OOB).unwrap();
            theirs.write_all(b"behind").unwrap();
            while got.borrow().len() < 12 {
                plainsong::yield_now();
            }
            // A second time, with nothing before the mark.
            rustix::net::send(&theirs, b"?", SendFlags::OOB).unwrap();
            theirs.write_all(b"more").unwrap();
            while got.borrow().len() < 16 {
                plainsong::yield_now();
            }
            drop(theirs);
            reader.join().unwrap();
            assert_eq!(*got.borrow(), b"beforebehindmore");
        }
    });
}

#[test]
fn short_reads_find_all_bytes() {
    run(|| {
        for step in [1, 3, 64, 4096] {
            let (ours, mut theirs) = pair();
            let writer = thread::spawn(move || {
                for len in (1..200).chain([1, 4096, 1, 65536, 1]) {
                    theirs.write_all(&vec![0; len]).unwrap();
                }
            });
            let expected = (1..200).sum::<usize>() + 4096 + 65536 + 3;
            assert_eq!(count_bytes(&ours, step), expected);
            writer.join().unwrap();
        }
    });
}
