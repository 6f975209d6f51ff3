//! `coroutine_local!`: a value for each coroutine, dropped in it.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use plainsong::time::sleep;
use plainsong::{coroutine_local, spawn, yield_now};

use crate::util::{OnDrop, alone, run, until_parked, watch};

type Guard = OnDrop<Box<dyn FnMut()>>;

coroutine_local! {
    static COUNT: Cell<u32> = Cell::new(0);
    static GUARD: RefCell<Option<Guard>> = RefCell::new(None);
    static OTHER: RefCell<Option<Guard>> = const { RefCell::new(None) };
    static WAITS: u32 = {
        yield_now();
        sleep(Duration::from_nanos(1));
        7
    };
    static PANICS: u32 = panic!("an initialiser that panics");
}

fn guard(f: impl FnMut() + 'static) -> Guard {
    OnDrop(Box::new(f))
}

#[test]
fn each_coroutine_has_its_own() {
    run(|| {
        let children: Vec<_> = (0..100)
            .map(|n| {
                spawn(move || {
                    for _ in 0..n {
                        COUNT.with(|count| count.set(count.get() + 1));
                        yield_now();
                    }
                    COUNT.with(Cell::get)
                })
            })
            .collect();
        for (n, child) in (0..).zip(children) {
            assert_eq!(child.join().unwrap(), n);
        }
        assert_eq!(COUNT.with(Cell::get), 0);
    });
}

#[test]
fn a_plain_thread_has_its_own() {
    watch(|| {
        COUNT.with(|count| count.set(1));
        plainsong::run(|| {
            assert_eq!(COUNT.with(Cell::get), 0);
            COUNT.with(|count| count.set(2));
        });
        assert_eq!(COUNT.with(Cell::get), 1);
        thread::spawn(|| assert_eq!(COUNT.with(Cell::get), 0)).join().unwrap();
        plainsong::run(|| assert_eq!(COUNT.with(Cell::get), 0));
    });
}

#[test]
fn values_are_dropped_at_the_end_of_their_coroutine_before_the_join() {
    run(|| {
        for panics in [false, true] {
            let dropped = Rc::new(Cell::new(false));
            let flag = Rc::clone(&dropped);
            let child = spawn(move || {
                GUARD.with(|local| *local.borrow_mut() = Some(guard(move || flag.set(true))));
                if panics {
                    std::panic::resume_unwind(Box::new(()));
                }
            });
            assert_eq!(child.join().is_err(), panics);
            assert!(dropped.get());
        }
    });
}

#[test]
fn destructors_may_wait_and_use_locals() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        let child = spawn(move || {
            GUARD.with(|local| {
                *local.borrow_mut() = Some(guard(move || {
                    sleep(Duration::from_nanos(1));
                    theirs.borrow_mut().push(spawn(|| 5).join().unwrap());
                    let more = Rc::clone(&theirs);
                    OTHER.with(|other| {
                        *other.borrow_mut() = Some(guard(move || more.borrow_mut().push(6)));
                    });
                }));
            });
        });
        child.join().unwrap();
        assert_eq!(*log.borrow(), [5, 6]);
    });
}

/// As values of std's `thread_local!` can. All counted as destroyed when the first was.
#[test]
fn destructors_at_the_end_of_a_thread_may_use_other_values() {
    coroutine_local! {
        static FIRST: RefCell<Option<Guard>> = const { RefCell::new(None) };
        static LATER: RefCell<Vec<Guard>> = const { RefCell::new(Vec::new()) };
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let body = |log: &Arc<Mutex<Vec<&'static str>>>| {
        let note = |what| {
            let log = Arc::clone(log);
            move || log.lock().unwrap().push(what)
        };
        let (first, made, later) = (note("first"), note("made by it"), note("later"));
        move || {
            COUNT.set(7);
            let mut made = Some(made);
            FIRST.set(Some(guard(move || {
                first();
                OTHER.set(made.take().map(guard));
                LATER.with_borrow(|later| assert_eq!(later.len(), 1));
                assert_eq!(COUNT.get(), 7);
            })));
            LATER.with_borrow_mut(|list| list.push(guard(later)));
        }
    };
    let expected = ["first", "later", "made by it"];
    thread::spawn(body(&log)).join().unwrap();
    assert_eq!(mem::take(&mut *log.lock().unwrap()), expected);
    let in_coroutine = body(&log);
    run(|| spawn(in_coroutine).join().unwrap());
    assert_eq!(*log.lock().unwrap(), expected);
}

/// The second value is used when those of the thread were dropped.
#[test]
fn a_value_after_those_of_its_thread_is_an_error() {
    thread_local! {
        static LAST: Cell<Option<Guard>> = const { Cell::new(None) };
    }
    let (tell, told) = std::sync::mpsc::channel();
    let ending = thread::spawn(move || {
        // Its destructor runs after that of the values, which is registered after it.
        LAST.set(Some(guard(move || tell.send(COUNT.try_with(Cell::get).is_err()).unwrap())));
        COUNT.set(1);
    });
    ending.join().unwrap();
    assert!(told.recv().unwrap());
}

