//! Files under std's names: each call runs on a thread of the blocking pool and parks only its
//! own coroutine.
//!
//! Names, signatures, errors and behaviour are those of [`std::fs`], and on a plain thread the calls
//! are std's own. Buffers are lent to the call and not copied. A call costs two changes of threads,
//! some thirty microseconds, so many small writes want a [`BufWriter`](std::io::BufWriter). A read
//! of what the system has in memory is done on the spot where the system can (Linux).
//!
//! What is a file only by name is better opened elsewhere: a read from a pipe, a terminal or a FIFO may
//! take for ever, and holds a thread of the pool for as long. [`io::Pollable`](crate::io::Pollable)
//! waits for those.
//!
//! # Cancellation
//!
//! A call that no thread has begun is taken back, and the coroutine unwinds. One that has begun is
//! waited for and returns what it did; the coroutine's next wait unwinds. See
//! [`blocking`](crate::blocking).
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use plainsong::fs::{self, File};
//!
//! # fn main() -> std::io::Result<()> {
//! plainsong::run(|| {
//!     let path = std::env::temp_dir().join(format!("plainsong-{}", std::process::id()));
//!     File::create(&path)?.write_all(b"one\ntwo\n")?;
//!     assert_eq!(BufReader::new(File::open(&path)?).lines().count(), 2);
//!     assert_eq!(fs::metadata(&path)?.len(), 8);
//!     fs::remove_file(&path)
//! })
//! # }
//! ```

mod dir;
mod file;

use std::io;
use std::path::{Path, PathBuf};

pub use self::dir::{DirBuilder, DirEntry, ReadDir};
pub use self::file::{File, OpenOptions};
use crate::engine::blocking;
pub use std::fs::{FileTimes, FileType, Metadata, Permissions, TryLockError};

/// The one way in which this module makes a call.
fn call<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    blocking::attempt(f)?
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($path:ident),+ $(; $arg:ident: $type:ty)?) -> $value:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        #[doc = concat!("Those of [`std::fs::", stringify!($name), "`].")]
        pub fn $name($($path: impl AsRef<Path>,)+ $($arg: $type)?) -> io::Result<$value> {
            $(let $path = $path.as_ref();)+
            call(|| std::fs::$name($($path,)+ $($arg)?))
        }
    )*};
}

calls! {
    /// Reads a whole file.
    read(path) -> Vec<u8>;
    /// Reads a whole file, which must be UTF-8.
    read_to_string(path) -> String;
    /// Copies a file's contents and permissions; returns the number of bytes.
    copy(from, to) -> u64;
    /// Renames a file or directory; replaces `to`.
    rename(from, to) -> ();
    /// Removes a file, or the link if it is one.
    remove_file(path) -> ();
    /// Removes an empty directory.
    remove_dir(path) -> ();
    /// Removes a directory and all that is in it; follows no links.
    remove_dir_all(path) -> ();
    /// Creates a directory.
    create_dir(path) -> ();
    /// Creates a directory, and those above it that do not exist.
    create_dir_all(path) -> ();
    /// What the system knows of a file; follows links.
    metadata(path) -> Metadata;
    /// What the system knows of a file, or of the link if it is one.
    symlink_metadata(path) -> Metadata;
    /// The absolute path, without links, `.` and `..`.
    canonicalize(path) -> PathBuf;
    /// Gives a file a second name.
    hard_link(original, link) -> ();
    /// Where a link leads.
    read_link(path) -> PathBuf;
    /// Sets a file's permissions.
    set_permissions(path; permissions: Permissions) -> ();
    /// Whether there is something at `path`; follows links.
    exists(path) -> bool;
}

/// Writes `contents` as a whole file: creates it, or replaces what was in it.
///
/// # Errors
///
/// Those of [`std::fs::write`].
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let (path, contents) = (path.as_ref(), contents.as_ref());
    call(|| std::fs::write(path, contents))
}

/// Makes a symbolic link at `link` that leads to `original`: [`std::os::unix::fs::symlink`].
///
/// # Errors
///
/// Those of std's.
pub fn symlink(original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    let (original, link) = (original.as_ref(), link.as_ref());
    call(|| std::os::unix::fs::symlink(original, link))
}

/// The entries of a directory, in no order, without `.` and `..`.
///
/// # Errors
///
/// Those of [`std::fs::read_dir`].
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let path = path.as_ref();
    call(|| std::fs::read_dir(path)).map(ReadDir::new)
}
