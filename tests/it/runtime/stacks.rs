//! Sizes, numbers and the memory of stacks.

use std::hint::black_box;
use std::io::ErrorKind;
use std::time::Duration;

use plainsong::time::sleep;
use plainsong::{Builder, Runtime, spawn, yield_now};

use crate::util::{address_space, alone, kind, limit_memory, mappings, resident, run};

/// Touches this many bytes of the stack, and a frame or two more.
fn dig(bytes: usize) -> u64 {
    fn further(top: usize, bytes: usize) -> u64 {
        let frame = black_box([1u8; 256]);
        let here = frame.as_ptr().addr();
        let below = if top - here < bytes { further(top, bytes) } else { 0 };
        below + u64::from(frame[255])
    }
    let marker = 0u8;
    further(std::ptr::from_ref(&marker).addr() + 4096, bytes)
}

#[test]
fn impossible_sizes_are_errors() {
    run(|| {
        for size in [0, 1, 4095, 4096, 16 * 1024 - 1, (1 << 30) + 1, 1 << 40, usize::MAX] {
            let error = Builder::new().stack_size(size).spawn(|| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{size}");
            assert!(error.to_string().contains(&size.to_string()), "{error}");
            let std = plainsong::thread::Builder::new().stack_size(size);
            assert_eq!(kind(std.spawn(|| ())), ErrorKind::InvalidInput);
        }
    });
    for size in [0, 100, usize::MAX] {
        assert_eq!(kind(Runtime::builder().stack_size(size).build()), ErrorKind::InvalidInput);
    }
}

#[test]
fn sizes_are_what_was_asked_for() {
    run(|| {
        for (size, depth) in [
            (64 << 10, 30 << 10),
            (65_537, 30 << 10),
            (1 << 20, 400 << 10),
            (8 << 20, 6 << 20),
            (256 << 20, 100 << 20),
        ] {
            let child = Builder::new().stack_size(size).spawn(move || dig(depth)).unwrap();
            assert!(child.join().unwrap() > 0);
        }
        let largest = Builder::new().stack_size(1 << 30).spawn(|| dig(1 << 20)).unwrap();
        assert!(largest.join().unwrap() > 0);
    });
    let deep = Runtime::builder().stack_size(16 << 20).build().unwrap();
    assert!(deep.run(|| dig(10 << 20) + spawn(|| dig(10 << 20)).join().unwrap()) > 0);
}

#[test]
fn the_smallest_stack_works() {
    alone(the_smallest_stack_works, || {
        let runtime = Runtime::builder().stack_size(16 * 1024).build().unwrap();
        runtime.run(|| {
            let children: Vec<_> = (0..100u64)
                .map(|n| {
                    spawn(move || {
                        sleep(Duration::from_micros(n));
                        yield_now();
                        n
                    })
                })
                .collect();
            assert_eq!(children.into_iter().map(|c| c.join().unwrap()).sum::<u64>(), 4950);
            // A panic with its message; `alone` runs this without a backtrace.
            assert!(spawn(|| panic!("on a small stack")).join().unwrap_err().is_panic());
        });
    });
}

#[test]
fn a_panic_with_a_backtrace_fits_the_default() {
    alone(a_panic_with_a_backtrace_fits_the_default, || {
        std::panic::set_hook(Box::new(|info| {
            let backtrace = std::backtrace::Backtrace::force_capture();
            // `{:?}` resolves and prints each frame, as the default hook does.
            black_box(format!("{info}\n{backtrace:?}\n{backtrace}"));
        }));
        plainsong::run(|| {
            assert!(spawn(|| panic!("with a backtrace")).join().unwrap_err().is_panic());
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn what_a_deep_call_left_is_given_back() {
    alone(what_a_deep_call_left_is_given_back, || {
        let runtime = Runtime::builder().stack_size(2 << 20).build().unwrap();
        runtime.run(|| {
            spawn(|| dig(8 << 10)).join().unwrap();
            let before = resident();
            let deep: Vec<_> = (0..32)
                .map(|_| {
                    spawn(|| {
                        dig(1 << 20);
                        yield_now();
                    })
                })
                .collect();
            yield_now();
            let high = resident();
            assert!(high > before + 28 * 1024, "{high} KiB resident, {before} before");
            for child in deep {
                child.join().unwrap();
            }
            // The scheduler trims stacks about once a second, when it is idle.
            for _ in 0..300 {
                sleep(Duration::from_millis(10));
                if resident() < before + 2 * 1024 {
                    return;
                }
            }
            panic!("{} KiB resident, {high} at the peak, {before} before", resident());
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "so much shadow memory takes gigabytes")]
fn a_hundred_thousand_coroutines_at_once() {
    alone(a_hundred_thousand_coroutines_at_once, || {
        plainsong::run(|| {
            const COUNT: u64 = 100_000;
            let children: Vec<_> = (0..COUNT)
                .map(|n| {
                    spawn(move || {
                        plainsong::thread::park();
                        n
                    })
                })
                .collect();
            yield_now();
            assert!(mappings() < 1000, "{} mappings", mappings());
            for child in &children {
                child.thread().unpark();
            }
            let sum: u64 = children.into_iter().map(|child| child.join().unwrap()).sum();
            assert_eq!(sum, COUNT * (COUNT - 1) / 2);
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "so much shadow memory takes gigabytes")]
fn a_hundred_thousand_left_at_the_end() {
    alone(a_hundred_thousand_left_at_the_end, || {
        plainsong::run(|| {
            for _ in 0..100_000 {
                spawn(|| sleep(Duration::MAX));
            }
            yield_now();
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn stacks_are_used_again() {
    alone(stacks_are_used_again, || {
        plainsong::run(|| {
            let round = || {
                let children: Vec<_> = (0..100).map(|_| spawn(|| dig(8 << 10))).collect();
                assert!(children.into_iter().all(|child| child.join().unwrap() > 0));
            };
            (0..10).for_each(|_| round());
            let before = (resident(), mappings());
            (0..1000).for_each(|_| round());
            assert!(resident() < before.0 + 512);
            assert!(mappings() <= before.1 + 1);
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn without_address_space_a_spawn_is_an_error() {
    alone(without_address_space_a_spawn_is_an_error, || {
        plainsong::run(|| {
            limit_memory(Some(1 << 20));
            let error = Builder::new().stack_size(512 << 20).spawn(|| ()).unwrap_err();
            limit_memory(None);
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            spawn(|| ()).join().unwrap();
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn near_a_limit_stacks_leave_room_for_other_memory() {
    alone(near_a_limit_stacks_leave_room_for_other_memory, || {
        plainsong::run(|| {
            limit_memory(Some(address_space() + (48 << 20)));
            // One reservation of 4 MiB is there. One of 8 and one of 16 follow. Another of 32 does
            // not fit any more.
            let children: Vec<_> =
                (0..16 + 32 + 64).map(|_| spawn(|| sleep(Duration::MAX))).collect();
            assert!(Vec::<u8>::new().try_reserve_exact(12 << 20).is_ok());
            children.iter().for_each(|child| child.cancel());
        });
    });
}
