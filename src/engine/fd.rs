//! Descriptors, where std and the crates of the library have no safe function.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The type of a file, as in its mode.
pub(crate) fn file_type(fd: BorrowedFd<'_>) -> Option<libc::mode_t> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the place is valid for the answer, which is read only if the call has written it.
    unsafe {
        (libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) == 0)
            .then(|| stat.assume_init().st_mode & libc::S_IFMT)
    }
}

/// `flock`, which std's oldest supported version does not make.
#[cfg(any(feature = "fs", feature = "top"))]
pub(crate) fn flock(fd: BorrowedFd<'_>, operation: libc::c_int) -> std::io::Result<()> {
    // SAFETY: the file stays open for as long as it is borrowed, and no memory is passed.
    match unsafe { libc::flock(fd.as_raw_fd(), operation) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Implements std's trait for types that are made from an `OwnedFd`.
macro_rules! from_raw_fd {
    ($($type:ty),*) => {$(
        #[allow(unsafe_code)]
        impl std::os::fd::FromRawFd for $type {
            /// # Safety
            ///
            /// The descriptor must be open, and nothing else may own it.
            unsafe fn from_raw_fd(fd: std::os::fd::RawFd) -> Self {
                // SAFETY: it is open and not owned elsewhere, by the caller's promise.
                Self::from(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
            }
        }
    )*};
}

pub(crate) use from_raw_fd;
