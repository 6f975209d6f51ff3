//! Large futures: they are polled on a stack that the coroutines of a thread take in turns.

use std::cell::Cell;
use std::future::{self, Future};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::stack::remaining;
use plainsong::time::{sleep, timeout};
use plainsong::{block_on, spawn, yield_now};

use crate::util::{HOUR, OnDrop, alone, dying, resident, run, until, until_parked};

const STACK: usize = 256 * 1024;

/// A future that is large, and calls `poll`.
fn large<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> impl Future<Output = T> {
    let room = [1u8; 1024];
    future::poll_fn(move |cx| {
        black_box(&room);
        poll(cx)
    })
}

/// A large future that calls `f` in its second poll.
fn second<T>(mut f: impl FnMut() -> T) -> impl Future<Output = T> {
    let mut polled = false;
    large(move |cx| {
        if polled {
            return Poll::Ready(f());
        }
        polled = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

fn here() -> usize {
    let local = 0u8;
    black_box(&raw const local).addr()
}

/// Whether two addresses are surely on the same stack, or surely not.
fn near(one: usize, other: usize) -> bool {
    one.abs_diff(other) < STACK / 2
}

#[test]
fn coroutines_poll_on_one_stack_and_keep_their_own_small() {
    alone(coroutines_poll_on_one_stack_and_keep_their_own_small, || {
        plainsong::run(|| {
            let deep = || {
                black_box([1u8; 100 * 1024]);
                here()
            };
            let before = resident();
            let (sender, receiver) = plainsong::sync::channel::bounded::<()>(0);
            let many: Vec<_> = (0..200)
                .map(|_| {
                    let receiver = receiver.clone();
                    spawn(move || {
                        let polled = block_on(second(deep));
                        assert!(!near(polled, here()));
                        receiver.recv().unwrap_err();
                        polled
                    })
                })
                .collect();
            many.iter().for_each(until_parked);
            let grown = resident().saturating_sub(before);
            assert!(grown < 200 * 90, "{grown} KiB");
            drop((sender, receiver));
            let polled: Vec<_> = many.into_iter().map(|one| one.join().unwrap()).collect();
            assert!(polled.iter().all(|one| near(*one, polled[0])));
        });
    });
}

#[test]
fn small_futures_and_those_of_threads_and_generators_are_polled_where_the_caller_is() {
    run(|| {
        assert!(near(block_on(async { here() }), here()));
        // The body of a generator may yield in a poll.
        let mut numbers = Generator::new(|out| {
            block_on(second(|| out.yield_(1)));
            out.yield_(2);
        });
        assert_eq!((numbers.next(), numbers.next(), numbers.next()), (Some(1), Some(2), None));
    });
    assert!(near(block_on(second(here)), here()));
}

#[test]
fn a_poll_that_waits_keeps_its_stack_while_others_poll() {
    run(|| {
        let many: Vec<_> = (0..50u8)
            .map(|number| {
                spawn(move || {
                    let waits = || {
                        let mine = black_box([number; 8192]);
                        yield_now();
                        sleep(Duration::from_nanos(1));
                        // One inside of the other.
                        let inner = block_on(second(|| {
                            let ours = black_box([number; 4096]);
                            yield_now();
                            ours.iter().all(|byte| *byte == number)
                        }));
                        assert!(remaining().unwrap() < STACK);
                        inner && mine.iter().all(|byte| *byte == number)
                    };
                    (0..3).all(|_| block_on(second(waits)))
                })
            })
            .collect();
        assert!(many.into_iter().all(|one| one.join().unwrap()));
    });
}

#[test]
fn a_cancellation_a_time_out_and_a_panic_unwind_out_of_a_poll() {
    run(|| {
        let dropped = Rc::new(Cell::new(0));
        let count = || {
            let dropped = Rc::clone(&dropped);
            OnDrop(move || dropped.set(dropped.get() + 1))
        };
        let (outer, inner) = (count(), count());
        let waits = spawn(move || {
            let _outer = outer;
            block_on(second(move || {
                let _inner = &inner;
                sleep(HOUR);
            }));
        });
        until_parked(&waits);
        waits.cancel();
        assert!(waits.join().unwrap_err().is_cancelled());
        assert_eq!(dropped.get(), 2);

        let short = Duration::from_millis(1);
        assert!(timeout(short, || block_on(second(|| sleep(HOUR)))).is_err());
        block_on(second(|| timeout(short, || sleep(HOUR)))).unwrap_err();
        let caught =
            catch_unwind(AssertUnwindSafe(|| block_on(second(|| -> () { panic!("caught") }))));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"caught"));
    });
}

#[test]
fn a_coroutine_that_swallows_its_cancellation_in_a_poll_is_abandoned_whole() {
    run(|| {
        let swallows = spawn(|| {
            block_on(second(|| {
                loop {
                    let _ = catch_unwind(|| sleep(HOUR));
                }
            }))
        });
        until_parked(&swallows);
        swallows.cancel();
        until(|| swallows.is_finished());
        let many: Vec<_> = (0..100u8).map(|n| spawn(move || block_on(second(|| n)))).collect();
        assert!((0..100u8).eq(many.into_iter().map(|one| one.join().unwrap())));
    });
}

#[test]
fn exit_in_a_poll() {
    alone(exit_in_a_poll, || {
        plainsong::run(|| {
            spawn(|| block_on(second(|| std::process::exit(0)))).join().unwrap();
        });
    });
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(n: u64) -> u64 {
    black_box(recurse(black_box(n) + 1)) + 1
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn an_overflow_in_a_poll_is_that_of_the_coroutine() {
    let output = dying(an_overflow_in_a_poll_is_that_of_the_coroutine, || {
        plainsong::run(|| _ = spawn(|| block_on(second(|| recurse(0)))).join());
    });
    if let Some(output) = output {
        assert!(output.contains("has overflowed its stack of 262144 bytes"), "{output}");
        assert!(output.contains("`Builder::stack_size`"), "{output}");
    }
}
