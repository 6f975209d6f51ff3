//! Tells AddressSanitizer and LeakSanitizer about the stacks of coroutines. corosensei tells them
//! of each switch, and this file the rest.
//!
//! Compiled only with the feature `sanitizer`.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

// The interface of the runtime: LLVM's headers sanitizer/asan_interface.h, lsan_interface.h and
// common_interface_defs.h.
//
// SAFETY: the signatures are those of the headers. The safe ones only ask, about any address.
unsafe extern "C" {
    fn __asan_poison_memory_region(start: *const c_void, len: usize);
    fn __asan_unpoison_memory_region(start: *const c_void, len: usize);
    safe fn __asan_region_is_poisoned(start: *const c_void, len: usize) -> *const c_void;
    fn __lsan_register_root_region(start: *const c_void, len: usize);
    fn __lsan_unregister_root_region(start: *const c_void, len: usize);
    safe fn __asan_get_current_fake_stack() -> *mut c_void;
    fn __sanitizer_start_switch_fiber(save: *mut *mut c_void, bottom: *const c_void, size: usize);
    fn __sanitizer_finish_switch_fiber(
        fake_stack: *mut c_void,
        bottom: *mut *const c_void,
        size: *mut usize,
    );
}

/// How many fake stacks of ended coroutines a thread keeps. A use of a local of such a coroutine
/// is reported as a use after return while its fake stack is kept, and as a fault later.
const KEPT_MAX: usize = 16;

thread_local! {
    // The fake stack of the coroutine that is ending.
    static ENDING: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
    static KEPT: Kept = const { Kept(RefCell::new(VecDeque::new())) };
}

/// A coroutine will be put on the stack with these addresses.
pub(super) fn stack_is_used(bounds: Range<usize>) {
    let (start, len) = (ptr::without_provenance(bounds.start), bounds.len());
    // SAFETY: the range is mapped for as long as it is registered. No memory of the program
    // changes.
    unsafe {
        __asan_unpoison_memory_region(start, len);
        // Something that only a coroutine's frames point to is no leak, even if the coroutine is
        // never resumed.
        __lsan_register_root_region(start, len);
    }
}

/// The stack with these addresses has no coroutine any more, and nothing may use it.
pub(super) fn stack_is_free(bounds: Range<usize>) {
    let (start, len) = (ptr::without_provenance(bounds.start), bounds.len());
    // SAFETY: `stack_is_used` has registered this range. No memory of the program changes.
    unsafe {
        __lsan_unregister_root_region(start, len);
        __asan_poison_memory_region(start, len);
    }
}

/// Whether AddressSanitizer would report a read of the word at this address: it lies beside a
/// local.
pub(super) fn is_guarded(address: usize) -> bool {
    let start = ptr::without_provenance(address);
    !__asan_region_is_poisoned(start, size_of::<usize>()).is_null()
}

/// The body of a coroutine is about to return. Called on its stack.
pub(super) fn body_ends() {
    ENDING.set(__asan_get_current_fake_stack());
}

/// The body has returned. Called on the stack that resumed it.
pub(super) fn body_has_ended() {
    let fake_stack = ENDING.get();
    // It is null if uses after return are not looked for. At the end of a thread it is leaked.
    if !fake_stack.is_null() {
        let _ = KEPT.try_with(|kept| kept.add(fake_stack));
    }
}

/// To find uses after return, AddressSanitizer moves locals to a "fake stack" of their coroutine.
/// corosensei does not free the fake stack of a coroutine that has ended: megabytes of address
/// space, and the pages that were used.
struct Kept(RefCell<VecDeque<*mut c_void>>);

impl Kept {
    fn add(&self, fake_stack: *mut c_void) {
        let mut kept = self.0.borrow_mut();
        kept.push_back(fake_stack);
        if kept.len() > KEPT_MAX {
            kept.pop_front().into_iter().for_each(free);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.get_mut().drain(..).for_each(free);
    }
}

/// Frees a fake stack. The only way is to leave it for good: this goes onto it and back, and stays
/// on the same real stack.
fn free(fake_stack: *mut c_void) {
    let (mut ours, mut bottom, mut size) = (ptr::null_mut(), ptr::null(), 0);
    // SAFETY: its coroutine has ended, so no frame is on the fake stack. No frame is made between
    // the first call and the last.
    unsafe {
        __sanitizer_start_switch_fiber(&mut ours, ptr::null(), 0);
        __sanitizer_finish_switch_fiber(fake_stack, &mut bottom, &mut size);
        __sanitizer_start_switch_fiber(ptr::null_mut(), bottom, size);
        __sanitizer_finish_switch_fiber(ours, ptr::null_mut(), ptr::null_mut());
    }
}
