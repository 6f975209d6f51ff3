//! Threads and their scopes, on plain threads and in coroutines.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plainsong_std::plainsong::generator::Generator;
use plainsong_std::plainsong::{self, Runtime, run};
use plainsong_std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use plainsong_std::sync::{Arc, Barrier, Mutex, RwLock};
use plainsong_std::thread;

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

/// Runs `body` on a plain thread, and as a coroutine with one worker and with two.
fn everywhere(body: fn()) {
    body();
    run(body);
    Runtime::builder().workers(2).build().unwrap().run(body);
}

/// The text that `f` panics with.
fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic");
    payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned())
}

/// Calls `f` on a plain thread. The test fails if it hangs.
fn ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (ended, is_ended) = std::sync::mpsc::channel();
    let watched = std::thread::spawn(move || ended.send(f()));
    let result = is_ended.recv_timeout(Duration::from_secs(60));
    assert_ne!(result.as_ref().err(), Some(&RecvTimeoutError::Timeout), "it hangs");
    watched.join().unwrap().unwrap();
    result.unwrap()
}

fn is_coroutine() -> bool {
    plainsong::Handle::try_current().is_some()
}

#[test]
fn threads_of_a_scope_borrow_and_spawn_into_it() {
    everywhere(|| {
        let (text, mut count) = (String::from("plain song"), 0);
        let longest = thread::scope(|s| {
            let counts = s.spawn(|| {
                assert!(is_coroutine());
                count = text.len();
            });
            let outer = s.spawn(|| s.spawn(|| s.spawn(|| text.split(' ').max()).join().unwrap()));
            counts.join().unwrap();
            outer.join().unwrap().join().unwrap()
        });
        assert_eq!((count, longest), (10, Some("song")));
    });
}

#[test]
fn all_threads_of_a_scope_run_at_once() {
    everywhere(|| {
        let (all, passed) = (Barrier::new(50), AtomicUsize::new(0));
        thread::scope(|s| {
            for _ in 0..50 {
                s.spawn(|| {
                    all.wait();
                    passed.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 50);
    });
}

#[test]
fn the_panic_of_one_cancels_no_other() {
    everywhere(|| {
        let ended = AtomicUsize::new(0);
        let end = || {
            thread::sleep(MOMENT);
            ended.fetch_add(1, Ordering::Relaxed);
        };
        // A join takes the panic.
        thread::scope(|s| {
            s.spawn(end);
            let panics = s.spawn(|| -> () { resume_unwind(Box::new("mine")) });
            let payload = panics.join().unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"mine"));
        });
        // Without one, the scope panics when all have ended.
        let panic = panic_of(|| {
            thread::scope(|s| {
                s.spawn(|| resume_unwind(Box::new("mine")));
                s.spawn(end);
            })
        });
        assert_eq!(panic, "a scoped thread panicked");
        // The panic of the body comes first.
        let panic = panic_of(|| {
            thread::scope(|s| {
                s.spawn(end);
                resume_unwind(Box::new("body"))
            })
        });
        assert_eq!((panic.as_str(), ended.into_inner()), ("body", 3));
    });
}

#[test]
fn a_forgotten_handle_and_a_value_that_panics_in_its_drop() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }
    everywhere(|| {
        thread::scope(|s| std::mem::forget(s.spawn(|| String::from("leaked"))));
        let panic = panic_of(|| thread::scope(|s| drop(s.spawn(|| Bomb))));
        assert_eq!(panic, "a scoped thread panicked");
    });
}

#[test]
fn a_scope_that_is_cancelled_cancels_its_threads_and_waits_for_them() {
    run(|| {
        let unwound = AtomicUsize::new(0);
        struct Counts<'a>(&'a AtomicUsize);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let elapsed = plainsong::time::timeout(MOMENT, || {
            thread::scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        let _counts = Counts(&unwound);
                        plainsong::time::sleep(HOUR);
                    });
                }
            });
        });
        assert!(elapsed.is_err());
        assert_eq!(unwound.into_inner(), 3);
    });
}

