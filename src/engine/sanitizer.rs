//! What AddressSanitizer and LeakSanitizer must know about the stacks of coroutines, beyond the
//! switches, of which corosensei tells them.
//!
//! Without the feature `sanitizer`, nothing here does anything.

#![cfg_attr(feature = "sanitizer", allow(unsafe_code))]

use std::ops::Range;

#[cfg(feature = "sanitizer")]
use runtime::{ENDING, KEPT};

/// A coroutine is put on the stack with these addresses.
#[inline(always)]
pub(super) fn stack_is_used(bounds: Range<usize>) {
    #[cfg(feature = "sanitizer")]
    // SAFETY: the range is mapped for as long as it is registered. Nothing but shadow memory
    // changes.
    unsafe {
        let (start, len) = (bounds.start as *const _, bounds.len());
        runtime::__asan_unpoison_memory_region(start, len);
        // What only a coroutine's frames point to is no leak, also if the coroutine is given up.
        runtime::__lsan_register_root_region(start, len);
    }
    #[cfg(not(feature = "sanitizer"))]
    let _ = bounds;
}

/// The stack with these addresses goes back to its pool: nothing may use it any more.
#[inline(always)]
pub(super) fn stack_is_free(bounds: Range<usize>) {
    #[cfg(feature = "sanitizer")]
    // SAFETY: `stack_is_used` has registered this range. Nothing but shadow memory changes.
    unsafe {
        let (start, len) = (bounds.start as *const _, bounds.len());
        runtime::__lsan_unregister_root_region(start, len);
        runtime::__asan_poison_memory_region(start, len);
    }
    #[cfg(not(feature = "sanitizer"))]
    let _ = bounds;
}

/// The body of a coroutine is about to return. Called on its stack.
#[inline(always)]
pub(super) fn body_ends() {
    #[cfg(feature = "sanitizer")]
    // SAFETY: this only asks.
    ENDING.set(unsafe { runtime::__asan_get_current_fake_stack() });
}

/// The body has returned. Called on the stack that resumed it.
#[inline(always)]
pub(super) fn body_has_ended() {
    #[cfg(feature = "sanitizer")]
    {
        // At the end of a thread it is left to nobody, as it would be without us.
        let _ = KEPT.try_with(|kept| kept.add(ENDING.get()));
    }
}

#[cfg(feature = "sanitizer")]
mod runtime {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::ffi::c_void;
    use std::ptr;

    // The sanitizer's interface: sanitizer/asan_interface.h, sanitizer/lsan_interface.h and
    // sanitizer/common_interface_defs.h of LLVM.
    unsafe extern "C" {
        pub(super) fn __asan_poison_memory_region(start: *const c_void, len: usize);
        pub(super) fn __asan_unpoison_memory_region(start: *const c_void, len: usize);
        pub(super) fn __lsan_register_root_region(start: *const c_void, len: usize);
        pub(super) fn __lsan_unregister_root_region(start: *const c_void, len: usize);
        pub(super) fn __asan_get_current_fake_stack() -> *mut c_void;
        fn __sanitizer_start_switch_fiber(
            save: *mut *mut c_void,
            bottom: *const c_void,
            size: usize,
        );
        fn __sanitizer_finish_switch_fiber(
            fake_stack: *mut c_void,
            bottom: *mut *const c_void,
            size: *mut usize,
        );
    }

    /// How many fake stacks of ended coroutines a thread keeps. A pointer to a local of such a
    /// coroutine is reported by name while its fake stack is kept, and as a fault later.
    const KEPT_MAX: usize = 16;

    thread_local! {
        /// The fake stack of the coroutine that is ending.
        pub(super) static ENDING: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
        pub(super) static KEPT: Kept = const { Kept(RefCell::new(VecDeque::new())) };
    }

    /// To detect a use after return, AddressSanitizer keeps locals in a "fake stack" for each
    /// coroutine. corosensei leaves the fake stack of an ended coroutine to nobody: megabytes of
    /// address space, and the pages that were used.
    pub(super) struct Kept(RefCell<VecDeque<*mut c_void>>);

    impl Kept {
        pub(super) fn add(&self, fake_stack: *mut c_void) {
            // It is null if the detection is off.
            if fake_stack.is_null() {
                return;
            }
            let mut kept = self.0.borrow_mut();
            kept.push_back(fake_stack);
            if kept.len() > KEPT_MAX {
                kept.pop_front().into_iter().for_each(destroy);
            }
        }
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.get_mut().drain(..).for_each(destroy);
        }
    }

    /// Frees a fake stack. The only way is to leave it for good: this goes onto it and back, without
    /// changing the real stack.
    fn destroy(fake_stack: *mut c_void) {
        let (mut ours, mut bottom, mut size) = (ptr::null_mut(), ptr::null(), 0);
        // SAFETY: its coroutine has ended, so no frame is on the fake stack. Nothing is called
        // between the first line and the last that would make one.
        unsafe {
            __sanitizer_start_switch_fiber(&mut ours, ptr::null(), 0);
            __sanitizer_finish_switch_fiber(fake_stack, &mut bottom, &mut size);
            __sanitizer_start_switch_fiber(ptr::null_mut(), bottom, size);
            __sanitizer_finish_switch_fiber(ours, ptr::null_mut(), ptr::null_mut());
        }
    }
}
