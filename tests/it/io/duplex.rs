//! Connections in memory: `duplex`.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread as system;
use std::time::Duration;

use plainsong::io::{DuplexStream, duplex};
use plainsong::no_wait;
use plainsong::sync::Event;
use plainsong::time::{now, sleep, timeout};

use crate::util::{HOUR, MOMENT, both, kind, panic_of, run, until_parked, watch};

#[test]
fn a_duplex_is_a_connection() {
    both(|| {
        let (mut one, mut two) = duplex(4);
        one.write_all(b"1234").unwrap();
        let mut some = [0; 3];
        assert_eq!(two.read(&mut some).unwrap(), 3);
        assert_eq!(one.write(b"5678").unwrap(), 3);
        assert_eq!((one.write(&[]).unwrap(), two.read(&mut []).unwrap()), (0, 0));
        two.write_all(b"ok").unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kind(one.write(b"x")), ErrorKind::BrokenPipe);
        let mut rest = String::new();
        assert_eq!(two.read_to_string(&mut rest).unwrap(), 4);
        assert_eq!(rest, "4567");
        // The other direction is still open.
        drop(two);
        assert_eq!(one.read_to_string(&mut rest).unwrap(), 2);
        let (mut one, two) = duplex(4);
        one.write_all(b"1234").unwrap();
        drop(two);
        assert_eq!(kind(one.write(b"5")), ErrorKind::BrokenPipe);
        assert!(panic_of(|| duplex(0)).contains("capacity"));
    });
}

#[test]
fn a_duplex_between_threads_and_coroutines() {
    watch(|| {
        let (one, two) = duplex(7);
        let data: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        let theirs = data.clone();
        let thread = system::spawn(move || {
            (&one).write_all(&theirs).unwrap();
            one.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            (&one).read_to_end(&mut back).unwrap();
            back
        });
        plainsong::run(|| {
            plainsong::scope(|s| {
                let (pipe, doubled) = duplex(3);
                s.spawn(move || std::io::copy(&mut &two, &mut &pipe).unwrap());
                let mut all = Vec::new();
                (&doubled).read_to_end(&mut all).unwrap();
                assert_eq!(all, data);
            });
        });
        assert_eq!(thread.join().unwrap(), b"");
    });
}

#[test]
fn a_read_that_is_cancelled_leaves_the_bytes_to_the_next() {
    run(|| {
        let (one, two) = duplex(16);
        let (one, two) = (Rc::new(one), Rc::new(two));
        let theirs = Rc::clone(&two);
        let first = plainsong::spawn(move || (&*theirs).read(&mut [0; 4]).unwrap());
        let theirs = Rc::clone(&two);
        let second = plainsong::spawn(move || (&*theirs).read(&mut [0; 4]).unwrap());
        until_parked(&second);
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        (&*one).write_all(b"ab").unwrap();
        assert_eq!(second.join().unwrap(), 2);
        let unwound = Rc::new(Cell::new(None));
        struct Reads(Rc<plainsong::io::DuplexStream>, Rc<Cell<Option<ErrorKind>>>);
        impl Drop for Reads {
            fn drop(&mut self) {
                self.1.set((&*self.0).read(&mut [0]).err().map(|error| error.kind()));
            }
        }
        let reads = Reads(two, Rc::clone(&unwound));
        let result = timeout(MOMENT, || {
            let _reads = reads;
            sleep(HOUR);
        });
        assert!(result.is_err() && unwound.get() == Some(ErrorKind::Other));
    });
}

/// An operation of an end that is for places where waits are refused, too.
type Use = fn(&mut Option<DuplexStream>);

const USES: &[(&str, Use)] = &[
    ("drop", |end| drop(end.take())),
    ("shutdown", |end| end.as_ref().unwrap().shutdown(Shutdown::Both).unwrap()),
    ("set_read_deadline", |end| end.as_ref().unwrap().set_read_deadline(Some(now() + HOUR))),
    ("set_write_deadline", |end| end.as_ref().unwrap().set_write_deadline(Some(now() + HOUR))),
];

/// The other end has used up its turn in the midst of its writes, wherever that was.
#[test]
fn only_reads_and_writes_wait() {
    run(|| {
        let (mut refused, set) = (Vec::new(), Event::new());
        set.set();
        for (name, uses) in USES {
            for operations in 0..4 {
                let (one, two) = duplex(1 << 20);
                let mut two = Some(two);
                plainsong::scope(|s| {
                    let writes = s.spawn(|| {
                        (0..operations).for_each(|_| set.wait());
                        while (&one).write(b"x").is_ok() {}
                    });
                    plainsong::yield_now();
                    assert!(!writes.is_finished());
                    if catch_unwind(AssertUnwindSafe(|| no_wait(|| uses(&mut two)))).is_err() {
                        refused.push(*name);
                        writes.cancel();
                    }
                    drop(two);
                });
            }
        }
        assert_eq!(refused, [""; 0]);
    });
}

#[test]
fn no_byte_and_no_wake_is_lost_between_many() {
    const EACH: usize = 5_000;
    watch(|| {
        let (one, two) = duplex(3);
        let got = AtomicUsize::new(0);
        let read = || (&two).read(&mut [0; 2]).unwrap();
        let reads = || {
            while let count @ 1.. = read() {
                got.fetch_add(count, Ordering::Relaxed);
            }
        };
        system::scope(|threads| {
            let writes = || (&one).write_all(&[1; EACH]).unwrap();
            let writers = [threads.spawn(writes), threads.spawn(writes)];
            threads.spawn(reads);
            threads.spawn(|| {
                plainsong::run(|| {
                    plainsong::scope(|s| {
                        s.spawn(reads);
                        // This one gives up all the time.
                        s.spawn(|| {
                            let (count, mut ended) = (Cell::new(0), false);
                            while !ended {
                                let time = Duration::from_micros(20);
                                count.set(0);
                                let _ = timeout(time, || {
                                    count.set(read());
                                    ended = count.get() == 0;
                                });
                                got.fetch_add(count.get(), Ordering::Relaxed);
                            }
                        });
                    });
                });
            });
            for writer in writers {
                writer.join().unwrap();
            }
            one.shutdown(Shutdown::Write).unwrap();
        });
        assert_eq!(got.load(Ordering::Relaxed), 2 * EACH);
    });
}