#[test]
fn a_coroutine_that_is_cancelled_in_a_scope_unwinds_when_its_threads_have_ended() {
    struct Notes(Sender<&'static str>, &'static str);
    impl Drop for Notes {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
    let notes = ends(|| {
        let (note, notes) = channel();
        run(move || {
            let (ready, is_ready) = channel();
            let parent = plainsong::spawn(move || {
                let _parent = Notes(note.clone(), "parent");
                thread::scope(|s| {
                    s.spawn(|| {
                        let _child = Notes(note, "child");
                        ready.send(()).unwrap();
                        plainsong::time::sleep(HOUR);
                    });
                });
            });
            is_ready.recv().unwrap();
            parent.cancel();
            assert!(parent.join().unwrap_err().is_cancelled());
        });
        notes.try_iter().collect::<Vec<_>>()
    });
    assert_eq!(notes, ["child", "parent"]);
}

#[test]
fn the_end_of_a_run_waits_for_a_thread_that_borrows() {
    let count = ends(|| {
        let count = Arc::new(Mutex::new(0));
        let (theirs, ready) = (count.clone(), Arc::new(AtomicBool::new(false)));
        run(move || {
            let (held, is_held) = channel();
            let holds = theirs.clone();
            plainsong::spawn(move || {
                // The end of the run releases it.
                let _guard = holds.lock().unwrap();
                held.send(()).unwrap();
                plainsong::thread::park();
            });
            is_held.recv().unwrap();
            let is_ready = ready.clone();
            plainsong::spawn(move || {
                plainsong::shield(|| {
                    thread::scope(|s| {
                        s.spawn(|| {
                            ready.store(true, Ordering::Relaxed);
                            *theirs.lock().unwrap() += 1;
                        });
                    });
                });
            });
            while !is_ready.load(Ordering::Relaxed) {
                plainsong::yield_now();
            }
        });
        *count.lock().unwrap()
    });
    assert_eq!(count, 1);
}

#[test]
fn a_scope_in_a_generator_may_end_in_another_coroutine_than_it_began_in() {
    ends(|| {
        run(|| {
            let (release, released) = channel();
            let mut generator = Generator::new(|values| {
                let mut got = 0;
                thread::scope(|s| {
                    let got = &mut got;
                    s.spawn(move || *got = released.recv().unwrap());
                    values.yield_(0);
                });
                values.yield_(got);
            });
            assert_eq!(generator.next(), Some(0));
            let other = plainsong::spawn(move || generator.next());
            // It waits for the end of the scope.
            plainsong::yield_now();
            release.send(7).unwrap();
            assert_eq!(other.join().unwrap(), Some(7));
        });
    });
}

/// Starts a thread in a scope, in vain. Returns the text of the panic.
fn refused_thread() -> String {
    let started = AtomicBool::new(false);
    let start = || started.store(true, Ordering::Relaxed);
    let refused = thread::scope(|s| thread::Builder::new().spawn_scoped(s, start).is_err());
    let payload = catch_unwind(AssertUnwindSafe(|| thread::scope(|s| drop(s.spawn(start)))));
    assert!(refused && !started.into_inner());
    payload.unwrap_err().downcast_ref::<String>().unwrap().clone()
}

const REFUSED: &str = "failed to spawn thread: this scope could not wait for its threads";

#[test]
fn a_scope_that_could_not_wait_refuses_threads() {
    run(|| {
        let text = plainsong::no_wait(refused_thread);
        assert!(text.starts_with(REFUSED), "{text}");
        // A spawn does not wait, and the end of this scope may.
        let one = thread::scope(|s| plainsong::no_wait(|| s.spawn(|| 1)).join().unwrap());
        assert_eq!(one, 1);
        // A scope without threads has nothing to wait for.
        assert_eq!(plainsong::no_wait(|| thread::scope(|_| 2)), 2);
    });
    let (note, notes) = std::sync::mpsc::channel();
    let hook = move |_| note.send(refused_thread()).unwrap();
    Runtime::builder().on_suspend(hook).build().unwrap().run(plainsong::yield_now);
    let texts: Vec<_> = notes.iter().collect();
    assert!(!texts.is_empty() && texts.iter().all(|text| text.starts_with(REFUSED)), "{texts:?}");
}

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn the_host_of_a_worker_cannot_have_a_scope_with_threads() {
    let host = |_: plainsong::host::Guest<'_>| {
        let text = refused_thread();
        assert!(text.starts_with(REFUSED), "{text}");
    };
    plainsong::host::run(&Runtime::default(), host, plainsong::yield_now);
}

