//! Pipes: `pipe`, and the part that its ends share with the pipes of child processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use rustix::io::ioctl_fionbio;

use super::source::Source;
use crate::engine::fd::from_raw_fd;
use crate::engine::reactor::Interest;

/// One end of a pipe, in non-blocking mode.
#[derive(Debug)]
pub(crate) struct Pipe(pub(crate) Source<File>);

impl Pipe {
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return self.0.read_nothing(|mut pipe| pipe.read(buf));
        }
        self.0.transfer(Interest::Read, buf.len(), |mut pipe| pipe.read(buf), |&len| len)
    }

    pub(crate) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if len == 0 {
            return self.0.read_nothing(|mut pipe| pipe.read_vectored(bufs));
        }
        self.0.transfer(Interest::Read, len, |mut pipe| pipe.read_vectored(bufs), |&len| len)
    }

    pub(crate) fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.transfer(Interest::Write, buf.len(), |mut pipe| pipe.write(buf), |&len| len)
    }

    pub(crate) fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.retry(Interest::Write, |mut pipe| pipe.write_vectored(bufs))
    }

    /// Another descriptor of this end, for which `options` open a file.
    ///
    /// A duplicate shares its mode with the original, and either is in blocking mode when the other
    /// is given up. So the pipe is opened anew, where that is possible.
    pub(crate) fn try_clone(&self, options: &mut OpenOptions) -> io::Result<Self> {
        let fd = self.as_fd();
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        // A FIFO with a name does not report to a new reader that all writers are gone.
        let is_pipe = cfg!(target_os = "linux")
            && fs::read_link(&path).is_ok_and(|to| to.as_os_str().as_bytes().starts_with(b"pipe:"));
        let opened = is_pipe.then(|| options.custom_flags(libc::O_NONBLOCK).open(path).ok());
        let file = opened.flatten().map_or_else(|| self.0.get().try_clone(), Ok)?;
        Ok(Self(Source::new(file)))
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get().as_fd()
    }
}

impl From<OwnedFd> for Pipe {
    fn from(fd: OwnedFd) -> Self {
        // Fails only for a descriptor that has no such mode. Its first use will report that.
        let _ = ioctl_fionbio(&fd, true);
        Self(Source::new(fd.into()))
    }
}

/// Gives the descriptor up, in blocking mode.
impl From<Pipe> for OwnedFd {
    fn from(pipe: Pipe) -> Self {
        let fd = Self::from(pipe.0.into_inner());
        let _ = ioctl_fionbio(&fd, false);
        fd
    }
}

/// The conversions of a type that is a tuple of a [`Pipe`].
macro_rules! pipe_surface {
    ($name:ident) => {
        impl std::os::fd::AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                std::os::fd::AsFd::as_fd(&self.0)
            }
        }

        impl $name {
            crate::io::ready::try_io!(self, self.0.0);
        }

        impl std::os::fd::AsRawFd for $name {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(self))
            }
        }

        impl std::os::fd::IntoRawFd for $name {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                std::os::fd::OwnedFd::from(self).into_raw_fd()
            }
        }

        /// Takes this end of a pipe and puts it in non-blocking mode.
        impl From<std::os::fd::OwnedFd> for $name {
            fn from(fd: std::os::fd::OwnedFd) -> Self {
                Self(fd.into())
            }
        }

        /// Gives the pipe up, in blocking mode.
        impl From<$name> for std::os::fd::OwnedFd {
            fn from(pipe: $name) -> Self {
                pipe.0.into()
            }
        }

        /// For a child process, in blocking mode.
        impl From<$name> for std::process::Stdio {
            fn from(pipe: $name) -> Self {
                std::os::fd::OwnedFd::from(pipe).into()
            }
        }
    };
}

/// The readiness of the end to read from.
macro_rules! pipe_read_readiness {
    ($($name:ident),*) => {$(
        impl $name {
            crate::io::ready::read_deadline!(self, self.0.0);
            crate::io::ready::read_readiness!(self, self.0.0);
            crate::io::ready::try_read!(self, self.0.0);
        }

        crate::io::ready::selectable!(Readable, read_side, [] $name, self, self.0.0);
    )*};
}

/// The readiness of the end to write to.
macro_rules! pipe_write_readiness {
    ($($name:ident),*) => {$(
        impl $name {
            crate::io::ready::write_deadline!(self, self.0.0);
            crate::io::ready::write_readiness!(self, self.0.0);
            crate::io::ready::try_write!(self, self.0.0);
        }

        crate::io::ready::selectable!(Writable, write_side, [] $name, self, self.0.0);
    )*};
}

/// `Read` for a type, or a reference to a type, that is a tuple of a [`Pipe`].
macro_rules! pipe_reads {
    ($type:ty) => {
        impl std::io::Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(buf)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                self.0.read_vectored(bufs)
            }
        }
    };
}

/// `Write`, likewise.
macro_rules! pipe_writes {
    ($type:ty) => {
        impl std::io::Write for $type {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.0.write(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.0.write_vectored(bufs)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

#[cfg(feature = "process")]
pub(crate) use {pipe_read_readiness, pipe_reads, pipe_surface, pipe_write_readiness, pipe_writes};

/// A pipe: [`std::io::pipe`], whose ends park only the coroutine.
///
/// # Errors
///
/// When the system has no descriptor left.
///
/// ```
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let (mut reader, mut writer) = plainsong::io::pipe()?;
///     plainsong::spawn(move || writer.write_all(b"hello"));
///     let mut text = String::new();
///     reader.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     Ok(())
/// })
/// # }
/// ```
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = pipe_for_this_process()?;
    Ok((reader.into(), writer.into()))
}

#[cfg(not(target_vendor = "apple"))]
fn pipe_for_this_process() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

#[cfg(target_vendor = "apple")]
fn pipe_for_this_process() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let ends = rustix::pipe::pipe()?;
    for end in [&ends.0, &ends.1] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(ends)
}

macro_rules! end {
    ($(#[$doc:meta])* $name:ident, $open:ident) => {
        $(#[$doc])*
        ///
        /// # Cancellation
        ///
        /// A call unwinds while it waits; a call that has moved data returns.
        #[derive(Debug)]
        pub struct $name(Pipe);

        impl $name {
            /// Another descriptor of this end. One of them can be given to a child, which puts it
            /// in blocking mode. (Where `/proc` is missing, on systems other than Linux, and for
            /// a FIFO with a name, it puts both in that mode.)
            ///
            /// # Errors
            ///
            /// When the system has no descriptor left.
            pub fn try_clone(&self) -> io::Result<Self> {
                self.0.try_clone(OpenOptions::new().$open(true)).map(Self)
            }
        }

        pipe_surface!($name);
    };
}

end! {
    /// The end of a [`pipe`] to read from. It sees the end of the data when all writers are
    /// dropped.
    PipeReader, read
}

end! {
    /// The end of a [`pipe`] to write to. Writing fails with `BrokenPipe` when all readers are
    /// dropped.
    PipeWriter, write
}

from_raw_fd!(PipeReader, PipeWriter);
pipe_read_readiness!(PipeReader);
pipe_write_readiness!(PipeWriter);
pipe_reads!(PipeReader);
pipe_reads!(&PipeReader);
pipe_writes!(PipeWriter);
pipe_writes!(&PipeWriter);
