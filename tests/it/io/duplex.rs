//! Connections in memory: `duplex`.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::thread as system;

use plainsong::io::duplex;
use plainsong::time::{sleep, timeout};

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
