//! Stack overflows: the message, and faults that are no overflow of ours.

use std::hint::black_box;
use std::thread;

use plainsong::generator::Generator;
use plainsong::{Builder, spawn, yield_now};

use crate::sys;
use crate::util::dying;

/// Recurses until the stack ends, with small frames.
#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(n: u64) -> u64 {
    black_box(recurse(black_box(n) + 1)) + 1
}

/// Recurses with frames larger than a guard page.
#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse_in_strides(n: u64) -> u64 {
    let frame = black_box([n; 3000]);
    black_box(recurse_in_strides(n + 1)) + frame[2999]
}

#[track_caller]
fn assert_ours(output: &str, name: &str, size: usize) {
    assert!(output.contains("SIGABRT") || output.contains("signal: 6"), "{output}");
    for part in ["has overflowed its stack", &format!("'{name}'"), "overflow.rs:", "stack_size"] {
        assert!(output.contains(part), "no {part:?} in: {output}");
    }
    // Sizes are rounded up, at least to whole pages.
    let said = output.split("its stack of ").nth(1).and_then(|rest| rest.split(' ').next());
    let said: usize = said.unwrap().parse().unwrap();
    assert!((size..=2 * size).contains(&said), "{output}");
}

#[test]
fn on_a_first_stack() {
    let output = dying(on_a_first_stack, || {
        plainsong::run(|| {
            let child = Builder::new().name("deep").spawn(|| recurse(0)).unwrap();
            let _ = child.join();
        });
    });
    if let Some(output) = output {
        assert_ours(&output, "deep", 256 * 1024);
    }
}

#[test]
fn on_a_stack_used_before() {
    let output = dying(on_a_stack_used_before, || {
        plainsong::run(|| {
            for _ in 0..1000 {
                spawn(yield_now).join().unwrap();
            }
            let neighbours: Vec<_> = (0..100).map(|_| spawn(plainsong::thread::park)).collect();
            yield_now();
            drop(neighbours);
            let child = Builder::new().name("again").spawn(|| recurse_in_strides(0)).unwrap();
            let _ = child.join();
        });
    });
    if let Some(output) = output {
        assert_ours(&output, "again", 256 * 1024);
    }
}

#[test]
fn on_the_stack_of_main() {
    let output = dying(on_the_stack_of_main, || {
        plainsong::run(|| recurse(0));
    });
    if let Some(output) = output {
        assert_ours(&output, "main", 256 * 1024);
    }
}

#[test]
fn on_stacks_of_other_sizes() {
    let output = dying(on_stacks_of_other_sizes, || {
        plainsong::run(|| {
            spawn(yield_now).join().unwrap();
            for size in [20_000, 1 << 16, 3 << 20] {
                Builder::new().stack_size(size).spawn(yield_now).unwrap().join().unwrap();
            }
            let builder = Builder::new().name("odd size").stack_size(70_000);
            let _ = builder.spawn(|| recurse(0)).unwrap().join();
        });
    });
    if let Some(output) = output {
        assert_ours(&output, "odd size", 70_000);
    }
}

#[test]
fn after_waits_and_with_an_unnamed_coroutine() {
    let output = dying(after_waits_and_with_an_unnamed_coroutine, || {
        plainsong::run(|| {
            let child = spawn(|| {
                plainsong::time::sleep(std::time::Duration::from_nanos(1));
                recurse(0)
            });
            let _ = child.join();
        });
    });
    if let Some(output) = output {
        assert!(output.contains("has overflowed its stack"), "{output}");
        assert!(output.contains("overflow.rs:"), "{output}");
    }
}

#[test]
fn in_a_destructor_while_unwinding() {
    let output = dying(in_a_destructor_while_unwinding, || {
        plainsong::run(|| {
            let child = Builder::new().name("unwinds").spawn(|| {
                let _guard = crate::util::OnDrop(|| {
                    recurse(0);
                });
                std::panic::resume_unwind(Box::new(()));
            });
            let _ = child.unwrap().join();
        });
    });
    if let Some(output) = output {
        assert_ours(&output, "unwinds", 256 * 1024);
    }
}

#[test]
fn on_another_thread() {
    let output = dying(on_another_thread, || {
        // Two runtimes, of which one overflows.
        let other = thread::spawn(|| plainsong::run(plainsong::thread::park));
        let thread = thread::spawn(|| {
            plainsong::run(|| {
                let _ = Builder::new().name("elsewhere").spawn(|| recurse(0)).unwrap().join();
            });
        });
        let _ = thread.join();
        let _ = other.join();
    });
    if let Some(output) = output {
        assert_ours(&output, "elsewhere", 256 * 1024);
    }
}

