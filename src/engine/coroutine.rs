//! Coroutines: code that runs on its own stack. The only file that uses corosensei's coroutines.
//!
//! The owner of a [`Coroutine`] resumes it, and the coroutine suspends itself. Nothing here knows
//! why.

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::Range;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use corosensei::stack::Stack as _;
use corosensei::{CoroutineResult, Yielder};

use super::bounds::Bounds;
use super::defer::Defer;
use super::processor::{LINE, Registers, prefetch, stack_top};
#[cfg(feature = "sanitizer")]
use super::sanitizer;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;
use super::stack::{self, Stack};

thread_local! {
    // The coroutine that is being resumed for the first time: its body takes it from here.
    static STARTING: Cell<*const Coroutine> = const { Cell::new(ptr::null()) };
}

// With no input, a switch passes nothing through memory.
type Inner = corosensei::Coroutine<(), Suspended, (), Stack>;

/// How many cache lines of a stack are prefetched before a turn. The frames between a server's loop
/// and the switch in a read take about as much.
const LINES: usize = 10;
/// Larger closures are boxed: corosensei refuses to move closures above its own limit to a new
/// stack.
const TRANSFER_MAX: usize = 512;
/// The alignment of a new stack.
const TRANSFER_ALIGN_MAX: usize = 16;

/// The reason why a coroutine suspends, for the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suspended {
    /// Resume me again when my turn comes.
    Ready,
    /// Resume me when I am woken.
    Parked,
    /// Never resume me.
    Abandoned,
}

/// A closure for a coroutine, with the promise that everything that it and its result borrow lives
/// for as long as the coroutine may use it.
pub(crate) struct Lent<F>(F);

impl<F> Lent<F> {
    /// # Safety
    ///
    /// Before anything ends that `f` or its result borrows, `f` must have been called and have
    /// returned, or have been dropped. The same holds for a result that the coroutine drops.
    #[inline(always)]
    pub(crate) unsafe fn new(f: F) -> Self {
        Self(f)
    }

    /// A closure that borrows nothing.
    #[inline(always)]
    pub(crate) fn nothing<T: 'static>(f: F) -> Self
    where
        F: FnOnce() -> T + 'static,
    {
        Self(f)
    }

    /// Boxes the closure.
    pub(crate) fn boxed<'a, T>(self) -> Lent<Box<dyn FnOnce() -> T + 'a>>
    where
        F: FnOnce() -> T + 'a,
    {
        Lent(Box::new(self.0))
    }

    /// [`boxed`](Self::boxed), for a closure that may be sent.
    pub(crate) fn boxed_send<'a, T>(self) -> Lent<Box<dyn FnOnce() -> T + Send + 'a>>
    where
        F: FnOnce() -> T + Send + 'a,
    {
        Lent(Box::new(self.0))
    }

    /// The closure, without the promise.
    #[inline(always)]
    pub(crate) fn into_inner(self) -> F {
        self.0
    }
}

/// Calls `f`, which may lend a closure. Should that closure still be in use when `f` has returned
/// or unwinds, this ends the process.
pub(crate) fn lending<'env, R>(f: impl FnOnce(Loan<'_, 'env>) -> R) -> R {
    let out = AtomicBool::new(false);
    let _check = Defer::new(|| {
        if out.load(Ordering::Acquire) {
            process::abort();
        }
    });
    f(Loan { out: &out, env: PhantomData })
}

/// The right to lend one closure that borrows for `'env`: see [`lending`].
pub(crate) struct Loan<'out, 'env> {
    out: &'out AtomicBool,
    // Such that `'env` cannot be made shorter, as by a borrow from the caller's closure.
    env: PhantomData<&'env mut &'env ()>,
}

