//! `Pollable`, `wait_readable` and `wait_writable`: any descriptor, beside other waiters.

use std::cell::Cell;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use plainsong::io::{Pollable, wait_readable, wait_writable};

use crate::util::{both, pair, run, until_parked};

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
fn an_operation_on_a_regular_file_that_would_always_block_ends_at_its_deadline() {
    fn tries(is_time: impl Fn() -> bool) {
        let file = Pollable::new(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        let ends = Cell::new(0);
        let blocks = file.read_with(|_| {
            if is_time() {
                file.set_read_deadline(Some(Instant::now()));
                ends.set(ends.get() + 1);
                assert_eq!(ends.get(), 1, "the deadline has passed");
            }
            Err::<(), _>(ErrorKind::WouldBlock.into())
        });
        assert_eq!(blocks.unwrap_err().kind(), ErrorKind::TimedOut);
    }
    run(|| {
        let other = plainsong::spawn(|| ());
        tries(|| other.is_finished());
    });
    tries(|| true);
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
