//! No coroutine starves, neither beside one that only yields nor beside one that never has to wait.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::{net, thread};

use plainsong::net::TcpStream;
use plainsong::time::sleep;
use plainsong::{spawn, yield_now};

use crate::util::{MOMENT, listen, pair, run};

/// A coroutine that is always ready, until the flag is set.
fn spin(stop: &Rc<Cell<bool>>) -> plainsong::JoinHandle<u64> {
    let stop = Rc::clone(stop);
    spawn(move || {
        let mut turns = 0;
        while !stop.get() {
            yield_now();
            turns += 1;
        }
        turns
    })
}

#[test]
fn a_sleeper_wakes_beside_coroutines_that_only_yield() {
    for spinners in [1, 3, 100] {
        run(move || {
            let stop = Rc::new(Cell::new(false));
            let spinners: Vec<_> = (0..spinners).map(|_| spin(&stop)).collect();
            sleep(MOMENT);
            stop.set(true);
            for spinner in spinners {
                assert!(spinner.join().unwrap() > 0);
            }
        });
    }
}

#[test]
fn an_accept_ends_beside_one_that_only_yields() {
    run(|| {
        let stop = Rc::new(Cell::new(false));
        let spinner = spin(&stop);
        let (listener, address) = listen();
        for _ in 0..50 {
            let client = thread::spawn(move || net::TcpStream::connect(address));
            listener.accept().unwrap();
            client.join().unwrap().unwrap();
        }
        stop.set(true);
        spinner.join().unwrap();
    });
}

/// A stream whose peer, a thread, always has more to send.
fn always_readable() -> TcpStream {
    let (ours, mut theirs) = pair();
    thread::spawn(move || while theirs.write_all(&[0; 65536]).is_ok() {});
    ours
}

#[test]
fn others_run_beside_sockets_that_are_always_ready() {
    run(|| {
        let stop = Rc::new(Cell::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (stop, stream) = (Rc::clone(&stop), always_readable());
                spawn(move || {
                    // One byte at a time, so that the data lasts for very many reads.
                    while !stop.get() {
                        (&stream).read_exact(&mut [0]).unwrap();
                    }
                })
            })
            .collect();
        let spinner = spin(&stop);
        for _ in 0..5 {
            sleep(MOMENT);
            yield_now();
        }
        stop.set(true);
        assert!(spinner.join().unwrap() > 5);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_writer_that_never_waits_lets_others_run() {
    run(|| {
        let (ours, theirs) = pair();
        let drain = thread::spawn(move || std::io::copy(&mut &theirs, &mut std::io::sink()));
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        spawn(move || flag.set(true));
        let mut writes = 0;
        while !done.get() {
            (&ours).write_all(b"x").unwrap();
            writes += 1;
        }
        // A turn is a limited number of operations.
        assert!(writes <= 1000, "{writes} writes before another coroutine ran");
        drop(ours);
        drain.join().unwrap().unwrap();
    });
}

#[test]
fn peeks_accepts_and_waits_for_descriptors_are_counted_too() {
    run(|| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        crate::util::until_readable(&ours);
        let operations: [Box<dyn Fn()>; 2] = [
            Box::new(|| assert_eq!(ours.peek(&mut [0]).unwrap(), 1)),
            Box::new(|| plainsong::io::wait_readable(&ours).unwrap()),
        ];
        for operation in operations {
            let done = Rc::new(Cell::new(false));
            let flag = Rc::clone(&done);
            spawn(move || flag.set(true));
            while !done.get() {
                operation();
            }
        }
    });
}

#[test]
fn parking_with_a_token_at_hand_lets_others_run() {
    run(|| {
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        spawn(move || flag.set(true));
        let me = plainsong::current();
        for _ in 0..100_000 {
            me.unpark();
            plainsong::thread::park();
        }
        assert!(done.get(), "a hundred thousand parks without a turn for another");
    });
}

#[test]
fn a_loop_over_calls_until_a_token_is_cancelled_that_is() {
    run(|| {
        let token = plainsong::CancellationToken::new();
        token.cancel();
        let done = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&done);
        spawn(move || theirs.set(true));
        for _ in 0..100_000 {
            assert_eq!(token.run_until_cancelled(|| ()), None);
        }
        assert!(done.get(), "a hundred thousand calls without a turn for another");
    });
}

#[test]
fn a_ping_pong_of_two_does_not_starve_a_timer_or_a_socket() {
    run(|| {
        let stop = Rc::new(Cell::new(false));
        let stopped = Rc::clone(&stop);
        let me = plainsong::current();
        // Each wakes the other, so the ready queue is never empty, and none yields.
        let pong = spawn(move || {
            let first = plainsong::current();
            let inner = first.clone();
            let stopped_too = Rc::clone(&stopped);
            let second = spawn(move || {
                while !stopped_too.get() {
                    inner.unpark();
                    plainsong::thread::park();
                }
                inner.unpark();
            });
            while !stopped.get() {
                second.thread().unpark();
                plainsong::thread::park();
            }
            second.thread().unpark();
            second.join().unwrap();
        });
        sleep(MOMENT);
        let (ours, mut theirs) = pair();
        let writer = thread::spawn(move || theirs.write_all(b"x").map(|()| theirs));
        (&ours).read_exact(&mut [0]).unwrap();
        writer.join().unwrap().unwrap();
        let thread = thread::spawn(move || me.unpark());
        plainsong::thread::park();
        thread.join().unwrap();
        stop.set(true);
        pong.join().unwrap();
    });
}
