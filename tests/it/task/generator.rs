//! Generators: iteration, `send`, `close`, waits and panics in their bodies.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::time::sleep;
use plainsong::{CancellationToken, spawn, yield_now};

use crate::util::{
    OnDrop, alone, both, mappings, pair, panic_of, resident, run, until, until_parked, watch,
};

fn count_to(n: u32) -> Generator<u32> {
    Generator::new(move |out| (0..n).for_each(|n| out.yield_(n)))
}

#[test]
fn a_producer_is_an_iterator() {
    both(|| {
        assert_eq!(count_to(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let mut ended = count_to(1);
        assert_eq!((ended.next(), ended.next(), ended.next()), (Some(0), None, None));
        assert!(ended.is_done());
        // Two in step, and one inside another.
        let sums: Vec<_> = count_to(10).zip(count_to(10)).map(|(a, b)| a + b).collect();
        assert_eq!(sums[9], 18);
        let nested = Generator::new(|out| {
            for n in count_to(4) {
                count_to(n).for_each(|m| out.yield_(m));
            }
        });
        assert_eq!(nested.collect::<Vec<u32>>(), [0, 0, 1, 0, 1, 2]);
    });
}

#[test]
fn closing_unwinds_where_it_yields() {
    both(|| {
        let dropped = Rc::new(Cell::new(0));
        let make = || {
            let count = Rc::clone(&dropped);
            Generator::new(move |out| {
                let _guard = OnDrop(|| count.set(count.get() + 1));
                (0..u32::MAX).for_each(|n| out.yield_(n));
            })
        };
        let mut closed = make();
        assert_eq!(closed.next(), Some(0));
        closed.close();
        assert!(closed.is_done());
        assert_eq!((dropped.get(), closed.next()), (1, None));
        closed.close();
        let mut left = make();
        left.next();
        drop(left);
        assert_eq!(dropped.get(), 2);
        // Never begun, so there is nothing to unwind.
        drop(make());
        assert_eq!(dropped.get(), 2);
    });
}

#[test]
fn a_consumer_learns_of_the_end() {
    both(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        let mut sum = Generator::<u32, u32>::new(move |numbers| {
            let mut total = 0;
            while let Some(n) = numbers.receive() {
                total += n;
                if total % 2 == 0 {
                    numbers.yield_(total);
                }
            }
            theirs.borrow_mut().push(total);
        });
        assert_eq!((sum.send(1), sum.send(2), sum.send(3)), (None, None, Some(6)));
        assert_eq!(sum.send(1), None);
        sum.close();
        assert_eq!(*log.borrow(), [7]);
        assert_eq!(sum.send(9), None);
    });
}

#[test]
fn a_panic_of_the_body_is_the_callers() {
    both(|| {
        let mut panics = Generator::new(|out| {
            out.yield_(1);
            panic!("of the body");
        });
        assert_eq!(panics.next(), Some(1));
        assert_eq!(panic_of(|| panics.next()), "of the body");
        assert_eq!(panics.next(), None);
        let mut in_close = Generator::new(|out| {
            let _guard = OnDrop(|| ());
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| out.yield_(1))).is_err() {
                panic!("instead of the end");
            }
        });
        in_close.next();
        assert_eq!(panic_of(|| in_close.close()), "instead of the end");
    });
}

#[test]
fn waits_in_a_body_park_its_coroutine_only() {
    run(|| {
        let (ours, mut theirs) = pair();
        let lines = spawn(move || {
            let bytes = Generator::new(move |out| {
                let mut byte = [0];
                while (&ours).read(&mut byte).unwrap() > 0 {
                    yield_now();
                    sleep(Duration::from_nanos(1));
                    out.yield_(byte[0]);
                }
            });
            bytes.collect::<Vec<_>>()
        });
        for byte in b"slow" {
            until_parked(&lines);
            theirs.write_all(&[*byte]).unwrap();
            spawn(yield_now).join().unwrap();
        }
        drop(theirs);
        assert_eq!(lines.join().unwrap(), b"slow");
    });
}