#[test]
fn no_more_can_a_destructor_of_an_unwind_where_waits_are_forbidden() {
    struct Scoped<'a>(&'a Cell<bool>);
    impl Drop for Scoped<'_> {
        fn drop(&mut self) {
            self.0.set(refused_thread().starts_with(REFUSED));
        }
    }
    run(|| {
        let is_refused = Cell::new(false);
        let unwinds = || {
            let _scoped = Scoped(&is_refused);
            panic!("mine")
        };
        assert_eq!(panic_of(|| plainsong::no_wait(unwinds)), "mine");
        assert!(is_refused.get());
    });
}

/// More often than the budget of a turn allows.
fn need_not_wait() {
    let (mutex, lock) = (Mutex::new(()), RwLock::new(()));
    for _ in 0..1000 {
        drop((mutex.lock(), lock.read(), lock.read()));
        drop(lock.write());
        thread::yield_now();
        thread::sleep(Duration::ZERO);
        thread::park_timeout(Duration::ZERO);
    }
}

#[test]
fn what_need_not_wait_returns_where_waits_are_forbidden() {
    run(|| {
        let others = Arc::new(AtomicUsize::new(0));
        let theirs = others.clone();
        plainsong::spawn(move || theirs.fetch_add(1, Ordering::Relaxed));
        plainsong::no_wait(need_not_wait);
        thread::current().unpark();
        plainsong::no_wait(thread::park);
        assert_eq!(others.load(Ordering::Relaxed), 0);
    });
    let (note, notes) = std::sync::mpsc::channel();
    let hook = move |_| {
        need_not_wait();
        note.send(()).unwrap();
    };
    Runtime::builder().on_suspend(hook).build().unwrap().run(plainsong::yield_now);
    assert!(notes.iter().next().is_some());
}

#[test]
fn a_park_does_not_unwind_when_its_time_is_up() {
    run(|| {
        let returned = AtomicBool::new(false);
        let parent = thread::current();
        thread::spawn(move || {
            thread::sleep(5 * MOMENT);
            parent.unpark();
        });
        let elapsed = plainsong::time::timeout(MOMENT, || {
            thread::park();
            returned.store(true, Ordering::Relaxed);
            plainsong::yield_now();
        });
        assert!(elapsed.is_err() && returned.into_inner());
    });
}

#[test]
fn the_end_of_a_run_leaves_parked_threads() {
    run(|| {
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            ready.send(()).unwrap();
            loop {
                thread::park();
            }
        });
        is_ready.recv().unwrap();
    });
}

#[test]
fn a_lock_does_not_unwind_when_its_time_is_up() {
    run(|| {
        let (mutex, lock) = (Arc::new(Mutex::new(())), Arc::new(RwLock::new(())));
        let locked = AtomicUsize::new(0);
        let count = || locked.fetch_add(1, Ordering::Relaxed);
        let elapsed = [0, 1, 2].map(|which| {
            let (held, is_held) = channel();
            let (mutex_of_other, lock_of_other) = (mutex.clone(), lock.clone());
            thread::spawn(move || {
                let _guards = (mutex_of_other.lock().unwrap(), lock_of_other.write().unwrap());
                held.send(()).unwrap();
                thread::sleep(5 * MOMENT);
            });
            is_held.recv().unwrap();
            plainsong::time::timeout(MOMENT, || {
                match which {
                    0 => drop(mutex.lock().unwrap()),
                    1 => drop(lock.read().unwrap()),
                    _ => drop(lock.write().unwrap()),
                }
                count();
                plainsong::yield_now();
                count();
            })
            .is_err()
        });
        assert_eq!((elapsed, locked.into_inner()), ([true; 3], 3));
    });
}

