//! The standard streams, in child processes whose streams are pipes, terminals, files or closed.

use std::any::type_name;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, thread};

use plainsong::io::{stderr, stdin, stdout};
use plainsong::time::timeout;
use plainsong::{run, scope, spawn, yield_now};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::util::{MOMENT, OnDrop, panic_of, this_program, until, until_parked, watch};
use crate::{sys, util};

const CHILD: &str = "PLAINSONG_TEST_STDIO";

/// In the child process that `start` makes, this calls `body` and returns `true`.
fn is_child(body: impl FnOnce()) -> bool {
    let child = std::env::var_os(CHILD).is_some();
    if child {
        sys::end_in(50);
        body();
    }
    child
}

/// Runs `test` in a process of its own, with these streams.
fn start<F: Copy>(_test: F, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Child {
    let (_, name) = type_name::<F>().split_once("::").unwrap();
    this_program()
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads the child's next line on its standard error.
fn heard(stderr: &mut impl BufRead) -> String {
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    line
}

fn ended_well(mut child: Child, mut stderr: impl Read) {
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}\n{said}");
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

/// A terminal that passes everything on unchanged: the user's end, and the program's.
fn terminal() -> (File, OwnedFd) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let program = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
    let mut settings = tcgetattr(&program).unwrap();
    settings.local_modes &= !rustix::termios::LocalModes::ECHO;
    settings.output_modes &= !rustix::termios::OutputModes::OPOST;
    tcsetattr(&program, OptionalActions::Now, &settings).unwrap();
    (user.into(), program)
}

/// Reads two lines while another coroutine runs.
fn read_two_lines() {
    run(|| {
        for expected in ["one\n", "two\n"] {
            let reader = spawn(|| {
                let mut line = String::new();
                stdin().read_line(&mut line).unwrap();
                line
            });
            until_parked(&reader);
            writeln!(stderr(), "reading").unwrap();
            assert_eq!(reader.join().unwrap(), expected);
        }
    });
}

#[test]
fn one_that_reads_parks_and_the_mode_stays() {
    if is_child(read_two_lines) {
        return;
    }
    watch(|| {
        let (reader, writer) = io::pipe().unwrap();
        let (user, program) = terminal();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let streams: [(OwnedFd, File); 3] = [
            (reader.into(), OwnedFd::from(writer).into()),
            (program, user),
            (theirs.into(), OwnedFd::from(ours).into()),
        ];
        for (theirs, mut ours) in streams {
            let input = theirs.try_clone().unwrap();
            let mut child = start(one_that_reads_parks_and_the_mode_stays, input, Stdio::null());
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            for line in ["one\n", "two\n"] {
                assert_eq!(heard(&mut stderr), "reading\n");
                assert!(!is_nonblocking(&theirs));
                ours.write_all(line.as_bytes()).unwrap();
            }
            ended_well(child, stderr);
            assert!(!is_nonblocking(&theirs));
        }
    });
}

#[test]
fn text_that_std_has_buffered_comes_first() {
    let print = || {
        run(|| {
            // The buffer that `print!` uses, past the capture of the test harness.
            io::stdout().write_all(b"\none ").unwrap();
            write!(stdout(), "two ").unwrap();
            io::stdout().write_all(b"three").unwrap();
            stdout().flush().unwrap();
            writeln!(stderr(), "flushed").unwrap();
            assert_eq!(stdin().read_line(&mut String::new()).unwrap(), 0);
        });
    };
    if is_child(print) {
        return;
    }
    let mut child = start(text_that_std_has_buffered_comes_first, Stdio::piped(), Stdio::piped());
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    assert_eq!(heard(&mut errors), "flushed\n");
    // It is there although the process goes on.
    let mut output = child.stdout.take().unwrap();
    let mut text = [0; 1024];
    let len = output.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..len]).into_owned();
    assert!(text.ends_with("\none two three") || len < 20, "{text:?}");
    drop(child.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!((text + &rest).contains("\none two three"));
    ended_well(child, errors);
}

