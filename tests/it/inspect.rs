//! Dumps: each kind of wait in them, and where and when they can be taken.

use std::cell::Cell;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread as system;
use std::time::Duration;

use plainsong::inspect::{
    Answer, Cause, Coroutine, Dump, Holder, Stall, State, Worker, dump, metrics, watchdog,
};
use plainsong::net::{TcpListener, TcpStream, UnixStream};
use plainsong::sync::{Barrier, Condvar, Event, Mutex, RwLock, Semaphore, channel};
use plainsong::time::{sleep, timeout};
use plainsong::{Builder, JoinHandle, Runtime, scope, spawn, yield_now};

use crate::util::{HOUR, alone, on_another, run, run_on, until, until_parked, watch};

/// Spawns a coroutine with this name and waits until it is parked.
fn parked<T: 'static>(name: &str, body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let handle = Builder::new().name(name).spawn(body).unwrap();
    until_parked(&handle);
    handle
}

fn find(dump: &Dump, name: &str) -> Coroutine {
    let found = dump.coroutines().find(|one| one.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no '{name}' in {dump}"))
}

/// The wait of the coroutine with this name.
fn waits(dump: &Dump, name: &str) -> String {
    find(dump, name).waits_for.as_ref().unwrap_or_else(|| panic!("{dump}")).text.clone()
}

/// This line of this file, as dumps show it.
fn here(line: u32) -> String {
    format!("tests/it/inspect.rs:{line}:")
}

#[test]
fn a_lock_is_named_with_its_holder_and_the_place_of_the_wait() {
    run(|| {
        let mutex = Arc::new(Mutex::new(()));
        let (created, theirs, ours) = (line!() - 1, Arc::clone(&mutex), Arc::clone(&mutex));
        let holder = parked("holder", move || {
            let _guard = theirs.lock().unwrap();
            sleep(HOUR);
        });
        let waiter = parked("waiter", move || drop(ours.lock()));
        let waited = line!() - 1;
        let dump = dump();
        let waits_for = find(&dump, "waiter").waits_for.clone().unwrap();
        let expected =
            format!("lock Mutex at {}30 held by coroutine {} 'holder'", here(created), holder.id());
        assert_eq!(waits_for.text, expected, "{dump}");
        assert_eq!(waits_for.holder, Some(Holder::Coroutine(holder.id())));
        assert_eq!(waits_for.at.unwrap().line(), waited);
        assert_eq!(waits_for.at.unwrap().file(), "tests/it/inspect.rs");
        // It has the lock when it is handed over, too.
        holder.cancel();
        waiter.join().unwrap();
        drop(mutex.lock());
    });
}

#[test]
fn the_writer_and_the_readers_of_a_lock() {
    run(|| {
        let lock = Arc::new(RwLock::new(()));
        let share = || Arc::clone(&lock);
        let hold = |lock: Arc<RwLock<()>>| {
            move || {
                let _guard = lock.read().unwrap();
                sleep(HOUR);
            }
        };
        let readers = [parked("one", hold(share())), parked("two", hold(share()))];
        let lock = share();
        let writer = parked("writer", move || {
            let _guard = lock.write().unwrap();
            sleep(HOUR);
        });
        let two = readers[1].id();
        let text = waits(&dump(), "writer");
        let expected = format!("held by 2 readers, the last of them coroutine {two} 'two'");
        assert!(text.starts_with("write RwLock at ") && text.ends_with(&expected), "{text}");
        readers[1].cancel();
        until(|| readers[1].is_finished());
        assert!(waits(&dump(), "writer").ends_with("held by a reader"), "{}", dump());
        readers[0].cancel();
        until(|| readers[0].is_finished());
        let lock = share();
        let _late = parked("late", move || drop(lock.read()));
        let text = waits(&dump(), "late");
        let expected = format!("held by coroutine {} 'writer'", writer.id());
        assert!(text.starts_with("read RwLock at ") && text.ends_with(&expected), "{text}");
    });
}

#[test]
fn a_lock_that_a_plain_thread_holds() {
    run(|| {
        let mutex = Arc::new(Mutex::new(()));
        let (theirs, (held, holds)) = (Arc::clone(&mutex), mpsc::channel());
        let (release, released) = mpsc::channel::<()>();
        let thread = system::spawn(move || {
            let _guard = theirs.lock().unwrap();
            held.send(()).unwrap();
            released.recv().unwrap_err();
        });
        holds.recv().unwrap();
        let waiter = parked("behind a thread", move || drop(mutex.lock()));
        assert!(waits(&dump(), "behind a thread").ends_with("held by a plain thread"));
        drop(release);
        waiter.join().unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn channels_and_the_like_say_where_they_were_created_and_how_full_they_are() {
    run(|| {
        let (full, receiver) = channel::bounded(1);
        let (sender, empty) = channel::unbounded::<i32>();
        let line = line!() - 2;
        full.send(1).unwrap();
        let _sends = parked("sends", move || full.send(2));
        let _receives = parked("receives", move || empty.recv());
        let text = waits(&dump(), "sends");
        assert_eq!(text, format!("send, channel created at {}32, 1 of 1", here(line)));
        let text = waits(&dump(), "receives");
        assert_eq!(text, format!("recv, channel created at {}31, 0 in it", here(line + 1)));

        let few = Arc::new(Semaphore::new(1));
        let _acquires = parked("acquires", move || drop(few.acquire_many(2)));
        let text = waits(&dump(), "acquires");
        assert!(text.starts_with("acquire, Semaphore created at tests/it/"), "{text}");
        assert!(text.ends_with(", 1 in it"), "{text}");

        let _at_barrier = parked("at a barrier", || Barrier::new(2).wait());
        assert!(waits(&dump(), "at a barrier").ends_with(", 1 of 2"));
        let _waits = parked("waits", || Event::new().wait());
        assert!(waits(&dump(), "waits").starts_with("wait, Event created at tests/it/inspect.rs"));
        let _notified = parked("notified", || {
            drop(Condvar::new().wait(Mutex::new(()).lock().unwrap()));
        });
        assert!(waits(&dump(), "notified").starts_with("wait, Condvar created at tests/it/"));
        drop((sender, receiver));
    });
}

#[test]
fn sockets_say_between_which_addresses() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        let _reads = parked("reads", move || server.read(&mut [0]));
        assert_eq!(waits(&dump(), "reads"), format!("read tcp {address} <- {peer}"));
        let _accepts = parked("accepts", move || listener.accept());
        assert_eq!(waits(&dump(), "accepts"), format!("accept tcp {address}"));
        let (mut left, right) = UnixStream::pair().unwrap();
        let _unnamed = parked("unnamed", move || left.read(&mut [0]));
        assert_eq!(waits(&dump(), "unnamed"), "read unix unnamed");
        drop((client, right));
    });
}

#[test]
fn sleeps_and_time_outs_say_what_is_left() {
    run(|| {
        let _sleeper = parked("sleeper", || timeout(HOUR / 2, || sleep(HOUR)));
        let sleeping = dump();
        let sleeper = find(&sleeping, "sleeper");
        assert_eq!(waits(&sleeping, "sleeper"), "sleep, 59 min left");
        assert!(sleeper.deadline.unwrap() <= HOUR / 2);
        assert!(sleeper.deadline.unwrap() > HOUR / 3);
        assert_eq!(sleeper.scopes, 1);
        let stack = sleeper.stack;
        assert!(stack.used.unwrap() > 0 && stack.used.unwrap() <= stack.most);
        assert!(stack.most < stack.size && stack.size == 256 * 1024, "{stack:?}");
    });
}

#[test]
fn joins_parents_and_scopes_are_shown_as_a_tree() {
    // Alone, since a dump shows the other tests' coroutines, too.
    let test = || {
        plainsong::run(|| {
            let outer = parked("outer", || {
                scope(|s| {
                    (0..1000).for_each(|_| drop(s.spawn(|| sleep(HOUR))));
                    yield_now();
                });
            });
            let joins = parked("joins", || drop(parked("joined", || sleep(HOUR)).join()));
            // The children of `outer` are spawned in its turn, and park in theirs.
            until(|| dump().coroutines().all(|one| one.state != State::New));
            let dump = dump();
            let child = dump.coroutines().find(|one| one.scoped).unwrap();
            assert_eq!(child.parent, Some(outer.id()));
            assert_eq!(find(&dump, "joined").parent, Some(joins.id()));
            let joined = find(&dump, "joined").id;
            assert_eq!(waits(&dump, "joins"), format!("coroutine {joined} 'joined' to end"));
            assert_eq!(find(&dump, "joins").waits_for.as_ref().unwrap().joins, Some(joined));
            let text = dump.to_string();
            assert!(
                text.contains("\n        1000 coroutines alike in a scope, spawned at"),
                "{text}"
            );
            assert!(text.contains(&format!("\n        {joined} 'joined', spawned at")), "{text}");
            // With backtraces there are a few lines more for each.
            assert!(text.lines().count() < 40, "{text}");
            // The dump prints itself on a coroutine's stack, however deep the tree is.
            assert!(text.starts_with("plainsong: 1004 coroutines in process "), "{text}");
        })
    };
    alone(joins_parents_and_scopes_are_shown_as_a_tree, test);
}

#[test]
fn a_chain_of_parents_is_printed_without_recursion() {
    fn chain(left: usize, done: Rc<Cell<bool>>) {
        if left > 0 {
            spawn(move || chain(left - 1, done));
        } else {
            done.set(true);
        }
        sleep(HOUR);
    }
    let test = || {
        plainsong::run(|| {
            let done = Rc::new(Cell::new(false));
            let theirs = Rc::clone(&done);
            spawn(|| chain(3000, theirs));
            until(|| done.get());
            assert_eq!(dump().coroutines().count(), 3002);
            assert!(dump().to_string().lines().count() > 6000);
        })
    };
    alone(a_chain_of_parents_is_printed_without_recursion, test);
}

#[test]
fn a_plain_thread_sees_all_workers() {
    run_on(2, || {
        let (done, ended) = channel::bounded::<()>(1);
        let other = on_another(move || ended.recv());
        let handle = system::spawn(move || {
            loop {
                let dump = dump();
                let ours = |one: &Coroutine| one.id == other.id() && one.state == State::Parked;
                if let Some(one) = dump.coroutines().find(ours) {
                    let has = |worker: &&Worker| worker.coroutines.iter().any(|it| it.id == one.id);
                    let run = dump.workers.iter().find(has).unwrap().run;
                    let workers = dump.workers.iter().filter(|worker| worker.run == run);
                    assert_eq!(workers.count(), 2, "{dump}");
                    assert!(one.waits_for.as_ref().unwrap().text.starts_with("recv, channel"));
                    break;
                }
            }
            drop(done);
            other
        });
        until(|| handle.is_finished());
        handle.join().unwrap().join().unwrap().unwrap_err();
    });
}

/// A dump, taken while `hold_up` keeps a worker from its next turn until the flag is set.
fn held_up(hold_up: fn(&AtomicBool)) -> Dump {
    run_on(2, move || {
        let release = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&release);
        let (sender, beside) = channel::bounded::<()>(1);
        let stuck = on_another(move || {
            let _beside = parked("beside", move || beside.recv());
            hold_up(&theirs);
        });
        let dump = system::spawn(|| {
            loop {
                let dump = dump();
                if dump.workers.iter().any(|worker| worker.answer != Answer::InTurn) {
                    return dump;
                }
            }
        });
        until(|| dump.is_finished());
        release.store(true, Ordering::SeqCst);
        drop(sender);
        stuck.join().unwrap();
        dump.join().unwrap()
    })
}

