//! Descriptors shared, given away and closed, by coroutines and threads, while others wait on them.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;
use std::{net, thread};

use plainsong::io::wait_readable;
use plainsong::net::TcpStream;
use plainsong::sync::channel::unbounded;

use crate::util::{MOMENT, alone, descriptors, listen, pair, run, until_parked, watch};

#[test]
fn two_readers_and_a_writer_on_one_stream() {
    run(|| {
        const TOTAL: usize = 1 << 20;
        let (ours, theirs) = pair();
        let ours = Rc::new(ours);
        let echo = TcpStream::from(theirs);
        let echo = plainsong::spawn(move || {
            std::io::copy(&mut &echo, &mut &echo).unwrap();
            echo.shutdown(Shutdown::Write).unwrap();
        });
        let got = Rc::new(Cell::new(0));
        let readers: Vec<_> = [1 << 10, 7]
            .map(|size| {
                let (ours, got) = (Rc::clone(&ours), Rc::clone(&got));
                plainsong::spawn(move || {
                    let mut buf = vec![0; size];
                    let mut mine = 0;
                    loop {
                        match (&*ours).read(&mut buf).unwrap() {
                            0 => return mine,
                            n => mine += n,
                        }
                        got.set(got.get() + 1);
                    }
                })
            })
            .into();
        let writer = Rc::clone(&ours);
        let writer = plainsong::spawn(move || {
            (&*writer).write_all(&vec![5; TOTAL]).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let sum: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert_eq!(sum, TOTAL);
        writer.join().unwrap();
        echo.join().unwrap();
    });
}

#[test]
fn a_try_that_found_nothing_finds_what_comes_later() {
    run(|| {
        let (ours, mut theirs) = pair();
        plainsong::block_on(ours.readable()).unwrap();
        for _ in 0..3 {
            assert_eq!(ours.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            theirs.write_all(b"x").unwrap();
            while ours.try_read(&mut [0]).is_err() {
                plainsong::yield_now();
            }
        }
    });
}

#[test]
fn a_duplicate_may_have_the_number_of_a_socket_that_was_closed() {
    // Alone, so that no other test takes the number.
    alone(a_duplicate_may_have_the_number_of_a_socket_that_was_closed, || {
        run(|| {
            let (ours, mut theirs) = pair();
            let mut read_one = |conn: TcpStream| {
                let conn = Rc::new(conn);
                let reader = {
                    let conn = Rc::clone(&conn);
                    plainsong::spawn(move || (&*conn).read(&mut [0; 8]).unwrap())
                };
                until_parked(&reader);
                theirs.write_all(b"1").unwrap();
                assert_eq!(reader.join().unwrap(), 1);
                Rc::into_inner(conn).unwrap()
            };
            let ours = read_one(ours);
            let (number, duplicate) = (ours.as_raw_fd(), ours.as_fd().try_clone_to_owned());
            let duplicate = duplicate.unwrap();
            drop(ours);
            let again = duplicate.try_clone().unwrap();
            assert_eq!(again.as_raw_fd(), number);
            // Each of them is told of what comes, although the kernel still knows the first.
            drop(read_one(TcpStream::from(again)));
            drop(read_one(TcpStream::from(duplicate)));
        });
    });
}

#[test]
fn a_duplicate_has_the_number_of_a_socket_that_another_thread_has_just_closed() {
    alone(a_duplicate_has_the_number_of_a_socket_that_another_thread_has_just_closed, || {
        run(|| {
            let (ours, mut theirs) = pair();
            let wait = |conn: &TcpStream| {
                let waited = plainsong::time::timeout(MOMENT, || (&*conn).read(&mut [0; 8]));
                assert!(waited.is_err(), "there is nothing to read yet: {waited:?}");
            };
            wait(&ours);
            let (number, duplicate) = (ours.as_raw_fd(), ours.as_fd().try_clone_to_owned());
            let duplicate = duplicate.unwrap();
            // This worker hears of it when its next turn begins.
            thread::spawn(move || drop(ours)).join().unwrap();
            let again = duplicate.try_clone().unwrap();
            assert_eq!(again.as_raw_fd(), number);
            let again = TcpStream::from(again);
            wait(&again);
            theirs.write_all(b"1").unwrap();
            assert_eq!((&again).read(&mut [0; 8]).unwrap(), 1);
        });
    });
}

#[test]
fn dropping_and_giving_away_clones_does_not_disturb_waiters() {
    run(|| {
        let (ours, mut theirs) = pair();
        let clone = ours.try_clone().unwrap();
        let reader = plainsong::spawn(move || {
            let mut buf = [0; 2];
            (&clone).read_exact(&mut buf).map(|()| buf)
        });
        until_parked(&reader);
        drop(ours.try_clone().unwrap());
        // Closes a duplicate, which is a different descriptor of the same connection.
        drop(OwnedFd::from(ours.try_clone().unwrap()));
        let std = net::TcpStream::from(ours);
        theirs.write_all(b"o").unwrap();
        until_parked(&reader);
        drop(std);
        theirs.write_all(b"k").unwrap();
        assert_eq!(&reader.join().unwrap().unwrap(), b"ok");
        // The last handle is gone, and the connection with it.
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn keys_used_again_never_wake_the_next_owner() {
    run(|| {
        // Streams are made and closed in the same slots, while an event for the old one is on its
        // way.
        for round in 0..500 {
            let (first, mut peer) = pair();
            first.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
            assert!((&first).read(&mut [0; 8]).is_err());
            peer.write_all(b"late").unwrap();
            drop(first);
            let (second, mut peer) = pair();
            let reader = plainsong::spawn(move || (&second).read(&mut [0; 8]));
            until_parked(&reader);
            plainsong::yield_now();
            assert!(!reader.is_finished(), "round {round}");
            peer.write_all(b"ok").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 2);
        }
    });
}

#[test]
fn churn_of_many_connections_mixes_nothing_up() {
    run(|| {
        let (listener, address) = listen();
        plainsong::spawn(move || listener.serve(|conn| std::io::copy(&mut &conn, &mut &conn)));
        let clients: Vec<_> = (0..20u8)
            .map(|client| {
                plainsong::spawn(move || {
                    for round in 0..40u8 {
                        let mut stream = TcpStream::connect(address).unwrap();
                        let message = [client, round, client ^ round];
                        stream.write_all(&message).unwrap();
                        let mut echo = [0; 3];
                        stream.read_exact(&mut echo).unwrap();
                        assert_eq!(echo, message);
                        if round % 3 == 0 {
                            stream.set_linger(Some(Duration::ZERO)).unwrap();
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
}

/// Here, because a reactor may lose the wakes of other threads together with its events.
#[test]
fn a_worker_that_polls_gets_every_wake_of_many_threads() {
    const ROUNDS: usize = 25_000;
    run(|| {
        let one = |_| {
            let (sender, receiver) = unbounded();
            let (answer, answered) = mpsc::channel();
            let feeder = thread::spawn(move || {
                for round in 0..ROUNDS {
                    sender.send(round).unwrap();
                    answered.recv().unwrap();
                }
            });
            plainsong::spawn(move || {
                for round in 0..ROUNDS {
                    assert_eq!(receiver.recv(), Ok(round));
                    answer.send(()).unwrap();
                }
                plainsong::blocking(|| feeder.join().unwrap());
            })
        };
        let receivers: Vec<_> = (0..4).map(one).collect();
        receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
    });
}

#[test]
fn a_stream_of_an_ended_thread_dropped_late_does_not_reach_its_successor() {
    watch(|| {
        // Registers a descriptor on a thread that then ends, so that the next thread reuses its
        // slot.
        let first = thread::spawn(|| {
            plainsong::run(|| {
                let (ours, mut theirs) = pair();
                plainsong::spawn(move || theirs.write_all(b"x"));
                assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 1);
                ours
            })
        });
        let first = first.join().unwrap();
        let (ready, is_ready) = mpsc::channel();
        let (old, take_old) = mpsc::channel();
        let second = thread::spawn(move || {
            plainsong::run(|| {
                let (ours, mut theirs) = pair();
                let reader = plainsong::spawn(move || {
                    let mut buf = [0; 2];
                    (&ours).read_exact(&mut buf).map(|()| buf)
                });
                until_parked(&reader);
                theirs.write_all(b"o").unwrap();
                until_parked(&reader);
                ready.send(()).unwrap();
                // This thread drops it; the test below lets another thread do so.
                drop::<TcpStream>(take_old.recv().unwrap());
                for _ in 0..100 {
                    plainsong::yield_now();
                }
                theirs.write_all(b"k").unwrap();
                assert_eq!(&reader.join().unwrap().unwrap(), b"ok");
            });
        });
        is_ready.recv().unwrap();
        old.send(first).unwrap();
        second.join().unwrap();
    });
}

#[test]
fn a_stream_closed_by_a_thread_that_never_ran_coroutines() {
    run(|| {
        for _ in 0..100 {
            let (ours, mut theirs) = pair();
            plainsong::spawn(move || theirs.write_all(b"x"));
            assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 1);
            thread::spawn(move || drop(ours)).join().unwrap();
        }
    });
}

#[test]
fn registrations_hold_no_descriptor() {
    crate::util::alone(registrations_hold_no_descriptor, || {
        plainsong::run(|| plainsong::time::sleep(Duration::from_nanos(1)));
        let before = descriptors();
        plainsong::run(|| {
            let kept = RefCell::new(Vec::new());
            for _ in 0..100 {
                let (ours, mut theirs) = pair();
                plainsong::spawn(move || theirs.write_all(b"x"));
                wait_readable(&ours).unwrap();
                assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 1);
                kept.borrow_mut().push(ours);
            }
        });
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn threads_that_have_ended_leave_no_descriptor_with_a_socket_that_lives_on() {
    crate::util::alone(
        threads_that_have_ended_leave_no_descriptor_with_a_socket_that_lives_on,
        || {
            let (ours, mut theirs) = pair();
            let wait_elsewhere = |stream: TcpStream| {
                thread::spawn(move || {
                    plainsong::run(|| {
                        let moment = Duration::from_nanos(1);
                        assert!(
                            plainsong::time::timeout(moment, || (&stream).read(&mut [0])).is_err()
                        );
                    });
                })
                .join()
                .unwrap();
            };
            wait_elsewhere(ours.try_clone().unwrap());
            let before = descriptors();
            for _ in 0..50 {
                wait_elsewhere(ours.try_clone().unwrap());
            }
            assert_eq!(descriptors(), before);
            // The connection still works.
            plainsong::run(|| {
                plainsong::spawn(move || theirs.write_all(b"x"));
                assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 1);
            });
        },
    );
}
