//! Open files.

use std::error::Error;
use std::fmt;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io::{self, IoSlice, IoSliceMut, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rustix::io::Errno;

use super::call::{call, flock};
use crate::engine::fd::from_raw_fd;
use crate::engine::park;

/// The offset that means the position of the file itself.
#[cfg(target_os = "linux")]
const POSITION: u64 = u64::MAX;

/// An open file: [`std::fs::File`], whose calls park only the coroutine.
///
/// [`Read`], [`Write`] and [`Seek`] are there for `File` and for `&File`, and
/// [`FileExt`] has `read_at` and `write_at`.
#[derive(Debug)]
pub struct File {
    inner: std::fs::File,
    // Calls under way that use the position. The handles of one open file share it, and their calls
    // exclude each other in the kernel.
    busy: Arc<AtomicUsize>,
}

impl File {
    /// Opens a file to read it.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::open`].
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file to write it: creates it, or removes what was in it.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::create`].
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Creates a file to read and write it.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is one; those of [`std::fs::File::create_new`].
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// [`OpenOptions::new`].
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Waits until the file's contents and metadata are on the device.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::sync_all`].
    pub fn sync_all(&self) -> io::Result<()> {
        call(|| self.inner.sync_all())
    }

    /// Waits until the file's contents are on the device.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::sync_data`].
    pub fn sync_data(&self) -> io::Result<()> {
        call(|| self.inner.sync_data())
    }

    /// Cuts the file, or fills it with zeros, to this many bytes.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::set_len`].
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        call(|| self.inner.set_len(size))
    }

    /// The file's metadata.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::metadata`].
    pub fn metadata(&self) -> io::Result<Metadata> {
        call(|| self.inner.metadata())
    }

    /// Another handle of the same open file, with the same position.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let inner = self.inner.try_clone()?;
        Ok(Self { inner, busy: Arc::clone(&self.busy) })
    }

    /// Sets the file's permissions.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::set_permissions`].
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        call(|| self.inner.set_permissions(permissions))
    }

    /// Sets the file's times.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::set_times`].
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        call(|| self.inner.set_times(times))
    }

    /// Sets when the file was last modified.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::set_modified`].
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }

    /// Locks the file for this open file alone, and waits while another one has it locked
    /// (`flock`). This is std's `File::lock`.
    ///
    /// A cancellation does not cut it short: to give up after a time, use
    /// [`try_lock`](Self::try_lock) and sleep in between.
    ///
    /// # Errors
    ///
    /// Those of `flock`.
    pub fn lock(&self) -> io::Result<()> {
        flock(&self.inner, libc::LOCK_EX)
    }

    /// Like [`lock`](Self::lock), but several open files may have it locked this way at once.
    ///
    /// # Errors
    ///
    /// Those of `flock`.
    pub fn lock_shared(&self) -> io::Result<()> {
        flock(&self.inner, libc::LOCK_SH)
    }

    /// [`lock`](Self::lock), if the file is free.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when another open file has it locked; those of `flock`.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.lock_if_free(libc::LOCK_EX)
    }

    /// [`lock_shared`](Self::lock_shared), if no open file has it locked alone.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when another open file has; those of `flock`.
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.lock_if_free(libc::LOCK_SH)
    }

    /// Releases the lock, as closing the file does.
    ///
    /// # Errors
    ///
    /// Those of `flock`.
    pub fn unlock(&self) -> io::Result<()> {
        flock(&self.inner, libc::LOCK_UN)
    }

    /// Whether this is a terminal. (std's `IsTerminal` cannot be implemented elsewhere.)
    pub fn is_terminal(&self) -> bool {
        self.inner.is_terminal()
    }

    fn lock_if_free(&self, operation: libc::c_int) -> Result<(), TryLockError> {
        flock(&self.inner, operation | libc::LOCK_NB).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => TryLockError::WouldBlock,
            _ => TryLockError::Error(error),
        })
    }

    /// A call that uses and moves the position.
    fn at_position<T: Send>(
        &self,
        f: impl FnOnce(&std::fs::File) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        struct Done<'a>(&'a AtomicUsize);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        let _done = Done(&self.busy);
        call(|| f(&self.inner))
    }

    /// Reads data that is in the page cache already. This takes half a microsecond, and a call on
    /// another thread thirty.
    #[cfg(target_os = "linux")]
    fn read_cached(&self, buf: &mut [u8], at: Option<u64>) -> Option<usize> {
        // A call that uses the position at this moment would make this one wait.
        let free = at.is_some() || self.busy.load(Ordering::Relaxed) == 0;
        if !free || !park::in_coroutine() {
            return None;
        }
        if at == Some(POSITION) {
            return None;
        }
        // Without room, a call tells whether the file can be read at all.
        if buf.is_empty() {
            return None;
        }
        park::spend();
        let bufs = &mut [IoSliceMut::new(buf)];
        let at = at.unwrap_or(POSITION);
        let read = rustix::io::preadv2(&self.inner, bufs, at, rustix::io::ReadWriteFlags::NOWAIT);
        // The call on another thread reports errors. It also finds the end of the file, as Linux
        // 5.9 and 5.10 return 0 before the end too.
        read.ok().filter(|read| *read > 0)
    }

    #[cfg(not(target_os = "linux"))]
    fn read_cached(&self, _buf: &mut [u8], _at: Option<u64>) -> Option<usize> {
        None
    }
}

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(read) = self.read_cached(buf, None) {
            return Ok(read);
        }
        self.at_position(|mut file| file.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.at_position(|mut file| file.read_vectored(bufs))
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.at_position(|mut file| file.read_to_end(buf))
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        self.at_position(|mut file| file.read_to_string(buf))
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.at_position(|mut file| file.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.at_position(|mut file| file.write_vectored(bufs))
    }

    /// Does nothing, as nothing is buffered here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    /// Does nothing, as nothing is buffered here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at_position(|mut file| file.seek(to))
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(read) = self.read_cached(buf, Some(offset)) {
            return Ok(read);
        }
        call(|| self.inner.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        call(|| self.inner.write_at(buf, offset))
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        self.inner.into_raw_fd()
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        Self { inner: file, busy: Arc::default() }
    }
}

