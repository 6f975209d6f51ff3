//! Memory for stacks, as the kernel gives it.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use super::core_files;
use super::error::explained;

/// `MADV_GUARD_INSTALL` of `include/uapi/asm-generic/mman-common.h`, Linux 6.13.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// How a guard keeps an overflow from running into the next stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guard {
    /// A marker in the page table: costs no mapping.
    Marker,
    /// `PROT_NONE`: splits the mapping in two.
    Protect,
}

/// Memory of its own. Dropping it gives the memory back.
///
/// Safe code has only the numbers of its addresses. Unsafe code that puts something there promises
/// that nothing calls [`guard`](Self::guard) or [`discard`](Self::discard) for that part, or drops
/// the mapping, while it is in use.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// New memory, which holds zeroes: none of it is resident or charged until it is touched.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        #[cfg(not(target_os = "linux"))]
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON; // The rest is only in Linux.
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Self { base, len }),
            None => Err(io::Error::other("the kernel mapped a stack at zero")),
        }
    }

    /// New memory for many stacks.
    pub(super) fn reserve(len: usize) -> io::Result<Self> {
        let this = Self::new(len)?;
        #[cfg(target_os = "linux")]
        for advice in [libc::MADV_NOHUGEPAGE, libc::MADV_DONTDUMP] {
            if advice == libc::MADV_DONTDUMP && core_files::have_stacks() {
                continue;
            }
            // One touched page must stay one page, and a core file must not hold a gigabyte of
            // stacks. Both are wishes: a kernel without them refuses.
            this.advise(this.addresses(), advice);
        }
        Ok(this)
    }

    /// The first address.
    pub(super) fn start(&self) -> usize {
        self.base.as_ptr().expose_provenance()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn addresses(&self) -> Range<usize> {
        self.start()..self.start() + self.len
    }

    /// A part of it, for the kernel.
    ///
    /// # Panics
    ///
    /// When it is not inside.
    fn part(&self, part: Range<usize>) -> (*mut libc::c_void, usize) {
        let all = self.addresses();
        assert!(all.start <= part.start && part.end <= all.end, "not a part of the mapping");
        (self.base.as_ptr().wrapping_add(part.start - all.start).cast(), part.len())
    }

    /// Advises the kernel about a part. Returns whether it has taken the advice.
    fn advise(&self, part: Range<usize>, advice: libc::c_int) -> bool {
        let (start, len) = self.part(part);
        // SAFETY: the part is inside of the mapping, which is ours. By the promise of its users,
        // it holds nothing that an advice of this file could lose.
        unsafe { libc::madvise(start, len, advice) == 0 }
    }

    /// Makes a part inaccessible: by markers if `how` says so and the system has them. Returns how
    /// it has been done.
    pub(super) fn guard(&self, part: Range<usize>, how: Guard) -> io::Result<Guard> {
        if how == Guard::Marker && self.advise(part.clone(), MADV_GUARD_INSTALL) {
            static WORK: OnceLock<bool> = OnceLock::new();
            if *WORK.get_or_init(|| self.has_marker(part.start)) {
                return Ok(Guard::Marker);
            }
        }
        // An older kernel, memory locked with mlockall, or an emulator.
        let (start, len) = self.part(part);
        // SAFETY: as in `advise`.
        match unsafe { libc::mprotect(start, len, libc::PROT_NONE) } {
            0 => Ok(Guard::Protect),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the marker of a page guards it. An emulator (the user mode of qemu) calls advice
    /// that it does not know a success.
    #[cfg(target_os = "linux")]
    fn has_marker(&self, page: usize) -> bool {
        let (word, _) = self.part(page..page + size_of::<u32>());
        let never = 1; // A new page holds zero, so the call returns at once.
        let no_timeout = ptr::null::<u8>();
        // SAFETY: the kernel reads a word of a mapping that is ours, or answers EFAULT.
        let refused = unsafe {
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, never, no_timeout) == -1
        };
        refused && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
    }

    #[cfg(not(target_os = "linux"))]
    fn has_marker(&self, _page: usize) -> bool {
        false
    }

    /// Gives the pages of a part back. They hold zeroes again, and guards stay. Returns whether the
    /// kernel has done it.
    pub(super) fn discard(&self, part: Range<usize>) -> bool {
        self.advise(part, libc::MADV_DONTNEED)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and by the promise of its users nothing is in it any more.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The error of a stack of `size` bytes that the kernel has refused, with advice.
pub(super) fn explain(error: io::Error, size: usize) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "the process has reached a memory limit: see RLIMIT_AS (ulimit -v), \
             vm.overcommit_memory and vm.max_map_count, or use fewer or smaller stacks"
        }
        Some(libc::EAGAIN) => "memory is locked (mlockall) and RLIMIT_MEMLOCK is reached",
        _ => "the kernel refused",
    };
    // Not EAGAIN's own kind, `WouldBlock`: no call of ours would block.
    let kind = match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::OutOfMemory,
        kind => kind,
    };
    explained(kind, format!("cannot make a coroutine stack of {size} bytes: {error}; {advice}"))
}

/// Whether the process runs under Valgrind.
pub(super) fn under_valgrind() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // Valgrind's own preloaded object is in the environment of its client.
    *ANSWER.get_or_init(|| {
        std::env::var_os("LD_PRELOAD")
            .is_some_and(|list| list.to_string_lossy().contains("vgpreload"))
    })
}
