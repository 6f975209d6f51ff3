//! Memory orders, with loom: all values that a thread may read when another has written, in all
//! orders in which a few threads can run. Each protocol is tried again with its orders weakened,
//! and must then fail. Otherwise the model would prove nothing about them.

#![allow(unsafe_code)]

use std::any::type_name;
use std::panic::Location;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool as LoomBool;
use loom::thread::{Builder, JoinHandle, yield_now};

use crate::engine::job::{Job, PendingTask, Refusal};
use crate::engine::mailbox::{Lease, Mailbox, Message};
use crate::engine::packet::{Home, packet};
use crate::engine::scopes::CancelReason;
use crate::engine::shared::atomic::{Weak, set_weak};
use crate::engine::shared::begin_execution;
use crate::engine::stack::Stack;
use crate::engine::task::Task;
use crate::engine::workers::Workers;
use crate::sync::{Event, Mutex, Once, RwLock, Semaphore};

/// Plain memory, of which loom reports a use that is not ordered with another thread's.
struct Memory(UnsafeCell<u32>);

// SAFETY: loom reports what would be a data race.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn write(&self) {
        // SAFETY: loom would report a use at the same time.
        self.0.with_mut(|place| unsafe { *place += 1 });
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|place| unsafe { *place })
    }
}

/// The orders of a protocol in which one thread writes and then releases, and another acquires.
const BOTH: &[Weak] = &[Weak::Acquire, Weak::Release];

/// A thread with room for a scheduler.
fn spawn(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().stack_size(1 << 20).spawn(body).unwrap()
}

/// A mailbox, used once.
fn lease() -> Lease {
    let lease = Mailbox::lease();
    lease.set_cancelling_all(false);
    lease.set_running(true);
    assert!(!lease.is_pending() && !lease.is_asleep());
    lease
}

/// Runs `body`, the program of `test`, in all orders with few preemptions. With each kind of order
/// in `needed` weakened, it must fail: in a process of its own, as loom cannot always go on then.
///
/// A primitive must be used before the second thread begins. loom takes its first use for its
/// creation, which must come before all else.
fn check<F: Copy>(_test: F, needed: &[Weak], body: fn()) {
    const WEAK: &str = "PLAINSONG_WEAK";
    // Mailboxes are passed on from test to test, and each belongs to one execution at a time.
    static ONE: StdMutex<()> = StdMutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Ok(weak) = std::env::var(WEAK) {
        set_weak(needed[weak.parse::<usize>().unwrap()]);
    } else {
        let (_, name) = type_name::<F>().split_once("::").unwrap();
        for (number, weak) in needed.iter().enumerate() {
            let output = Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture"])
                .env(WEAK, number.to_string())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("panicked at"), "not noticed: {weak:?} is weakened. {said}");
        }
    }
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 1000;
    model.check(move || {
        begin_execution();
        spawn(body).join().unwrap();
    });
}

#[test]
fn a_mutex_orders_what_is_done_under_it() {
    check(a_mutex_orders_what_is_done_under_it, BOTH, || {
        let shared = Arc::new((Mutex::new(()), Memory::new()));
        drop(shared.0.try_lock());
        let other = Arc::clone(&shared);
        let writes = |(mutex, memory): &(Mutex<()>, Memory)| {
            if let Ok(_guard) = mutex.try_lock() {
                memory.write();
            }
        };
        let thread = spawn(move || writes(&other));
        writes(&shared);
        thread.join().unwrap();
    });
}

/// All primitives but the two above keep their state under this lock. loom cannot follow a thread
/// that spins: it does not know that an exchange comes before the store that follows the exchanged
/// value. So the second thread takes the lock only when the first has released it, which it learns
/// without any order.
#[test]
fn the_lock_of_a_primitive_orders_what_is_done_under_it() {
    check(the_lock_of_a_primitive_orders_what_is_done_under_it, BOTH, || {
        let shared = Arc::new((Semaphore::new(1), Memory::new(), LoomBool::new(false)));
        drop(shared.0.try_acquire());
        let other = Arc::clone(&shared);
        let writes = |(permits, memory, _): &(Semaphore, Memory, LoomBool)| {
            let _permit = permits.try_acquire().unwrap();
            memory.write();
        };
        let thread = spawn(move || {
            if other.2.load(Ordering::Relaxed) {
                writes(&other);
            }
        });
        writes(&shared);
        shared.2.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    });
}

#[test]
fn a_lock_for_readers_orders_what_is_done_under_it() {
    check(a_lock_for_readers_orders_what_is_done_under_it, BOTH, || {
        let shared = Arc::new((RwLock::new(()), Memory::new()));
        drop(shared.0.try_write());
        drop(shared.0.try_read());
        let other = Arc::clone(&shared);
        let thread = spawn(move || {
            if let Ok(_guard) = other.0.try_write() {
                other.1.write();
            }
        });
        if let Ok(_guard) = shared.0.try_read() {
            shared.1.read();
        }
        thread.join().unwrap();
    });
}