#[test]
fn one_that_writes_parks_and_lines_stay_whole() {
    const WRITERS: u8 = 4;
    const LINES: usize = 20;
    const LEN: usize = 10_000;
    let write_lines = |letter: u8| {
        let line = String::from_utf8(vec![letter; LEN - 1]).unwrap();
        for _ in 0..LINES {
            writeln!(stdout(), "-{line}").unwrap();
        }
    };
    let all_at_once = || {
        // The test harness has begun a line.
        writeln!(stdout()).unwrap();
        let thread = thread::spawn(move || write_lines(b'Z'));
        run(|| {
            let writers: Vec<_> =
                (0..WRITERS).map(|n| spawn(move || write_lines(b'A' + n))).collect();
            writers.iter().for_each(until_parked);
            writeln!(stderr(), "writing").unwrap();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
        thread.join().unwrap();
    };
    if is_child(all_at_once) {
        return;
    }
    watch(|| {
        let (reader, writer) = io::pipe().unwrap();
        let (user, program) = terminal();
        let streams: [(OwnedFd, File); 2] =
            [(writer.into(), OwnedFd::from(reader).into()), (program, user)];
        for (theirs, ours) in streams {
            let output = theirs.try_clone().unwrap();
            let mut child =
                start(one_that_writes_parks_and_lines_stay_whole, Stdio::null(), output);
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            assert_eq!(heard(&mut stderr), "writing\n");
            assert!(!is_nonblocking(&theirs));
            let mut lines = BufReader::new(ours).lines().map(Result::unwrap);
            for _ in 0..(usize::from(WRITERS) + 1) * LINES {
                let line = lines.by_ref().find(|line| line.starts_with('-')).unwrap();
                let letter = line.as_bytes()[1];
                assert_eq!(line.len(), LEN);
                assert!(line.as_bytes()[1..].iter().all(|byte| *byte == letter), "{line}");
            }
            // The last output of the test harness needs room as well.
            let rest = thread::spawn(move || lines.find(|line| line.starts_with("test result")));
            ended_well(child, stderr);
            assert!(!is_nonblocking(&theirs));
            assert!(rest.join().unwrap().is_some());
        }
    });
}

#[test]
fn a_reader_that_gives_up_loses_nothing() {
    let read_in_vain_first = || {
        run(|| {
            let mut line = String::new();
            for _ in 0..5 {
                let read = timeout(Duration::from_millis(2), || stdin().read_line(&mut line));
                assert!(read.is_err());
            }
            writeln!(stderr(), "gave up").unwrap();
            assert_eq!(stdin().read_line(&mut line).unwrap(), 8);
            assert_eq!(line, "partial\n");
            let rest: Vec<_> = stdin().lines().map(Result::unwrap).collect();
            assert_eq!(rest, ["", "rest"]);
        });
    };
    if is_child(read_in_vain_first) {
        return;
    }
    watch(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"par").unwrap();
        let mut child = start(a_reader_that_gives_up_loses_nothing, reader, Stdio::null());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        assert_eq!(heard(&mut stderr), "gave up\n");
        writer.write_all(b"tial\n\nrest").unwrap();
        drop(writer);
        ended_well(child, stderr);
    });
}

