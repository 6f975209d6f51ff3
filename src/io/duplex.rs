//! `duplex`: a connection in memory.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::ready::{read_deadline, write_deadline};
use super::waits::check_unwinding;
use crate::engine::error::past_deadline;
use crate::engine::park;
use crate::engine::reactor::Interest;
use crate::engine::task::Wait;
use crate::sync::{Condvar, Mutex, MutexGuard};

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
pub fn duplex(capacity: usize) -> (DuplexStream, DuplexStream) {
    assert!(capacity > 0, "a stream without capacity: nothing could ever be written");
    let [left, right] = [(); 2].map(|()| Arc::new(Pipe::new(capacity)));
    let one = DuplexStream { from: Arc::clone(&left), to: Arc::clone(&right) };
    (one, DuplexStream { from: right, to: left })
}

/// One end of a connection in memory; made by [`duplex`].
///
/// It reads and writes as a socket does. When this end is dropped or [shut down](Self::shutdown)
/// for writing, the other reads the bytes that are left and then the end of the stream. A write to
/// an end that has stopped reading fails with `BrokenPipe`. The ends may be on different threads.
pub struct DuplexStream {
    from: Arc<Pipe>,
    to: Arc<Pipe>,
}

/// One direction.
struct Pipe {
    bytes: Mutex<Bytes>,
    capacity: usize,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct Bytes {
    unread: VecDeque<u8>,
    // No more bytes will be written; no more will be read.
    write_closed: bool,
    read_closed: bool,
    // When reads and writes begin to fail.
    read_deadline: Option<Instant>,
    write_deadline: Option<Instant>,
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
    fn new(capacity: usize) -> Self {
        let bytes = Mutex::new(Bytes::default());
        Self { bytes, capacity, filled: Condvar::new(), drained: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut bytes = self.wait_while(&self.filled, WAIT_FOR_BYTES, deadline, is_empty)?;
        if bytes.read_closed {
            return Ok(0);
        }
        if bytes.unread.is_empty() && !bytes.write_closed {
            check_unwinding()?;
        }
        let count = bufs.iter_mut().map(|buf| bytes.take(buf)).sum();
        let more = !bytes.unread.is_empty() || bytes.write_closed;
        drop(bytes);
        self.drained.notify_one();
        if more {
            // For another reader here: one notification came for both.
            self.filled.notify_one();
        }
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
        let mut bytes = self.wait_while(&self.drained, WAIT_FOR_SPACE, deadline, is_full)?;
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
        let more = bytes.unread.len() < self.capacity;
        drop(bytes);
        self.filled.notify_one();
        if more {
            self.drained.notify_one();
        }
        Ok(count)
    }

    /// Waits as long as `condition` holds, on `changed`.
    ///
    /// # Errors
    ///
    /// `TimedOut` when a deadline, which may change meanwhile, has passed.
    fn wait_while(
        &self,
        changed: &Condvar,
        why: Wait,
        deadline: impl Fn(&Bytes) -> Option<Instant>,
        condition: impl Fn(&Bytes) -> bool,
    ) -> io::Result<MutexGuard<'_, Bytes>> {
        let mut bytes = self.lock();
        loop {
            let until = deadline(&bytes);
            if until.is_some_and(|until| until <= park::now()) {
                return Err(past_deadline());
            }
            let limit = park::earlier(until, park::fails_at());
            let unchanged = |bytes: &mut Bytes| condition(bytes) && deadline(bytes) == until;
            let waited = changed.wait_while_for(bytes, why, limit, unchanged);
            let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
            if !condition(&guard) {
                return Ok(guard);
            }
            if result.timed_out() {
                return Err(past_deadline());
            }
            bytes = guard;
        }
    }

    fn set_deadline(&self, interest: Interest, deadline: Option<Instant>) {
        let mut bytes = park::shield(|| self.lock());
        match interest {
            Interest::Read => bytes.read_deadline = deadline,
            Interest::Write => bytes.write_deadline = deadline,
        }
        drop(bytes);
        self.filled.notify_all();
        self.drained.notify_all();
    }

    fn close(&self, close: impl FnOnce(&mut Bytes)) {
        // A short wait: no holder of the lock waits for anything.
        close(&mut park::shield(|| self.lock()));
        self.filled.notify_all();
        self.drained.notify_all();
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
            self.to.close(|bytes| bytes.write_closed = true);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.from.close(|bytes| {
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
