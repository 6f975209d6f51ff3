//! Open files.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::{FileTimes, Metadata, Permissions, TryLockError, call};
use crate::engine::park;

/// What stands for the position of the file itself where the system asks for an offset.
#[cfg(target_os = "linux")]
const POSITION: u64 = u64::MAX;

/// An open file: [`std::fs::File`], whose calls park only the coroutine.
///
/// [`Read`], [`Write`] and [`Seek`] are there for `File` and for `&File`, and
/// [`FileExt`] has `read_at` and `write_at`.
#[derive(Debug)]
pub struct File {
    inner: std::fs::File,
    // Calls under way that use the position, which those of one open file share. They exclude each
    // other in the kernel.
    busy: Arc<AtomicUsize>,
}

impl File {
    /// Opens a file to read it.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::open`].
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file to write it: creates it, or removes what was in it.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::create`].
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Creates a file to read and write it.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is one; those of [`std::fs::File::create_new`].
    pub fn create_new(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// [`OpenOptions::new`].
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Waits until all of the file, what is known of it included, is on the device.
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

    /// What the system knows of the file.
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

    /// Waits until nobody else has the file locked, and locks it, for this open file alone.
    ///
    /// Not cut short by a cancellation: to give up after a time, use
    /// [`try_lock`](Self::try_lock) and sleep in between.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::lock`].
    pub fn lock(&self) -> io::Result<()> {
        call(|| self.inner.lock())
    }

    /// Like [`lock`](Self::lock), together with others who lock it this way.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::lock_shared`].
    pub fn lock_shared(&self) -> io::Result<()> {
        call(|| self.inner.lock_shared())
    }

    /// [`lock`](Self::lock), if nobody has it locked.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when somebody has; those of [`std::fs::File::try_lock`].
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        call(|| Ok(self.inner.try_lock())).map_err(TryLockError::Error)?
    }

    /// [`lock_shared`](Self::lock_shared), if nobody has it locked alone.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when somebody has; those of [`std::fs::File::try_lock_shared`].
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        call(|| Ok(self.inner.try_lock_shared())).map_err(TryLockError::Error)?
    }

    /// Gives the lock up, as closing the file does.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::File::unlock`].
    pub fn unlock(&self) -> io::Result<()> {
        call(|| self.inner.unlock())
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

    /// Reads what is in memory already. Half a microsecond, where a call on another thread takes
    /// thirty.
    #[cfg(target_os = "linux")]
    fn read_cached(&self, buf: &mut [u8], at: Option<u64>) -> Option<usize> {
        // A call that uses the position at this moment would make this one wait for it.
        let free = at.is_some() || self.busy.load(Ordering::Relaxed) == 0;
        if !free || !park::in_coroutine() {
            return None;
        }
        if at == Some(POSITION) {
            return None;
        }
        park::spend();
        let empty = buf.is_empty();
        let bufs = &mut [IoSliceMut::new(buf)];
        let at = at.unwrap_or(POSITION);
        let read = rustix::io::preadv2(&self.inner, bufs, at, rustix::io::ReadWriteFlags::NOWAIT);
        // Whatever is wrong, the call on another thread will tell. So it must for the end of the file,
        // as Linux 5.9 and 5.10 say 0 elsewhere too.
        read.ok().filter(|read| *read > 0 || empty)
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
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
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
            // The system may have taken the page back since it was read.
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
            // A slow one is under way.
            file.try_clone().unwrap().busy.fetch_add(1, Ordering::Relaxed);
            assert!(!cached(None));
            assert_eq!(cached(Some(0)), can);
        });
    }
}