#[test]
fn a_destructor_that_panics_harms_nobody_else() {
    alone(a_destructor_that_panics_harms_nobody_else, || {
        plainsong::run(|| {
            let child = spawn(|| {
                GUARD.with(|local| *local.borrow_mut() = Some(guard(|| panic!("in a local"))));
                5
            });
            let _ = child.join();
            assert_eq!(spawn(|| 6).join().unwrap(), 6);
        });
    });
}

#[test]
fn values_of_main_are_dropped_in_main() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        plainsong::run(|| {
            GUARD.with(|local| {
                *local.borrow_mut() = Some(guard(move || {
                    // On the thread's own stack this would block the whole scheduler.
                    yield_now();
                    let name = plainsong::current().name().map(str::to_owned);
                    theirs.borrow_mut().push(name);
                }));
            });
        });
        assert_eq!(*log.borrow(), [Some("main".to_owned())]);
    });
}

#[test]
fn a_destructor_of_main_that_panics_does_not_take_the_process() {
    alone(a_destructor_of_main_that_panics_does_not_take_the_process, || {
        let _ = std::panic::catch_unwind(|| {
            plainsong::run(|| {
                GUARD.with(|local| {
                    *local.borrow_mut() = Some(guard(|| panic!("in a local of main")));
                });
            });
        });
    });
}

#[test]
fn values_of_cancelled_coroutines_are_dropped() {
    watch(|| {
        let dropped = Rc::new(Cell::new(0));
        plainsong::run(|| {
            for _ in 0..10 {
                let count = Rc::clone(&dropped);
                let child = spawn(move || {
                    let bump = move || count.set(count.get() + 1);
                    GUARD.with(|local| *local.borrow_mut() = Some(guard(bump)));
                    sleep(Duration::MAX);
                });
                until_parked(&child);
            }
        });
        assert_eq!(dropped.get(), 10);
    });
}

#[test]
fn initialisers_may_wait_and_panic() {
    run(|| {
        let children: Vec<_> = (0..5).map(|_| spawn(|| WAITS.with(|value| *value))).collect();
        for child in children {
            assert_eq!(child.join().unwrap(), 7);
        }
        let child = spawn(|| {
            let first = std::panic::catch_unwind(|| PANICS.with(|value| *value));
            assert!(first.is_err());
            // As with thread-locals, an initialiser that panicked is tried again.
            PANICS.with(|value| *value)
        });
        assert!(child.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_value_may_be_used_while_others_are_made() {
    run(|| {
        let seen = GUARD.with(|_| COUNT.with(|count| OTHER.with(|_| count.get())));
        assert_eq!(seen, 0);
        let nested = COUNT.with(|count| {
            count.set(3);
            yield_now();
            COUNT.with(Cell::get)
        });
        assert_eq!(nested, 3);
        assert!(COUNT.try_with(Cell::get).is_ok());
    });
}

#[test]
fn an_initialiser_that_uses_its_own_key_makes_one_value() {
    coroutine_local! {
        static OWN: Cell<u32> = {
            thread_local! {
                static DEPTH: Cell<u32> = const { Cell::new(0) };
            }
            let depth = DEPTH.replace(DEPTH.get() + 1);
            Cell::new(if depth == 0 { OWN.with(Cell::get) + 10 } else { depth })
        };
    }
    run(|| {
        let seen = OWN.with(|own| {
            OWN.with(|same| assert!(std::ptr::eq(own, same)));
            own.get()
        });
        assert_eq!((seen, OWN.with(Cell::get)), (1, 1));
    });
}

#[test]
fn cells_have_the_short_forms_of_std() {
    coroutine_local! {
        static LIST: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }
    run(|| {
        COUNT.set(3);
        spawn(|| assert_eq!((COUNT.replace(8), COUNT.take(), COUNT.get()), (0, 8, 0)))
            .join()
            .unwrap();
        assert_eq!(COUNT.get(), 3);
        LIST.with_borrow_mut(|list| list.push(1));
        assert_eq!(LIST.with_borrow(Vec::len), 1);
        assert_eq!(LIST.replace(vec![2]), [1]);
        LIST.set(vec![3]);
        assert_eq!(LIST.take(), [3]);
    });
}

#[test]
fn a_local_that_panics_in_its_destructor_leaves_those_of_others_alone() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("of a local");
        }
    }
    struct Waits(Rc<Cell<bool>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            // I/O that has to wait fails in an unwind.
            self.0.set(!std::thread::panicking());
        }
    }
    plainsong::coroutine_local! {
        static ONE: Panics = Panics;
        static TWO: Panics = Panics;
        static LAST: RefCell<Option<Waits>> = const { RefCell::new(None) };
    }
    run(|| {
        let waited = Rc::new(Cell::new(false));
        let theirs = Waits(Rc::clone(&waited));
        let child = spawn(move || {
            ONE.with(|_| ());
            TWO.with(|_| ());
            LAST.with(|last| *last.borrow_mut() = Some(theirs));
            7
        });
        assert_eq!(child.join().unwrap(), 7);
        assert!(waited.get());
    });
}

#[test]
fn a_call_that_is_dropped_when_main_has_ended_may_make_locals() {
    watch(|| {
        let dropped = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&dropped);
        plainsong::run(move || {
            let makes = guard(move || {
                let theirs = Rc::clone(&theirs);
                GUARD.set(Some(guard(move || theirs.set(true))));
            });
            plainsong::time::after(crate::util::HOUR, move || drop(makes));
        });
        assert!(dropped.get());
    });
}
