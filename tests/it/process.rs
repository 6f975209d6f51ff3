//! Child processes. Some of this is taken from std's own tests of `std::process`.

use std::cell::Cell;
use std::io;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::rc::Rc;
use std::time::Duration;

use plainsong::net::TcpStream;
use plainsong::process::{Child, ChildStdout, Command, Stdio};
use plainsong::time::{fail_after, timeout};
use plainsong::{scope, spawn, yield_now};
use rustix::fs::{OFlags, fcntl_getfl};

use crate::util;
use crate::util::{MOMENT, alone, both, descriptors, kind, listen, until_parked};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn how_a_child_ends() {
    both(|| {
        assert!(Command::new("true").status().unwrap().success());
        assert_eq!(Command::new("false").status().unwrap().code(), Some(1));
        let status = shell("exit 7").spawn().unwrap().wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(7), None));
        let status = shell("kill -9 $$").status().unwrap();
        assert_eq!((status.code(), status.signal()), (None, Some(9)));
        assert_eq!(kind(Command::new("no-such-program-here").spawn()), ErrorKind::NotFound);
        assert_eq!(kind(Command::new("/").spawn()), ErrorKind::PermissionDenied);
    });
}

#[test]
fn output_is_captured() {
    both(|| {
        let output = shell("echo out; echo err >&2; exit 3").output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        // Its input is empty, so that it does not read ours.
        assert_eq!(Command::new("cat").output().unwrap().stdout, b"");
    });
}

#[test]
fn output_leaves_alone_what_is_redirected() {
    both(|| {
        let mut command = shell("echo out; echo err >&2");
        let output = command.stdout(Stdio::null()).output().unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"err\n"[..]));
        // A later `spawn` inherits the streams that are not redirected.
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        assert!(child.wait_with_output().unwrap().stdout.is_empty());
    });
}

#[test]
fn a_child_is_written_to_and_read() {
    both(|| {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        assert!(child.id() > 1);
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        for text in ["one\n", "two\n"] {
            stdin.write_all(text.as_bytes()).unwrap();
            line.clear();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, text);
        }
        assert_eq!(child.try_wait().unwrap(), None);
        drop(stdin);
        assert_eq!(stdout.read_line(&mut line).unwrap(), 0);
        assert!(child.wait().unwrap().success());
        assert!(child.wait().unwrap().success());
        assert!(child.try_wait().unwrap().unwrap().success());
    });
}

#[test]
fn waiting_closes_the_childs_input() {
    both(|| {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        (child.stdin.as_ref().unwrap()).write_all(b"abc").unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"abc");
    });
}

