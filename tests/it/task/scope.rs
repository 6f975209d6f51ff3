//! `scope`: it never ends before its children, whatever happens.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::time::{sleep, timeout};
use plainsong::{CancellationToken, Scope, thread};

use crate::util::{
    HOUR, MOMENT, OnDrop, alone, both, dying, panic_of, run, until, until_parked, watch,
};

/// Borrowed by the children: it must stay intact as long as a child can see it.
struct Lent {
    words: Vec<String>,
    users: Cell<u32>,
}

impl Lent {
    fn new() -> Self {
        Self { words: vec!["plain".to_owned(), "song".to_owned()], users: Cell::new(0) }
    }

    fn check(&self) {
        assert_eq!(self.words.concat(), "plainsong");
    }

    /// Uses the loan at the start, and at the end in a destructor that waits.
    fn use_until_cancelled(&self) {
        self.users.set(self.users.get() + 1);
        let _guard = OnDrop(|| {
            self.check();
            sleep(Duration::from_micros(50));
            self.check();
            plainsong::yield_now();
            self.users.set(self.users.get() - 1);
        });
        sleep(HOUR);
        unreachable!("slept an hour");
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        assert_eq!(self.users.get(), 0, "dropped while it was lent");
        self.words.iter_mut().for_each(String::clear);
    }
}

#[test]
fn children_borrow_and_change_what_is_around() {
    both(|| {
        let words = ["plain", "song"];
        let (mut length, mut joined) = (0, String::new());
        let count = Rc::new(5);
        let sum = plainsong::scope(|s| {
            s.spawn(|| length = words.iter().map(|word| word.len()).sum());
            s.spawn(|| {
                plainsong::yield_now();
                joined = words.concat();
            });
            let one = s.spawn(|| *count);
            one.join().unwrap() + 1
        });
        assert_eq!((length, joined.as_str(), sum), (9, "plainsong", 6));
    });
}

#[test]
fn it_waits_for_children_that_nobody_joins() {
    run(|| {
        let done = Cell::new(0);
        plainsong::scope(|s| {
            for n in 0..100u64 {
                let done = &done;
                s.spawn(move || {
                    sleep(Duration::from_micros(n % 7));
                    done.set(done.get() + 1);
                });
            }
        });
        assert_eq!(done.get(), 100);
    });
}

#[test]
fn children_spawn_children() {
    fn grow<'scope>(s: &'scope Scope<'scope, '_>, count: &'scope Cell<u32>, levels: u32) {
        count.set(count.get() + 1);
        if levels > 0 {
            s.spawn(move || grow(s, count, levels - 1));
            s.spawn(move || {
                plainsong::yield_now();
                grow(s, count, levels - 1);
            });
        }
    }
    run(|| {
        let count = Cell::new(0);
        plainsong::scope(|s| grow(s, &count, 8));
        assert_eq!(count.get(), 511);
    });
}

#[test]
fn a_body_that_panics() {
    both(|| {
        let lent = Lent::new();
        let payload = catch_unwind(AssertUnwindSafe(|| {
            plainsong::scope(|s| {
                s.spawn(|| lent.use_until_cancelled());
                plainsong::yield_now();
                resume_unwind(Box::new("the body"));
            });
        }));
        assert_eq!(*payload.unwrap_err().downcast::<&str>().unwrap(), "the body");
        assert_eq!(lent.users.get(), 0);
    });
}

#[test]
fn a_child_that_panics_cancels_its_siblings_and_the_body() {
    run(|| {
        let lent = Lent::new();
        let body_unwound = Cell::new(false);
        let payload = catch_unwind(AssertUnwindSafe(|| {
            plainsong::scope(|s| {
                let _guard = OnDrop(|| body_unwound.set(true));
                for _ in 0..3 {
                    s.spawn(|| lent.use_until_cancelled());
                }
                s.spawn(|| {
                    plainsong::yield_now();
                    resume_unwind(Box::new("a child"));
                });
                sleep(HOUR);
                unreachable!("slept an hour");
            });
        }));
        assert_eq!(*payload.unwrap_err().downcast::<&str>().unwrap(), "a child");
        assert_eq!(lent.users.get(), 0);
        assert!(body_unwound.get());
    });
}

#[test]
fn children_that_panic_while_they_are_cancelled() {
    run(|| {
        let ended = Cell::new(0);
        let payload = catch_unwind(AssertUnwindSafe(|| {
            plainsong::scope(|s| {
                for n in 0..5 {
                    let ended = &ended;
                    s.spawn(move || {
                        let _guard = OnDrop(|| ended.set(ended.get() + 1));
                        if catch_unwind(|| sleep(HOUR)).is_err() {
                            plainsong::shield(|| sleep(Duration::from_micros(n * 10)));
                            resume_unwind(Box::new("a sibling"));
                        }
                    });
                }
                s.spawn(|| resume_unwind(Box::new("the first")));
            });
        }));
        assert_eq!(*payload.unwrap_err().downcast::<&str>().unwrap(), "the first");
        assert_eq!(ended.get(), 5);
    });
}

