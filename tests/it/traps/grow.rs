//! `stack::grow`: recursion deeper than a stack, with all that may happen on the fresh one.

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread as system;
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::stack::{grow, remaining};
use plainsong::sync::channel;
use plainsong::time::{sleep, timeout};
use plainsong::{Builder, JoinHandle, scope, shield, spawn, yield_now};

use serde::Deserialize;

use crate::util::{HOUR, OnDrop, alone, both, dying, resident, run, until, until_parked};

const MIB: usize = 1024 * 1024;

/// The smallest stack. With a sanitizer, the frames of a panic need more.
const SMALL: usize = if cfg!(feature = "sanitizer") { 32 * 1024 } else { 16 * 1024 };

/// Starts a coroutine whose stack is so small that each `grow` takes a fresh one.
fn small<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().name("small").stack_size(SMALL).spawn(body).unwrap()
}

/// Recurses this deep, with frames that make about a hundred bytes a step, or more.
fn depth(left: usize) -> usize {
    grow(MIB, || if left == 0 { 0 } else { black_box(depth(left - 1)) + 1 })
}

#[test]
fn a_recursion_deeper_than_the_stack_in_both_worlds() {
    both(|| assert_eq!(depth(20_000), 20_000));
}

#[test]
fn its_memory_is_given_back() {
    alone(its_memory_is_given_back, || {
        plainsong::run(|| {
            assert_eq!(depth(50), 50);
            let before = resident();
            (0..3).for_each(|_| assert_eq!(depth(20_000), 20_000));
            // A sanitizer keeps an eighth of what it watches, and does not give it back.
            let most = if cfg!(feature = "sanitizer") { 4 * 1024 } else { 2 * 1024 };
            assert!(resident() < before + most, "{} KiB, {} before", resident(), before);
        });
    });
}

#[test]
fn what_remains_is_that_of_the_stack_that_the_caller_is_on() {
    run(|| {
        let ours = remaining().unwrap();
        assert!(ours < 256 * 1024 && ours > 64 * 1024, "{ours}");
        small(|| {
            let (ours, theirs) = (remaining().unwrap(), grow(MIB, remaining).unwrap());
            assert!(ours < SMALL, "{ours}");
            assert!(theirs < MIB && theirs > MIB / 2, "{theirs}");
            // There is enough now, so this stays where it is.
            let (outer, inner) =
                grow(MIB, || (remaining().unwrap(), grow(MIB, remaining).unwrap()));
            assert!(inner <= outer && outer - inner < 64 * 1024, "{outer} {inner}");
        })
        .join()
        .unwrap();
    });
    let builder = system::Builder::new().stack_size(4 * MIB);
    let left = builder.spawn(remaining).unwrap().join().unwrap();
    if cfg!(target_os = "linux") {
        assert!(left.is_some_and(|left| (2 * MIB..5 * MIB).contains(&left)), "{left:?}");
    }
}

#[test]
fn waits_on_fresh_stacks_of_several_coroutines_at_once() {
    run(|| {
        let many: Vec<_> = (0..50usize)
            .map(|number| {
                small(move || {
                    let nested = || {
                        yield_now();
                        sleep(Duration::from_nanos(1));
                        grow(2 * MIB, move || {
                            yield_now();
                            number
                        })
                    };
                    grow(MIB, || grow(MIB, nested) + depth(number))
                })
            })
            .collect();
        for (number, one) in many.into_iter().enumerate() {
            assert_eq!(one.join().unwrap(), 2 * number);
        }
    });
}