impl<'out, 'env> Loan<'out, 'env> {
    /// Lends `f`, until it has been called or dropped.
    pub(crate) fn lend(
        self,
        f: &'env mut (dyn FnMut() + 'env),
    ) -> Lent<impl FnOnce() + use<'out, 'env>> {
        let f = self.in_use(f);
        // SAFETY: the borrows of `f` outlive the call of `lending`. That returns or unwinds only if
        // `Back` has been dropped, which comes after `f` has returned, or was dropped.
        //
        // Nor can its frame vanish otherwise: no suspended coroutine is dropped. It is abandoned
        // only while it unwinds or where it would begin to, which is not in a wait for a thread
        // that uses `f`. A coroutine that uses `f` on the caller's behalf is abandoned together
        // with the caller.
        unsafe { Lent::new(move || f.call()) }
    }

    /// [`lend`](Self::lend), for a thread. The type does not show that it borrows.
    pub(crate) fn lend_to_thread(
        self,
        f: &'env mut (dyn FnMut() + Send),
    ) -> impl FnOnce() + Send + use<> {
        type Call<'a> = InUse<'a, &'a mut (dyn FnMut() + Send)>;
        // SAFETY: the two types differ only in lifetimes. It is sound to use it as in `lend`.
        let f = unsafe { mem::transmute::<Call<'_>, Call<'static>>(self.in_use(f)) };
        move || f.call()
    }

    fn in_use<F>(self, f: F) -> InUse<'out, F> {
        self.out.store(true, Ordering::Relaxed);
        InUse { f, back: Back(self.out) }
    }
}

/// A closure that has been lent.
struct InUse<'out, F> {
    f: F,
    // Dropped after it.
    back: Back<'out>,
}

impl<F: FnOnce()> InUse<'_, F> {
    fn call(self) {
        let Self { f, back: _back } = self;
        f();
    }
}

/// Ends a loan.
struct Back<'out>(&'out AtomicBool);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A closure on its own stack.
///
/// Dropping a coroutine that has started and not ended leaks it together with its stack. Other code
/// may borrow from its frames, so only resuming it until it returns ends them soundly.
pub(crate) struct Coroutine {
    inner: UnsafeCell<ManuallyDrop<Inner>>,
    yielder: Cell<*const Yielder<(), Suspended>>,
    // The top of its stack when it last suspended. Before it has run, an address near the base.
    top: Cell<*const u8>,
    // The registers when it last suspended.
    #[cfg(feature = "backtrace")]
    registers: Cell<Registers>,
}

impl Coroutine {
    /// Puts `body` on `stack`. It runs from the first [`resume`](Self::resume) on, and must not
    /// unwind.
    #[inline]
    pub(crate) fn new<F: FnOnce()>(stack: Stack, body: Lent<F>) -> Self {
        if size_of::<F>() > TRANSFER_MAX || align_of::<F>() > TRANSFER_ALIGN_MAX {
            Self::on_stack(stack, body.boxed())
        } else {
            Self::on_stack(stack, body)
        }
    }

    #[inline]
    fn on_stack(stack: Stack, body: Lent<impl FnOnce()>) -> Self {
        let body = body.into_inner();
        let start = move |yielder: &Yielder<(), Suspended>, ()| {
            // SAFETY: the `resume` that runs us has just set this to its `self`, which is
            // borrowed until that call returns.
            unsafe { &*STARTING.get() }.yielder.set(yielder);
            body();
            #[cfg(feature = "sanitizer")]
            sanitizer::body_ends();
        };
        #[cfg(feature = "sanitizer")]
        sanitizer::stack_is_used(stack.bounds());
        let top = ptr::without_provenance(stack.base().get() - (LINES - 1) * LINE);
        // SAFETY: by the promise of a `Lent`, the borrows of `body` live until this has ended.
        let inner = unsafe { Inner::with_stack_unchecked(stack, start) };
        Self {
            inner: UnsafeCell::new(ManuallyDrop::new(inner)),
            yielder: Cell::new(ptr::null()),
            top: Cell::new(top),
            #[cfg(feature = "backtrace")]
            registers: Cell::default(),
        }
    }

