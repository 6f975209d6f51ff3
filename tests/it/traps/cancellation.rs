//! Cancels each waiting operation in each way, and a program that uses many at each of its waits.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread as system;
use std::time::{Duration, Instant};

use plainsong::generator::Generator;
use plainsong::io::{Pollable, wait_readable, wait_writable};
use plainsong::net::{Server, TcpStream, ToSocketAddrs};
use plainsong::signal::{SIGUSR2, Signals};
use plainsong::sync::select::Select;
use plainsong::sync::{
    Barrier, Condvar, Event, Mutex, OnceLock, Promise, Queue, ReentrantMutex, RwLock, Semaphore,
    WaitGroup, broadcast, channel, mpsc, oneshot, watch,
};
use plainsong::time::{interval, sleep, sleep_until, timeout, timeout_at};
use plainsong::{CancellationToken, JoinError, JoinHandle, net, select, task, thread};

use crate::util::{
    HOUR, MOMENT, OnDrop, alone, descriptors, full_listener, listen, mappings, pair, panic_of,
    spawn_with_handle, until, until_parked, watch,
};

fn sleeper() -> JoinHandle<()> {
    plainsong::spawn(|| sleep(Duration::MAX))
}

fn udp() -> net::UdpSocket {
    net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn datagrams() -> (net::UnixDatagram, net::UnixDatagram) {
    net::UnixDatagram::pair().unwrap()
}

/// A name that no other socket has.
fn name() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("plainsong-cancelled-{}-{count}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn unix_listener() -> (SocketAddr, net::UnixListener) {
    let address = name();
    let listener = net::UnixListener::bind_addr(&address).unwrap();
    (address, listener)
}

fn ignore<T>(_: T) {}

/// Keeps both ends of a channel.
fn held<S, R>(ends: (S, R)) -> Box<(S, R)> {
    Box::new(ends)
}

/// Writes until it must wait.
fn fill(stream: &TcpStream) -> ! {
    loop {
        (&*stream).write_all(&[0; 65536]).unwrap();
    }
}

/// Every operation that waits, made to wait for ever.
const OPERATIONS: &[(&str, fn())] = &[
    ("sleep", || sleep(HOUR)),
    ("sleep for ever", || sleep(Duration::MAX)),
    ("sleep_until", || sleep_until(Instant::now() + HOUR)),
    ("tick", || {
        let mut ticks = interval(HOUR);
        ticks.tick();
        ticks.tick();
    }),
    ("park", || {
        loop {
            thread::park();
        }
    }),
    ("park_timeout", || thread::park_timeout(HOUR)),
    ("thread::sleep", || thread::sleep(HOUR)),
    ("join", || sleeper().join().unwrap()),
    ("thread join", || thread::spawn(|| sleep(HOUR)).join().unwrap()),
    ("join_timeout", || drop(sleeper().join_timeout(HOUR))),
    ("join_all", || drop(task::join_all([sleeper(), sleeper()]))),
    ("wait", || drop(task::wait([sleeper(), sleeper()], Some(HOUR)))),
    ("as_completed", || drop(task::as_completed([sleeper(), sleeper()]).next())),
    ("gather", || drop(task::gather([HOUR, HOUR].map(|time| move || sleep(time))))),
    ("race", || task::race([HOUR, HOUR].map(|time| move || sleep(time)))),
    ("end of scope", || {
        plainsong::scope(|s| drop(s.spawn(|| sleep(HOUR))));
    }),
    ("join in scope", || plainsong::scope(|s| s.spawn(|| sleep(HOUR)).join().unwrap())),
    ("wait in scope", || {
        plainsong::scope(|s| {
            s.spawn(|| sleep(HOUR));
            sleep(HOUR);
        });
    }),
    ("cancelled", || CancellationToken::new().cancelled()),
    ("run_until_cancelled", || {
        CancellationToken::new().run_until_cancelled(|| sleep(HOUR));
    }),
    ("timeout", || ignore(timeout(Duration::MAX, || sleep(HOUR)))),
    ("timeout_at", || ignore(timeout_at(Instant::now() + HOUR, || sleep(HOUR)))),
    ("accept", || drop(listen().0.accept())),
    ("incoming", || drop(listen().0.incoming().next())),
    ("connect", || {
        let (_listener, address, _clients) = full_listener();
        drop(TcpStream::connect(address));
    }),
    ("connect_timeout", || {
        let (_listener, address, _clients) = full_listener();
        drop(TcpStream::connect_timeout(&address, HOUR));
    }),
    ("read", || {
        let (mut ours, _theirs) = pair();
        drop(ours.read(&mut [0]));
    }),
    ("read with a time-out", || {
        let (mut ours, _theirs) = pair();
        ours.set_read_timeout(Some(HOUR)).unwrap();
        drop(ours.read(&mut [0]));
    }),
    ("peek", || {
        let (ours, _theirs) = pair();
        drop(ours.peek(&mut [0]));
    }),
    ("write", || {
        let (ours, _theirs) = pair();
        fill(&ours);
    }),
    ("udp recv", || drop(udp().recv(&mut [0]))),
    ("udp recv_from", || drop(udp().recv_from(&mut [0]))),
    ("udp peek", || drop(udp().peek(&mut [0]))),
    ("udp peek_from", || drop(udp().peek_from(&mut [0]))),
    ("unix accept", || drop(unix_listener().1.accept())),
    ("unix incoming", || drop(unix_listener().1.incoming().next())),
    ("unix serve", || drop(unix_listener().1.serve(|_| ()))),
    ("unix connect", || {
        let (address, listener) = unix_listener();
        rustix::net::listen(&listener, 0).unwrap();
        let _clients: [_; 2] = [(); 2].map(|()| net::UnixStream::connect_addr(&address));
    }),
    ("unix read", || {
        let (mut one, _two) = net::UnixStream::pair().unwrap();
        drop(one.read(&mut [0]));
    }),
    ("unix peek", || {
        let (one, _two) = net::UnixStream::pair().unwrap();
        drop(one.peek(&mut [0]));
    }),
    ("unix write", || {
        let (mut one, _two) = net::UnixStream::pair().unwrap();
        while one.write(&[0; 4096]).is_ok() {}
    }),
    ("unix datagram recv", || drop(datagrams().0.recv(&mut [0]))),
    ("unix datagram recv_from", || drop(datagrams().0.recv_from(&mut [0]))),
    ("unix datagram peek", || drop(datagrams().0.peek(&mut [0]))),
    ("unix datagram peek_from", || drop(datagrams().0.peek_from(&mut [0]))),
    ("unix datagram send", || {
        let (one, _two) = datagrams();
        while one.send(&[0; 512]).is_ok() {}
    }),
    ("unix datagram send_to", || {
        let address = name();
        let _receiver = net::UnixDatagram::bind_addr(&address).unwrap();
        let sender = net::UnixDatagram::unbound().unwrap();
        while sender.send_to_addr(&[0], &address).is_ok() {}
    }),
    ("wait_readable", || {
        let (_one, two) = UnixStream::pair().unwrap();
        drop(wait_readable(&two));
    }),
    ("wait_writable", || {
        let (one, _two) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        while (&one).write(&[0; 4096]).is_ok() {}
        drop(wait_writable(&one));
    }),
    ("pollable", || {
        let (_one, two) = UnixStream::pair().unwrap();
        drop(Pollable::new(two).unwrap().read(&mut [0]));
    }),
    ("send", || ignore(held(channel::bounded(0)).0.send(()))),
    ("send_timeout", || ignore(held(channel::bounded(0)).0.send_timeout((), HOUR))),
    ("recv", || ignore(held(channel::bounded::<()>(1)).1.recv())),
    ("recv_timeout", || ignore(held(channel::unbounded::<()>()).1.recv_timeout(HOUR))),
    ("recv of the clock", || ignore(channel::after(HOUR).recv())),
    ("recv of nothing", || ignore(channel::never::<()>().recv())),
    ("mpsc recv", || ignore(held(mpsc::channel::<()>()).1.recv())),
    ("oneshot recv", || {
        let (_sender, receiver) = oneshot::channel::<()>();
        ignore(receiver.recv());
    }),
    ("oneshot closed", || {
        let (mut sender, _receiver) = oneshot::channel::<()>();
        sender.closed();
    }),
    ("broadcast recv", || {
        let (_sender, mut receiver) = broadcast::channel::<()>(1);
        ignore(receiver.recv());
    }),
    ("watch changed", || {
        let (_sender, mut receiver) = watch::channel(());
        ignore(receiver.changed());
    }),
    ("select", || {
        let (sender, receiver) = channel::bounded::<()>(0);
        select! {
            recv(receiver) -> _ => {}
            send(sender, ()) -> _ => {}
            join(sleeper()) -> _ => {}
            recv(channel::after(HOUR)) -> _ => {}
            default(2 * HOUR) => {}
        }
    }),
    ("ready", || {
        let (_sender, receiver) = channel::bounded::<()>(0);
        let mut select = Select::new();
        select.recv(&receiver);
        select.ready();
    }),
    ("block_on", || plainsong::block_on(std::future::pending::<()>())),
    ("generator", || ignore(Generator::<()>::new(|_: &_| sleep(HOUR)).next())),
    ("scope in a generator", || {
        let body = |_: &_| plainsong::scope(|s| s.spawn(|| sleep(HOUR)).join().unwrap());
        ignore(Generator::<()>::new(body).next());
    }),
    ("signal", || drop(Signals::new([SIGUSR2]).unwrap().wait())),
    ("mutex", || {
        let mutex = Mutex::new(());
        let _guard = mutex.lock();
        drop(mutex.lock());
    }),
    ("mutex with a time-out", || {
        let mutex = Mutex::new(());
        let _guard = mutex.lock();
        drop(mutex.lock_timeout(HOUR));
    }),
    ("reentrant mutex", || {
        let mutex = ReentrantMutex::new(());
        let _guard = mutex.lock();
        task::gather([|| drop(mutex.lock())]);
    }),
    ("read lock", || {
        let lock = RwLock::new(());
        let _guard = lock.write();
        drop(lock.read());
    }),
    ("write lock", || {
        let lock = RwLock::new(());
        let _guard = lock.read();
        drop(lock.write());
    }),
    ("write lock with a time-out", || {
        let lock = RwLock::new(());
        let _guard = lock.read();
        drop(lock.write_timeout(HOUR));
    }),
    ("condition variable", || {
        drop(Condvar::new().wait(Mutex::new(()).lock().unwrap()));
    }),
    ("condition variable with a time-out", || {
        drop(Condvar::new().wait_timeout(Mutex::new(()).lock().unwrap(), HOUR));
    }),
    ("semaphore", || drop(Semaphore::new(1).acquire_many(2))),
    ("semaphore with a time-out", || drop(Semaphore::new(0).acquire_timeout(HOUR))),
    ("barrier", || ignore(Barrier::new(2).wait())),
    ("barrier with a time-out", || ignore(Barrier::new(2).wait_timeout(HOUR))),
    ("event", || Event::new().wait()),
    ("event with a time-out", || ignore(Event::new().wait_timeout(HOUR))),
    ("wait group", || {
        let group = WaitGroup::new();
        let _share = group.clone();
        group.wait();
    }),
    ("once", || ignore(OnceLock::<()>::new().wait())),
    ("initialiser", || ignore(OnceLock::new().get_or_init(|| sleep(HOUR)))),
    ("another's initialiser", || {
        let once = OnceLock::new();
        task::gather([|| ignore(once.get_or_init(|| sleep(HOUR)))]);
    }),
    ("get", || ignore(Queue::<()>::fifo(None).get())),
    ("get with a time-out", || ignore(Queue::<()>::lifo(None).get_timeout(HOUR))),
    ("put", || {
        let queue = Queue::priority(Some(1));
        ignore((queue.put(1), queue.put(2)));
    }),
    ("join of a queue", || {
        let queue = Queue::fifo(None);
        queue.put(1).unwrap();
        queue.join();
    }),
    ("promise", || ignore(Promise::<()>::new().wait().is_ok())),
    ("promise with a time-out", || ignore(Promise::<()>::new().wait_timeout(HOUR).is_some())),
    ("duplex read", || drop(plainsong::io::duplex(1).0.read(&mut [0]))),
    ("duplex write", || {
        let (mut one, _two) = plainsong::io::duplex(1);
        drop(one.write_all(b"12"));
    }),
    ("serve", || drop(listen().0.serve(|_| ()))),
    ("Server", || drop(Server::new(listen().0).serve(|_| ()))),
];

#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(what: &str, result: Result<T, JoinError>) {
    match result {
        Err(error) if error.is_cancelled() => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// Cancels one operation in every way there is.
fn cancel_each_way(name: &'static str, operation: fn()) {
    let drops = Rc::new(Cell::new(0));
    let guard = || {
        let drops = Rc::clone(&drops);
        OnDrop(move || drops.set(drops.get() + 1))
    };
    let spawn = || {
        let guard = guard();
        plainsong::spawn(move || {
            let _guard = guard;
            operation();
            panic!("{name} was to wait for ever");
        })
    };

    let parked = spawn();
    until_parked(&parked);
    parked.cancel();
    assert_cancelled(name, parked.join());
    assert_eq!(drops.take(), 1, "{name}");

    let twice = spawn();
    until_parked(&twice);
    twice.cancel();
    twice.cancel();
    assert_cancelled(name, twice.join());
    assert_eq!(drops.take(), 1, "{name}, twice");

    let unborn = spawn();
    unborn.cancel();
    assert_cancelled(name, unborn.join());
    assert_eq!(drops.take(), 1, "{name}, not begun");

    let theirs = guard();
    let by_itself = spawn_with_handle(move |handle| {
        let _guard = theirs;
        handle.cancel();
        operation();
        panic!("{name} was to unwind");
    });
    plainsong::yield_now();
    while by_itself.borrow().is_none() {
        plainsong::yield_now();
    }
    assert_cancelled(name, by_itself.take().unwrap().join());
    assert_eq!(drops.take(), 1, "{name}, by itself");

    // Shielded until it is over, it is cancelled by its own time only.
    let shielded = spawn_with_handle(move |handle| {
        handle.cancel();
        let ended = plainsong::shield(|| timeout(MOMENT, operation));
        assert!(ended.is_err(), "{name}");
        plainsong::yield_now();
        panic!("{name} was to unwind after the shield");
    });
    plainsong::yield_now();
    while shielded.borrow().is_none() {
        plainsong::yield_now();
    }
    assert_cancelled(name, shielded.take().unwrap().join());

    let in_time = timeout(MOMENT, || {
        let _guard = guard();
        operation();
    });
    assert!(in_time.is_err(), "{name}");
    assert_eq!(drops.take(), 1, "{name}, by time-out");
    assert!(timeout(Duration::ZERO, operation).is_err(), "{name}, no time");

    let stop = CancellationToken::new();
    let theirs = stop.clone();
    let cancelled = plainsong::spawn(move || theirs.run_until_cancelled(operation));
    until_parked(&cancelled);
    let from_outside = system::spawn(move || stop.cancel());
    assert!(matches!(cancelled.join(), Ok(None)), "{name}");
    from_outside.join().unwrap();

    let by_thread = spawn();
    until_parked(&by_thread);
    let by_thread = system::spawn(move || {
        by_thread.cancel();
        by_thread.join()
    });
    let mut by_thread = Some(by_thread);
    while !by_thread.as_ref().unwrap().is_finished() {
        plainsong::yield_now();
    }
    assert_cancelled(name, by_thread.take().unwrap().join().unwrap());
    assert_eq!(drops.take(), 1, "{name}, by a thread");

    // And once more at the end of the run.
    until_parked(&spawn());
}

#[test]
fn each_operation_in_each_way() {
    alone(each_operation_in_each_way, || {
        let mut before = None;
        for round in 0..3 {
            for &(name, operation) in OPERATIONS {
                plainsong::run(|| cancel_each_way(name, operation));
            }
            let now = (descriptors(), mappings());
            // The first round leaves what is kept for the next: stacks, a reactor, a thread.
            assert!(round < 2 || before == Some(now.0), "{before:?} descriptors, now {now:?}");
            before = Some(now.0);
        }
    });
}

#[test]
fn cancellations_leave_no_memory_behind() {
    alone(cancellations_leave_no_memory_behind, || {
        let once = |name, operation: fn()| {
            plainsong::run(|| {
                let victim = plainsong::spawn(operation);
                until_parked(&victim);
                victim.cancel();
                assert_cancelled(name, victim.join());
            });
        };
        let quick = |name: &str| !name.starts_with("connect");
        let all = |times| {
            for _ in 0..times {
                for &(name, operation) in OPERATIONS.iter().filter(|(name, _)| quick(name)) {
                    once(name, operation);
                }
            }
        };
        all(20);
        let (descriptors_before, mappings_before) = (descriptors(), mappings());
        let resident_before = crate::util::resident();
        all(60);
        assert_eq!(descriptors(), descriptors_before);
        assert!(mappings() <= mappings_before + 4, "{} of {mappings_before}", mappings());
        let grown = crate::util::resident().saturating_sub(resident_before);
        // 2,000 operations: a page each would be 8 MB.
        assert!(grown < 2000, "grew by {grown} KiB");
    });
}

#[test]
fn a_descriptor_forgets_those_who_gave_up() {
    alone(a_descriptor_forgets_those_who_gave_up, || {
        plainsong::run(|| {
            let (ours, mut theirs) = pair();
            let some = |count| {
                for _ in 0..count {
                    assert!(timeout(Duration::ZERO, || (&ours).read(&mut [0])).is_err());
                }
            };
            some(10_000);
            let before = crate::util::resident();
            some(60_000);
            let grown = crate::util::resident().saturating_sub(before);
            assert!(grown < 500, "grew by {grown} KiB");
            theirs.write_all(b"hello").unwrap();
            let mut data = [0; 5];
            (&ours).read_exact(&mut data).unwrap();
            assert_eq!(&data, b"hello");
        });
    });
}

/// A client and a server with much to wait for; `step` is called before each thing.
fn busy_program(step: &dyn Fn(), guard: &dyn Fn() -> Counted) {
    let _all = guard();
    let (listener, address) = listen();
    step();
    plainsong::scope(|s| {
        let _here = guard();
        s.spawn(|| {
            let _accepting = guard();
            step();
            let (mut conn, _) = listener.accept().unwrap();
            let mut line = [0; 4];
            for _ in 0..3 {
                step();
                conn.read_exact(&mut line).unwrap();
                step();
                let pause = || sleep(Duration::from_micros(100));
                assert_eq!(timeout(HOUR, pause), Ok(()));
                step();
                conn.write_all(&line).unwrap();
            }
            step();
            assert_eq!(conn.read(&mut line).unwrap(), 0);
        });
        step();
        let mut conn = TcpStream::connect(address).unwrap();
        for word in [b"wait", b"some", b"more"] {
            let _word = guard();
            step();
            conn.write_all(word).unwrap();
            let mut reply = [0; 4];
            step();
            conn.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, word);
        }
        step();
        let child = plainsong::spawn(|| sleep(Duration::from_micros(50)));
        child.join().unwrap();
        step();
        let lengths = task::gather([1, 2].map(|n| {
            move || {
                let _one = guard();
                step();
                sleep(Duration::from_micros(n * 20));
                n
            }
        }));
        assert_eq!(lengths, [1, 2]);
        step();
        task::race([1, 3600].map(|n| {
            move || {
                let _one = guard();
                sleep(Duration::from_micros(n));
            }
        }));
        step();
        assert!(timeout(Duration::from_micros(30), thread::park).is_err());
        step();
        wait_writable(std::io::stderr()).unwrap();
        step();
        drop("localhost:1".to_socket_addrs());
        let steps = Generator::new(|out| {
            for n in 0..3 {
                sleep(Duration::from_micros(10));
                out.yield_(n);
            }
        });
        for _ in steps {
            step();
            plainsong::yield_now();
        }
    });
    step();
}

/// Counts its drops.
struct Counted(Rc<Cell<i64>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Runs the busy program and cancels it at its wait number `at`. Returns how many waits there were.
fn busy_program_cancelled(at: usize) -> usize {
    let (made, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let waits = plainsong::run(|| {
        let steps = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&steps);
        let (made, dropped) = (Rc::clone(&made), Rc::clone(&dropped));
        let program = plainsong::spawn(move || {
            let guard = || {
                made.set(made.get() + 1);
                Counted(Rc::clone(&dropped))
            };
            busy_program(&|| theirs.set(theirs.get() + 1), &guard);
        });
        let (mut waits, mut last) = (0, String::new());
        while !program.is_finished() {
            let state = format!("{} {program:?}", steps.get());
            if state != last {
                if waits == at {
                    program.cancel();
                }
                waits += 1;
                last = state;
            }
            plainsong::yield_now();
        }
        match program.join() {
            Ok(()) => {}
            Err(error) => assert!(error.is_cancelled() && at < waits, "{error}"),
        }
        waits
    });
    assert_eq!(made, dropped, "cancelled at wait {at}");
    waits
}

#[test]
fn a_program_at_each_of_its_waits() {
    alone(a_program_at_each_of_its_waits, || {
        let all = busy_program_cancelled(usize::MAX);
        assert!(all > 20, "only {all} waits");
        busy_program_cancelled(10);
        let before = descriptors();
        for round in 0..3 {
            for at in 0..all + 5 + round {
                busy_program_cancelled(at);
                // A look-up that was given up goes on in its thread, and has a file open.
                until(|| descriptors() <= before);
                assert_eq!(descriptors(), before, "cancelled at wait {at}");
            }
        }
    });
}

#[test]
fn waits_in_no_wait() {
    watch(|| {
        for (name, operation) in OPERATIONS {
            // These tick or connect before they wait, which is waiting too.
            let message = panic_of(|| plainsong::run(|| plainsong::no_wait(operation)));
            assert!(message.contains("no_wait"), "{name}: {message}");
        }
        plainsong::run(|| {
            assert_eq!(plainsong::no_wait(|| 3), 3);
            plainsong::yield_now();
        });
    });
}