#[test]
fn a_child_whose_input_is_closed() {
    both(|| {
        let mut child = shell("exec <&-; echo closed; read line")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 7];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        let stdin = child.stdin.take().unwrap();
        let _ = child.wait().unwrap();
        // A process that another test starts meanwhile has the pipe open, until it executes its
        // program.
        let error = loop {
            if let Err(error) = (&stdin).write(b"x") {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn more_than_a_pipe_holds_on_both_pipes_at_once() {
    both(|| {
        let script =
            "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero";
        let output = shell(script).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (600_000, 300_000));
        // More than both of its pipes hold together.
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut bytes = Vec::new();
        let mut stdout = child.stdout.take().unwrap();
        scope(|s| {
            s.spawn(move || stdin.write_all(&vec![9; 1_000_000]).unwrap());
            stdout.read_to_end(&mut bytes).unwrap();
        });
        assert!(bytes == vec![9; 1_000_000]);
        child.wait().unwrap();
    });
}

#[test]
fn a_deadline_holds_for_both_pipes_of_a_child() {
    both(|| {
        let mut child = Command::new("cat");
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // It would end otherwise.
        let stdin = child.stdin.take();
        let output = fail_after(MOMENT, || child.wait_with_output());
        assert_eq!(output.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(stdin);
    });
}

#[test]
fn the_builder_is_that_of_std() {
    both(|| {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $0 $A $B; pwd").arg0("renamed");
        command.env("A", "1").envs([("B", "2"), ("C", "3")]).env_remove("C").current_dir("/");
        assert_eq!(command.get_program(), "sh");
        assert_eq!(command.get_args().count(), 2);
        assert_eq!(command.get_envs().count(), 3);
        assert_eq!(command.get_current_dir().unwrap(), std::path::Path::new("/"));
        assert_eq!(command.output().unwrap().stdout, b"renamed 1 2\n/\n");
        let mut env = Command::new("/usr/bin/env");
        assert_eq!(env.env_clear().env("ONLY", "this").output().unwrap().stdout, b"ONLY=this\n");
        let std = std::process::Command::from(shell("echo std"));
        assert_eq!(Command::from(std).output().unwrap().stdout, b"std\n");
    });
}

#[test]
fn killing_a_child() {
    both(|| {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        child.kill().unwrap();
    });
}

#[test]
fn a_wait_that_is_cancelled_can_be_repeated() {
    util::run(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        assert!(timeout(Duration::from_millis(5), || child.wait()).is_err());
        assert!(timeout(Duration::from_millis(5), || child.wait()).is_err());
        drop(stdin);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_child_that_was_waited_for_keeps_no_descriptor() {
    alone(a_child_that_was_waited_for_keeps_no_descriptor, || {
        plainsong::run(|| {
            let before = descriptors();
            let end = |_| {
                let (reader, writer) = io::pipe().unwrap();
                let mut child = Command::new("cat").stdin(reader).spawn().unwrap();
                assert!(timeout(Duration::from_millis(5), || child.wait()).is_err());
                drop(writer);
                assert!(child.wait().unwrap().success());
                child
            };
            let children: Vec<_> = (0..10).map(end).collect();
            assert_eq!(descriptors(), before);
            drop(children);
        });
    });
}

#[test]
fn a_destructor_kills_and_waits() {
    struct Killed(Child, Rc<Cell<Option<i32>>>);
    impl Drop for Killed {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.1.set(self.0.wait().ok().and_then(|status| status.signal()));
        }
    }
    util::run(|| {
        let signal = Rc::new(Cell::new(None));
        let theirs = Rc::clone(&signal);
        let cancelled = spawn(move || {
            let _child = Killed(Command::new("sleep").arg("100").spawn().unwrap(), theirs);
            plainsong::thread::park();
        });
        until_parked(&cancelled);
        cancelled.cancel();
        assert!(cancelled.join().unwrap_err().is_cancelled());
        assert_eq!(signal.get(), Some(9));
    });
}

#[test]
fn others_run_while_one_waits_for_a_child() {
    util::run(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let waiting = spawn(move || child.wait());
        until_parked(&waiting);
        drop(stdin);
        assert!(waiting.join().unwrap().unwrap().success());
    });
}

#[test]
fn a_read_from_a_child_that_is_cancelled_loses_nothing() {
    util::run(|| {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut bytes = [0; 5];
        let read = timeout(Duration::from_millis(5), || stdout.read(&mut bytes));
        assert!(read.is_err());
        stdin.write_all(b"later").unwrap();
        stdout.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"later");
        drop(stdin);
        child.wait().unwrap();
    });
}

#[test]
fn dropping_a_child_lets_it_live() {
    both(|| {
        let mut child = shell("read line; echo $line")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        drop(child);
        (&stdin).write_all(b"alive\n").unwrap();
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "alive\n");
    });
}

#[test]
fn pipes_are_non_blocking_on_our_end_and_only_there() {
    both(|| {
        let is_nonblocking =
            |fd: &dyn AsFd| fcntl_getfl(fd.as_fd()).unwrap().contains(OFlags::NONBLOCK);
        let script = "grep -h flags /proc/self/fdinfo/0 /proc/self/fdinfo/1";
        let mut child = shell(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        assert!(is_nonblocking(child.stdin.as_ref().unwrap()) && is_nonblocking(&stdout));
        let mut flags = String::new();
        stdout.read_to_string(&mut flags).unwrap();
        assert_eq!(flags.lines().count(), 2);
        for line in flags.lines() {
            let octal = line.split_whitespace().last().unwrap();
            let flags = i32::from_str_radix(octal, 8).unwrap();
            assert_eq!(flags & libc::O_NONBLOCK, 0, "{line}");
        }
        child.wait().unwrap();
        // A pipe that leaves the library blocks again.
        let fd = OwnedFd::from(stdout);
        assert!(!is_nonblocking(&fd));
        assert!(is_nonblocking(&ChildStdout::from(fd)));
    });
}

#[test]
fn a_childs_output_is_anothers_input() {
    both(|| {
        let mut one =
            shell("sleep 0.05; echo plain; echo song").stdout(Stdio::piped()).spawn().unwrap();
        let mut sort = Command::new("sort");
        let two = sort.arg("-r").stdin(one.stdout.take().unwrap()).output().unwrap();
        assert_eq!(two.stdout, b"song\nplain\n");
        one.wait().unwrap();
    });
}

#[test]
fn children_see_only_their_own_descriptors() {
    alone(children_see_only_their_own_descriptors, || {
        // Descriptors that the test has inherited are not ours.
        let ls = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap();
        let before = &String::from_utf8(ls.stdout).unwrap();
        plainsong::run(|| {
            let (listener, address) = listen();
            let stop = Rc::new(Cell::new(false));
            // Load: connections, pipes, look-ups, files and other children come and go.
            let connections = spawn(move || {
                for stream in listener.incoming() {
                    spawn(move || {
                        let mut stream = stream.unwrap();
                        let _ = stream.write_all(b"x");
                        let _ = stream.read(&mut [0; 1]);
                    });
                }
            });
            for _ in 0..5 {
                let stop = Rc::clone(&stop);
                spawn(move || {
                    while !stop.get() {
                        let mut stream = TcpStream::connect(address).unwrap();
                        stream.read_exact(&mut [0; 1]).unwrap();
                        drop(plainsong::io::Pollable::new(io::pipe().unwrap().0).unwrap());
                        plainsong::fs::File::open("/dev/null").unwrap();
                        let _ = plainsong::fs::read_dir("/").unwrap().next();
                    }
                });
            }
            #[cfg(feature = "signal")]
            let _signals = plainsong::signal::Signals::new([libc::SIGUSR1]).unwrap();
            scope(|s| {
                for _ in 0..60 {
                    s.spawn(|| {
                        let mut ls = Command::new("ls");
                        let output = ls.arg("/proc/self/fd").output().unwrap();
                        assert_eq!(String::from_utf8(output.stdout).unwrap(), *before);
                    });
                }
            });
            stop.set(true);
            connections.cancel();
        });
    });
}

#[test]
fn hundreds_of_children_that_end_at_once() {
    const CHILDREN: usize = 300;
    alone(hundreds_of_children_that_end_at_once, || {
        plainsong::run(|| {
            let signalled = Rc::new(Cell::new(0));
            #[cfg(feature = "signal")]
            let listener = spawn({
                let signalled = Rc::clone(&signalled);
                let mut signals = plainsong::signal::Signals::new([libc::SIGCHLD]).unwrap();
                move || {
                    loop {
                        assert_eq!(signals.wait().unwrap(), libc::SIGCHLD);
                        signalled.set(signalled.get() + 1);
                    }
                }
            });
            let (reader, writer) = io::pipe().unwrap();
            let mut children: Vec<_> = (0..CHILDREN)
                .map(|n| {
                    let mut command = shell(&format!("read line; exit {}", n % 250));
                    command.stdin(reader.try_clone().unwrap()).spawn().unwrap()
                })
                .collect();
            drop(reader);
            scope(|s| {
                let waits = children.iter_mut().enumerate().map(|(n, child)| {
                    s.spawn(move || {
                        assert_eq!(child.wait().unwrap().code(), Some((n % 250) as i32));
                    })
                });
                waits.collect::<Vec<_>>().iter().for_each(until_parked);
                drop(writer);
            });
            #[cfg(feature = "signal")]
            {
                util::until(|| signalled.get() > 0);
                listener.cancel();
            }
        });
    });
}

#[test]
fn waits_and_cancellations_in_any_order() {
    util::run(|| {
        for round in 0..40 {
            let mut child = Command::new("true").spawn().unwrap();
            for _ in 0..round {
                let _ = timeout(Duration::from_micros(50), || child.wait());
                yield_now();
            }
            assert!(child.wait().unwrap().success());
        }
    });
}

#[test]
fn without_descriptors_a_thread_waits_for_the_child() {
    alone(without_descriptors_a_thread_waits_for_the_child, || {
        plainsong::run(|| {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let stdin = child.stdin.take();
            let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
            util::limit_descriptors(3);
            assert!(timeout(Duration::from_millis(5), || child.wait()).is_err());
            let waiting = spawn(move || child.wait());
            until_parked(&waiting);
            assert!(format!("{waiting:?}").contains("blocking"), "{waiting:?}");
            drop(stdin);
            assert!(waiting.join().unwrap().unwrap().success());
            assert!(timeout(Duration::from_millis(5), || other.wait()).is_err());
            other.kill().unwrap();
            assert_eq!(other.wait().unwrap().signal(), Some(9));
        });
    });
}