    /// For a debugger: where corosensei's coroutine is, its size, and where the yielder is, in a
    /// structure that has a coroutine at `offset`.
    pub(super) const fn fields_from(offset: usize) -> [u64; 3] {
        let (inner, yielder) = (mem::offset_of!(Self, inner), mem::offset_of!(Self, yielder));
        [(offset + inner) as u64, size_of::<Inner>() as u64, (offset + yielder) as u64]
    }

    /// Runs the body until it suspends. `None` if it has returned.
    ///
    /// # Panics
    ///
    /// When the body returned earlier.
    ///
    /// # Safety
    ///
    /// No other call of `resume` on this coroutine may be under way.
    #[inline]
    pub(crate) unsafe fn resume(&self) -> Option<Suspended> {
        // SAFETY: nothing but `resume` touches `inner` through a shared reference, and by the
        // caller's promise no other one does now.
        let inner = unsafe { &mut *self.inner.get() };
        if self.yielder.get().is_null() {
            STARTING.set(self);
        }
        match inner.resume(()) {
            CoroutineResult::Yield(suspended) => Some(suspended),
            CoroutineResult::Return(()) => {
                #[cfg(feature = "sanitizer")]
                sanitizer::body_has_ended();
                None
            }
        }
    }

    /// Switches to the caller of [`resume`](Self::resume). Returns at the next `resume`.
    ///
    /// # Safety
    ///
    /// Must be called from code that runs inside this coroutine's `resume`, on its stack or on
    /// that of a coroutine it resumed itself (which is then suspended along with it), and on
    /// no other.
    #[inline]
    pub(crate) unsafe fn suspend(&self, how: Suspended) {
        self.top.set(stack_top());
        #[cfg(feature = "backtrace")]
        self.registers.set(Registers::here());
        // SAFETY: the caller is inside the body, so the yielder was set at its start, and it
        // lives at the base of this coroutine's stack until the body returns.
        unsafe { (*self.yielder.get()).suspend(how) };
    }

    /// Whether its own stack is the one of `size` bytes from this address on.
    pub(super) fn is_on(&self, bottom: usize, size: usize) -> bool {
        // Both are near the base of its stack. (The top may be on another one by now.)
        let started = self.has_started();
        let base = if started { self.yielder.get().addr() } else { self.top.get().addr() };
        base.checked_sub(bottom).is_some_and(|above| above <= size)
    }

    /// Whether it has run. If not, its body has not been called.
    pub(super) fn has_started(&self) -> bool {
        !self.yielder.get().is_null()
    }

    /// The bounds of its stack. Only its own thread knows them.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let started = self.has_started();
        stack::bounds_of(if started { self.yielder.get().addr() } else { self.top.get().addr() })
    }

    /// The registers when it last suspended, if it has and they are kept.
    pub(super) fn registers(&self) -> Option<Registers> {
        #[cfg(feature = "backtrace")]
        return self.has_started().then(|| self.registers.get());
        #[cfg(not(feature = "backtrace"))]
        None
    }

    /// The top of its stack when it last suspended. `None` if it has not, or if that was on the
    /// stack of a generator.
    pub(super) fn suspended_at(&self, bounds: Bounds) -> Option<usize> {
        let top = self.top.get().addr();
        (self.has_started() && bounds.contains(top)).then_some(top)
    }

    /// Prefetches the memory that the next [`resume`](Self::resume) touches first.
    #[inline]
    pub(super) fn fetch_top(&self) {
        // The switch itself writes the stack's base, and pushes onto its top.
        prefetch(self.yielder.get());
        let first = self.top.get().wrapping_sub(LINE);
        (0..LINES).for_each(|line| prefetch(first.wrapping_add(line * LINE)));
    }

    /// Takes the stack back if the body has returned or never started. (A body that never started
    /// is dropped here.) Otherwise returns `None`, and leaks the coroutine.
    #[inline]
    pub(crate) fn into_stack(self) -> Option<Stack> {
        let mut inner = ManuallyDrop::into_inner(self.inner.into_inner());
        if !inner.done() {
            if inner.started() {
                mem::forget(inner);
                return None;
            }
            inner.force_unwind();
        }
        let stack = inner.into_stack();
        #[cfg(feature = "sanitizer")]
        sanitizer::stack_is_free(stack.bounds());
        Some(stack)
    }
}

