//! Sockets, listeners and pipes in a `select!`, and waits for either direction in a `race`.

use std::io::{Read, Write};
use std::os::unix::net as system;
use std::sync::Arc;
use std::thread as plain;
use std::time::Duration;

use plainsong::io::{Interest, Pollable, pipe, wait_ready};
use plainsong::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use plainsong::sync::Event;
use plainsong::sync::channel::{bounded, never, unbounded};
use plainsong::sync::select::Select;
use plainsong::time::{sleep, timeout};
use plainsong::{JoinHandle, Runtime, select, select_biased, spawn, spawn_anywhere};

use crate::util::{
    Folder, MOMENT, alone, both, both_wait, descriptors, limit_descriptors, listen, once_asleep,
    pair, panic_of, run, until, until_parked, watch,
};

/// Writes until nothing more fits.
fn fill(stream: &UnixStream) {
    while stream.try_write(&[0; 4096]).is_ok() {}
}

#[test]
fn a_socket_with_data_is_chosen() {
    both(|| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        select! {
            readable(ours) => assert_eq!((&ours).read(&mut [0; 9]).unwrap(), 1),
            recv(never::<()>()) -> _ => panic!(),
        }
    });
}

/// The kernel is ahead of what the last poll for events has seen.
#[test]
fn what_was_called_readable_can_be_tried() {
    run(|| {
        let (ours, mut theirs) = pair();
        assert!(timeout(MOMENT, || (&ours).read(&mut [0; 9])).is_err());
        theirs.write_all(b"x").unwrap();
        // A short read: the socket counts as drained.
        assert_eq!((&ours).read(&mut [0; 9]).unwrap(), 1);
        theirs.write_all(b"y").unwrap();
        select! { readable(ours) => assert_eq!(ours.try_read(&mut [0; 9]).unwrap(), 1) }
    });
}

#[test]
fn a_select_waits_until_data_comes() {
    both_wait(|| {
        let (ours, mut theirs) = pair();
        let wait = move || {
            let silence = never::<()>();
            let read = select! {
                recv(silence) -> _ => panic!(),
                readable(&ours) => (&ours).read(&mut [0; 9]).unwrap(),
            };
            assert_eq!(read, 4);
        };
        (wait, move || theirs.write_all(b"data").unwrap())
    });
}

#[test]
fn a_select_waits_until_there_is_room() {
    both_wait(|| {
        let (one, mut two) = UnixStream::pair().unwrap();
        fill(&one);
        let wait = move || {
            select! {
                readable(one) => panic!("nothing was sent"),
                writable(one) => assert!(one.try_write(b"x").is_ok()),
            }
        };
        (wait, move || {
            // Open until the other side has seen the room.
            let mut buf = [0; 4096];
            while !buf.contains(&b'x') {
                assert!(two.read(&mut buf).unwrap() > 0);
            }
        })
    });
}

#[test]
fn a_select_waits_until_a_connection_comes() {
    both_wait(|| {
        let (listener, address) = listen();
        let wait = move || {
            select! {
                recv(never::<()>()) -> _ => panic!(),
                accept(listener) -> accepted => {
                    let (stream, peer) = accepted.unwrap();
                    assert_eq!(stream.peer_addr().unwrap(), peer);
                }
            }
        };
        (wait, move || drop(std::net::TcpStream::connect(address).unwrap()))
    });
}

#[test]
fn a_channel_is_chosen_beside_a_silent_socket() {
    both_wait(|| {
        let (ours, theirs) = pair();
        let (sender, receiver) = bounded(0);
        let wait = move || {
            select! {
                readable(ours) => panic!(),
                recv(receiver) -> item => assert_eq!(item, Ok(7)),
            }
        };
        let send = move || {
            sender.send(7).unwrap();
            drop(theirs);
        };
        (wait, send)
    });
}

#[test]
fn when_nothing_is_there_the_default_is_chosen() {
    both(|| {
        let (ours, _theirs) = pair();
        let (listener, _address) = listen();
        select! {
            readable(ours) => panic!(),
            accept(listener) -> _ => panic!(),
            default => {}
        }
        select! {
            readable(ours) => panic!(),
            accept(listener) -> _ => panic!(),
            default(MOMENT) => {}
        }
        select_biased! {
            readable(ours) => panic!(),
            writable(ours) => {}
        }
    });
}