#[test]
fn what_is_read_in_several_pieces_stays_whole() {
    let read_fours = || {
        let read = || {
            let mut four = [0; 4];
            while stdin().read_exact(&mut four).is_ok() {
                assert_eq!(four, [four[0]; 4]);
            }
        };
        run(|| {
            let others: Vec<_> = (0..3).map(|_| thread::spawn(read)).collect();
            read();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    };
    if is_child(read_fours) {
        return;
    }
    watch(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let theirs = reader.try_clone().unwrap();
        let mut child = start(what_is_read_in_several_pieces_stays_whole, theirs, Stdio::null());
        for n in 0..4000 {
            let read = || rustix::io::ioctl_fionread(&reader).unwrap() == 0;
            until(|| read() || child.try_wait().unwrap().is_some());
            writer.write_all(&[(n / 4) as u8]).unwrap();
        }
        drop(writer);
        let stderr = child.stderr.take().unwrap();
        ended_well(child, stderr);
    });
}

#[test]
fn a_file_is_read_by_many_and_written() {
    const LINES: usize = 3000;
    let read_and_write = || {
        run(|| {
            let mut lines: Vec<usize> = Vec::new();
            scope(|s| {
                let readers: Vec<_> = (0..3)
                    .map(|_| {
                        s.spawn(|| {
                            let (mut lines, mut line) = (Vec::<usize>::new(), String::new());
                            while stdin().read_line(&mut line).unwrap() > 0 {
                                lines.push(line.trim().parse().unwrap());
                                line.clear();
                            }
                            lines
                        })
                    })
                    .collect();
                lines.extend(readers.into_iter().flat_map(|reader| reader.join().unwrap()));
            });
            lines.sort_unstable();
            assert_eq!(lines, (0..LINES).collect::<Vec<_>>());
            // A write to a file never waits.
            assert_eq!(stdout().write(&[b' '; 1 << 20]).unwrap(), 1 << 20);
            writeln!(stdout(), "wrote {}", lines.len()).unwrap();
        });
    };
    if is_child(read_and_write) {
        return;
    }
    watch(|| {
        let path = std::env::temp_dir().join(format!("plainsong-stdin-{}", std::process::id()));
        let text: String = (0..LINES).map(|n| format!("{n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let (input, output) = (File::open(&path).unwrap(), path.with_extension("out"));
        let theirs = File::create(&output).unwrap();
        let flags = (fcntl_getfl(&input).unwrap(), fcntl_getfl(&theirs).unwrap());
        let (stdin, stdout) = (input.try_clone().unwrap(), theirs.try_clone().unwrap());
        let mut child = start(a_file_is_read_by_many_and_written, stdin, stdout);
        let stderr = child.stderr.take().unwrap();
        ended_well(child, stderr);
        assert_eq!(flags, (fcntl_getfl(&input).unwrap(), fcntl_getfl(&theirs).unwrap()));
        let written = std::fs::read_to_string(&output).unwrap();
        assert!(written.contains("wrote 3000\n"), "{written}");
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(output).unwrap();
    });
}

#[test]
fn streams_that_lead_nowhere_or_are_closed() {
    fn try_all() {
        let mut line = String::new();
        assert_eq!(stdin().read_line(&mut line).unwrap(), 0);
        assert_eq!(stdin().read(&mut [0; 10]).unwrap(), 0);
        assert_eq!(stdin().lines().count(), 0);
        writeln!(stdout(), "nobody reads {}", 1 + 1).unwrap();
        stdout().flush().unwrap();
    }
    let body = || {
        try_all();
        run(try_all);
        sys::close_stream(0);
        sys::close_stream(1);
        try_all();
        run(try_all);
        // The test harness writes until its end.
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        std::mem::forget((null.try_clone().unwrap(), null));
    };
    if is_child(body) {
        return;
    }
    watch(|| {
        let test = streams_that_lead_nowhere_or_are_closed;
        let mut child = start(test, Stdio::null(), Stdio::null());
        let stderr = child.stderr.take().unwrap();
        ended_well(child, stderr);
    });
}

#[test]
fn a_thread_that_ends_may_lock_a_stream() {
    static LOCKED: AtomicUsize = AtomicUsize::new(0);
    fn lock() {
        let held = stderr().lock();
        // The holder may lock it again, and no other thread can.
        drop(stderr().lock());
        let other = util::asleep(|| drop(stderr().lock()));
        LOCKED.fetch_add(1, Ordering::SeqCst);
        drop(held);
        other.join().unwrap();
        LOCKED.fetch_add(1, Ordering::SeqCst);
    }
    thread_local! { static LAST: OnDrop<fn()> = const { OnDrop(lock) }; }
    util::alone(a_thread_that_ends_may_lock_a_stream, || {
        // Made first, so dropped last: after the library's own thread-locals.
        let body = || {
            LAST.with(|_| ());
            run(|| ());
        };
        thread::spawn(body).join().unwrap();
        assert_eq!(LOCKED.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_terminal_is_written_to_and_read_without_a_descriptor_to_spare() {
    let body = || {
        let exchange = || {
            util::limit_descriptors(3);
            writeln!(stdout(), "still heard").unwrap();
            plainsong::io::wait_writable(io::stdout()).unwrap();
            let mut line = String::new();
            stdin().read_line(&mut line).unwrap();
            assert_eq!(line, "still read\n");
        };
        run(exchange);
        exchange();
    };
    if is_child(body) {
        return;
    }
    watch(|| {
        let (mut user, program) = terminal();
        user.write_all(b"still read\nstill read\n").unwrap();
        let mut child = start(
            a_terminal_is_written_to_and_read_without_a_descriptor_to_spare,
            program.try_clone().unwrap(),
            program,
        );
        let stderr = child.stderr.take().unwrap();
        ended_well(child, stderr);
        let mut lines = BufReader::new(user).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("still heard")));
        assert!(lines.any(|line| line.ends_with("still heard")));
    });
}

#[test]
fn a_thread_that_ends_may_wait() {
    static HANDLE: std::sync::Mutex<Option<plainsong::JoinHandle<i32>>> =
        std::sync::Mutex::new(None);
    static STEP: AtomicUsize = AtomicUsize::new(0);
    fn wait() {
        let next = || STEP.fetch_add(1, Ordering::SeqCst);
        next();
        drop(stderr().lock());
        next();
        assert_eq!(HANDLE.lock().unwrap().take().unwrap().join().unwrap(), 1);
        next();
        plainsong::time::sleep(MOMENT);
        next();
    }
    thread_local! { static LAST: OnDrop<fn()> = const { OnDrop(wait) }; }
    util::alone(a_thread_that_ends_may_wait, || {
        let runtime = plainsong::Runtime::default();
        *HANDLE.lock().unwrap() = Some(runtime.handle().spawn(|| 1));
        let held = stderr().lock();
        let (tell, told) = std::sync::mpsc::channel();
        // Made first, so dropped last: after the library's own thread-locals.
        let ends = thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            LAST.with(|_| ());
            run(|| ());
        });
        let ending = told.recv().unwrap();
        let until_waits = |step| {
            until(|| STEP.load(Ordering::SeqCst) == step);
            util::until_asleep(ending);
            assert_eq!(STEP.load(Ordering::SeqCst), step);
        };
        until_waits(1);
        drop(held);
        until_waits(2);
        runtime.run_all(|| ());
        ends.join().unwrap();
        assert_eq!(STEP.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn a_lock_is_kept_across_waits_and_may_be_taken_again() {
    util::run(|| {
        let lock = stderr().lock();
        // Nothing is written here, as this is the output of all tests.
        let again = stderr().lock();
        let other = spawn(|| drop(stderr().lock()));
        until_parked(&other);
        assert!(format!("{other:?}").contains("waits for a lock"), "{other:?}");
        drop(again);
        yield_now();
        assert!(!other.is_finished());
        // A waiter that gives up does not block the waiters behind it.
        let late = spawn(|| drop(stderr().lock()));
        until_parked(&late);
        drop(lock);
        other.cancel();
        let _ = other.join();
        late.join().unwrap();

        let input = stdin().lock();
        assert!(panic_of(|| stdin().lock()).contains("locked by the very one"));
        let thread = thread::spawn(|| drop(stdin().lock()));
        drop(input);
        until(|| thread.is_finished());
        thread.join().unwrap();
    });
}

#[test]
fn a_writer_that_is_cancelled_has_written_some_or_nothing() {
    /// Cancels a coroutine that waits to write to a stream, which is replaced by a full pipe.
    fn cancel_a_write(
        stream: BorrowedFd<'_>,
        redirect: fn(OwnedFd) -> rustix::io::Result<()>,
        write: fn() -> io::Result<()>,
    ) {
        let (mut reader, writer) = io::pipe().unwrap();
        let before = rustix::io::dup(stream).unwrap();
        redirect(writer.into()).unwrap();
        run(|| {
            let writing = spawn(move || {
                loop {
                    write().unwrap();
                }
            });
            until_parked(&writing);
            writing.cancel();
            assert!(writing.join().unwrap_err().is_cancelled());
        });
        redirect(before).unwrap();
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert!(!written.is_empty());
        assert!(written.iter().enumerate().all(|(at, byte)| *byte == LINE[at % LINE.len()]));
    }
    const LINE: &[u8] = b"0123456789abcdefghijklm\n";
    util::alone(a_writer_that_is_cancelled_has_written_some_or_nothing, || {
        cancel_a_write(rustix::stdio::stdout(), rustix::stdio::dup2_stdout, || {
            stdout().write_all(LINE)
        });
        cancel_a_write(rustix::stdio::stderr(), rustix::stdio::dup2_stderr, || {
            stderr().write_all(LINE)
        });
    });
}
