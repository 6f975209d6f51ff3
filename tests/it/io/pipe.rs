//! Pipes.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use plainsong::io::{PipeReader, pipe};
use plainsong::process::Command;
use plainsong::spawn;
use plainsong::sync::select::Select;

use crate::util::{Folder, HOUR, run, until_parked};

#[test]
fn the_ends_of_a_pipe_park_only_their_coroutines() {
    run(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let read = spawn(move || {
            let mut data = Vec::new();
            reader.read_to_end(&mut data).map(|_| data)
        });
        until_parked(&read);
        // More than a pipe holds.
        let sent = vec![7; 1 << 20];
        let mut again = writer.try_clone().unwrap();
        writer.write_all(&sent).unwrap();
        drop(writer);
        again.write_all(b"end").unwrap();
        drop(again);
        let received = read.join().unwrap().unwrap();
        assert_eq!(received.len(), sent.len() + 3);
        assert!(received.ends_with(b"\x07end"));
    });
}

#[test]
fn a_pipe_without_readers_is_broken_and_a_waiting_reader_can_be_cancelled() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let waits = spawn(move || (&reader).read(&mut [0]));
        until_parked(&waits);
        waits.cancel();
        assert!(waits.join().unwrap_err().is_cancelled());
        assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn an_end_given_to_a_child_is_in_blocking_mode() {
    run(|| {
        let (mut reader, writer) = pipe().unwrap();
        let mut child = Command::new("echo").arg("plainsong").stdout(writer).spawn().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "plainsong\n");
        assert!(child.wait().unwrap().success());
        let flags = rustix::fs::fcntl_getfl(OwnedFd::from(reader)).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn clones_of_an_end_that_is_given_up_still_park() {
    run(|| {
        let (reader, writer) = pipe().unwrap();
        let (reader_of_another, writer_of_another) =
            (reader.try_clone().unwrap(), writer.try_clone().unwrap());
        let given_up = [OwnedFd::from(reader), OwnedFd::from(writer_of_another)];
        // Each of the two has to wait for the other.
        let write = spawn(move || {
            (&writer).write_all(&[1; 300_000]).unwrap();
            drop(given_up);
        });
        let mut data = Vec::new();
        (&reader_of_another).take(300_000).read_to_end(&mut data).unwrap();
        assert!(data == [1; 300_000]);
        write.join().unwrap();
        assert_eq!((&reader_of_another).read(&mut [0; 8]).unwrap(), 0);
    });
}

/// Linux does not report the end of a FIFO to a reader that opens it when no writer is left.
#[test]
#[cfg(target_os = "linux")]
fn a_clone_of_a_named_pipe_sees_that_its_writers_are_gone() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let reader = PipeReader::from(OwnedFd::from(File::open(&path).unwrap()));
    drop(both);
    let clone = reader.try_clone().unwrap();
    let mut select = Select::new();
    select.readable(&clone);
    assert!(select.ready_timeout(HOUR).is_ok());
}