#[test]
fn the_end_of_a_stream_is_readable() {
    both(|| {
        let (ours, theirs) = pair();
        drop(theirs);
        select! { readable(ours) => assert_eq!((&ours).read(&mut [0]).unwrap(), 0) }
    });
}

#[test]
fn of_two_acceptors_one_gets_the_connection() {
    run(|| {
        let (listener, address) = listen();
        let over = Arc::new(Event::new());
        let acceptors = [(); 2].map(|()| {
            let (listener, over) = (listener.try_clone().unwrap(), Arc::clone(&over));
            spawn(move || {
                select! {
                    accept(listener) -> accepted => {
                        over.set();
                        accepted.is_ok()
                    }
                    wait(over) => false,
                }
            })
        });
        acceptors.iter().for_each(until_parked);
        let _client = TcpStream::connect(address).unwrap();
        let got = acceptors.map(|acceptor| JoinHandle::join(acceptor).unwrap());
        assert_eq!(got.iter().filter(|got| **got).count(), 1);
        assert!(listener.try_accept_nothing());
    });
}

/// Whether no connection is in the queue.
trait Nothing {
    fn try_accept_nothing(&self) -> bool;
}

impl Nothing for TcpListener {
    fn try_accept_nothing(&self) -> bool {
        select! {
            accept(self) -> _ => false,
            default => true,
        }
    }
}

#[test]
fn pipes_unix_listeners_and_other_descriptors_are_arms() {
    both(|| {
        let (reader, mut writer) = pipe().unwrap();
        select! {
            readable(reader) => panic!(),
            writable(writer) => writer.write_all(b"x").unwrap(),
        }
        let (one, two) = system::UnixStream::pair().unwrap();
        let one = Pollable::new(one).unwrap();
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut select = Select::new();
        let silent = select.readable(&one);
        let full = select.readable(&reader);
        assert_eq!(select.ready(), full);
        select.remove(full);
        (&two).write_all(b"x").unwrap();
        let chosen = select.select();
        assert_eq!(chosen.index(), silent);
        chosen.done();
        let _client = system::UnixStream::connect(&path).unwrap();
        select! {
            accept(listener) -> accepted => drop(accepted.unwrap()),
            default => panic!("it is in the queue"),
        }
    });
}

/// Data and items come in turn, and each is there for one of many waits.
#[test]
fn nothing_is_lost_between_sockets_and_channels() {
    const ROUNDS: usize = 2_000;
    both(|| {
        let (ours, mut theirs) = pair();
        let (sender, receiver) = unbounded();
        let feeder = plain::spawn(move || {
            for round in 0..ROUNDS {
                theirs.write_all(b"x").unwrap();
                sender.send(round).unwrap();
            }
            theirs
        });
        let (mut bytes, mut items) = (0, 0);
        while bytes < ROUNDS || items < ROUNDS {
            select! {
                readable(ours) => bytes += (&ours).read(&mut [0; 3]).unwrap(),
                recv(receiver) -> item => match item {
                    Ok(item) => {
                        assert_eq!(item, items);
                        items += 1;
                    }
                    Err(_) => {
                        while bytes < ROUNDS {
                            bytes += (&ours).read(&mut [0; 3]).unwrap();
                        }
                    }
                },
            }
        }
        drop(feeder.join().unwrap());
    });
}

