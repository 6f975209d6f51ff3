//! The standard streams of the process.
//!
//! The shell and its other children share the open files behind these descriptors, so their mode is
//! left alone: each system call is asked not to wait (`RWF_NOWAIT`). The kernel cannot do that for
//! terminals, nor for pipes before Linux 6.4. For those this waits until the descriptor is ready,
//! and a thread of the blocking pool makes the call.

use std::fmt;
use std::io::{self, BufRead, IoSlice, IoSliceMut, IsTerminal, Lines, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process::Stdio;

use rustix::io::Errno;

use super::pollable::wait;
use super::waits::{spend, try_then_wait};
use crate::engine::blocking;
use crate::engine::error::explained;
use crate::engine::fd::file_type;
use crate::engine::mutex::Mutex;
use crate::engine::reactor::Interest;
use crate::sync::{ReentrantMutex, ReentrantMutexGuard};

/// How much is read at once.
const READ: usize = 8192;
/// How much a pipe takes for sure when it is ready to be written (`PIPE_BUF`): such a write does
/// not block.
const WRITE_MAX: usize = 4096;

static STDIN: ReentrantMutex<()> = ReentrantMutex::new(());
static STDOUT: ReentrantMutex<()> = ReentrantMutex::new(());
static STDERR: ReentrantMutex<()> = ReentrantMutex::new(());

/// The guard of one of these.
type Hold = ReentrantMutexGuard<'static, ()>;

/// The holder of `STDIN` takes it out.
static INPUT: Mutex<Option<Input>> = Mutex::new(Some(Input::new()));

/// Makes a transfer with `now`, which does not wait, or else with `later`, which may block a
/// little.
fn transfer(
    fd: BorrowedFd<'_>,
    interest: Interest,
    mut now: impl FnMut() -> Result<usize, Errno>,
    mut later: impl FnMut() -> Result<usize, Errno> + Send,
) -> io::Result<usize> {
    let attempt = || match now() {
        Ok(moved) => Ok(moved),
        Err(error @ Errno::INTR) => Err(error.into()),
        Err(error) => {
            // A file counts as ready although its data may not be in memory.
            if !is_file(fd) {
                if error == Errno::AGAIN {
                    return Err(error.into());
                }
                wait(fd, interest)?;
            }
            // Any other error of `now` shows here, if there really is one.
            Ok(blocking::attempt(&mut later)??)
        }
    };
    try_then_wait(attempt, |_| wait(fd, interest))
}

/// Whether it is a file or a disk, which are always ready, in memory or not.
fn is_file(fd: BorrowedFd<'_>) -> bool {
    matches!(file_type(fd), Some(libc::S_IFREG | libc::S_IFBLK))
}

#[cfg(target_os = "linux")]
mod now {
    use super::{BorrowedFd, Errno, IoSlice, IoSliceMut};
    use rustix::io::{ReadWriteFlags, preadv2, pwritev2};

    /// The position of the descriptor itself.
    const HERE: u64 = u64::MAX;

    pub(super) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
        preadv2(fd, &mut [IoSliceMut::new(buf)], HERE, ReadWriteFlags::NOWAIT)
    }

    pub(super) fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> Result<usize, Errno> {
        pwritev2(fd, &[IoSlice::new(buf)], HERE, ReadWriteFlags::NOWAIT)
    }
}

#[cfg(not(target_os = "linux"))]
mod now {
    use super::{BorrowedFd, Errno};

    pub(super) fn read(_fd: BorrowedFd<'_>, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    pub(super) fn write(_fd: BorrowedFd<'_>, _buf: &[u8]) -> Result<usize, Errno> {
        Err(Errno::OPNOTSUPP)
    }
}

/// As with std, a closed stream is empty and discards writes.
fn unless_closed(result: io::Result<usize>, closed: usize) -> io::Result<usize> {
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => Ok(closed),
        result => result,
    }
}

fn read(into: &mut [u8]) -> io::Result<usize> {
    let stdin = io::stdin();
    let fd = stdin.as_fd();
    // In a mutex, as both closures use it, one at a time.
    let into = Mutex::new(into);
    let now = || match now::read(fd, &mut into.lock()) {
        // Linux 5.9 and 5.10 return 0 before the end of a file too.
        Ok(0) if is_file(fd) => Err(Errno::AGAIN),
        result => result,
    };
    let read = transfer(fd, Interest::Read, now, || rustix::io::read(fd, &mut **into.lock()));
    unless_closed(read, 0)
}

fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    let later = || {
        let most = if is_file(fd) { buf.len() } else { WRITE_MAX };
        rustix::io::write(fd, &buf[..buf.len().min(most)])
    };
    let written = transfer(fd, Interest::Write, || now::write(fd, buf), later);
    unless_closed(written, buf.len())
}

/// Data that has been read from the standard input and not been taken yet.
struct Input {
    bytes: Vec<u8>,
    start: usize,
    // A read puts its bytes here, so that a read that unwinds leaves `bytes` unchanged.
    scratch: Vec<u8>,
}

impl Input {
    const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, scratch: Vec::new() }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Reads more; returns `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.scratch.resize(READ, 0);
        let read = read(&mut self.scratch)?;
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(&self.scratch[..read]);
        Ok(read > 0)
    }

    /// Reads until there is a `delimiter`, and returns how many bytes lead up to it, with it. None
    /// of them is taken: a reader that unwinds in here has lost nothing.
    fn until(&mut self, delimiter: u8) -> io::Result<usize> {
        // A loop over lines that are there already must not keep the other coroutines from running.
        spend()?;
        let mut searched = 0;
        loop {
            let new = &self.unread()[searched..];
            if let Some(at) = new.iter().position(|byte| *byte == delimiter) {
                return Ok(searched + at + 1);
            }
            searched += new.len();
            if !self.fill()? {
                return Ok(searched);
            }
        }
    }
}

/// The standard input of the process: [`std::io::stdin`], which parks only the coroutine.
///
/// It has one buffer for the whole process, which is not std's buffer: use only one of the two.
///
/// The mode of the terminal, pipe or file stays as the shell has set it. Another process that reads
/// the same terminal may take a line before this does; a thread of the blocking pool then waits for
/// the next line.
///
/// ```no_run
/// plainsong::run(|| {
///     for line in plainsong::io::stdin().lines() {
///         println!("{}", line?.to_uppercase());
///     }
///     Ok::<_, std::io::Error>(())
/// });
/// ```
#[must_use]
pub fn stdin() -> Stdin {
    Stdin(())
}

/// The standard input; see [`stdin`].
#[derive(Debug)]
pub struct Stdin(());

/// The locked standard input; made by [`Stdin::lock`]. It may be held across waits.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct StdinLock<'a> {
    // `None` only in the drop.
    input: Option<Input>,
    _hold: Hold,
    lifetime: PhantomData<&'a ()>,
}

impl Stdin {
    /// Locks the stream, and waits while another coroutine or thread has it locked.
    ///
    /// # Panics
    ///
    /// When this coroutine or thread has it locked already.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn lock(&self) -> StdinLock<'static> {
        let hold = STDIN.lock();
        let input = INPUT.lock().take();
        assert!(input.is_some(), "the standard input is locked by the very one who locks it");
        StdinLock { input, _hold: hold, lifetime: PhantomData }
    }

    /// Reads a line with its end and appends it to `line`. Returns the number of bytes, which is 0
    /// at the end of the input.
    ///
    /// # Errors
    ///
    /// Those of the system's `read`; `InvalidData` for a line that is not UTF-8, which is dropped.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled. The next call gets the part of the line that was
    /// read.
    pub fn read_line(&self, line: &mut String) -> io::Result<usize> {
        self.lock().read_line(line)
    }

    /// The lines, without their ends.
    ///
    /// # Cancellation
    ///
    /// As [`read_line`](Self::read_line), in each step.
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }
}

impl StdinLock<'_> {
    fn input(&mut self) -> &mut Input {
        // Only the drop takes it.
        self.input.get_or_insert_with(Input::new)
    }
}

impl Drop for StdinLock<'_> {
    fn drop(&mut self) {
        *INPUT.lock() = self.input.take();
    }
}

impl Read for StdinLock<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        spend()?;
        let input = self.input();
        if input.unread().is_empty() {
            input.fill()?;
        }
        Ok(input.unread())
    }

    fn consume(&mut self, amount: usize) {
        let input = self.input();
        input.start = (input.start + amount).min(input.bytes.len());
    }

    fn read_until(&mut self, byte: u8, buf: &mut Vec<u8>) -> io::Result<usize> {
        let len = self.input().until(byte)?;
        buf.extend_from_slice(&self.input().unread()[..len]);
        self.consume(len);
        Ok(len)
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let len = self.input().until(b'\n')?;
        let read = std::str::from_utf8(&self.input().unread()[..len]).map(|text| {
            line.push_str(text);
            len
        });
        self.consume(len);
        read.map_err(|_| {
            explained(io::ErrorKind::InvalidData, "the line that was read is not UTF-8")
        })
    }
}

