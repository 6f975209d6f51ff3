//! `on_resume`, `on_suspend` and `on_end`: their order, and hooks that wait, panic, wake and exit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use plainsong::sync::{Event, channel};
use plainsong::time::{sleep, timeout};
use plainsong::{Id, JoinHandle, Runtime, RuntimeBuilder, shield, spawn, thread, yield_now};

use crate::util::{HOUR, MOMENT, OnDrop, alone, panic_of, until, until_parked, watch};

type Log = Arc<Mutex<Vec<(&'static str, Id)>>>;

fn logged() -> (Log, RuntimeBuilder) {
    let log = Log::default();
    let note = |what| {
        let log = Arc::clone(&log);
        move |id| log.lock().unwrap().push((what, id))
    };
    let builder = Runtime::builder();
    let builder = builder.on_resume(note("resume")).on_suspend(note("suspend"));
    (Arc::clone(&log), builder.on_end(note("end")))
}

#[test]
fn hooks_are_called_around_each_turn() {
    let (log, builder) = logged();
    watch(move || {
        let child = builder.build().unwrap().run(|| {
            let child = spawn(move || {
                yield_now();
                sleep(MOMENT);
            });
            let id = child.id();
            child.join().unwrap();
            id
        });
        let log = log.lock().unwrap();
        let (_, main) = log[0];
        let of = |of| log.iter().filter(move |(_, id)| *id == of).map(|(what, _)| *what);
        let turns = ["resume", "suspend", "resume", "suspend", "resume", "end"];
        assert!(of(child).eq(turns));
        assert!(of(main).eq(["resume", "suspend", "resume", "end"]));
    });
}

#[test]
fn hooks_are_called_in_pairs_whatever_ends_a_wait() {
    let (log, builder) = logged();
    watch(move || {
        builder.workers(2).build().unwrap().run(|| {
            let slow = spawn(|| {
                // Waits while it unwinds.
                let _guard = OnDrop(|| shield(|| sleep(MOMENT)));
                sleep(HOUR);
            });
            until_parked(&slow);
            slow.cancel();
            assert!(slow.join().unwrap_err().is_cancelled());
            let unborn = spawn(|| ());
            unborn.cancel();
            assert!(unborn.join().is_err());
            assert!(spawn(|| panic!("on purpose")).join().is_err());
            assert!(timeout(MOMENT, thread::park).is_err());
            let (sender, receiver) = channel::bounded(0);
            let others = [(); 9].map(|()| {
                let sender = sender.clone();
                plainsong::spawn_anywhere(move || sender.send(()).unwrap())
            });
            others.iter().for_each(|_| receiver.recv().unwrap());
            plainsong::spawn(|| sleep(HOUR));
            yield_now();
        });
        let mut last = HashMap::new();
        for &(what, id) in &*log.lock().unwrap() {
            let before = last.insert(id, what).unwrap_or("suspend");
            let expected = if before == "suspend" { what == "resume" } else { what != "resume" };
            assert!(expected, "{id}: {what} after {before}");
        }
        assert!(last.values().all(|what| *what == "end"), "{last:?}");
    });
}

thread_local! {
    static CONTEXT: Cell<u32> = const { Cell::new(0) };
    static ASIDE: RefCell<HashMap<Id, u32>> = RefCell::default();
}

#[test]
fn a_context_in_a_thread_local_follows_its_coroutine() {
    watch(|| {
        let builder = Runtime::builder()
            .on_suspend(|id| _ = ASIDE.with_borrow_mut(|all| all.insert(id, CONTEXT.take())))
            .on_resume(|id| {
                CONTEXT.set(ASIDE.with_borrow_mut(|all| all.remove(&id).unwrap_or_default()));
            })
            .on_end(|_| CONTEXT.set(0));
        builder.build().unwrap().run(|| {
            let workers = [1, 2, 3].map(|n| {
                spawn(move || {
                    assert_eq!(CONTEXT.replace(n), 0);
                    for _ in 0..n {
                        sleep(MOMENT);
                        yield_now();
                        assert_eq!(CONTEXT.get(), n);
                    }
                })
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(CONTEXT.get(), 0);
        });
        assert!(ASIDE.with_borrow(HashMap::is_empty));
    });
}

#[test]
fn a_wait_in_a_hook_panics() {
    static WAITS: &[fn()] = &[
        || sleep(MOMENT),
        || thread::park(),
        || Event::new().wait(),
        || _ = channel::bounded::<()>(0).1.recv_timeout(HOUR),
        || drop(plainsong::io::wait_readable(std::io::pipe().unwrap().0)),
        || plainsong::block_on(std::future::pending()),
    ];
    static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    watch(|| {
        let hook = |_| {
            let mut messages = MESSAGES.lock().unwrap();
            messages.extend(WAITS.iter().map(|wait| panic_of(wait)));
            // A coroutine cannot be started in place of another one.
            messages.push(panic_of(|| timeout(MOMENT, || ())));
        };
        let builder = Runtime::builder().on_suspend(hook).on_resume(hook);
        builder.build().unwrap().run(|| {
            spawn(yield_now).join().unwrap();
            // Also while a coroutine unwinds.
            let unwinding = spawn(|| {
                let _guard = OnDrop(yield_now);
                panic!("on purpose");
            });
            assert!(unwinding.join().unwrap_err().is_panic());
        });
        let messages = MESSAGES.lock().unwrap();
        assert!(messages.len() > 4 * WAITS.len());
        for message in &*messages {
            let expected = ["a hook of a runtime", "a plainsong runtime runs on this thread"];
            assert!(expected.iter().any(|text| message.contains(text)), "{message}");
        }
    });
}

#[test]
fn a_panic_of_a_hook_goes_no_further() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    watch(move || {
        let count = move |_| _ = counted.fetch_add(1, Ordering::Relaxed);
        let panics = |_| panic!("on purpose");
        let builder = Runtime::builder().on_suspend(count.clone()).on_suspend(panics);
        let builder = builder.on_resume(panics).on_resume(count).on_end(panics);
        builder.build().unwrap().run(|| {
            spawn(yield_now).join().unwrap();
            let unwinding = spawn(|| {
                let _guard = OnDrop(yield_now);
                panic!("on purpose, too");
            });
            assert!(unwinding.join().unwrap_err().is_panic());
        });
        assert_eq!(calls.load(Ordering::Relaxed), 2 * 4 + 3);
    });
}

/// A hook of the suspending coroutine ends the very wait that is beginning.
#[test]
fn a_hook_may_wake_and_cancel_the_coroutine_it_stands_for() {
    static VICTIM: OnceLock<JoinHandle<()>> = OnceLock::new();
    static CANCELS: AtomicUsize = AtomicUsize::new(0);
    watch(|| {
        let (sender, receiver) = channel::unbounded();
        let hook = move |id| {
            let _ = sender.send(id);
            if let Some(victim) = VICTIM.get().filter(|victim| victim.id() == id) {
                if CANCELS.fetch_add(1, Ordering::Relaxed) > 0 {
                    victim.cancel();
                }
            }
        };
        Runtime::builder().on_suspend(hook).build().unwrap().run(move || {
            // The item comes from the wait itself.
            receiver.recv().unwrap();
            let victim = spawn(|| {
                yield_now();
                shield(|| sleep(MOMENT));
                sleep(HOUR);
                unreachable!("it is cancelled");
            });
            VICTIM.set(victim).unwrap();
            while !VICTIM.get().unwrap().is_finished() {
                yield_now();
            }
        });
    });
}

#[test]
fn a_hook_that_cancels_a_coroutine_in_a_destructor_does_not_end_the_wait_there() {
    thread_local! {
        static VICTIM: RefCell<Option<JoinHandle<()>>> = const { RefCell::new(None) };
        static WAITED: Cell<bool> = const { Cell::new(false) };
    }
    alone(a_hook_that_cancels_a_coroutine_in_a_destructor_does_not_end_the_wait_there, || {
        let hook = |id| {
            VICTIM.with_borrow(|victim| {
                victim.iter().filter(|v| v.id() == id).for_each(|v| v.cancel())
            });
        };
        Runtime::builder().on_suspend(hook).build().unwrap().run(|| {
            let victim = spawn(|| {
                let _ = timeout(MOMENT, || {
                    let _guard = OnDrop(|| {
                        sleep(MOMENT);
                        // By now the hook has cancelled it.
                        sleep(MOMENT);
                        WAITED.set(true);
                    });
                    sleep(HOUR);
                });
                yield_now();
            });
            VICTIM.set(Some(victim));
            until(|| WAITED.get());
            let victim = VICTIM.take().unwrap();
            assert!(victim.join().unwrap_err().is_cancelled());
        });
    });
}

#[test]
fn a_hook_may_end_the_process() {
    alone(a_hook_may_end_the_process, || {
        let builder = Runtime::builder().on_suspend(|_| std::process::exit(0));
        builder.build().unwrap().run(yield_now);
        unreachable!("the process has ended");
    });
}

#[test]
fn a_loop_that_need_not_wait_yields_with_hooks_too() {
    watch(|| {
        let builder = Runtime::builder().on_resume(|_| {
            // Takes nothing from the coroutine's budget.
            (0..1000).for_each(|_| drop(plainsong::sync::Mutex::new(()).lock()));
        });
        builder.build().unwrap().run(|| {
            let stop = std::rc::Rc::new(Cell::new(false));
            let theirs = stop.clone();
            spawn(move || theirs.set(true));
            let mutex = plainsong::sync::Mutex::new(());
            while !stop.get() {
                drop(mutex.lock());
            }
        });
    });
}