#[test]
fn a_wait_in_a_nested_body() {
    run(|| {
        let outer = Generator::new(|out| {
            let inner = Generator::new(|out| {
                for n in 0..3u32 {
                    sleep(Duration::from_nanos(1));
                    out.yield_(spawn(move || n * n).join().unwrap());
                }
            });
            for n in inner {
                yield_now();
                out.yield_(n);
            }
        });
        let children = [spawn(|| 1), spawn(|| 2)];
        assert_eq!(outer.collect::<Vec<_>>(), [0, 1, 4]);
        let _ = children.map(|child| child.join().unwrap());
    });
}

#[test]
fn a_generator_may_change_hands() {
    run(|| {
        let mut numbers = count_to(6);
        let mut got = Vec::new();
        while !numbers.is_done() {
            let next;
            (next, numbers) = spawn(move || (numbers.next(), numbers)).join().unwrap();
            got.extend(next);
        }
        assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        // Made in a run and used outside of it, and the other way round.
    });
    watch(|| {
        let mut numbers = plainsong::run(|| {
            let mut numbers = count_to(4);
            numbers.next();
            numbers
        });
        assert_eq!(numbers.next(), Some(1));
        assert_eq!(plainsong::run(|| numbers.next()), Some(2));
        assert_eq!(numbers.next(), Some(3));
    });
}

#[test]
fn a_cancelled_wait_in_a_body_unwinds_body_and_caller() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let (inner, outer) = (Rc::clone(&log), Rc::clone(&log));
        plainsong::run(|| {
            let child = spawn(move || {
                let _guard = OnDrop(|| outer.borrow_mut().push("caller"));
                let waits = Generator::<()>::new(move |_| {
                    let _guard = OnDrop(|| inner.borrow_mut().push("body"));
                    sleep(Duration::MAX);
                });
                waits.count()
            });
            until_parked(&child);
        });
        assert_eq!(*log.borrow(), ["body", "caller"]);
    });
}

#[test]
fn dropped_while_its_owner_unwinds() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let flag = Rc::clone(&dropped);
        let child = spawn(move || {
            let mut numbers = Generator::new(move |out| {
                let _guard = OnDrop(|| {
                    yield_now();
                    flag.set(true);
                });
                (0..u32::MAX).for_each(|n| out.yield_(n));
            });
            numbers.next();
            resume_unwind(Box::new(()));
        });
        assert!(child.join().unwrap_err().is_panic());
        assert!(dropped.get());
    });
}

#[test]
fn a_yield_while_the_body_unwinds_does_not_make_the_caller_unwind() {
    alone(a_yield_while_the_body_unwinds_does_not_make_the_caller_unwind, || {
        plainsong::run(|| {
            let child = spawn(|| {
                let mut odd = Generator::new(|out| {
                    let _guard = OnDrop(|| out.yield_(2));
                    out.yield_(1);
                    resume_unwind(Box::new("of the body"));
                });
                assert_eq!(odd.next(), Some(1));
                // This side does not unwind in any case.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| odd.next()));
                assert!(!std::thread::panicking());
                let (ours, mut theirs) = pair();
                spawn(move || theirs.write_all(b"x"));
                (&ours).read_exact(&mut [0]).unwrap();
            });
            child.join().unwrap();
        });
    });
}

