//! Deadlines that are errors: `fail_after`, and those of sockets, pipes and streams in memory.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plainsong::io::{Pollable, duplex, pipe, wait_writable};
use plainsong::net::{TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use plainsong::sync::{Mutex, Semaphore, channel};
use plainsong::time::{fail_after, fail_at, now, remaining, sleep, timeout};
use plainsong::{shield, spawn, task};
use rustix::thread::gettid;

use crate::util::{
    HOUR, MOMENT, OnDrop, both, full_listener, kind, listen, on_another, pair, run, run_on,
    until_asleep, until_parked, watch,
};

/// Sets the deadline for reads.
type Set = Box<dyn Fn(Option<Instant>) + Send>;
/// A read, which gets what was written in the time before.
type Get = Box<dyn Fn() -> io::Result<usize> + Send>;
/// Writes a byte.
type Put = Box<dyn Fn() + Send>;

/// Everything that has a deadline for reads.
fn readers() -> Vec<(&'static str, Set, Get, Put)> {
    macro_rules! row {
        ($name:literal, $reader:expr, $get:expr, $put:expr) => {{
            let (reader, get) = (Arc::new($reader), $get);
            let same = Arc::clone(&reader);
            let set = move |deadline| reader.set_read_deadline(deadline);
            let row: (_, Set, Get, Put) =
                ($name, Box::new(set), Box::new(move || get(&same)), Box::new($put));
            row
        }};
    }
    let (tcp, theirs) = pair();
    let (unix, unix_theirs) = UnixStream::pair().unwrap();
    let (gram, gram_theirs) = UnixDatagram::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (udp_theirs, udp_address) =
        (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), udp.local_addr().unwrap());
    let (reader, writer) = pipe().unwrap();
    let (end, end_theirs) = duplex(16);
    let (wrapped, wrapped_theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (listener, address) = listen();
    vec![
        row!("TcpStream", tcp, |of: &TcpStream| { (&*of).read(&mut [0; 9]) }, move || {
            (&theirs).write_all(b"x").unwrap();
        }),
        row!("UnixStream", unix, |of: &UnixStream| { (&*of).read(&mut [0; 9]) }, move || {
            (&unix_theirs).write_all(b"x").unwrap();
        }),
        row!("UnixDatagram", gram, |of: &UnixDatagram| of.recv(&mut [0; 9]), move || {
            gram_theirs.send(b"x").unwrap();
        }),
        row!("UdpSocket", udp, |of: &UdpSocket| of.recv(&mut [0; 9]), move || {
            udp_theirs.send_to(b"x", udp_address).unwrap();
        }),
        row!(
            "PipeReader",
            reader,
            |of: &plainsong::io::PipeReader| { (&*of).read(&mut [0; 9]) },
            move || (&writer).write_all(b"x").unwrap()
        ),
        row!(
            "DuplexStream",
            end,
            |of: &plainsong::io::DuplexStream| { (&*of).read(&mut [0; 9]) },
            move || (&end_theirs).write_all(b"x").unwrap()
        ),
        row!(
            "Pollable",
            Pollable::new(wrapped).unwrap(),
            |of: &Pollable<std::os::unix::net::UnixStream>| { (&*of).read(&mut [0; 9]) },
            move || (&wrapped_theirs).write_all(b"x").unwrap()
        ),
        row!(
            "TcpListener",
            listener,
            |of: &plainsong::net::TcpListener| of.accept().map(|_| 1),
            move || drop(std::net::TcpStream::connect(address).unwrap())
        ),
    ]
}

#[test]
fn a_deadline_in_the_past_ends_a_read_that_waits() {
    run(|| {
        for (name, set, get, put) in readers() {
            let reading = spawn(move || (get(), get));
            until_parked(&reading);
            set(Some(now()));
            let (read, get) = reading.join().unwrap();
            assert_eq!(kind(read), ErrorKind::TimedOut, "{name}");
            // Also where it need not wait. Nothing is lost.
            put();
            assert_eq!(kind(get()), ErrorKind::TimedOut, "{name}");
            assert_eq!(kind(get()), ErrorKind::TimedOut, "{name}");
            set(None);
            assert_eq!(get().unwrap(), 1, "{name}");
            set(Some(now() + HOUR));
            put();
            assert_eq!(get().unwrap(), 1, "{name}");
        }
    });
}

#[test]
fn a_deadline_that_comes_ends_a_read_that_waits() {
    both(|| {
        for (name, set, get, put) in readers() {
            set(Some(now() + MOMENT));
            assert_eq!(kind(get()), ErrorKind::TimedOut, "{name}");
            assert_eq!(kind(get()), ErrorKind::TimedOut, "{name}");
            set(None);
            put();
            assert_eq!(get().unwrap(), 1, "{name}");
        }
    });
}

#[test]
fn a_later_deadline_replaces_the_one_of_a_read_that_waits() {
    run(|| {
        for (name, set, get, put) in readers() {
            set(Some(now() + HOUR));
            let reading = spawn(get);
            until_parked(&reading);
            set(Some(now() + 2 * HOUR));
            set(None);
            plainsong::yield_now();
            put();
            assert_eq!(reading.join().unwrap().unwrap(), 1, "{name}");
        }
    });
}

#[test]
fn a_deadline_is_set_on_another_worker_and_on_a_plain_thread() {
    for (name, set, get, _put) in readers() {
        run_on(2, move || {
            let begin = |get: Get| {
                let (tell, told) = std::sync::mpsc::channel();
                let reading = on_another(move || {
                    tell.send(gettid()).unwrap();
                    (kind(get()), get)
                });
                until_asleep(told.recv().unwrap());
                reading
            };
            let reading = begin(get);
            set(Some(now()));
            let (error, get) = reading.join().unwrap();
            assert_eq!(error, ErrorKind::TimedOut, "{name}");
            set(None);
            let reading = begin(get);
            std::thread::spawn(move || set(Some(Instant::now()))).join().unwrap();
            assert_eq!(reading.join().unwrap().0, ErrorKind::TimedOut, "{name}");
        });
    }
}

/// The first read registers the descriptor, while another thread sets the deadline.
#[test]
fn no_deadline_is_missed_by_a_read_that_begins_meanwhile() {
    run_on(2, || {
        for _ in 0..2000 {
            let (one, _two) = UnixStream::pair().unwrap();
            let same = one.try_clone().unwrap();
            let reading = on_another(move || kind((&same).read(&mut [0])));
            one.set_read_deadline(Some(now()));
            assert_eq!(reading.join().unwrap(), ErrorKind::TimedOut);
        }
    });
}

#[test]
fn the_earlier_of_time_out_and_deadline_ends_the_wait() {
    both(|| {
        let (ours, _theirs) = pair();
        ours.set_read_timeout(Some(MOMENT)).unwrap();
        ours.set_read_deadline(Some(now() + HOUR));
        assert_eq!(kind((&ours).read(&mut [0])), ErrorKind::WouldBlock);
        ours.set_read_timeout(Some(HOUR)).unwrap();
        ours.set_read_deadline(Some(now() + MOMENT));
        assert_eq!(kind((&ours).read(&mut [0])), ErrorKind::TimedOut);
        ours.set_read_deadline(Some(now() + HOUR));
        assert_eq!(kind(fail_after(MOMENT, || (&ours).read(&mut [0]))), ErrorKind::TimedOut);
    });
}

#[test]
fn deadlines_beyond_what_a_number_holds() {
    both(|| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"12").unwrap();
        let mut far = HOUR;
        while let Some(deadline) = now().checked_add(far) {
            ours.set_read_deadline(Some(deadline));
            far *= 2;
        }
        (&ours).read_exact(&mut [0]).unwrap();
        let mut past = MOMENT;
        while let Some(deadline) = now().checked_sub(past) {
            ours.set_read_deadline(Some(deadline));
            assert_eq!(kind((&ours).read(&mut [0])), ErrorKind::TimedOut);
            past *= 2;
        }
        fail_after(Duration::MAX, || ours.set_read_deadline(None));
        (&ours).read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn writes_have_a_deadline() {
    fn fill(name: &str, set: impl Fn(Option<Instant>) + 'static, mut stream: impl Write + 'static) {
        let writing = spawn(move || {
            let error = kind((0..).try_for_each(|_| stream.write_all(&[0; 4096])));
            (error, kind(stream.write(&[0])))
        });
        until_parked(&writing);
        set(Some(now()));
        let errors = writing.join().unwrap();
        assert_eq!(errors, (ErrorKind::TimedOut, ErrorKind::TimedOut), "{name}");
    }
    run(|| {
        let (ours, _theirs) = pair();
        let same = ours.try_clone().unwrap();
        fill("TcpStream", move |deadline| ours.set_write_deadline(deadline), same);
        let (_reader, writer) = pipe().unwrap();
        let writer = Arc::new(writer);
        let same = Arc::clone(&writer);
        fill("PipeWriter", move |deadline| writer.set_write_deadline(deadline), Shared(same));
        let (end, _theirs) = duplex(16);
        let end = Arc::new(end);
        let same = Arc::clone(&end);
        fill("DuplexStream", move |deadline| end.set_write_deadline(deadline), Shared(same));
    });
}

struct Shared<T>(Arc<T>);

impl<T> Write for Shared<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

#[test]
fn foreign_code_goes_on_after_an_error_and_not_after_an_unwind() {
    /// Reads a line of which half comes before the time is up.
    fn line(mut attempt: impl FnMut(&mut dyn FnMut() -> io::Result<()>)) -> String {
        let (ours, mut theirs) = pair();
        let (mut reader, mut line) = (BufReader::new(ours), String::new());
        theirs.write_all(b"half a ").unwrap();
        // In memory before the attempt, so that the attempt itself waits.
        reader.fill_buf().unwrap();
        attempt(&mut || reader.read_line(&mut line).map(drop));
        theirs.write_all(b"line\n").unwrap();
        reader.read_line(&mut line).unwrap();
        line
    }
    both(|| {
        let failed = line(|read| {
            assert_eq!(kind(fail_after(MOMENT, &mut *read)), ErrorKind::TimedOut);
        });
        assert_eq!(failed, "half a line\n");
        let unwound = line(|read| assert!(timeout(MOMENT, &mut *read).is_err()));
        assert_eq!(unwound, "line\n");
    });
}

#[test]
fn what_need_not_wait_succeeds_but_not_for_ever() {
    fn never_wait(mut one: impl Read, mut two: impl Write) {
        two.write_all(b"x").unwrap();
        fail_after(Duration::ZERO, || one.read_exact(&mut [0])).unwrap();
        // A pair in one coroutine never waits.
        let error = fail_after(Duration::ZERO, || -> io::Result<()> {
            loop {
                two.write_all(b"x")?;
                one.read_exact(&mut [0])?;
            }
        });
        assert_eq!(kind(error), ErrorKind::TimedOut);
    }
    both(|| {
        let (one, two) = UnixStream::pair().unwrap();
        never_wait(one, two);
        let (one, two) = duplex(1);
        never_wait(one, two);
        let (_one, two) = UnixStream::pair().unwrap();
        let error = fail_after(Duration::ZERO, || -> io::Result<()> {
            loop {
                wait_writable(&two)?;
            }
        });
        assert_eq!(kind(error), ErrorKind::TimedOut);
    });
}

#[test]
fn nested_deadlines_and_time_outs_end_in_their_order() {
    both(|| {
        let (one, _two) = UnixStream::pair().unwrap();
        let read = || (&one).read(&mut [0]);
        let outer = fail_after(MOMENT, || fail_after(HOUR, read));
        assert_eq!(kind(outer), ErrorKind::TimedOut);
        let inner = fail_after(HOUR, || {
            let inner = fail_at(now() + MOMENT, read);
            // Only the inner one has passed.
            assert!(remaining().unwrap() > MOMENT);
            inner
        });
        assert_eq!(kind(inner), ErrorKind::TimedOut);
        assert!(timeout(MOMENT, || fail_after(HOUR, read)).is_err());
        assert_eq!(kind(timeout(HOUR, || fail_after(MOMENT, read)).unwrap()), ErrorKind::TimedOut);
        assert!(fail_after(HOUR, || timeout(MOMENT, read)).is_err());
        let inner = fail_after(MOMENT, || timeout(HOUR, read)).unwrap();
        assert_eq!(kind(inner), ErrorKind::TimedOut);
        // The errors are behind: time-outs go on unwinding.
        let both = timeout(MOMENT, || {
            fail_after(Duration::ZERO, || {
                assert_eq!(kind(read()), ErrorKind::TimedOut);
                sleep(HOUR);
            });
        });
        assert!(both.is_err());
    });
}

#[test]
fn a_shield_hides_a_deadline() {
    run(|| {
        let (one, two) = UnixStream::pair().unwrap();
        let reading = spawn(move || {
            fail_after(Duration::ZERO, || {
                assert_eq!(shield(remaining), None);
                let shielded = shield(|| (&one).read(&mut [0]));
                (shielded.unwrap(), kind((&one).read(&mut [0])))
            })
        });
        until_parked(&reading);
        plainsong::yield_now();
        (&two).write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), (1, ErrorKind::TimedOut));
    });
}