#[test]
fn a_thread_that_locks_unwinds_at_its_next_wait_when_the_run_ends() {
    struct Unwinds(Arc<AtomicBool>);
    impl Drop for Unwinds {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let unwound = Arc::new(AtomicBool::new(false));
    let unwinds = Unwinds(unwound.clone());
    run(move || {
        let mutex = Mutex::new(());
        let thread = plainsong::spawn(move || {
            let _unwinds = unwinds;
            plainsong::shield(plainsong::yield_now);
            for _ in 0..100 {
                drop(mutex.lock().unwrap());
            }
            plainsong::time::sleep(HOUR);
        });
        plainsong::yield_now();
        thread.cancel();
    });
    assert!(unwound.load(Ordering::Relaxed));
}

#[test]
fn a_loop_of_locks_ends_with_the_run() {
    run(|| {
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            ready.send(()).unwrap();
            let mutex = Mutex::new(false);
            while !*mutex.lock().unwrap() {}
        });
        is_ready.recv().unwrap();
    });
}

#[test]
fn names_and_stacks() {
    everywhere(|| {
        let builder = thread::Builder::new().name("deep".to_owned()).stack_size(32 << 20);
        let deep = builder.spawn(|| {
            assert!(std::hint::black_box([1_u8; 4 << 20]).iter().all(|one| *one == 1));
            thread::current().name().map(str::to_owned)
        });
        assert_eq!(deep.unwrap().join().unwrap().as_deref(), Some("deep"));
        // As large as a thread of std's.
        thread::spawn(|| assert_eq!(std::hint::black_box([1_u8; 700_000])[7], 1)).join().unwrap();
        let tiny = thread::Builder::new().stack_size(0).spawn(|| thread::current().id());
        assert_ne!(tiny.unwrap().join().unwrap(), thread::current().id());
        let named = || thread::Builder::new().name("a\0b".to_owned()).spawn(|| ());
        assert_eq!(panic_of(named), "thread name may not contain interior null bytes");
        assert!(thread::Builder::new().stack_size(2 << 30).spawn(|| ()).is_err());
    });
}

/// A scope whose body panics, and which waits for a thread until another one was at `end` twice.
fn body_panics(end: &Arc<Barrier>) {
    thread::scope(|s| {
        s.spawn(|| {
            plainsong::shield(|| {
                end.wait();
                end.wait()
            })
        });
        panic!("of the body");
    });
}

#[test]
fn a_panic_of_the_body_poisons_though_the_scope_is_cancelled_meanwhile() {
    ends(|| {
        run(|| {
            let (mutex, end) = (Arc::new(Mutex::new(())), Arc::new(Barrier::new(2)));
            let (theirs, ends) = (mutex.clone(), end.clone());
            let child = plainsong::spawn(move || {
                let _guard = theirs.lock();
                body_panics(&ends);
            });
            end.wait(); // The thread has begun.
            child.cancel();
            plainsong::yield_now();
            end.wait();
            assert!(child.join().unwrap_err().is_panic());
            assert!(mutex.is_poisoned());
        });
    });
}

/// The process was aborted.
#[test]
fn a_panic_of_the_body_is_recognised_beside_a_coroutine_that_unwinds() {
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            thread::park();
        }
    }
    ends(|| {
        run(|| {
            let end = Arc::new(Barrier::new(2));
            let ends = end.clone();
            let victim = plainsong::spawn(move || {
                let _waits = Waits;
                body_panics(&ends);
            });
            plainsong::yield_now();
            let other = plainsong::spawn(|| {
                let _waits = Waits;
                resume_unwind(Box::new("scripted"));
            });
            plainsong::yield_now();
            end.wait();
            end.wait();
            // Until it waits in its destructor.
            (0..5).for_each(|_| plainsong::yield_now());
            victim.cancel();
            (0..5).for_each(|_| plainsong::yield_now());
            victim.thread().unpark();
            assert!(victim.join().unwrap_err().is_panic());
            other.thread().unpark();
            other.join().unwrap_err();
        });
    });
}