impl From<File> for std::fs::File {
    fn from(file: File) -> Self {
        file.inner
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> Self {
        Self::from(std::fs::File::from(fd))
    }
}

from_raw_fd!(File);

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        file.inner.into()
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        file.inner.into()
    }
}

/// Why [`File::try_lock`] has not locked: std's type of this name, which newer versions of std
/// have.
pub enum TryLockError {
    /// The system's error.
    Error(io::Error),
    /// Another open file has the lock.
    WouldBlock,
}

impl fmt::Debug for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::WouldBlock => f.write_str("WouldBlock"),
        }
    }
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::WouldBlock => f.write_str("the file is locked by another open file"),
        }
    }
}

impl Error for TryLockError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error(error) => error.source(),
            Self::WouldBlock => None,
        }
    }
}

impl From<TryLockError> for io::Error {
    fn from(error: TryLockError) -> Self {
        match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => Errno::WOULDBLOCK.into(),
        }
    }
}

/// How to open a file: [`std::fs::OpenOptions`].
///
/// [`OpenOptionsExt`] has the mode and flags of Unix.
#[derive(Clone, Debug)]
pub struct OpenOptions(std::fs::OpenOptions);

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, $name: bool) -> &mut Self {
            self.0.$name($name);
            self
        }
    )*};
}

impl OpenOptions {
    /// Options with nothing set.
    #[allow(clippy::new_without_default)] // As std's.
    #[must_use]
    pub fn new() -> Self {
        Self(std::fs::OpenOptions::new())
    }

    options! {
        /// To read it.
        read;
        /// To write it.
        write;
        /// To write at its end.
        append;
        /// Remove what was in it.
        truncate;
        /// Create it if it does not exist.
        create;
        /// Create it; it must not exist.
        create_new;
    }

    /// Opens the file.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::OpenOptions::open`].
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let path = path.as_ref();
        call(|| self.0.open(path)).map(File::from)
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.0.custom_flags(flags);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_on_the_spot_stands_back_while_a_call_uses_the_position() {
        crate::run(|| {
            let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
            let buf = &mut [0; 1];
            // The system may have evicted the page since it was read.
            let mut cached = |position| {
                (0..100).any(|_| {
                    std::os::unix::fs::FileExt::read_at(&file.inner, &mut [0], 0).unwrap();
                    file.read_cached(buf, position).is_some()
                })
            };
            // Some file systems cannot do it at all.
            let can = cached(Some(0));
            assert_eq!(cached(None), can);
            file.at_position(|_| {
                assert_eq!(file.busy.load(Ordering::Relaxed), 1);
                Ok(())
            })
            .unwrap();
            assert_eq!(file.busy.load(Ordering::Relaxed), 0);
            // A slow call is under way.
            file.try_clone().unwrap().busy.fetch_add(1, Ordering::Relaxed);
            assert!(!cached(None));
            assert_eq!(cached(Some(0)), can);
        });
    }
}