#[test]
fn on_a_thread_that_rust_did_not_start() {
    let output = dying(on_a_thread_that_rust_did_not_start, || {
        sys::on_foreign_thread(|| {
            plainsong::run(|| {
                let _ = Builder::new().name("foreign").spawn(|| recurse(0)).unwrap().join();
            });
        });
    });
    if let Some(output) = output {
        assert_ours(&output, "foreign", 256 * 1024);
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn foreign_threads_come_and_go() {
    crate::util::alone(foreign_threads_come_and_go, || {
        fn once() {
            plainsong::run(|| spawn(yield_now).join().unwrap());
        }
        (0..10).for_each(|_| sys::on_foreign_thread(once));
        let before = crate::util::mappings();
        (0..200).for_each(|_| sys::on_foreign_thread(once));
        assert!(crate::util::mappings() <= before + 2);
    });
}

#[test]
fn in_a_generator() {
    let output = dying(in_a_generator, || {
        plainsong::run(|| {
            let child = Builder::new().name("resumes").spawn(|| {
                let mut deep = Generator::new(|out| out.yield_(recurse(0)));
                deep.next()
            });
            let _ = child.unwrap().join();
        });
    });
    if let Some(output) = output {
        assert!(output.contains("has overflowed its stack"), "{output}");
        assert!(output.contains("overflow.rs:"), "{output}");
    }
}

#[test]
fn in_a_generator_on_a_plain_thread() {
    let output = dying(in_a_generator_on_a_plain_thread, || {
        let mut deep = Generator::new(|out| out.yield_(recurse(0)));
        deep.next();
    });
    if let Some(output) = output {
        assert!(output.contains("generator has overflowed its stack"), "{output}");
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn of_a_plain_thread_is_reported_by_rust() {
    let output = dying(of_a_plain_thread_is_reported_by_rust, || {
        plainsong::run(|| spawn(yield_now).join().unwrap());
        let thread = thread::Builder::new().name("plainest".into()).spawn(|| recurse(0));
        let _ = thread.unwrap().join();
    });
    if let Some(output) = output {
        assert!(output.contains("thread 'plainest'"), "{output}");
        assert!(output.contains("has overflowed its stack"), "{output}");
        assert!(!output.contains("plainsong: coroutine"), "{output}");
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn of_a_runtimes_own_thread_is_reported_by_rust() {
    let output = dying(of_a_runtimes_own_thread_is_reported_by_rust, || {
        let thread = thread::Builder::new().name("before".into()).spawn(|| {
            plainsong::run(|| spawn(yield_now).join().unwrap());
            // Outside of any coroutine, on the thread's own stack.
            recurse(0)
        });
        let _ = thread.unwrap().join();
    });
    if let Some(output) = output {
        assert!(output.contains("thread 'before'"), "{output}");
        assert!(!output.contains("plainsong: coroutine"), "{output}");
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn a_fault_that_is_no_overflow_ends_the_process_as_ever() {
    let output = dying(a_fault_that_is_no_overflow_ends_the_process_as_ever, || {
        plainsong::run(|| {
            let _ = spawn(sys::read_near_null).join();
        });
    });
    if let Some(output) = output {
        assert!(output.contains("SIGSEGV") || output.contains("signal: 11"), "{output}");
        assert!(!output.contains("overflowed"), "{output}");
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer reports faults itself")]
fn a_fault_of_a_foreign_thread_ends_the_process_as_ever() {
    let output = dying(a_fault_of_a_foreign_thread_ends_the_process_as_ever, || {
        plainsong::run(|| spawn(yield_now).join().unwrap());
        sys::on_foreign_thread(|| {
            sys::read_near_null();
        });
    });
    if let Some(output) = output {
        assert!(output.contains("SIGSEGV") || output.contains("signal: 11"), "{output}");
    }
}

#[test]
fn with_memory_locked() {
    // With `mlockall` there can be no guard markers, so the stack must have the other kind of
    // guard.
    let output = dying(with_memory_locked, || {
        let locked = rustix::mm::mlockall(rustix::mm::MlockAllFlags::FUTURE);
        plainsong::run(|| {
            let name = if locked.is_ok() { "locked" } else { "not allowed to lock" };
            let builder = Builder::new().name(name).stack_size(1 << 16);
            let _ = builder.spawn(|| recurse(0)).unwrap().join();
        });
    });
    if let Some(output) = output {
        assert!(output.contains("has overflowed its stack of 65536 bytes"), "{output}");
    }
}
