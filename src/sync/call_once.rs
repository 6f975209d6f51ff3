//! `Once`.

use std::fmt;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::sync::OnceState;

use super::lock::{Guard, Lock};
use super::reentrant::owner_number;
use super::wait::{About, WaitQueue, wait};
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicBool, Ordering};
use crate::engine::task::Wait;

const WAIT: Wait = Wait::new(&Wait::for_any_thread("a `Once` to be completed").of("wait", "Once"));

/// A closure that is called once, as with [`std::sync::Once`]. The closure may wait, and other
/// callers wait meanwhile.
///
/// If the closure panics, the `Once` is poisoned, and each further [`call_once`](Self::call_once)
/// panics. If its coroutine is cancelled, the next caller calls its own closure.
///
/// ```
/// use plainsong::sync::Once;
///
/// static START: Once = Once::new();
///
/// plainsong::run(|| {
///     START.call_once(plainsong::yield_now);
///     START.call_once(|| unreachable!("it has been called"));
///     assert!(START.is_completed());
/// });
/// ```
pub struct Once {
    // Set for good when the closure has returned.
    completed: AtomicBool,
    state: Lock<State>,
}

struct State {
    phase: Phase,
    waiting: WaitQueue<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    // The closure of the caller with this number.
    Running(u64),
    Poisoned,
    Completed,
}

// A panic inside leaves the phase `Poisoned`, which the next caller sees.
impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

impl Once {
    /// A `Once` that has called no closure yet. As std's, it has no default.
    #[allow(clippy::new_without_default)]
    #[track_caller]
    pub const fn new() -> Self {
        let state = State { phase: Phase::New, waiting: WaitQueue::new() };
        Self { completed: AtomicBool::new(false), state: Lock::new(state) }
    }

    /// Calls `f`, unless a closure has been called, and waits for one that is running.
    ///
    /// # Panics
    ///
    /// When `f` does, and when an earlier closure has. And when `f` itself calls this.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits, here or in `f`.
    #[track_caller]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        self.call(false, |_| f());
    }

    /// [`call_once`](Self::call_once), which calls `f` also after an earlier closure has panicked.
    ///
    /// # Panics
    ///
    /// When `f` does, and when it calls this itself.
    ///
    /// # Cancellation
    ///
    /// As [`call_once`](Self::call_once).
    #[track_caller]
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        self.call(true, |poisoned| with_state(poisoned, f));
    }

    /// Whether a closure has been called and has returned.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.completed.load(Ordering::Acquire)
    }

    /// Waits until a closure has been called and has returned.
    ///
    /// # Panics
    ///
    /// When a closure has panicked, and in the closure itself.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_until_completed(false);
    }

    /// [`wait`](Self::wait), also after a closure has panicked.
    ///
    /// # Panics
    ///
    /// In the closure itself.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait_force(&self) {
        self.wait_until_completed(true);
    }

    #[track_caller]
    fn wait_until_completed(&self, force: bool) {
        park::spend();
        loop {
            let state = self.state.lock();
            match state.phase {
                Phase::Completed => return,
                Phase::Poisoned if !force => {
                    drop(state);
                    poisoned();
                }
                _ => {}
            }
            self.wait_for_change(state);
        }
    }

    #[track_caller]
    fn wait_for_change(&self, state: Guard<'_, State>) {
        if state.phase == Phase::Running(owner_number()) {
            drop(state);
            panic!("the closure of a `Once` waits for its own end: it must do without");
        }
        let about = |_: &State| About::NOTHING;
        // A wake says nothing about the phase.
        let _ = wait(&self.state, state, |state| &mut state.waiting, (), WAIT, None, about);
    }

    /// Calls `f` with whether an earlier closure has panicked.
    #[track_caller]
    fn call(&self, force: bool, f: impl FnOnce(bool)) {
        park::spend();
        if self.is_completed() {
            return;
        }
        let before = loop {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Completed => return,
                Phase::Poisoned if !force => {
                    drop(state);
                    poisoned();
                }
                Phase::Running(_) => {
                    self.wait_for_change(state);
                }
                before @ (Phase::New | Phase::Poisoned) => {
                    state.phase = Phase::Running(owner_number());
                    break before;
                }
            }
        };
        let unwound = Defer::new(|| {
            // A cancellation has done no harm, so the next caller may try.
            self.finish(if park::is_panicking() { Phase::Poisoned } else { before });
        });
        f(before == Phase::Poisoned);
        unwound.disarm();
        self.completed.store(true, Ordering::Release);
        self.finish(Phase::Completed);
    }

    fn finish(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = phase;
        let served = state.waiting.serve_all(|()| ());
        drop(state);
        park::wake_all(served);
    }
}

#[cold]
fn poisoned() -> ! {
    panic!("Once instance has previously been poisoned: the closure that it called has panicked")
}

/// Calls `f` with a state of std's, which only a `Once` of std's can make.
fn with_state(is_poisoned: bool, f: impl FnOnce(&OnceState)) {
    let once = std::sync::Once::new();
    if is_poisoned {
        // No panic hook runs for an unwind of this kind.
        let poison = || once.call_once(|| panic::resume_unwind(Box::new(())));
        let _ = panic::catch_unwind(AssertUnwindSafe(poison));
    }
    once.call_once_force(f);
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}