impl fmt::Debug for StdinLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinLock").finish_non_exhaustive()
    }
}

macro_rules! read {
    ($($type:ty),*) => {$(
        // As with std, a call that reads several times keeps the lock in between.
        impl Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.lock().read(buf)
            }

            fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
                self.lock().read_exact(buf)
            }

            fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
                self.lock().read_to_end(buf)
            }

            fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
                self.lock().read_to_string(buf)
            }
        }
    )*};
}

read!(&Stdin, Stdin);

macro_rules! descriptor {
    ($name:ident$(<$lifetime:lifetime>)?, $stream:ident) => {
        impl AsFd for $name$(<$lifetime>)? {
            fn as_fd(&self) -> BorrowedFd<'_> {
                rustix::stdio::$stream()
            }
        }

        impl AsRawFd for $name$(<$lifetime>)? {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        impl $name$(<$lifetime>)? {
            /// Whether this is a terminal. (std's `IsTerminal` cannot be implemented elsewhere.)
            pub fn is_terminal(&self) -> bool {
                self.as_fd().is_terminal()
            }
        }
    };
}

macro_rules! output {
    ($(#[$doc:meta])* $stream:ident, $name:ident, $lock:ident, $static:ident) => {
        $(#[$doc])*
        ///
        /// Nothing is buffered, and text that std's `print!` has buffered is written first. The
        /// text of one `write_all` or `writeln!` is not mixed with text that is written elsewhere
        /// through this stream; [`lock`]($name::lock) ensures that for longer. The stream's mode
        /// stays as the shell has set it.
        ///
        /// # Cancellation
        ///
        /// A write unwinds while it waits. Text that was written before that stays written.
        ///
        /// ```
        /// use std::io::Write;
        ///
        /// # fn main() -> std::io::Result<()> {
        #[doc = concat!("writeln!(plainsong::io::", stringify!($stream), "(), \"plainsong\")")]
        /// # }
        /// ```
        #[must_use]
        pub fn $stream() -> $name {
            $name(())
        }

        #[doc = concat!("A standard stream of the process; see [`", stringify!($stream), "`].")]
        #[derive(Debug)]
        pub struct $name(());

        #[doc = concat!("A locked standard stream; made by [`", stringify!($name), "::lock`].")]
        /// It may be held across waits.
        #[derive(Debug)]
        #[must_use = "the lock is given back when the guard is dropped"]
        pub struct $lock<'a> {
            _hold: Hold,
            lifetime: PhantomData<&'a ()>,
        }

        impl $name {
            /// Locks the stream, and waits while another coroutine or thread has it locked. The
            /// holder may lock it again.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits.
            pub fn lock(&self) -> $lock<'static> {
                $lock { _hold: $static.lock(), lifetime: PhantomData }
            }
        }

        impl Write for $lock<'_> {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                // The text that `print!` has left in std's buffer comes first. This call does not
                // report the errors of that text.
                let _ = io::$stream().flush();
                write(self.as_fd(), buf)
            }

            /// Writes out the text that std's `print!` has buffered. This stream has no buffer.
            fn flush(&mut self) -> io::Result<()> {
                io::$stream().flush()
            }

            fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
                match text.as_str() {
                    Some(text) => self.write_all(text.as_bytes()),
                    // In one piece, as there is no buffer to collect the parts.
                    None => self.write_all(fmt::format(text).as_bytes()),
                }
            }
        }

        impl Write for &$name {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.lock().write(buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.lock().flush()
            }

            fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
                self.lock().write_all(buf)
            }

            fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
                self.lock().write_fmt(text)
            }
        }

        impl Write for $name {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                (&*self).write(buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                (&*self).flush()
            }

            fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
                (&*self).write_all(buf)
            }

            fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
                (&*self).write_fmt(text)
            }
        }

        /// For a child process that shares the stream.
        impl From<$name> for Stdio {
            fn from(_: $name) -> Self {
                io::$stream().into()
            }
        }

        descriptor!($name, $stream);
        descriptor!($lock<'_>, $stream);
    };
}

descriptor!(Stdin, stdin);
descriptor!(StdinLock<'_>, stdin);

output! {
    /// The standard output of the process: [`std::io::stdout`], which parks only the coroutine.
    stdout, Stdout, StdoutLock, STDOUT
}

output! {
    /// The standard error of the process: [`std::io::stderr`], which parks only the coroutine.
    stderr, Stderr, StderrLock, STDERR
}