#[test]
fn a_deadline_is_not_for_children() {
    run(|| {
        let (one, two) = UnixStream::pair().unwrap();
        let read = fail_after(Duration::ZERO, || {
            task::gather([
                Box::new(|| (&one).read(&mut [0])) as Box<dyn FnOnce() -> io::Result<usize>>,
                Box::new(|| (&two).write(b"x")),
            ])
        });
        assert_eq!(read.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 1]);
    });
}

#[test]
fn waits_with_a_time_out_end_and_others_wait_on() {
    both(|| {
        fail_after(Duration::ZERO, || {
            let (sender, receiver) = channel::bounded(0);
            assert!(receiver.recv_timeout(HOUR).unwrap_err().is_timeout());
            assert!(sender.send_timeout(1, HOUR).unwrap_err().is_timeout());
            assert!(channel::after(HOUR).recv_timeout(HOUR).is_err());
            assert!(Semaphore::new(0).acquire_timeout(HOUR).is_err());
            let (asleep, _stays) = (spawn(|| sleep(HOUR)), sender);
            let handle = asleep.join_timeout(HOUR).unwrap_err();
            assert_eq!(task::wait([handle], Some(HOUR)).1.len(), 1);
            // A wait without a time-out has no error either.
            let mutex = Arc::new(Mutex::new(()));
            let theirs = Arc::clone(&mutex);
            let holder = spawn(move || {
                let _held = theirs.lock();
                sleep(MOMENT);
            });
            plainsong::yield_now();
            assert!(mutex.lock_timeout(HOUR).is_err());
            drop(mutex.lock().unwrap());
            holder.join().unwrap();
            sleep(MOMENT);
        });
    });
}

