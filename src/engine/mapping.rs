//! Memory for stacks, as the kernel gives it.

#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use super::core_files;
use super::error::explained;

/// Reserves address space for stacks: nothing is resident or charged until it is touched.
pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
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
    #[cfg(target_os = "linux")]
    for advice in [libc::MADV_NOHUGEPAGE, libc::MADV_DONTDUMP] {
        if advice == libc::MADV_DONTDUMP && core_files::have_stacks() {
            continue;
        }
        // One touched page must stay one page, and a core file must not hold a gigabyte of stacks.
        // Both are wishes: a kernel without them refuses.
        // SAFETY: the mapping is ours; neither advice changes what it holds.
        let _ = unsafe { libc::madvise(base, len, advice) };
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("the kernel mapped a stack at zero"))
}

/// Whether the markers of this system guard. `marked` is a page with a marker, if they do.
///
/// An emulator (the user mode of qemu) calls advice that it does not know a success.
#[cfg(target_os = "linux")]
pub(super) fn markers_work(marked: NonNull<u8>) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let never = 1; // A new page holds zero, so the call returns at once.
        // SAFETY: the kernel reads a word of a mapping that is ours, or answers EFAULT.
        let refused = unsafe {
            libc::syscall(
                libc::SYS_futex,
                marked.as_ptr(),
                libc::FUTEX_WAIT,
                never,
                ptr::null::<u8>(),
            )
        };
        refused == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn markers_work(_marked: NonNull<u8>) -> bool {
    false
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