#[test]
fn the_caller_is_cancelled() {
    run(|| {
        for joins in [false, true] {
            let lent = Rc::new(Lent::new());
            let theirs = Rc::clone(&lent);
            let parent = plainsong::spawn(move || {
                let lent = &*theirs;
                plainsong::scope(|s| {
                    s.spawn(|| lent.use_until_cancelled());
                    s.spawn(|| plainsong::scope(|s| drop(s.spawn(|| lent.use_until_cancelled()))));
                    let third = s.spawn(|| lent.use_until_cancelled());
                    if joins {
                        let _ = third.join();
                    }
                });
                unreachable!("the scope should have unwound");
            });
            until(|| lent.users.get() == 3);
            until_parked(&parent);
            parent.cancel();
            assert!(parent.join().unwrap_err().is_cancelled());
            assert_eq!(lent.users.get(), 0);
            drop(Rc::into_inner(lent).unwrap());
        }
    });
}

#[test]
fn a_body_that_swallows() {
    run(|| {
        let lent = Lent::new();
        let swallowed = Cell::new(0);
        let result = timeout(MOMENT, || {
            plainsong::scope(|s| {
                s.spawn(|| lent.use_until_cancelled());
                while swallowed.get() < 20 {
                    assert!(catch_unwind(|| sleep(HOUR)).is_err());
                    swallowed.set(swallowed.get() + 1);
                }
            });
        });
        assert!(result.is_err(), "the wait for the child unwinds again");
        assert_eq!((swallowed.get(), lent.users.get()), (20, 0));

        // And a body that swallows the cancellation that a child's panic causes.
        let payload = catch_unwind(AssertUnwindSafe(|| {
            plainsong::scope(|s| {
                s.spawn(|| resume_unwind(Box::new("a child")));
                let _ = catch_unwind(|| sleep(HOUR));
                "a value"
            })
        }));
        assert_eq!(*payload.unwrap_err().downcast::<&str>().unwrap(), "a child");
        sleep(Duration::ZERO);
    });
}

#[test]
fn cancel_ends_the_children_only() {
    run(|| {
        let lent = Lent::new();
        let began = Cell::new(false);
        let value = plainsong::scope(|s| {
            s.spawn(|| lent.use_until_cancelled());
            let result = s.spawn(|| sleep(HOUR));
            plainsong::yield_now();
            s.cancel();
            s.cancel();
            assert!(result.join().unwrap_err().is_cancelled());
            let late = s.spawn(|| began.set(true));
            assert!(late.join().unwrap_err().is_cancelled());
            sleep(Duration::from_micros(10));
            5
        });
        assert_eq!((value, began.get()), (5, false));
    });
}

#[test]
fn one_child_is_cancelled() {
    run(|| {
        plainsong::scope(|s| {
            let one = s.spawn(|| sleep(HOUR));
            let other = s.spawn(|| 5);
            one.cancel();
            assert!(one.join().unwrap_err().is_cancelled());
            assert_eq!(other.join().unwrap(), 5);
        });
    });
}

