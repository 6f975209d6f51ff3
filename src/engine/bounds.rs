//! The bounds of a stack, and what can be learnt of it from outside.

#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::mem;
use std::ops::Range;
use std::ptr;

use rustix::param::page_size;

/// The bounds of one stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    bottom: usize,
    top: usize,
}

impl Bounds {
    /// The stack from the lowest usable address to its top.
    ///
    /// # Safety
    ///
    /// As long as the value is used, the memory is mapped, and no code runs on it but on this
    /// thread.
    pub(super) unsafe fn new(bottom: usize, top: usize) -> Self {
        Self { bottom, top }
    }

    /// The lowest usable address.
    pub(crate) fn bottom(&self) -> usize {
        self.bottom
    }

    /// The address above the highest one.
    pub(crate) fn top(&self) -> usize {
        self.top
    }

    pub(crate) fn contains(&self, address: usize) -> bool {
        (self.bottom..self.top).contains(&address)
    }

    /// How far an address is below the top.
    pub(crate) fn depth(&self, address: usize) -> usize {
        self.top - address
    }

    /// The size, without the bytes by which tops of stacks differ.
    pub(crate) fn size(&self) -> usize {
        self.top.next_multiple_of(page_size()) - self.bottom
    }

    /// Reads a word of the stack, if it is inside.
    pub(crate) fn read(&self, address: usize) -> Option<usize> {
        let last = self.top - size_of::<usize>();
        let inside = (self.bottom..=last).contains(&address) && address % size_of::<usize>() == 0;
        #[cfg(feature = "sanitizer")]
        if inside && super::sanitizer::is_guarded(address) {
            return Some(0);
        }
        // SAFETY: by the promise to `new`, it is mapped, and nothing writes to it now. Any bytes
        // are a `usize`. The read is volatile, because the compiler does not know of it otherwise.
        inside.then(|| unsafe { ptr::read_volatile(address as *const usize) })
    }

    /// How many bytes of some memory are in memory now. The memory need not be a stack any more.
    pub(crate) fn resident_in(memory: Range<usize>) -> usize {
        let mut resident = 0;
        look_at_pages(memory, |_, pages| resident += pages.iter().filter(is_there).count());
        resident * page_size()
    }

    /// How many bytes below the top are in memory: as much as was ever used since the pages were
    /// last given back, in whole pages.
    pub(crate) fn resident(&self) -> usize {
        let top = self.top.next_multiple_of(page_size());
        let mut lowest = top;
        look_at_pages(self.bottom..top, |from, pages| {
            if let Some(first) = pages.iter().position(|it| is_there(&it)) {
                lowest = lowest.min(from + first * page_size());
            }
        });
        top - lowest
    }
}

/// Calls `f` with the kernel's answers about a number of pages, from this address on. It leaves out
/// what is not mapped.
fn look_at_pages(memory: Range<usize>, mut f: impl FnMut(usize, &[u8])) {
    let mut pages = [0u8; 1024];
    let mut from = memory.start;
    while from < memory.end {
        let end = memory.end.min(from + pages.len() * page_size());
        let here = &mut pages[..(end - from) / page_size()];
        // SAFETY: the range is page-aligned, and `here` has a byte for each page. The kernel
        // refuses a range that is not mapped.
        let done = unsafe { libc::mincore(from as *mut _, end - from, here.as_mut_ptr().cast()) };
        if done == 0 {
            f(from, here);
        }
        from = end;
    }
}

/// Whether the kernel's answer says that a page is in memory.
fn is_there(answer: &&u8) -> bool {
    **answer & 1 == 1
}

/// The addresses of this thread's own stack, where the system says them.
#[cfg(target_os = "linux")]
pub(crate) fn of_thread() -> Option<Range<usize>> {
    let mut bottom = ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attributes are initialised by the first call, read by the second, and freed by
    // the third. All-zero ones are valid to be initialised.
    let found = unsafe {
        let mut attributes: libc::pthread_attr_t = mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let found = libc::pthread_attr_getstack(&attributes, &mut bottom, &mut size);
        libc::pthread_attr_destroy(&mut attributes);
        found
    };
    (found == 0).then(|| bottom.addr()..bottom.addr() + size)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn of_thread() -> Option<Range<usize>> {
    None
}
