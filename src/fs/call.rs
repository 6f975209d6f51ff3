//! How a call of the file system is made.

use std::io;
use std::os::fd::AsFd;

use crate::engine::{blocking, blocking_pool as pool, fd};

/// Makes a call on a thread of the blocking pool.
pub(super) fn call<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    blocking::attempt(f)?
}

/// [`call`] of `flock`.
pub(super) fn flock(file: &std::fs::File, operation: libc::c_int) -> io::Result<()> {
    let flock = || fd::flock(file.as_fd(), operation);
    let waits = operation & (libc::LOCK_NB | libc::LOCK_UN) == 0;
    // If many wait, the holder of the lock still needs threads of the pool, to work and to unlock.
    call(|| if waits { pool::while_blocked(flock) } else { flock() })
}