/// Where a [`Checked`] coroutine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Suspended,
    Running,
    Done,
}

/// A coroutine that knows where it is. So its callers need not promise it.
pub(crate) struct Checked {
    coroutine: Coroutine,
    stack: Range<usize>,
    state: Cell<State>,
}

impl Checked {
    /// Puts `body` on `stack`, as [`Coroutine::new`].
    pub(crate) fn new(stack: Stack, body: Lent<impl FnOnce()>) -> Self {
        let bounds = stack.bounds();
        let coroutine = Coroutine::new(stack, body);
        Self { coroutine, stack: bounds, state: Cell::new(State::Suspended) }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// Whether it has run. If not, its body has not been called.
    pub(crate) fn has_started(&self) -> bool {
        self.coroutine.has_started()
    }

    /// Calls `prepare` and runs the body until it suspends or returns. Does nothing and returns
    /// `false` unless it was suspended.
    #[inline]
    pub(crate) fn resume(&self, prepare: impl FnOnce()) -> bool {
        if self.state.get() != State::Suspended {
            return false;
        }
        self.state.set(State::Running);
        prepare();
        // SAFETY: it was `Suspended`, and is `Running` during this call.
        let suspended = unsafe { self.coroutine.resume() };
        self.state.set(if suspended.is_some() { State::Suspended } else { State::Done });
        true
    }

    /// Calls `prepare` and suspends, if called on its own stack. Elsewhere it does nothing and
    /// returns `false`.
    pub(crate) fn suspend(&self, prepare: impl FnOnce()) -> bool {
        let marker = 0u8;
        let top = stack_top();
        // The address of a local does where the register is not read. A sanitizer may have moved
        // the local elsewhere.
        let here = if top.is_null() { ptr::from_ref(&marker) } else { top };
        if !self.stack.contains(&here.addr()) {
            return false;
        }
        prepare();
        // SAFETY: we run on this very stack, and only `resume` leads here.
        unsafe { self.coroutine.suspend(Suspended::Parked) };
        true
    }

    /// Takes the stack back, as [`Coroutine::into_stack`].
    pub(crate) fn into_stack(self) -> Option<Stack> {
        self.coroutine.into_stack()
    }
}

/// Calls `f`, which must not unwind, on `stack`. Returns the stack.
///
/// Nothing suspends the call but along with the caller, so it has returned when `resume` has. If
/// the caller is never resumed, its frames and this stack are leaked together.
pub(crate) fn call_on(stack: Stack, f: &mut dyn FnMut()) -> Option<Stack> {
    lending(|loan| {
        let coroutine = Checked::new(stack, loan.lend(f));
        coroutine.resume(|| ());
        coroutine.into_stack()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_loan_ends_when_the_closure_has_returned_or_is_dropped() {
        let text = String::from("lent");
        let mut read = String::new();
        let mut reads = || read.push_str(&text);
        lending(|loan| loan.lend(&mut reads).into_inner()());
        lending(|loan| drop(loan.lend(&mut reads)));
        assert_eq!(read, text);
    }

    #[test]
    fn a_loan_that_does_not_end_in_time_ends_the_process() {
        const CHILD: &str = "PLAINSONG_TEST_LOAN";
        if env::var_os(CHILD).is_some() {
            let mut nothing = || ();
            lending(|loan| mem::forget(loan.lend(&mut nothing).into_inner()));
            return;
        }
        let name = "engine::coroutine::tests::a_loan_that_does_not_end_in_time_ends_the_process";
        let mut child = Command::new(env::current_exe().unwrap());
        let status = child.args(["--exact", name]).env(CHILD, "1").output().unwrap().status;
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    }
}
