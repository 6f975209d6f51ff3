//! Descriptors shared, given away and closed, by coroutines and threads, while others wait on them.

use std::cell::{Cell, RefCell};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{self, Shutdown};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use plainsong::io::{Pollable, wait_readable, wait_writable};
use plainsong::net::{TcpListener, TcpStream};

use crate::util::{both, descriptors, pair, run, until_parked, watch};

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
fn shutdown_ends_the_wait_of_others() {
    for how in [Shutdown::Read, Shutdown::Both] {
        run(move || {
            let (ours, _theirs) = pair();
            let clone = ours.try_clone().unwrap();
            let reader = plainsong::spawn(move || (&clone).read(&mut [0; 8]));
            until_parked(&reader);
            ours.shutdown(how).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
        });
    }
    run(|| {
        let (ours, _theirs) = pair();
        let clone = ours.try_clone().unwrap();
        let writer = plainsong::spawn(move || (&clone).write_all(&vec![0; 64 << 20]));
        until_parked(&writer);
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
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

#[test]
fn dropping_and_giving_away_clones_does_not_disturb_who_waits() {
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
fn a_registered_descriptor_can_be_waited_for_beside_its_reader() {
    run(|| {
        let (ours, mut theirs) = pair();
        let ours = Rc::new(ours);
        let clone = Rc::clone(&ours);
        let reader = plainsong::spawn(move || (&*clone).read(&mut [0; 1]));
        until_parked(&reader);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let clone = Rc::clone(&ours);
                plainsong::spawn(move || wait_readable(&*clone))
            })
            .collect();
        waiters.iter().for_each(until_parked);
        wait_writable(&*ours).unwrap();
        theirs.write_all(b"two").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
        wait_readable(&*ours).unwrap();
        assert_eq!((&*ours).read(&mut [0; 8]).unwrap(), 2);
    });
}

#[test]
fn waits_for_descriptors_of_any_kind() {
    both(|| {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        wait_writable(&writer).unwrap();
        writer.write_all(b"x").unwrap();
        wait_readable(&reader).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        drop(writer);
        wait_readable(&reader).unwrap();
        // A regular file is always ready.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        wait_readable(&file).unwrap();
        let file = Pollable::new(file).unwrap();
        (&file).read_exact(&mut [0; 4]).unwrap();
    });
}

#[test]
fn waiting_leaves_the_mode_of_a_descriptor_alone() {
    run(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let waiter = plainsong::spawn(move || wait_readable(&reader).map(|()| reader));
        until_parked(&waiter);
        writer.write_all(b"x").unwrap();
        let reader = waiter.join().unwrap().unwrap();
        let flags = rustix::fs::fcntl_getfl(&reader).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    });
}

#[test]
fn any_descriptor_is_a_stream() {
    run(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader: Pollable<PipeReader> = Pollable::new(reader).unwrap();
        let writer: Pollable<PipeWriter> = Pollable::new(writer).unwrap();
        let child = plainsong::spawn(move || {
            let mut got = Vec::new();
            (&reader).read_to_end(&mut got).map(|_| got.len())
        });
        (&writer).write_all(&vec![1; 1 << 20]).unwrap();
        drop(writer);
        assert_eq!(child.join().unwrap().unwrap(), 1 << 20);
    });
}

#[test]
fn keys_used_again_never_wake_the_next_owner() {
    run(|| {
        // Streams come and go in the same slots, with an event for the old one under way.
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
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

#[test]
fn a_stream_of_an_ended_thread_dropped_late_does_not_reach_its_successor() {
    watch(|| {
        // Registers a descriptor on a thread that then ends and passes its place on.
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
                // Once by this thread, below by another one.
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
            // It is as good as new.
            plainsong::run(|| {
                plainsong::spawn(move || theirs.write_all(b"x"));
                assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 1);
            });
        },
    );
}

#[test]
fn what_comes_while_an_operation_waits_is_not_missed() {
    run(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = Pollable::new(reader).unwrap();
        let read = |meanwhile: &mut dyn FnMut()| {
            reader.read_with(|mut io| {
                let result = io.read(&mut [0]);
                meanwhile();
                result
            })
        };
        let mut theirs = writer.try_clone().unwrap();
        let other = plainsong::spawn(move || theirs.write_all(b"x"));
        // Now it is registered.
        assert_eq!(read(&mut || ()).unwrap(), 1);
        other.join().unwrap().unwrap();
        let mut write = Some(|| writer.write_all(b"x").unwrap());
        let again = read(&mut || {
            write.take().into_iter().for_each(|mut write| write());
            plainsong::time::sleep(Duration::from_millis(5));
        });
        assert_eq!(again.unwrap(), 1);
    });
}
