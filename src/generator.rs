//! Generators: functions that yield values one by one, or receive them one by one, and continue
//! where they left off.
//!
//! A producer is an [`Iterator`]:
//!
//! ```
//! use plainsong::generator::Generator;
//!
//! let fib = Generator::new(|out| {
//!     let (mut a, mut b) = (0u64, 1);
//!     loop {
//!         out.yield_(a);
//!         (a, b) = (b, a + b);
//!     }
//! });
//! assert_eq!(fib.take(7).collect::<Vec<_>>(), [0, 1, 1, 2, 3, 5, 8]);
//! ```
//!
//! A consumer receives values until it is closed:
//!
//! ```
//! use plainsong::generator::Generator;
//!
//! let mut grep = Generator::<&str, &str>::new(|lines| {
//!     while let Some(line) = lines.receive() {
//!         if line.contains("song") {
//!             lines.yield_(line);
//!         }
//!     }
//! });
//! assert_eq!(grep.send("a plain line"), None);
//! assert_eq!(grep.send("a plain song"), Some("a plain song"));
//! grep.close();
//! assert!(grep.is_done());
//! ```
//!
//! The body runs on its own stack, in a coroutine or on a plain thread. When it waits (for a
//! socket, a timer), the coroutine that resumed it waits.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use crate::engine::cancel::unwind_with;
use crate::engine::context;
use crate::engine::coroutine::{Checked, Lent, State};
use crate::engine::spawn;
use crate::engine::stack;
use crate::engine::{current, panic_hook, park, signals};

/// How often a body that swallows its closing is closed again, before it is abandoned.
const CLOSE_MAX: u32 = 1000;

/// A suspended function that yields and receives values: see the [module](self).
///
/// It yields values of type `Y`, and [`send`](Self::send) sends it values of type `S`. Dropping a
/// generator closes it. The exception is a destructor of a thread-local that is older than the
/// thread's first use of this library: there, a generator that has begun is leaked.
#[must_use = "a generator does nothing until it is resumed"]
pub struct Generator<Y, S = ()> {
    shared: Rc<Shared<Y, S>>,
}

/// The body's side of a [`Generator`].
pub struct Yielder<Y, S = ()> {
    shared: Rc<Shared<Y, S>>,
}

struct Shared<Y, S> {
    coroutine: OnceCell<Checked>,
    closing: Cell<bool>,
    // Whether a `Closed` was raised since the body was last resumed.
    raised: Cell<bool>,
    // Whether one was ever raised.
    was_raised: Cell<bool>,
    caller_unwinds: Cell<bool>,
    // The thread's number of panics when the body was last resumed.
    panics: Cell<u64>,
    // Where the body was last resumed. It must be there again when it yields.
    resumed: Cell<Within>,
    output: Cell<Option<Y>>,
    input: Cell<Option<S>>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

/// The payload that unwinds a closed body.
struct Closed;

impl<Y: 'static, S: 'static> Generator<Y, S> {
    /// A generator that starts `body` at its first use.
    ///
    /// # Panics
    ///
    /// When the system has no room for a stack.
    pub fn new(body: impl FnOnce(&Yielder<Y, S>) + 'static) -> Self {
        let made = {
            let size = context::with(|scheduler| scheduler.stack_size());
            Self::with_stack_size(size, body)
        };
        match made {
            Ok(generator) => generator,
            Err(error) => panic!("cannot make a generator: {error}"),
        }
    }

    /// A generator whose body has a stack of this many bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a size below 16 KiB or above 1 GiB. When the system has no room for a
    /// stack.
    pub fn with_stack_size(
        bytes: usize,
        body: impl FnOnce(&Yielder<Y, S>) + 'static,
    ) -> io::Result<Self> {
        panic_hook::install();
        signals::protect_thread();
        let stack = context::try_with(|scheduler| scheduler.take_stack(stack::check_size(bytes)?))
            .unwrap_or_else(|| Err(spawn::is_ending()))?;
        let shared = Rc::new(Shared {
            coroutine: OnceCell::new(),
            closing: Cell::new(false),
            raised: Cell::new(false),
            was_raised: Cell::new(false),
            caller_unwinds: Cell::new(false),
            panics: Cell::new(0),
            resumed: Cell::new(Within::Frames(0)),
            output: Cell::new(None),
            input: Cell::new(None),
            panic: Cell::new(None),
        });
        let yielder = Yielder { shared: Rc::clone(&shared) };
        let coroutine = Checked::new(
            stack,
            Lent::nothing(move || {
                let result = panic::catch_unwind(AssertUnwindSafe(|| {
                    if !yielder.shared.closing.get() {
                        body(&yielder);
                    }
                }));
                if let Some(payload) = result.err().filter(|payload| !payload.is::<Closed>()) {
                    yielder.shared.panic.set(Some(payload));
                }
            }),
        );
        let _ = shared.coroutine.set(coroutine);
        Ok(Self { shared })
    }

