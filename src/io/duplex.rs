//! `duplex`: a connection in memory.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use super::ready::{read_deadline, write_deadline};
use super::waits::{check_unwinding, spend};
use crate::engine::error::past_deadline;
use crate::engine::park;
use crate::engine::reactor::Interest;
use crate::engine::task::Wait;
use crate::sync::lock::{Guard, Lock};
use crate::sync::wait::{About, WaitQueue, wait};

const WAIT_FOR_BYTES: Wait = Wait::new(&Wait::for_any_thread("bytes of a stream in memory"));
const WAIT_FOR_SPACE: Wait = Wait::new(&Wait::for_any_thread("space in a stream in memory"));

/// Two ends of a connection in memory: bytes written to one are read from the other. Each direction
/// holds at most `capacity` bytes that have not been read. (tokio's name.)
///
/// # Panics
///
/// When the capacity is zero.
///
/// ```
/// use std::io::{Read, Write};
///
/// plainsong::run(|| {
///     let (mut client, server) = plainsong::io::duplex(16);
///     plainsong::spawn(move || std::io::copy(&mut &server, &mut &server));
///     client.write_all(b"hello").unwrap();
///     let mut echo = [0; 5];
///     client.read_exact(&mut echo).unwrap();
///     assert_eq!(&echo, b"hello");
/// });
/// ```
#[track_caller]
pub fn duplex(capacity: usize) -> (DuplexStream, DuplexStream) {
    assert!(capacity > 0, "a stream without capacity: nothing could ever be written");
    // `map` would hide the place of the call.
    let (left, right) = (Arc::new(Pipe::new(capacity)), Arc::new(Pipe::new(capacity)));
    let one = DuplexStream { from: Arc::clone(&left), to: Arc::clone(&right) };
    (one, DuplexStream { from: right, to: left })
}

/// One end of a connection in memory; made by [`duplex`].
///
/// It reads and writes as a socket does. When this end is dropped or [shut down](Self::shutdown)
/// for writing, the other reads the bytes that are left and then the end of the stream. A write to
/// an end that has stopped reading fails with `BrokenPipe`. The ends may be on different threads.
/// Only reads and writes wait: an end can be dropped, shut down and given a deadline anywhere.
///
/// # Cancellation
///
/// A read or write that is cancelled has moved nothing. For `write_all` and `read_exact`, see
/// [`TcpStream`](crate::net::TcpStream).
pub struct DuplexStream {
    from: Arc<Pipe>,
    to: Arc<Pipe>,
}

/// One direction.
struct Pipe {
    // Nothing waits under it or for it, so that an end can be dropped anywhere.
    bytes: Lock<Bytes>,
    capacity: usize,
}

struct Bytes {
    unread: VecDeque<u8>,
    // No more bytes will be written; no more will be read.
    write_closed: bool,
    read_closed: bool,
    // When reads and writes begin to fail.
    read_deadline: Option<Instant>,
    write_deadline: Option<Instant>,
    // Reads that wait for bytes, and writes that wait for space.
    readers: WaitQueue<()>,
    writers: WaitQueue<()>,
}

impl Bytes {
    /// Moves bytes to `buf`, as many as there are and it holds. Returns how many.
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.unread.len());
        let (front, back) = self.unread.as_slices();
        let split = count.min(front.len());
        buf[..split].copy_from_slice(&front[..split]);
        buf[split..count].copy_from_slice(&back[..count - split]);
        self.unread.drain(..count);
        count
    }
}