#[test]
fn one_that_does_not_close_is_given_up() {
    alone(one_that_does_not_close_is_given_up, || {
        watch(|| {
            let mut stubborn = Generator::new(|out| {
                loop {
                    let _ =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| out.yield_(1)));
                }
            });
            stubborn.next();
            drop(stubborn);
            assert_eq!(count_to(3).count(), 3);
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_hundred_thousand_generators_lose_nothing() {
    alone(a_hundred_thousand_generators_lose_nothing, || {
        watch(|| {
            let round = |count| {
                for n in 0..count {
                    let mut numbers = count_to(3);
                    // Ended, closed half-way, or never begun.
                    numbers.by_ref().take(n % 5).for_each(drop);
                }
            };
            round(1000);
            let before = (resident(), mappings());
            round(100_000);
            assert!(resident() < before.0 + 512);
            assert!(mappings() <= before.1 + 1);
        });
    });
}

#[test]
fn misuse_is_a_panic() {
    both(|| {
        let slot = Rc::new(RefCell::new(None::<Generator<u32>>));
        let theirs = Rc::clone(&slot);
        let own = Generator::new(move |_| {
            theirs.borrow_mut().as_mut().unwrap().next();
        });
        *slot.borrow_mut() = Some(own);
        let own = slot.borrow_mut().take().unwrap();
        let moved = Rc::new(RefCell::new(own));
        assert!(panic_of(|| moved.borrow_mut().next()).contains("unwrap"));
        assert_eq!(
            Generator::<u32>::with_stack_size(0, |_| ()).unwrap_err().kind(),
            std::io::ErrorKind::InvalidInput
        );
    });
}

/// A scope belongs to one coroutine, and another one may resume the generator: the scope would then
/// end in the wrong coroutine.
#[test]
fn a_body_cannot_yield_inside_of_a_scope_of_its_own() {
    use std::time::Duration;
    let caught = std::panic::catch_unwind(|| {
        plainsong::run(|| {
            let mut generator = Generator::<u32>::new(|out| {
                let _ = plainsong::time::timeout(Duration::from_secs(60), || out.yield_(1));
            });
            generator.next()
        })
    });
    assert!(caught.is_err());
    plainsong::run(|| {
        let mut generator = Generator::<u32>::new(|out| {
            let inner = plainsong::time::timeout(Duration::from_secs(60), || 2);
            out.yield_(inner.unwrap());
        });
        // Scopes of the caller do not matter, and any coroutine may be the caller.
        assert_eq!(
            plainsong::time::timeout(Duration::from_secs(60), || generator.next()),
            Ok(Some(2))
        );
        assert_eq!(plainsong::spawn(move || generator.next()).join().unwrap(), None);
    });
}

/// Calls `f` while another coroutine of this thread is suspended in the middle of an unwind.
fn beside_an_unwind(f: impl FnOnce()) {
    let over = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&over);
    let unwinds = spawn(move || {
        let _guard = OnDrop(|| until(|| theirs.get()));
        resume_unwind(Box::new(()));
    });
    until(std::thread::panicking);
    {
        // Also if `f` fails.
        let _over = OnDrop(|| over.set(true));
        f();
    }
    assert!(unwinds.join().unwrap_err().is_panic());
}

#[test]
fn another_coroutines_unwind_is_not_taken_for_the_bodys() {
    run(|| {
        // It begins while the body waits, and lasts.
        let mut slow = Generator::<u32>::new(|out| {
            for n in 0..3 {
                sleep(Duration::from_millis(1));
                out.yield_(n);
            }
        });
        let waits = spawn(move || slow.by_ref().collect::<Vec<_>>());
        until_parked(&waits);
        beside_an_unwind(|| assert_eq!(waits.join().unwrap(), [0, 1, 2]));
        beside_an_unwind(|| assert_eq!(count_to(3).collect::<Vec<_>>(), [0, 1, 2]));
    });
}

#[test]
fn a_body_that_yields_in_its_destructors_is_closed_beside_another_unwind() {
    run(|| {
        let ends = Rc::new(Cell::new(0));
        let count = Rc::clone(&ends);
        let mut generator = Generator::<u32>::new(move |out| {
            let _end = OnDrop(|| {
                (0..3).for_each(|n| out.yield_(n));
                count.set(count.get() + 1);
            });
            out.yield_(7);
            out.yield_(8);
        });
        assert_eq!(generator.next(), Some(7));
        beside_an_unwind(|| generator.close());
        assert!(generator.is_done());
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn a_body_that_waits_in_its_destructors_is_closed_beside_another_unwind() {
    run(|| {
        let ended = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&ended);
        let mut generator = Generator::<u32>::new(move |out| {
            let _end = OnDrop(|| {
                yield_now();
                theirs.set(true);
            });
            out.yield_(7);
        });
        assert_eq!(generator.next(), Some(7));
        let token = CancellationToken::new();
        beside_an_unwind(|| {
            let result = token.run_until_cancelled(|| {
                token.cancel();
                // The cancellation must wait until the body has unwound.
                generator.close();
                yield_now();
            });
            assert!(result.is_none());
        });
        assert!(ended.get());
    });
}