    /// Sends `value` to the body and runs it until it yields (`Some`), wants another value, or
    /// ends.
    ///
    /// # Panics
    ///
    /// When the body panics, with its panic. When the body itself calls this. If the body has
    /// begun, while the thread ends.
    ///
    /// # Cancellation
    ///
    /// If the calling coroutine is cancelled while the body waits, the body unwinds, and then the
    /// caller.
    pub fn send(&mut self, value: S) -> Option<Y> {
        let shared = &self.shared;
        if shared.state() == State::Done {
            return None;
        }
        shared.input.set(Some(value));
        shared.resume();
        if let Some(payload) = shared.panic.take() {
            park::resume_unwind(payload);
        }
        shared.output.take()
    }

    /// Ends the body. If it waits in `receive`, that returns `None`. If it waits in `yield_`, it
    /// unwinds, and its destructors run, as in a panic: the locks that it holds are poisoned, but
    /// not if the caller is being cancelled, or has swallowed that. This is like Python's `close`,
    /// but without a `GeneratorExit` in `receive`.
    ///
    /// # Panics
    ///
    /// When the body panics, with its panic.
    pub fn close(&mut self) {
        self.shared.close();
        if let Some(payload) = self.shared.panic.take() {
            park::resume_unwind(payload);
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.shared.state() == State::Done
    }
}

impl<Y, S> Shared<Y, S> {
    fn state(&self) -> State {
        self.coroutine.get().map_or(State::Done, Checked::state)
    }

    fn resume(&self) {
        let Some(coroutine) = self.coroutine.get() else { return };
        let caller_unwinds = park::unwinds();
        // With it, an unwind of the body is not taken for the caller's.
        let _scope = caller_unwinds.then(park::open_scope);
        let within = Within::now();
        assert!(
            !self.is_left_behind(within),
            "a generator cannot go on while its thread ends: what its body borrows may be gone"
        );
        let was_suspended = coroutine.resume(|| {
            self.caller_unwinds.set(caller_unwinds);
            self.panics.set(panic_hook::panics());
            self.raised.set(false);
            self.resumed.set(within);
        });
        assert!(was_suspended, "a generator's body cannot resume its own generator");
        if !self.caller_unwinds.get() {
            // An unwind of the body stays in the body.
            park::forget_panic();
        }
    }

    /// Whether the body has begun, and its thread is ending. The body may borrow from a
    /// thread-local that has been dropped.
    fn is_left_behind(&self, within: Within) -> bool {
        within == Within::Ending && self.coroutine.get().is_some_and(Checked::has_started)
    }

    /// Switches to the caller of `resume`, with this output. Only the body may call this.
    fn suspend(&self, output: Option<Y>) {
        // Frames of the library would be suspended too. They use the coroutine or the scheduler,
        // and when the body goes on, it may be in another coroutine, or in none.
        let within = Within::now();
        assert!(
            within == self.resumed.get() && within != Within::Ending,
            "a generator cannot yield inside of a time-out, scope, shield, `no_wait` or run that it \
             has opened itself, in a hook of a runtime, or while its thread ends: yield outside of \
             it, or open it around the use of the generator"
        );
        let give = || self.output.set(output);
        let on = self.coroutine.get().is_some_and(|coroutine| coroutine.suspend(give));
        assert!(
            on,
            "a generator's yielder was used by a coroutine that is not its body, or where the body \
             is on a fresh stack of `stack::grow`: yield outside of that"
        );
    }

    fn close(&self) {
        self.closing.set(true);
        for _ in 0..CLOSE_MAX {
            if self.state() != State::Suspended || self.is_left_behind(Within::now()) {
                return;
            }
            self.resume();
            self.output.take();
        }
    }