#[test]
fn a_worker_that_computes_is_interrupted() {
    let dump = watch(|| held_up(|release| while !release.load(Ordering::SeqCst) {}));
    let worker = dump.workers.iter().find(|one| one.answer == Answer::Interrupted).unwrap();
    let running = worker.coroutines.iter().filter(|one| one.state == State::Running);
    assert_eq!(running.count(), 1, "{dump}");
    assert!(waits(&dump, "beside").starts_with("recv, channel created at tests/it/inspect.rs"));
    assert!(dump.to_string().contains("it is held up by coroutine #"), "{dump}");
}

#[test]
fn a_worker_that_is_stuck_in_a_system_call_is_interrupted() {
    let dump = watch(|| {
        held_up(|release| {
            // A sleep of std's, which goes on when a signal interrupts it.
            while !release.load(Ordering::SeqCst) {
                system::sleep(Duration::from_millis(300));
            }
        })
    });
    assert!(dump.workers.iter().any(|one| one.answer == Answer::Interrupted), "{dump}");
}

#[test]
fn the_watchdog_names_the_coroutine_that_sleeps_as_a_thread_does() {
    let (sender, stalls) = mpsc::channel::<Stall>();
    watchdog(Duration::from_millis(50), move |stall| _ = sender.send(stall.clone())).unwrap();
    let release = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&release);
    let run = system::spawn(move || {
        plainsong::run(|| {
            let sleeper = Builder::new().name("sleeper").spawn(move || {
                while !theirs.load(Ordering::SeqCst) {
                    system::sleep(Duration::from_millis(10));
                }
            });
            sleeper.unwrap().join().unwrap();
        });
    });
    let ours = |stall: &Stall| {
        stall.coroutine.as_ref().is_some_and(|one| one.name.as_deref() == Some("sleeper"))
    };
    let stall = watch(move || stalls.iter().find(ours).unwrap());
    assert!(stall.coroutine.as_ref().unwrap().spawned.to_string().contains("inspect.rs"));
    assert!([Cause::Sleeps, Cause::Computes].contains(&stall.cause), "{stall}");
    assert!(stall.to_string().contains("50 ms by coroutine #"), "{stall}");
    release.store(true, Ordering::SeqCst);
    run.join().unwrap();
    let error = watchdog(Duration::ZERO, |_| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn while_a_run_ends_and_in_a_panic_hook_and_a_dump_of_a_dump() {
    watch(|| {
        struct Dumps(&'static str);
        impl Drop for Dumps {
            fn drop(&mut self) {
                let dump = dump();
                assert_eq!(find(&dump, self.0).state, State::Running, "{dump}");
            }
        }
        plainsong::run(|| {
            parked("ends", || {
                let _dumps = Dumps("ends");
                sleep(HOUR);
            });
            let panics = Builder::new().name("panics").spawn(|| {
                let _dumps = Dumps("panics");
                panic!("as it should");
            });
            panics.unwrap().join().unwrap_err();
            // Formatting a dump may itself dump.
            let text = format!("{} {}", dump(), dump());
            assert!(catch_unwind(AssertUnwindSafe(dump)).is_ok() && text.len() > 100);
        });
        assert!(dump().coroutines().all(|one| one.name.as_deref() != Some("ends")));
    });
}

#[test]
fn a_hook_dumps_in_the_first_turn_of_its_coroutine() {
    watch(|| {
        static DUMPS: AtomicUsize = AtomicUsize::new(0);
        let hook = |id| {
            let dump = dump();
            let has = |worker: &&Worker| worker.coroutines.iter().any(|it| it.id == id);
            let worker = dump.workers.iter().find(has).unwrap();
            assert_eq!((worker.answer, worker.unlisted), (Answer::InTurn, 0));
            DUMPS.fetch_add(1, Ordering::Relaxed);
        };
        let runtime = Runtime::builder().on_resume(hook).on_end(hook).build().unwrap();
        runtime.run(|| spawn(|| ()).join().unwrap());
        // A panic of a hook goes no further.
        assert_eq!(DUMPS.load(Ordering::Relaxed), 5);
    });
}

#[test]
fn workers_that_dump_at_the_same_time() {
    run_on(2, || {
        let many = || (0..200).map(|_| dump().workers.len()).max();
        let other = on_another(many);
        assert!(many() <= Some(64));
        other.join().unwrap();
    });
}

#[test]
fn workers_are_asked_in_turn() {
    alone(workers_are_asked_in_turn, || {
        // The worker does not come to its next turn, so each answer takes long.
        plainsong::run(|| {
            let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
            let asks = || {
                while !stop.load(Ordering::SeqCst) {
                    metrics();
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            };
            let ours = 10;
            let theirs = system::scope(|s| {
                s.spawn(asks);
                s.spawn(asks);
                let asks_too = s.spawn(|| {
                    while answers.load(Ordering::SeqCst) < 2 {}
                    let before = answers.load(Ordering::SeqCst);
                    (0..ours).for_each(|_| drop(metrics()));
                    answers.load(Ordering::SeqCst) - before
                });
                let theirs = asks_too.join().unwrap();
                stop.store(true, Ordering::SeqCst);
                theirs
            });
            // Two for each of ours, and more if this thread has lost its processor between two.
            assert!(theirs <= 3 * ours, "{theirs} answers to others, and {ours} to us");
        });
    });
}

#[test]
fn the_reason_of_a_cancellation_is_shown_while_the_coroutine_cleans_up() {
    run(|| {
        let token = plainsong::CancellationToken::new();
        let theirs = token.clone();
        let part = parked("part", move || {
            theirs.run_until_cancelled(|| {
                let _clean_up = crate::util::OnDrop(plainsong::thread::park);
                sleep(HOUR);
            })
        });
        token.cancel_with("the server stops");
        yield_now();
        let dump = dump();
        assert_eq!(find(&dump, "part").reason.as_deref(), Some("the server stops"));
        assert!(dump.to_string().contains("; cancelled: the server stops"), "{dump}");
        part.thread().unpark();
        assert_eq!(part.join().unwrap(), None);
    });
}
