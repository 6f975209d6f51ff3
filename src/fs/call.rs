//! How a call of the file system is made.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use crate::engine::{blocking, blocking_pool as pool};

/// Makes a call on a thread of the blocking pool.
pub(super) fn call<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    blocking::attempt(f)?
}

/// [`call`] of `flock`, which std's oldest supported version does not make.
pub(super) fn flock(file: &std::fs::File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: the file stays open for as long as it is borrowed, and no memory is passed.
    let flock = || match unsafe { libc::flock(file.as_raw_fd(), operation) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let waits = operation & (libc::LOCK_NB | libc::LOCK_UN) == 0;
    // If many wait, the holder of the lock still needs threads of the pool, to work and to unlock.
    call(|| if waits { pool::while_blocked(flock) } else { flock() })
}
