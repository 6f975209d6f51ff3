//! The bounds of a stack, and what can be learnt of it from outside.

#![allow(unsafe_code)]

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
        // SAFETY: by the promise to `new`, it is mapped, and nothing writes to it now. Any bytes
        // are a `usize`. The read is volatile, because the compiler does not know of it otherwise.
        inside.then(|| unsafe { ptr::read_volatile(address as *const usize) })
    }

    /// How many bytes of some memory are in memory now. The memory need not be a stack any more.
    pub(crate) fn resident_in(memory: Range<usize>) -> usize {
        let mut pages = [0u8; 1024];
        let (page, mut from, mut resident) = (page_size(), memory.start, 0);
        while from < memory.end {
            let end = memory.end.min(from + pages.len() * page);
            let here = &mut pages[..(end - from) / page];
            // SAFETY: the range is page-aligned, and `here` has a byte for each page. The kernel
            // refuses a range that is not mapped.
            let done =
                unsafe { libc::mincore(from as *mut _, end - from, here.as_mut_ptr().cast()) };
            if done == 0 {
                resident += here.iter().filter(|page| **page & 1 == 1).count() * page;
            }
            from = end;
        }
        resident
    }

    /// How many bytes below the top are in memory: as much as was ever used since the pages were
    /// last given back, in whole pages.
    pub(crate) fn resident(&self) -> usize {
        let mut pages = [0u8; 64];
        let (page, mut end) = (page_size(), self.top.next_multiple_of(page_size()));
        let top = end;
        let mut lowest = end;
        while end > self.bottom {
            let from = end.saturating_sub(pages.len() * page).max(self.bottom);
            let here = &mut pages[..(end - from) / page];
            // SAFETY: the range is page-aligned and mapped. `here` has a byte for each page.
            let done =
                unsafe { libc::mincore(from as *mut _, end - from, here.as_mut_ptr().cast()) };
            let first = here.iter().position(|page| page & 1 == 1);
            if let Some(first) = first.filter(|_| done == 0) {
                lowest = from + first * page;
            }
            end = from;
        }
        top - lowest
    }
}