#[test]
fn a_cancellation_a_time_out_and_a_panic_unwind_through_it() {
    run(|| {
        let dropped = Rc::new(Cell::new(0));
        let count = || {
            let dropped = Rc::clone(&dropped);
            OnDrop(move || dropped.set(dropped.get() + 1))
        };
        let (outer, inner) = (count(), count());
        let waits = small(move || {
            let _outer = outer;
            grow(MIB, || {
                let _inner = inner;
                grow(MIB, || sleep(HOUR));
            });
        });
        until_parked(&waits);
        waits.cancel();
        assert!(waits.join().unwrap_err().is_cancelled());
        assert_eq!(dropped.get(), 2);

        let (outer, inner) = (count(), count());
        let panics = small(move || {
            let _outer = outer;
            // Around it, on it, and the other way round.
            assert!(timeout(Duration::from_millis(1), || grow(MIB, || sleep(HOUR))).is_err());
            grow(MIB, || timeout(Duration::from_millis(1), || sleep(HOUR))).unwrap_err();
            let caught = catch_unwind(AssertUnwindSafe(|| grow(MIB, || panic!("caught"))));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"caught"));
            grow(MIB, || {
                let _inner = inner;
                panic!("not caught");
            })
        });
        let payload: JoinHandle<()> = panics;
        let payload = payload.join().unwrap_err().into_panic();
        assert_eq!(payload.downcast_ref(), Some(&"not caught"));
        assert_eq!(dropped.get(), 4);
    });
}

#[test]
fn a_destructor_grows_while_its_coroutine_unwinds() {
    run(|| {
        let cleaned = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&cleaned);
        let waits = small(move || {
            let _clean_up = OnDrop(move || {
                grow(MIB, || {
                    shield(yield_now);
                    theirs.set(depth(100));
                })
            });
            grow(MIB, || sleep(HOUR));
        });
        until_parked(&waits);
        waits.cancel();
        assert!(waits.join().unwrap_err().is_cancelled());
        assert_eq!(cleaned.get(), 100);
    });
}

#[test]
fn a_coroutine_that_swallows_its_cancellation_there_is_abandoned_whole() {
    run(|| {
        let swallows = small(|| {
            grow(MIB, || {
                loop {
                    let _ = catch_unwind(|| sleep(HOUR));
                }
            })
        });
        until_parked(&swallows);
        swallows.cancel();
        until(|| swallows.is_finished());
        // Its stacks are not used again.
        let many: Vec<_> = (0..100).map(|_| small(|| grow(MIB, || depth(1000)))).collect();
        many.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), 1000));
    });
}

#[test]
fn scopes_channels_and_a_run_on_a_fresh_stack() {
    run(|| {
        let sum = small(|| {
            grow(MIB, || {
                let numbers = [1, 2, 3];
                scope(|s| {
                    let (sender, receiver) = channel::bounded(0);
                    for number in &numbers {
                        let sender = sender.clone();
                        s.spawn(move || grow(MIB, || sender.send(*number).unwrap()));
                    }
                    drop(sender);
                    receiver.iter().sum::<i32>()
                })
            })
        });
        assert_eq!(sum.join().unwrap(), 6);
    });
    // On a plain thread, a run may begin on a fresh stack.
    fn deep(left: usize) -> i32 {
        let frame = black_box([0u8; 4096]);
        match remaining() {
            Some(32_768..) if left > 0 => deep(left - 1) + i32::from(frame[0]),
            _ => grow(MIB, || plainsong::run(|| spawn(|| 7).join().unwrap())),
        }
    }
    let builder = system::Builder::new().stack_size(256 * 1024);
    assert_eq!(builder.spawn(|| deep(1000)).unwrap().join().unwrap(), 7);
}

#[test]
fn a_generator_works_on_a_fresh_stack_and_cannot_yield_from_one() {
    run(|| {
        small(|| {
            let all: i32 =
                grow(MIB, || Generator::new(|out| (0..3).for_each(|n| out.yield_(n))).sum());
            assert_eq!(all, 3);
            let mut yields =
                Generator::<i32>::with_stack_size(SMALL, |out| grow(MIB, || out.yield_(1)))
                    .unwrap();
            let payload = catch_unwind(AssertUnwindSafe(|| yields.next())).unwrap_err();
            let text: &str = payload.downcast_ref::<&str>().unwrap();
            assert!(text.contains("on a fresh stack of `stack::grow`"), "{text}");
        })
        .join()
        .unwrap();
    });
}

