//! How a call of the file system is made.

use std::io;

use crate::engine::blocking;

/// Makes a call on a thread of the blocking pool.
pub(super) fn call<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    blocking::attempt(f)?
}
