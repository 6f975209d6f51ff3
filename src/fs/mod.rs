//! Files under std's names: each call runs on a thread of the blocking pool and parks only its
//! own coroutine.
//!
//! Names, signatures, errors and behaviour are those of [`std::fs`], and on a plain thread the
//! calls are std's own. Buffers are lent to the call and not copied. A call switches threads twice,
//! which takes some thirty microseconds, so use a [`BufWriter`](std::io::BufWriter) for many small
//! writes. On Linux a read of data in the page cache is done on the spot.
//!
//! Do not read pipes, terminals or FIFOs through this module: such a read may take for ever, and
//! holds a thread of the pool for as long. [`io::Pollable`](crate::io::Pollable) waits for those.
//!
//! # Cancellation
//!
//! A call that no thread has begun is taken back, and the coroutine unwinds. A call that has begun
//! is waited for and returns its result; the coroutine's next wait unwinds. See
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

mod call;
mod dir;
mod file;

use std::io;
use std::path::{Path, PathBuf};

use self::call::call;
pub use self::dir::{DirBuilder, DirEntry, ReadDir};
pub use self::file::{File, OpenOptions, TryLockError};
pub use std::fs::{FileTimes, FileType, Metadata, Permissions};

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($($path:ident: $P:ident),+ $(; $arg:ident: $type:ty)?) -> $value:ty;
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        #[doc = concat!("Those of [`std::fs::", stringify!($name), "`].")]
        pub fn $name<$($P: AsRef<Path>),+>($($path: $P,)+ $($arg: $type)?) -> io::Result<$value> {
            $(let $path = $path.as_ref();)+
            call(|| std::fs::$name($($path,)+ $($arg)?))
        }
    )*};
}

calls! {
    /// Reads a whole file.
    read(path: P) -> Vec<u8>;
    /// Reads a whole file, which must be UTF-8.
    read_to_string(path: P) -> String;
    /// Copies a file's contents and permissions; returns the number of bytes.
    copy(from: P, to: Q) -> u64;
    /// Renames a file or directory; replaces `to`.
    rename(from: P, to: Q) -> ();
    /// Removes a file, or the link if it is one.
    remove_file(path: P) -> ();
    /// Removes an empty directory.
    remove_dir(path: P) -> ();
    /// Removes a directory with its contents; follows no links.
    remove_dir_all(path: P) -> ();
    /// Creates a directory.
    create_dir(path: P) -> ();
    /// Creates a directory, and its parents that do not exist.
    create_dir_all(path: P) -> ();
    /// The metadata of a file; follows links.
    metadata(path: P) -> Metadata;
    /// The metadata of a file, or of the link if it is one.
    symlink_metadata(path: P) -> Metadata;
    /// The absolute path, without links, `.` and `..`.
    canonicalize(path: P) -> PathBuf;
    /// Gives a file a second name.
    hard_link(original: P, link: Q) -> ();
    /// The target of a link.
    read_link(path: P) -> PathBuf;
    /// Sets a file's permissions.
    set_permissions(path: P; permissions: Permissions) -> ();
    /// Whether `path` exists; follows links.
    exists(path: P) -> bool;
}

/// Writes `contents` as a whole file: creates it, or replaces its contents.
///
/// # Errors
///
/// Those of [`std::fs::write`].
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    let (path, contents) = (path.as_ref(), contents.as_ref());
    call(|| std::fs::write(path, contents))
}

/// Makes a symbolic link at `link` that leads to `original`: [`std::os::unix::fs::symlink`].
///
/// # Errors
///
/// Those of std's.
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    let (original, link) = (original.as_ref(), link.as_ref());
    call(|| std::os::unix::fs::symlink(original, link))
}

/// Makes a symbolic link: std's old name of [`symlink`].
///
/// # Errors
///
/// Those of [`symlink`].
#[deprecated = "use `symlink`"]
pub fn soft_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    symlink(original, link)
}

/// The entries of a directory, in no order, without `.` and `..`.
///
/// # Errors
///
/// Those of [`std::fs::read_dir`].
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let path = path.as_ref();
    call(|| std::fs::read_dir(path)).map(ReadDir::new)
}