#[test]
fn forgotten_handles_and_guards() {
    run(|| {
        let lent = Lent::new();
        let drops = Cell::new(0);
        plainsong::scope(|s| {
            std::mem::forget(s.spawn(|| sleep(MOMENT)));
            let joined_late = s.spawn(|| sleep(MOMENT));
            match joined_late.join_timeout(Duration::ZERO) {
                Ok(_) => unreachable!("slept for a moment in no time"),
                Err(handle) => std::mem::forget(handle),
            }
            std::mem::forget(s.spawn(|| lent.words.concat()));
            let cancelled = s.spawn(|| lent.use_until_cancelled());
            plainsong::yield_now();
            cancelled.cancel();
            std::mem::forget(cancelled);
            let drops = &drops;
            std::mem::forget(s.spawn(move || OnDrop(move || drops.set(drops.get() + 1))));
            std::mem::forget(OnDrop(|| unreachable!("was forgotten")));
        });
        assert_eq!(lent.users.get(), 0);
        // The result is forgotten with its handle.
        assert_eq!(drops.get(), 0);
    });
    run(|| {
        std::mem::forget(plainsong::spawn(|| sleep(HOUR)));
        std::mem::forget(thread::spawn(|| sleep(HOUR)));
        std::mem::forget(plainsong::task::as_completed([plainsong::spawn(|| sleep(HOUR))]));
        std::mem::forget(plainsong::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let mut generator = Generator::new(|out| {
            let _held = String::from("held");
            out.yield_(1);
            out.yield_(2);
        });
        assert_eq!(generator.next(), Some(1));
        std::mem::forget(generator);
        let token = CancellationToken::new();
        let child = token.child_token();
        std::mem::forget(token.clone());
        std::mem::forget(child);
        token.cancel();
        std::mem::forget(plainsong::signal::Signals::new([plainsong::signal::SIGUSR2]).unwrap());
        plainsong::yield_now();
    });
}

#[test]
fn a_forgotten_generator_whose_body_has_used_a_scope() {
    run(|| {
        let mut generator = Generator::new(|out| {
            let lent = Lent::new();
            for n in 0.. {
                plainsong::scope(|s| {
                    s.spawn(|| lent.check());
                });
                out.yield_(n);
            }
        });
        assert_eq!(generator.by_ref().take(3).collect::<Vec<_>>(), [0, 1, 2]);
        std::mem::forget(generator);
    });
}

#[test]
fn a_generator_that_yields_inside_of_its_own_scope() {
    run(|| {
        let checked = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&checked);
        let mut generator = Generator::new(move |out| {
            let lent = Lent::new();
            plainsong::scope(|s| {
                s.spawn(|| lent.use_until_cancelled());
                plainsong::yield_now();
                assert_eq!(lent.users.get(), 1);
                let _guard = OnDrop(|| theirs.set(theirs.get() + 1));
                out.yield_(1);
            });
        });
        let message = panic_of(|| generator.next());
        assert!(message.contains("scope"), "{message}");
        assert_eq!(checked.get(), 1);
        sleep(MOMENT);
    });
}

#[test]
fn inside_of_no_wait() {
    run(|| {
        let lent = Lent::new();
        let other = plainsong::spawn(|| ());
        let message = panic_of(|| {
            plainsong::no_wait(|| {
                plainsong::scope(|s| {
                    s.spawn(|| lent.use_until_cancelled());
                });
            });
        });
        assert!(message.contains("no_wait"), "{message}");
        let message = panic_of(|| {
            plainsong::no_wait(|| plainsong::scope(|s| s.spawn_anywhere(|| ()).join().unwrap()));
        });
        assert!(message.contains("no_wait"), "{message}");
        let built = plainsong::no_wait(|| {
            plainsong::scope(|s| plainsong::Builder::new().spawn_scoped(s, || ()).map(drop))
        });
        assert!(built.is_err());
        // Nothing has waited.
        assert!(lent.users.get() == 0 && !other.is_finished());
        // With children that have begun already.
        let message = panic_of(|| {
            plainsong::scope(|s| {
                s.spawn(|| lent.use_until_cancelled());
                plainsong::yield_now();
                plainsong::no_wait(|| {
                    plainsong::scope(|inner| {
                        inner.spawn(|| lent.use_until_cancelled());
                    });
                });
            });
        });
        assert!(message.contains("no_wait"), "{message}");
        assert_eq!(lent.users.get(), 0);
        assert_eq!(plainsong::no_wait(|| plainsong::scope(|_| 5)), 5);
        sleep(Duration::ZERO);
    });
}

#[test]
fn inside_of_a_destructor() {
    run(|| {
        for panics in [false, true] {
            let sum = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&sum);
            let child = plainsong::spawn(move || {
                let numbers = [1, 2, 3];
                let _guard = OnDrop(|| {
                    plainsong::scope(|s| {
                        for n in &numbers {
                            let theirs = &theirs;
                            s.spawn(move || {
                                sleep(Duration::from_micros(10));
                                theirs.set(theirs.get() + n);
                            });
                        }
                        plainsong::yield_now();
                    });
                });
                if panics {
                    resume_unwind(Box::new("its own"));
                }
                sleep(HOUR);
            });
            if !panics {
                until_parked(&child);
                child.cancel();
            }
            assert_eq!(child.join().unwrap_err().is_cancelled(), !panics);
            assert_eq!(sum.get(), 6);
        }
    });
}

#[test]
fn a_scope_in_a_destructor_whose_child_panics() {
    alone(a_scope_in_a_destructor_whose_child_panics, || {
        plainsong::run(|| {
            let lent = Rc::new(Lent::new());
            let theirs = Rc::clone(&lent);
            let child = plainsong::spawn(move || {
                let _guard = OnDrop(|| {
                    let inner = catch_unwind(AssertUnwindSafe(|| {
                        plainsong::scope(|s| {
                            s.spawn(|| theirs.use_until_cancelled());
                            s.spawn(|| {
                                plainsong::yield_now();
                                resume_unwind(Box::new("a child"));
                            });
                        });
                    }));
                    assert!(inner.is_err());
                });
                sleep(HOUR);
            });
            until_parked(&child);
            child.cancel();
            assert!(child.join().unwrap_err().is_cancelled());
            assert_eq!(lent.users.get(), 0);
        });
    });
}