#[test]
fn connects_look_ups_and_child_processes_fail() {
    run(|| {
        let (_listener, address, _clients) = full_listener();
        let error = fail_after(MOMENT, || TcpStream::connect(address)).unwrap_err();
        assert!(error.to_string().contains("fail_after"), "{error}");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let mut child = plainsong::process::Command::new("cat")
            .stdin(plainsong::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        assert_eq!(kind(fail_after(Duration::ZERO, || child.wait())), ErrorKind::TimedOut);
        drop(stdin);
        assert!(child.wait().unwrap().success());
        let listener = UnixListener::bind(crate::util::Folder::new().join("here")).unwrap();
        assert_eq!(kind(fail_after(MOMENT, || listener.accept())), ErrorKind::TimedOut);
        let server = plainsong::net::Server::new(listen().0);
        assert_eq!(kind(fail_after(MOMENT, || server.serve(|_| ()))), ErrorKind::TimedOut);
    });
}

#[test]
fn a_destructor_that_an_unwind_runs_may_wait_within_a_deadline() {
    run(|| {
        let (one, _two) = UnixStream::pair().unwrap();
        let failed = Cell::new(None);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _guard = OnDrop(|| {
                failed.set(Some(kind(fail_after(MOMENT, || (&one).read(&mut [0])))));
            });
            panic!("on purpose");
        }));
        assert!(unwound.is_err());
        assert_eq!(failed.get(), Some(ErrorKind::TimedOut));
    });
}

#[test]
fn a_cancellation_passes_through_a_deadline() {
    run(|| {
        for limit in [Duration::ZERO, HOUR] {
            let asleep = spawn(move || fail_after(limit, || sleep(HOUR)));
            until_parked(&asleep);
            asleep.cancel();
            assert!(asleep.join().unwrap_err().is_cancelled());
        }
    });
    // On a plain thread `f` is a coroutine of its own.
    watch(|| assert!(fail_after(HOUR, remaining).is_some()));
}
