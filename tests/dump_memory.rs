//! The memory that a dump takes, as its allocations. A binary of its own, because the allocator is
//! that of the whole process.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plainsong::inspect::dump;
use plainsong::sync::channel;
use plainsong::time::sleep;
use plainsong::{spawn, yield_now};

const HOUR: Duration = Duration::from_secs(3600);
const COUNT: usize = 10_000;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

impl Counting {
    fn add(size: usize) {
        let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
        PEAK.fetch_max(held, Ordering::Relaxed);
    }
}

// SAFETY: all is passed on to the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that a dump of this many coroutines takes: at the peak, and while it is held.
fn bytes_of_dump(count: usize) -> (usize, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let dump = dump();
    let (peak, held) = (PEAK.load(Ordering::Relaxed), HELD.load(Ordering::Relaxed));
    assert_eq!(dump.coroutines().count(), count);
    (peak - before, held - before)
}

/// Parks as many coroutines with `body`, and takes a dump. Returns its bytes for each of them.
fn bytes_of_each(body: impl Fn(usize) + Copy + 'static) -> (usize, usize) {
    plainsong::run(move || {
        // With backtraces, it has a copy of the program's unwind tables at the peak.
        let without = bytes_of_dump(1);
        for number in 0..COUNT {
            spawn(move || body(number));
        }
        yield_now();
        // This one reads the debug information, once for all dumps.
        drop(dump());
        let with = bytes_of_dump(1 + COUNT);
        (with.0.saturating_sub(without.0) / COUNT, with.1.saturating_sub(without.1) / COUNT)
    })
}

/// A part of what a parked coroutine takes, which is a page and more.
#[test]
fn a_dump_takes_little_memory_for_each_coroutine() {
    let alike = bytes_of_each(|number| match number % 2 {
        0 => sleep(HOUR),
        _ => plainsong::thread::park(),
    });
    let own = bytes_of_each(|_| {
        let (_sender, receiver) = channel::unbounded::<u32>();
        receiver.recv().unwrap();
    });
    assert!(alike.0 <= 64 && alike.1 <= 40, "{alike:?} bytes at the peak and while it is held");
    assert!(own.0 <= 64 && own.1 <= 40, "{own:?} bytes at the peak and while it is held");
}
