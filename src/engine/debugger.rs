//! The way on which a debugger finds the coroutines of a process, live or in a core file.
//!
//! The script `src/gdb.py` reads this. It may not call functions of the process, and cannot rely on
//! information about types, which few optimised programs have. So here is a list of addresses, and
//! a table that says where the fields of a task are.

use std::mem::offset_of;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use super::coroutine::Coroutine;
use super::mutex::Mutex;
use super::task::Task;

/// The script finds it by this name, and reads the fields one after the other.
// `used` keeps it whole: the program itself only needs the list.
#[used]
static PLAINSONG_COROUTINES: Root = Root {
    version: 1,
    threads: AtomicPtr::new(ptr::null_mut()),
    sample: SAMPLE,
    line: SAMPLE.line() as u64,
    coroutine: Coroutine::fields_from(offset_of!(Task, coroutine)),
    task: Task::FIELDS,
};

/// The script finds out the order of the fields in such a value from this one.
const SAMPLE: &Location<'static> = Location::caller();

#[repr(C)]
struct Root {
    version: u64,
    threads: AtomicPtr<Thread>,
    sample: &'static Location<'static>,
    line: u64,
    coroutine: [u64; 3],
    task: [u64; 9],
}

/// A thread that runs coroutines, or has run some. It is never freed.
#[repr(C)]
struct Thread {
    next: AtomicPtr<Thread>,
    // The slab of its tasks. Null when none run there.
    tasks: AtomicPtr<()>,
    // Its number in the kernel.
    number: AtomicI32,
}

static THREADS: Mutex<Vec<&'static Thread>> = Mutex::new(Vec::new());

/// The thread with this number begins to run coroutines, whose slab is at this address.
pub(super) fn enter(tasks: *mut (), number: i32) {
    let mut threads = THREADS.lock();
    let free = threads.iter().find(|thread| thread.tasks.load(Ordering::Relaxed).is_null());
    let thread = free.copied().unwrap_or_else(|| {
        let new: &Thread = Box::leak(Box::new(Thread {
            next: AtomicPtr::new(PLAINSONG_COROUTINES.threads.load(Ordering::Relaxed)),
            tasks: AtomicPtr::default(),
            number: AtomicI32::default(),
        }));
        PLAINSONG_COROUTINES.threads.store(ptr::from_ref(new).cast_mut(), Ordering::Release);
        threads.push(new);
        new
    });
    thread.number.store(number, Ordering::Relaxed);
    thread.tasks.store(tasks, Ordering::Release);
}

/// The thread whose slab is at this address runs no coroutines any more.
pub(super) fn leave(tasks: *mut ()) {
    let threads = THREADS.lock();
    let ours = threads.iter().find(|thread| thread.tasks.load(Ordering::Relaxed) == tasks);
    ours.into_iter().for_each(|thread| thread.tasks.store(ptr::null_mut(), Ordering::Release));
}