#[test]
fn the_run_ends_in_the_midst() {
    watch(|| {
        let lent = Rc::new(Lent::new());
        let theirs = Rc::clone(&lent);
        plainsong::run(|| {
            let parent = plainsong::spawn(move || {
                plainsong::scope(|s| {
                    s.spawn(|| theirs.use_until_cancelled());
                    s.spawn(|| {
                        plainsong::scope(|s| drop(s.spawn(|| theirs.use_until_cancelled())))
                    });
                });
            });
            until(|| lent.users.get() == 2);
            until_parked(&parent);
        });
        assert_eq!(lent.users.get(), 0);
        assert_eq!(Rc::strong_count(&lent), 1);
    });
}

#[test]
fn a_child_that_never_gives_up_ends_the_process() {
    let output = dying(a_child_that_never_gives_up_ends_the_process, || {
        plainsong::run(|| {
            let lent = Lent::new();
            plainsong::scope(|s| {
                s.spawn(|| {
                    loop {
                        lent.check();
                        let _ = catch_unwind(plainsong::yield_now);
                    }
                });
                plainsong::yield_now();
                s.cancel();
            });
        });
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("caught") && output.contains("scope.rs"), "{output}");
    }
}

#[test]
fn one_that_never_gives_up_is_abandoned_and_its_joiner_is_woken() {
    alone(one_that_never_gives_up_is_abandoned_and_its_joiner_is_woken, || {
        plainsong::run(|| {
            let swallowed = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&swallowed);
            let stubborn = plainsong::spawn(move || {
                loop {
                    let _ = catch_unwind(|| timeout(HOUR, || sleep(HOUR)));
                    theirs.set(theirs.get() + 1);
                }
            });
            until_parked(&stubborn);
            stubborn.cancel();
            assert!(stubborn.join().unwrap_err().is_cancelled());
            let count = swallowed.get();
            assert!((900..1100).contains(&count), "{count}");
            for _ in 0..10 {
                plainsong::yield_now();
            }
            assert_eq!(swallowed.get(), count, "runs on");
            // Other coroutines get other stacks.
            let others: Vec<_> = (0..50).map(|n| plainsong::spawn(move || n)).collect();
            for (n, other) in others.into_iter().enumerate() {
                assert_eq!(other.join().unwrap(), n);
            }
        });
    });
}

#[test]
fn a_parent_that_never_gives_up_and_whose_children_run_on() {
    alone(a_parent_that_never_gives_up_and_whose_children_run_on, || {
        plainsong::run(|| {
            let log = Rc::new(RefCell::new(Vec::new()));
            let theirs = Rc::clone(&log);
            let parent = plainsong::spawn(move || {
                let lent = Lent::new();
                plainsong::scope(|s| {
                    s.spawn(|| {
                        thread::park();
                        lent.check();
                        theirs.borrow_mut().push("the child reads what it was lent");
                    });
                    s.spawn(|| theirs.borrow_mut().push("ends"));
                    loop {
                        let _ = catch_unwind(|| sleep(HOUR));
                    }
                });
            });
            until_parked(&parent);
            parent.cancel();
            assert!(parent.join().unwrap_err().is_cancelled());
            assert_eq!(*log.borrow(), ["ends"]);
        });
    });
}

#[test]
fn on_a_plain_thread_in_a_plain_scope() {
    watch(|| {
        let words = vec!["plain", "song"];
        let total = std::thread::scope(|outer| {
            let counts: Vec<_> = (0..2)
                .map(|n| {
                    let words = &words;
                    outer.spawn(move || {
                        plainsong::scope(|s| s.spawn(|| words[n].len()).join().unwrap())
                    })
                })
                .collect();
            counts.into_iter().map(|count| count.join().unwrap()).sum::<usize>()
        });
        assert_eq!(total, 9);
    });
}

#[test]
fn children_with_names_and_stacks_of_their_own() {
    run(|| {
        let words = Lent::new();
        thread::scope(|s| {
            let named = thread::Builder::new().name("borrows".to_owned()).stack_size(1 << 20);
            let child = named.spawn_scoped(s, || {
                words.check();
                thread::current().name().map(str::to_owned)
            });
            assert_eq!(child.unwrap().join().unwrap().as_deref(), Some("borrows"));
            let refused = plainsong::Builder::new().stack_size(1).spawn_scoped(s, || words.check());
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            // A child that is not joined is waited for.
            let last = plainsong::Builder::new().name("last");
            last.spawn_scoped(s, || words.use_until_cancelled()).unwrap().cancel();
        });
        assert_eq!(words.users.get(), 0);
    });
}
