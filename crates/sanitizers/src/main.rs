//! Bugs that a sanitizer must find: `.ci/sanitizers` runs each of them, and fails if one is not
//! reported. So a run without reports means something.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::ptr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, Ordering};

use plainsong::{spawn, yield_now};

/// Returns a pointer to a local. (Not inlined, or the local would still be there.)
#[inline(never)]
fn address_of_a_local() -> *const u64 {
    let local = black_box(7);
    black_box(ptr::from_ref(&local))
}

#[inline(never)]
fn use_after_return() {
    plainsong::run(|| {
        spawn(|| {
            let dangling = address_of_a_local();
            yield_now();
            // SAFETY: none: the function has returned.
            black_box(unsafe { dangling.read_volatile() });
        })
        .join()
    })
    .unwrap();
}

#[inline(never)]
fn use_after_the_coroutine() {
    plainsong::run(|| {
        let dangling = spawn(address_of_a_local).join().unwrap();
        // SAFETY: none: the coroutine has ended.
        black_box(unsafe { dangling.read_volatile() });
    });
}

/// Uses the stack itself. (The sanitizer has moved locals elsewhere.)
#[inline(never)]
fn use_of_a_free_stack() {
    plainsong::run(|| {
        let dangling = spawn(stack_pointer).join().unwrap();
        // SAFETY: none: the stack is in the pool.
        black_box(unsafe { dangling.read_volatile() });
    });
}

#[inline(never)]
fn stack_pointer() -> *const u64 {
    let top;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this reads a register.
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) top)
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: this reads a register.
    unsafe {
        std::arch::asm!("mov {}, sp", out(reg) top)
    };
    top
}

/// Overflows a stack by a frame that is larger than its neighbours. The coroutine has the name of
/// the bug, and the report names the coroutine.
#[inline(never)]
fn large_frame() {
    let spawn = |f: fn()| {
        let builder = plainsong::task::Builder::new().name("large_frame").stack_size(64 * 1024);
        builder.spawn(f).unwrap()
    };
    plainsong::run(|| {
        let neighbours: [_; 4] = std::array::from_fn(|_| spawn(yield_now));
        spawn(|| {
            black_box([7u8; 300_000]);
        })
        .join()
        .unwrap();
        neighbours.into_iter().for_each(|it| it.join().unwrap());
    });
}

#[inline(never)]
fn use_after_free() {
    plainsong::run(|| {
        let dangling = Box::into_raw(Box::new(7));
        // SAFETY: it came from a box.
        spawn(move || drop(unsafe { Box::from_raw(dangling) })).join().unwrap();
        // SAFETY: none: it was freed.
        black_box(unsafe { dangling.read_volatile() });
    });
}

#[inline(never)]
fn leak() {
    plainsong::run(|| {
        spawn(|| {
            Box::leak(black_box(Box::new([7; 1000])));
        })
        .join()
    })
    .unwrap();
}

/// Two threads, each with a coroutine, that write without a lock.
#[inline(never)]
fn race() {
    let (shared, both) = (AtomicPtr::new(&mut 0), Barrier::new(2));
    let write = || {
        plainsong::run(|| {
            let place = shared.load(Ordering::Relaxed);
            both.wait();
            // SAFETY: none: the other thread writes at the same time.
            unsafe { *place = black_box(7) };
        });
    };
    std::thread::scope(|s| {
        s.spawn(write);
        s.spawn(write);
    });
}

fn main() {
    let bugs = [
        ("use_after_return", use_after_return as fn()),
        ("use_after_the_coroutine", use_after_the_coroutine),
        ("use_of_a_free_stack", use_of_a_free_stack),
        ("large_frame", large_frame),
        ("use_after_free", use_after_free),
        ("leak", leak),
        ("race", race),
    ];
    let name = std::env::args().nth(1).unwrap_or_default();
    match bugs.iter().find(|(bug, _)| *bug == name) {
        Some((_, plant)) => plant(),
        None => eprintln!("usage: sanitizers {}", bugs.map(|(bug, _)| bug).join("|")),
    }
}