impl Pipe {
    #[track_caller]
    fn new(capacity: usize) -> Self {
        let bytes = Bytes {
            unread: VecDeque::new(),
            write_closed: false,
            read_closed: false,
            read_deadline: None,
            write_deadline: None,
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
        };
        Self { bytes: Lock::new(bytes), capacity }
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let is_empty = |bytes: &Bytes| {
            let open = !bytes.write_closed && !bytes.read_closed;
            bytes.unread.is_empty() && open && !park::is_unwinding()
        };
        let deadline = |bytes: &Bytes| bytes.read_deadline;
        let why = WAIT_FOR_BYTES;
        let mut bytes = self.wait_while(|bytes| &mut bytes.readers, why, deadline, is_empty)?;
        if bytes.read_closed {
            return Ok(0);
        }
        if bytes.unread.is_empty() && !bytes.write_closed {
            check_unwinding()?;
        }
        let count = bufs.iter_mut().map(|buf| bytes.take(buf)).sum();
        let writer = bytes.writers.serve(|()| ());
        // For another reader here: one wake came for both.
        let more = !bytes.unread.is_empty() || bytes.write_closed;
        let reader = if more { bytes.readers.serve(|()| ()) } else { None };
        drop(bytes);
        park::wake_all(writer.into_iter().chain(reader).map(|((), waiter)| waiter));
        Ok(count)
    }

    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let is_full = |bytes: &Bytes| {
            let open = !bytes.write_closed && !bytes.read_closed;
            bytes.unread.len() >= self.capacity && open && !park::is_unwinding()
        };
        let deadline = |bytes: &Bytes| bytes.write_deadline;
        let why = WAIT_FOR_SPACE;
        let mut bytes = self.wait_while(|bytes| &mut bytes.writers, why, deadline, is_full)?;
        if bytes.write_closed || bytes.read_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let before = bytes.unread.len();
        if before == self.capacity {
            check_unwinding()?;
        }
        for buf in bufs {
            let count = buf.len().min(self.capacity - bytes.unread.len());
            bytes.unread.extend(&buf[..count]);
        }
        let count = bytes.unread.len() - before;
        let reader = bytes.readers.serve(|()| ());
        let more = bytes.unread.len() < self.capacity;
        let writer = if more { bytes.writers.serve(|()| ()) } else { None };
        drop(bytes);
        park::wake_all(reader.into_iter().chain(writer).map(|((), waiter)| waiter));
        Ok(count)
    }

    /// Waits in `queue` as long as `condition` holds.
    ///
    /// # Errors
    ///
    /// `TimedOut` when a deadline, which may change meanwhile, has passed.
    fn wait_while(
        &self,
        queue: impl Fn(&mut Bytes) -> &mut WaitQueue<()>,
        why: Wait,
        deadline: impl Fn(&Bytes) -> Option<Instant>,
        condition: impl Fn(&Bytes) -> bool,
    ) -> io::Result<Guard<'_, Bytes>> {
        // Before the lock, as it may yield.
        spend()?;
        // The clock of a host is code of a user, so it is not read under the lock either.
        let ahead = || {
            let until = deadline(&self.bytes.lock());
            if until.is_some_and(|until| until <= park::now()) {
                return Err(past_deadline());
            }
            Ok(until)
        };
        let (mut until, mut in_time) = (ahead()?, true);
        loop {
            let bytes = self.bytes.lock();
            // First, as this may be what the wait was ended for: it must not be for nothing.
            if !condition(&bytes) {
                return Ok(bytes);
            }
            if deadline(&bytes) != until {
                drop(bytes);
                (until, in_time) = (ahead()?, true);
                continue;
            }
            if !in_time {
                return Err(past_deadline());
            }
            let limit = park::earlier(until, park::fails_at());
            let about = |_: &Bytes| About::NOTHING;
            in_time = wait(&self.bytes, bytes, &queue, (), why, limit, about).is_ok();
        }
    }

    fn set_deadline(&self, interest: Interest, deadline: Option<Instant>) {
        self.change(|bytes| match interest {
            Interest::Read => bytes.read_deadline = deadline,
            Interest::Write => bytes.write_deadline = deadline,
        });
    }

    /// Changes what all who wait must look at.
    fn change(&self, change: impl FnOnce(&mut Bytes)) {
        let mut bytes = self.bytes.lock();
        change(&mut bytes);
        let readers = bytes.readers.serve_all(|()| ());
        let writers = bytes.writers.serve_all(|()| ());
        drop(bytes);
        park::wake_all(readers.into_iter().chain(writers));
    }
}

impl DuplexStream {
    read_deadline!(self, self.from);
    write_deadline!(self, self.to);

    /// Ends one direction or both, as [`TcpStream::shutdown`](std::net::TcpStream::shutdown) does.
    ///
    /// # Errors
    ///
    /// None; the signature is std's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.to.change(|bytes| bytes.write_closed = true);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.from.change(|bytes| {
                bytes.read_closed = true;
                bytes.unread.clear();
            });
        }
        Ok(())
    }
}

impl Drop for DuplexStream {
    fn drop(&mut self) {
        let Ok(()) = self.shutdown(Shutdown::Both) else { unreachable!("it cannot fail") };
    }
}

impl Read for &DuplexStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.from.read(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.from.read(bufs)
    }
}

impl Write for &DuplexStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.to.write(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.to.write(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for DuplexStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for DuplexStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for DuplexStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuplexStream")
            .field("capacity", &self.from.capacity)
            .finish_non_exhaustive()
    }
}