#[test]
fn an_event_that_is_set_shows_what_was_written_before() {
    check(an_event_that_is_set_shows_what_was_written_before, BOTH, || {
        let shared = Arc::new((Event::new(), Memory::new()));
        shared.0.clear();
        let other = Arc::clone(&shared);
        let thread = spawn(move || {
            other.1.write();
            other.0.set();
        });
        if shared.0.is_set() {
            assert_eq!(shared.1.read(), 1);
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_completed_once_shows_what_its_closure_wrote() {
    check(a_completed_once_shows_what_its_closure_wrote, BOTH, || {
        let shared = Arc::new((Once::new(), Memory::new()));
        assert!(!shared.0.is_completed());
        let other = Arc::clone(&shared);
        let thread = spawn(move || other.0.call_once(|| other.1.write()));
        while !shared.0.is_completed() {
            yield_now();
        }
        assert_eq!(shared.1.read(), 1);
        thread.join().unwrap();
    });
}

/// The thread that ends the coroutine writes, and the thread that takes its result reads.
#[test]
fn a_result_that_is_taken_has_been_written() {
    check(a_result_that_is_taken_has_been_written, BOTH, || {
        let (sender, receiver) = packet(Home::Unknown);
        assert!(!receiver.is_ended());
        let thread = spawn(move || {
            let result = Arc::new(Memory::new());
            result.write();
            sender.finish(Ok(result));
        });
        if receiver.is_ended() {
            let result = receiver.take();
            assert!(result.is_ok_and(|memory| memory.read() == 1));
        } else {
            drop(receiver);
        }
        thread.join().unwrap();
    });
}

/// Of the two owners of a packet, the last frees it.
#[test]
fn a_result_that_nobody_takes_is_dropped_after_the_other_owner_has_gone() {
    struct Result(Arc<Memory>);
    impl Drop for Result {
        fn drop(&mut self) {
            self.0.write();
        }
    }
    check(a_result_that_nobody_takes_is_dropped_after_the_other_owner_has_gone, BOTH, || {
        let (sender, receiver) = packet(Home::Unknown);
        assert!(!receiver.is_ended());
        let memory = Arc::new(Memory::new());
        let theirs = Arc::clone(&memory);
        let thread = spawn(move || {
            theirs.write();
            sender.finish(Ok(Result(theirs)));
        });
        drop(receiver);
        thread.join().unwrap();
        assert_eq!(memory.read(), 2);
    });
}

#[test]
fn a_worker_never_sleeps_on_a_message() {
    check(a_worker_never_sleeps_on_a_message, &[Weak::SeqCst], || {
        let lease = lease();
        let mailbox = *lease;
        let thread = spawn(move || mailbox.send(Message::Check));
        let mut messages = Vec::new();
        while messages.is_empty() {
            if mailbox.is_pending() {
                mailbox.receive(&mut messages);
            } else if mailbox.prepare_to_sleep() {
                while mailbox.is_asleep() {
                    yield_now();
                }
                mailbox.stay_awake();
            }
        }
        thread.join().unwrap();
    });
}

/// A worker that is about to sleep sees a new job, or is seen and woken.
#[test]
fn no_worker_sleeps_on_a_job_that_another_has_pushed() {
    struct Never;
    impl PendingTask for Never {
        fn stack_size(&self) -> Option<usize> {
            None
        }

        fn spawned(&self) -> Option<&'static Location<'static>> {
            None
        }

        fn make_task(&mut self, _: Stack) -> Option<Task> {
            None
        }

        fn make_end(&mut self, _: Stack, _: Result<Option<CancelReason>, Refusal>) -> Option<Task> {
            None
        }

        fn end(&mut self, _: Option<CancelReason>) {}
    }
    check(no_worker_sleeps_on_a_job_that_another_has_pushed, &[Weak::SeqCst], || {
        let workers = Workers::new(2);
        assert!(!workers.has_jobs());
        (0..2).for_each(|number| workers.note_load(number, 0));
        let lease = lease();
        workers.enter(1, *lease);
        let other = Arc::clone(&workers);
        let thread = spawn(move || {
            // SAFETY: it borrows nothing.
            let job = unsafe { Job::new(Never) };
            assert!(other.push(Some(0), job).is_ok());
        });
        if lease.prepare_to_sleep() {
            // It looks for jobs once, and then sleeps.
            let sleeps = !workers.has_jobs();
            while sleeps && lease.is_asleep() {
                yield_now();
            }
            lease.stay_awake();
        }
        thread.join().unwrap();
    });
}

/// A worker that begins while the run is closing sees that, or is told.
#[test]
fn no_worker_misses_that_its_run_is_closing() {
    check(no_worker_misses_that_its_run_is_closing, &[Weak::SeqCst], || {
        let workers = Workers::new(2);
        assert!(!workers.is_closing());
        let lease = lease();
        let (other, mailbox) = (Arc::clone(&workers), *lease);
        let told = Arc::new(AtomicBool::new(false));
        let saw = Arc::clone(&told);
        let thread = spawn(move || saw.store(other.enter(1, mailbox), Ordering::Relaxed));
        workers.close(0, || ());
        thread.join().unwrap();
        assert!(told.load(Ordering::Relaxed) || lease.is_pending(), "the worker would run on");
        lease.receive(&mut Vec::new());
    });
}