#[test]
fn a_cancelled_select_takes_nothing_and_leaves_the_socket_usable() {
    run(|| {
        let (ours, mut theirs) = pair();
        let (listener, address) = listen();
        let cut = timeout(MOMENT, || {
            select! {
                readable(ours) => {}
                accept(listener) -> _ => {}
            }
        });
        assert!(cut.is_err());
        theirs.write_all(b"x").unwrap();
        assert_eq!((&ours).read(&mut [0; 9]).unwrap(), 1);
        let _client = std::net::TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn a_race_waits_for_either_direction_of_either_socket() {
    run(|| {
        let (one, two) = UnixStream::pair().unwrap();
        let (three, _four) = UnixStream::pair().unwrap();
        fill(&one);
        let ways = [
            (&one, Interest::READABLE),
            (&one, Interest::WRITABLE),
            (&two, Interest::READABLE),
            (&three, Interest::READABLE),
        ];
        let first = plainsong::task::race(ways.map(|(socket, interest)| {
            move || wait_ready(socket, interest).map(|()| (socket.as_number(), interest))
        }));
        assert_eq!(first.unwrap(), (two.as_number(), Interest::READABLE));
    });
}

/// A descriptor's number.
trait Number {
    fn as_number(&self) -> i32;
}

impl<T: std::os::fd::AsRawFd> Number for T {
    fn as_number(&self) -> i32 {
        self.as_raw_fd()
    }
}

/// A plain thread has another thread look for it, which keeps nothing afterwards.
#[test]
fn a_plain_thread_leaves_no_descriptor_behind() {
    alone(a_plain_thread_leaves_no_descriptor_behind, || {
        let (one, mut two) = system::UnixStream::pair().unwrap();
        let one = Pollable::new(one).unwrap();
        let before = descriptors();
        for _ in 0..100 {
            select! {
                readable(one) => panic!(),
                default(Duration::from_micros(100)) => {}
            }
        }
        until(|| descriptors() == before);
        two.write_all(b"x").unwrap();
        select! { readable(one) => {} }
    });
}

#[test]
fn a_plain_thread_without_a_descriptor_left_looks_by_itself() {
    alone(a_plain_thread_without_a_descriptor_left_looks_by_itself, || {
        let (one, mut two) = system::UnixStream::pair().unwrap();
        let one = Pollable::new(one).unwrap();
        limit_descriptors(0);
        let writer = plain::spawn(move || {
            plain::sleep(MOMENT);
            two.write_all(b"x").unwrap();
            two
        });
        select! { readable(one) => {} }
        drop(writer.join().unwrap());
    });
}

#[test]
fn many_coroutines_select_one_socket() {
    watch(|| {
        plainsong::run(|| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let waiters: Vec<_> = (0..50)
                .map(|_| {
                    let ours = ours.try_clone().unwrap();
                    spawn(move || {
                        select! {
                            readable(ours) => {}
                            recv(never::<()>()) -> _ => {}
                        }
                    })
                })
                .collect();
            waiters.iter().for_each(until_parked);
            theirs.write_all(b"x").unwrap();
            for waiter in waiters {
                waiter.join().unwrap();
            }
            sleep(Duration::ZERO);
            assert_eq!((&ours).read(&mut [0; 9]).unwrap(), 1);
        });
    });
}

/// Without plain threads: the kernel, or a coroutine of another run, ends these waits.
#[test]
fn a_select_that_something_outside_can_end_is_no_deadlock() {
    fn strict<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        watch(|| Runtime::builder().strict_deadlock(true).build().unwrap().run(body))
    }
    strict(|| {
        let (ours, mut theirs) = pair();
        let writer = once_asleep(move || {
            theirs.write_all(b"x").unwrap();
            theirs
        });
        select! { readable(ours) => {} }
        drop(writer.join().unwrap());
    });
    strict(|| {
        let (ours, mut theirs) = pair();
        let (_sender, receiver) = unbounded::<()>();
        let writer = once_asleep(move || {
            theirs.write_all(b"x").unwrap();
            theirs
        });
        let mut either = Select::new();
        either.recv(&receiver);
        let socket = either.readable(&ours);
        assert_eq!(either.ready(), socket);
        drop(writer.join().unwrap());
    });
    strict(|| {
        let (listener, address) = listen();
        let client = once_asleep(move || std::net::TcpStream::connect(address).unwrap());
        select! { accept(listener) -> accepted => drop(accepted.unwrap()) }
        drop(client.join().unwrap());
    });
    strict(|| {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = unbounded();
        let elsewhere = plain::spawn(move || {
            plainsong::run_all(move || {
                tell.send(spawn_anywhere(move || ended.recv().unwrap())).unwrap();
            });
        });
        let mut child = told.recv().unwrap();
        let ender = once_asleep(move || end.send(()).unwrap());
        select! { join(&mut child) -> () => {} }
        child.join().unwrap();
        ender.join().unwrap();
        elsewhere.join().unwrap();
    });
    // A channel alone may be part of a deadlock.
    let report = panic_of(|| {
        strict(|| {
            let (_sender, receiver) = unbounded::<()>();
            select! { recv(receiver) -> _ => {} }
        });
    });
    assert!(report.contains("`select!`"), "{report}");
}