#[test]
fn exit_on_a_fresh_stack() {
    alone(exit_on_a_fresh_stack, || {
        plainsong::run(|| {
            small(|| grow(MIB, || std::process::exit(0))).join().unwrap();
        });
    });
}

#[test]
fn exit_on_a_fresh_stack_of_a_plain_thread() {
    fn deep() {
        let frame = black_box([0u8; 4096]);
        match remaining() {
            Some(32_768..) => deep(),
            _ => grow(MIB, || std::process::exit(i32::from(frame[0]))),
        }
    }
    alone(exit_on_a_fresh_stack_of_a_plain_thread, deep);
}

#[test]
fn a_size_that_is_not_possible_is_a_panic_that_says_so() {
    run(|| {
        let error = small(|| grow(1, || ())).join().unwrap_err();
        let payload = error.into_panic();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains("a coroutine stack of 1 bytes is not possible"), "{text}");
    });
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(n: u64) -> u64 {
    black_box(recurse(black_box(n) + 1)) + 1
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn an_overflow_of_a_fresh_stack_says_which_it_was() {
    let output = dying(an_overflow_of_a_fresh_stack_says_which_it_was, || {
        plainsong::run(|| _ = small(|| grow(MIB, || recurse(0))).join());
    });
    if let Some(output) = output {
        assert!(output.contains("'small', spawned at tests/it/traps/grow.rs:"), "{output}");
        assert!(output.contains("has overflowed a grown stack of 1048576 bytes"), "{output}");
        assert!(output.contains("`plainsong::stack::grow` at each step"), "{output}");
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn an_overflow_of_its_own_stack_after_a_wait_on_a_fresh_one() {
    let output = dying(an_overflow_of_its_own_stack_after_a_wait_on_a_fresh_one, || {
        let body = || {
            grow(MIB, yield_now);
            recurse(0)
        };
        plainsong::run(|| _ = small(body).join());
    });
    if let Some(output) = output {
        let stack = format!("has overflowed its stack of {SMALL} bytes");
        assert!(output.contains(&stack), "{output}");
    }
}

// ---- stacker, and crates that use it ----

fn depth_with_stacker(left: usize) -> usize {
    stacker::maybe_grow(32 * 1024, MIB, || {
        if left == 0 { 0 } else { black_box(depth_with_stacker(left - 1)) + 1 }
    })
}

#[test]
fn stacker_works_in_a_coroutine_as_long_as_nothing_waits_inside_of_it() {
    alone(stacker_works_in_a_coroutine_as_long_as_nothing_waits_inside_of_it, || {
        plainsong::run(|| {
            spawn(|| assert_eq!(depth_with_stacker(20_000), 20_000)).join().unwrap();
            let text = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
            let parse = move || {
                let mut json = serde_json::Deserializer::from_str(&text);
                json.disable_recursion_limit();
                serde::de::IgnoredAny::deserialize(serde_stacker::Deserializer::new(&mut json))
                    .unwrap();
            };
            spawn(parse).join().unwrap();
        });
    });
}

#[test]
fn stacker_takes_the_stack_of_one_coroutine_for_that_of_another_that_waits() {
    alone(stacker_takes_the_stack_of_one_coroutine_for_that_of_another_that_waits, || {
        plainsong::run(|| {
            let (sender, receiver) = channel::bounded::<()>(0);
            let waits = spawn(move || stacker::grow(MIB, || receiver.recv().unwrap_err()));
            until_parked(&waits);
            // It is documented in docs/pitfalls.md: the caller has 256 KiB. The limit that stacker
            // compares with belongs to another stack, which may lie above or below.
            let said = stacker::remaining_stack().unwrap();
            assert!(said == 0 || said > 256 * 1024, "{said}");
            assert!(remaining().unwrap() < 256 * 1024);
            drop(sender);
            waits.join().unwrap();
        });
    });
}
