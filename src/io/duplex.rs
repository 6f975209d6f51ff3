//! `duplex`: a connection in memory.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, PoisonError};

use super::source::check_unwinding;
use crate::engine::park;
use crate::engine::task::Wait;
use crate::sync::{Condvar, Mutex};

/// Two ends of a connection in memory: what is written to one is read from the other, as far as
/// `capacity` bytes each way may be under way. (tokio's name.)
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
/// It reads and writes as a socket does: the other end reads what has been written, then an end, when this is
/// dropped or [shut down](Self::shutdown) for writing, and a write to an end that does not read any
/// more fails with `BrokenPipe`. Ends may be on different threads.
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
    under_way: VecDeque<u8>,
    // The writer, or the reader, is gone.
    ended: bool,
    unread: bool,
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        let bytes = Mutex::new(Bytes::default());
        Self { bytes, capacity, filled: Condvar::new(), drained: Condvar::new() }
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |bytes: &mut Bytes| {
            bytes.under_way.is_empty() && !bytes.ended && !bytes.unread && !park::is_unwinding()
        };
        let waited = self.filled.wait_while_for(
            bytes,
            Wait::for_any_thread("bytes of a stream in memory"),
            None,
            is_empty,
        );
        let (mut bytes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if bytes.unread {
            return Ok(0);
        }
        if bytes.under_way.is_empty() && !bytes.ended {
            check_unwinding()?;
        }
        let count = bytes.under_way.read(buf)?;
        let more = !bytes.under_way.is_empty() || bytes.ended;
        drop(bytes);
        self.drained.notify_one();
        if more {
            // For another who reads here; it was told of once only.
            self.filled.notify_one();
        }
        Ok(count)
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |bytes: &mut Bytes| {
            let full = bytes.under_way.len() >= self.capacity;
            full && !bytes.ended && !bytes.unread && !park::is_unwinding()
        };
        let waited = self.drained.wait_while_for(
            bytes,
            Wait::for_any_thread("space in a stream in memory"),
            None,
            is_full,
        );
        let (mut bytes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if bytes.ended || bytes.unread {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = buf.len().min(self.capacity - bytes.under_way.len());
        if count == 0 {
            check_unwinding()?;
        }
        bytes.under_way.extend(&buf[..count]);
        let more = bytes.under_way.len() < self.capacity;
        drop(bytes);
        self.filled.notify_one();
        if more {
            self.drained.notify_one();
        }
        Ok(count)
    }

    fn close(&self, close: impl FnOnce(&mut Bytes)) {
        // Waits for nobody: nothing waits under the lock.
        close(&mut park::shield(|| self.bytes.lock().unwrap_or_else(PoisonError::into_inner)));
        self.filled.notify_all();
        self.drained.notify_all();
    }
}

impl DuplexStream {
    /// Ends one direction or both, as [`TcpStream::shutdown`](std::net::TcpStream::shutdown) does.
    ///
    /// # Errors
    ///
    /// None; the signature is std's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.to.close(|bytes| bytes.ended = true);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.from.close(|bytes| {
                bytes.unread = true;
                bytes.under_way.clear();
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
        self.from.read(buf)
    }
}

impl Write for &DuplexStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.to.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for DuplexStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for DuplexStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
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
