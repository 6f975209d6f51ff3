//! Stacks of all sizes, taken and given back in any order: a size is refused or served, a stack is
//! as large as was asked for, and nobody else writes to it.

#![no_main]

use std::hint::black_box;
use std::io::ErrorKind;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plainsong::{Builder, JoinHandle, thread, yield_now};

const SMALLEST: usize = 16 * 1024;
const LARGEST: usize = 1 << 30;
/// The part of a stack that is not filled here: for the start of a coroutine, and an unwind.
const RESERVE: usize = 12 * 1024;
/// As much of a stack is filled at most.
const FILLED_MAX: usize = 512 * 1024;

#[derive(Arbitrary, Debug)]
enum Operation {
    Start { size: Size, mark: u8 },
    End(u8),
    Cancel(u8),
    Settle,
}

#[derive(Arbitrary, Debug)]
enum Size {
    Usual(u16),
    Any(u64),
}

fuzz_target!(|operations: Vec<Operation>| {
    plainsong::run(|| {
        let mut live: Vec<JoinHandle<()>> = Vec::new();
        for operation in operations.into_iter().take(48) {
            match operation {
                Operation::Start { size, mark } => {
                    let size = match size {
                        Size::Usual(kibibytes) => usize::from(kibibytes % 2048) * 1024,
                        Size::Any(size) => size as usize,
                    };
                    let fits = (SMALLEST..=LARGEST).contains(&size);
                    let made = Builder::new().stack_size(size).spawn(move || {
                        let depth = (size - RESERVE).min(FILLED_MAX) / 2048;
                        fill(depth, mark);
                    });
                    match made {
                        Ok(task) => {
                            assert!(fits, "a stack of {size} bytes");
                            live.push(task);
                        }
                        Err(error) if fits => {
                            // There is no room for many of the largest.
                            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{size}: {error}");
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
                    }
                }
                Operation::End(at) if !live.is_empty() => {
                    let task = live.swap_remove(usize::from(at) % live.len());
                    yield_now();
                    task.thread().unpark();
                    task.join().unwrap();
                }
                Operation::Cancel(at) if !live.is_empty() => {
                    let task = live.swap_remove(usize::from(at) % live.len());
                    task.cancel();
                    assert!(task.join().unwrap_err().is_cancelled());
                }
                _ => yield_now(),
            }
        }
        for task in live {
            yield_now();
            task.thread().unpark();
            task.join().unwrap();
        }
    });
});

/// Fills the stack, waits in the middle, and finds what it has written.
#[inline(never)]
fn fill(depth: usize, mark: u8) {
    let bytes = black_box([mark; 1024]);
    if depth == 0 {
        thread::park();
    } else {
        fill(depth - 1, mark.wrapping_add(1));
    }
    assert!(black_box(&bytes).iter().all(|byte| *byte == mark), "another wrote to this stack");
}
