//! Conversions and names that programs of std's use.

use std::io::Write;
use std::os::fd::{FromRawFd, IntoRawFd};

use plainsong::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};
use plainsong::net::{TcpListener, TcpStream, UnixDatagram};
use plainsong::process::{Command, Stdio};
use plainsong::spawn;

use crate::util::{Folder, alone, run};

/// Gives the number of a descriptor up, and takes it back.
#[allow(unsafe_code)]
fn through_its_number<T: IntoRawFd + FromRawFd>(value: T) -> T {
    // SAFETY: the number has just been given up, so it is open and has no other owner.
    unsafe { T::from_raw_fd(value.into_raw_fd()) }
}

#[test]
fn descriptors_pass_through_their_numbers_and_still_park() {
    run(|| {
        let listener = through_its_number(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let accepted = spawn(move || listener.accept().unwrap().0);
        let client = through_its_number(TcpStream::connect(address).unwrap());
        let server = through_its_number(accepted.join().unwrap());
        let read = spawn(move || io::read_to_string(&server));
        (&client).write_all(b"hello").unwrap();
        drop(client);
        assert_eq!(read.join().unwrap().unwrap(), "hello");

        let (one, two) = UnixDatagram::pair().unwrap();
        through_its_number(one).send(b"x").unwrap();
        assert_eq!(through_its_number(two).recv(&mut [0; 4]).unwrap(), 1);

        let (reader, writer) = pipe().unwrap();
        let (reader, mut writer): (PipeReader, PipeWriter) =
            (through_its_number(reader), through_its_number(writer));
        let line = spawn(move || BufReader::new(reader).lines().next().unwrap());
        writer.write_all(b"a line\n").unwrap();
        assert_eq!(line.join().unwrap().unwrap(), "a line");

        let folder = Folder::new();
        let path = folder.join("file");
        let file = plainsong::fs::File::create(&path).unwrap();
        through_its_number(file).write_all(b"text").unwrap();
        let mut text = String::new();
        plainsong::fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    });
}

#[test]
fn a_file_is_no_terminal_and_a_terminal_is_one() {
    run(|| {
        let folder = Folder::new();
        assert!(!plainsong::fs::File::create(folder.join("file")).unwrap().is_terminal());
        let terminal = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        assert!(plainsong::fs::File::from(terminal).is_terminal());
        // As std says of the same stream.
        let std = std::io::IsTerminal::is_terminal(&std::io::stdin());
        assert_eq!(io::stdin().is_terminal(), std);
    });
}

#[test]
fn a_standard_stream_can_be_a_childs() {
    run(|| {
        let mut child = Command::new("sh")
            .args(["-c", "test -e /proc/self/fd/1 && test -e /proc/self/fd/2"])
            .stdin(Stdio::null())
            .stdout(io::stderr())
            .stderr(io::stdout())
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_program_that_cannot_replace_this_one_is_an_error() {
    // It leaves SIGPIPE deadly.
    alone(a_program_that_cannot_replace_this_one_is_an_error, || {
        let error = Command::new("/no/such/program").exec();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_lock_of_a_file_excludes_other_open_files_only_while_it_is_held() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("file");
        let one = plainsong::fs::File::create(&path).unwrap();
        let two = plainsong::fs::File::open(&path).unwrap();
        one.lock_shared().unwrap();
        two.try_lock_shared().unwrap();
        let refused = one.try_lock().unwrap_err();
        assert!(matches!(refused, plainsong::fs::TryLockError::WouldBlock), "{refused}");
        assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::WouldBlock);
        two.unlock().unwrap();
        one.try_lock().unwrap();
        let waits = spawn(move || two.lock());
        crate::util::until_parked(&waits);
        one.unlock().unwrap();
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn names_of_std_that_are_passed_on() {
    use plainsong::{sync, thread, time};

    static SHARED: sync::atomic::AtomicU32 = sync::atomic::AtomicU32::new(1);
    let shared: sync::Arc<time::Duration> = sync::Arc::new(time::Duration::ZERO);
    let weak: sync::Weak<_> = sync::Arc::downgrade(&shared);
    assert!(weak.upgrade().is_some_and(|zero| time::SystemTime::now() - *zero > time::UNIX_EPOCH));
    assert!(time::Instant::now().elapsed() < time::Duration::MAX);
    let _: Option<(thread::AccessError, &thread::LocalKey<u8>)> = None;
    assert_eq!(SHARED.load(sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_command_of_std_is_inside() {
    use std::os::unix::process::CommandExt;

    run(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $0"]).as_std_mut().arg0("other");
        command.as_std_mut().arg("name");
        assert_eq!(command.output().unwrap().stdout, b"name\n");
    });
}
