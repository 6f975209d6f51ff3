//! The only file that names corosensei: code that runs on a stack of its own.
//!
//! A [`Coroutine`] is resumed by its owner and suspends itself. Nothing here knows why.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64};
use std::cell::{Cell, UnsafeCell};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr;

use corosensei::stack::Stack as _;
use corosensei::{CoroutineResult, Yielder};

#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;
use super::stack::Stack;

thread_local! {
    // The coroutine that is being resumed for the first time, for its body.
    static STARTING: Cell<*const Coroutine> = const { Cell::new(ptr::null()) };
}

// With no input, a switch passes nothing through memory.
type Inner = corosensei::Coroutine<(), Suspended, (), Stack>;

/// Cache lines of a stack that are fetched ahead of a turn: what the calls between a server's loop and
/// the switch in a read take.
const LINES: usize = 10;
/// corosensei refuses to move a closure of more bytes to a new stack.
const TRANSFER_MAX: usize = 512;
/// What a new stack is aligned to.
const TRANSFER_ALIGN_MAX: usize = 16;
/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// What a coroutine that suspends says to the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suspended {
    /// Resume me again when my turn comes.
    Ready,
    /// Resume me when I am woken.
    Parked,
    /// Never resume me.
    Abandoned,
}

/// A closure on its own stack.
///
/// The drop of a coroutine that has started and not ended leaks it, stack and all: its frames may be
/// borrowed from, and nothing but resuming it until it returns ends them soundly.
pub(crate) struct Coroutine {
    inner: UnsafeCell<ManuallyDrop<Inner>>,
    yielder: Cell<*const Yielder<(), Suspended>>,
    // The top of its stack when it last suspended; where much of what is on it begins, before it has run.
    top: Cell<*const u8>,
    // The address of its stack's guard page.
    guard: usize,
}

impl Coroutine {
    /// Puts `body`, which must not unwind, on `stack`; it runs from the first
    /// [`resume`](Self::resume) on.
    #[inline]
    pub(crate) fn new(stack: Stack, body: impl FnOnce() + 'static) -> Self {
        // SAFETY: the body borrows nothing that could end.
        unsafe { Self::new_unchecked(stack, body) }
    }

    /// [`new`](Self::new), for a body that borrows.
    ///
    /// # Safety
    ///
    /// What `body` borrows must outlive it: the coroutine must be resumed until it returns first.
    #[inline]
    pub(crate) unsafe fn new_unchecked<F: FnOnce()>(stack: Stack, body: F) -> Self {
        // SAFETY: by the caller's promise.
        unsafe {
            if size_of::<F>() > TRANSFER_MAX || align_of::<F>() > TRANSFER_ALIGN_MAX {
                Self::on_stack(stack, Box::new(body))
            } else {
                Self::on_stack(stack, body)
            }
        }
    }

    /// # Safety
    ///
    /// As for [`new_unchecked`](Self::new_unchecked).
    #[inline]
    unsafe fn on_stack(stack: Stack, body: impl FnOnce()) -> Self {
        let guard = stack.guard();
        let start = move |yielder: &Yielder<(), Suspended>, ()| {
            // SAFETY: the `resume` that runs us has just set this to its `self`, which is
            // borrowed until that call returns.
            unsafe { &*STARTING.get() }.yielder.set(yielder);
            body();
        };
        let top = ptr::without_provenance(stack.base().get() - (LINES - 1) * LINE);
        // SAFETY: the caller promises what this asks for.
        let inner = unsafe { Inner::with_stack_unchecked(stack, start) };
        Self {
            inner: UnsafeCell::new(ManuallyDrop::new(inner)),
            yielder: Cell::new(ptr::null()),
            top: Cell::new(top),
            guard,
        }
    }

    /// Runs the body until it suspends; `None` when it has returned.
    ///
    /// # Panics
    ///
    /// When it has returned before.
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
            CoroutineResult::Return(()) => None,
        }
    }

    /// Returns to the caller of [`resume`](Self::resume); comes back at the next one.
    ///
    /// # Safety
    ///
    /// Must be called from code that runs inside this coroutine's `resume`, on its stack or on
    /// that of a coroutine it resumed itself (which is then suspended along with it), and on
    /// no other.
    #[inline]
    pub(crate) unsafe fn suspend(&self, how: Suspended) {
        self.top.set(stack_top());
        // SAFETY: the caller is inside the body, so the yielder was set at its start, and it
        // lives at the base of this coroutine's stack until the body returns.
        unsafe { (*self.yielder.get()).suspend(how) };
    }

    /// The address of its stack's guard page.
    pub(super) fn guard(&self) -> usize {
        self.guard
    }

    /// Has the processor fetch what the next [`resume`](Self::resume) will touch first.
    #[inline]
    pub(super) fn fetch_top(&self) {
        // The switch itself writes the stack's base, and pushes onto its top.
        prefetch(self.yielder.get());
        let first = self.top.get().wrapping_sub(LINE);
        (0..LINES).for_each(|line| prefetch(first.wrapping_add(line * LINE)));
    }

    /// Suspends when called on this coroutine's own stack, whose addresses are `bounds`;
    /// elsewhere does nothing and returns `false`.
    pub(crate) fn suspend_if_on(&self, bounds: &Range<usize>) -> bool {
        let marker = 0u8;
        let here = ptr::from_ref(&marker).addr();
        if !bounds.contains(&here) {
            return false;
        }
        // SAFETY: we run on this very stack, and only `resume` leads here.
        unsafe { self.suspend(Suspended::Parked) };
        true
    }

    /// The stack of a body that has returned or never started (it is then dropped here);
    /// otherwise `None`, and the coroutine is leaked.
    #[inline]
    pub(crate) fn into_stack(self) -> Option<Stack> {
        let mut inner = ManuallyDrop::into_inner(self.inner.into_inner());
        if !inner.done() {
            if inner.started() {
                std::mem::forget(inner);
                return None;
            }
            inner.force_unwind();
        }
        Some(inner.into_stack())
    }
}

/// Has the processor fetch the cache line at an address, be it valid or not.
#[inline]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this changes nothing that a program could see, and does not fault.
    unsafe {
        x86_64::_mm_prefetch::<{ x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Where the top of the stack is; null where nothing is fetched ahead.
#[inline(always)]
fn stack_top() -> *const u8 {
    #[cfg(target_arch = "x86_64")]
    {
        let top;
        // SAFETY: this reads a register.
        unsafe { asm!("mov {}, rsp", out(reg) top, options(nomem, nostack, preserves_flags)) };
        top
    }
    #[cfg(not(target_arch = "x86_64"))]
    ptr::null()
}