    /// Whether the body itself is known to unwind. If the caller unwinds (and drops the generator),
    /// its thread unwinds anyway. In a coroutine, a scope separates the two.
    fn body_unwinds(&self) -> bool {
        if park::in_coroutine() {
            return park::is_unwinding();
        }
        let panicked = !self.caller_unwinds.get() || self.panics.get() != panic_hook::panics();
        park::unwinds() && panicked
    }
}

/// The frames of the library that need their coroutine or their scheduler when the code of users
/// that they call has returned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Those of the scopes that the running coroutine has open.
    Scopes(usize),
    /// Those on this thread's stack where no coroutine runs: those of runs, whose loops call wakers
    /// and the code of hosts, and of hooks, of shields and of `no_wait`.
    Frames(u32),
    /// Unknown, in destructors of thread-locals.
    Ending,
}

impl Within {
    fn now() -> Self {
        current::with(|task| match task {
            Some(task) => Self::Scopes(task.scopes.depth()),
            None if context::is_ending() => Self::Ending,
            None => Self::Frames(current::frames()),
        })
    }
}

impl<Y, S> Yielder<Y, S> {
    /// Yields `value`, and returns when the generator is resumed.
    ///
    /// Unwinds if the generator is closed instead. In a destructor that an unwind of the body runs,
    /// it drops the value and returns at once. So it does in a body that has caught a panic of its
    /// own, while something else on the thread unwinds ([`panicking`](crate::thread::panicking)).
    ///
    /// # Panics
    ///
    /// When anything but the body calls this. Inside of a time-out, scope, shield, `no_wait`,
    /// server or run that the body has opened. In a hook of a runtime, and in the clock of a host.
    /// While the thread ends, once the library's own thread-local has been dropped.
    pub fn yield_(&self, value: Y) {
        let shared = &self.shared;
        if shared.body_unwinds() {
            drop(value);
            // A body that only seems to unwind may call this in a loop. Others must run meanwhile.
            park::spend();
            return;
        }
        self.check_closed();
        shared.suspend(Some(value));
        self.check_closed();
    }

    /// Takes the value that was sent last, or waits for the next one. `None` once the generator is
    /// closed, and in a destructor that an unwind of the body runs.
    ///
    /// # Panics
    ///
    /// As [`yield_`](Self::yield_).
    pub fn receive(&self) -> Option<S> {
        let shared = &self.shared;
        loop {
            if let Some(value) = shared.input.take() {
                return Some(value);
            }
            if shared.closing.get() || shared.body_unwinds() {
                return None;
            }
            shared.suspend(None);
        }
    }

    fn check_closed(&self) {
        // At most once each time the body is resumed. A body that has caught the unwind then
        // returns to `close`, which counts the attempts.
        let shared = &self.shared;
        if !shared.closing.get() || shared.raised.replace(true) {
            return;
        }
        // An earlier `Closed` may still be on its way, in a destructor that calls this, where
        // another coroutine's unwind hides it. A second one would end the process. So would one in
        // a panic that the hook has not seen, because the first generator of the process was made
        // while its thread panicked.
        let first = !shared.was_raised.replace(true);
        if first && panic_hook::is_installed() || !std::thread::panicking() {
            park::note_unwind();
            unwind_with(Closed);
        }
    }
}

impl<Y: 'static> Iterator for Generator<Y> {
    type Item = Y;

    fn next(&mut self) -> Option<Y> {
        self.send(())
    }
}

impl<Y: 'static> FusedIterator for Generator<Y> {}

impl<Y, S> Drop for Generator<Y, S> {
    fn drop(&mut self) {
        self.shared.close();
        let panic = self.shared.panic.take();
        let is_done = self.shared.state() == State::Done;
        let shared = Rc::get_mut(&mut self.shared).filter(|_| is_done);
        let coroutine = shared.and_then(|shared| shared.coroutine.take());
        if let Some(stack) = coroutine.and_then(Checked::into_stack) {
            context::try_with(|scheduler| scheduler.put_stack(stack));
        }
        let unwinds = self.shared.caller_unwinds.get() || park::cleans_up(false);
        if let Some(payload) = panic.filter(|_| !unwinds) {
            park::resume_unwind(payload);
        }
    }
}

impl<Y, S> fmt::Debug for Generator<Y, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("state", &self.shared.state()).finish_non_exhaustive()
    }
}

impl<Y, S> fmt::Debug for Yielder<Y, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").finish_non_exhaustive()
    }
}
