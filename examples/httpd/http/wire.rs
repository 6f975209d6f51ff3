//! A connection with a buffer for each direction.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use plainsong::time::timeout;

use super::reply::Clock;
use super::{Connection, Failure, Result};

/// Replies of this length are sent before the next request is parsed.
const LONG: usize = 64 * 1024;
/// Bytes of a connection's first buffer. Most requests fit, and many connections wait for one.
const FIRST: usize = 4 * 1024;
/// How long a client may take to close the connection after the server has.
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct Wire<'a> {
    conn: &'a dyn Connection,
    clock: &'a Clock,
    pub(super) input: Input,
    /// Replies that will be sent together.
    pub(super) output: Vec<u8>,
}

impl<'a> Wire<'a> {
    pub(super) fn new(conn: &'a dyn Connection, clock: &'a Clock, bytes: usize) -> Self {
        let first = vec![0; bytes.min(FIRST)];
        let input = Input { bytes: first, limit: bytes, start: 0, end: 0 };
        Self { conn, clock, input, output: Vec::new() }
    }

    /// Sends the replies, then reads more. Returns 0 at the end.
    pub(super) fn read(&mut self) -> io::Result<usize> {
        self.flush()?;
        let n = self.input.read_from(self.conn)?;
        // Once for all requests that were read together.
        self.clock.update();
        Ok(n)
    }

    /// Reads until another line ends, or the buffer is full.
    pub(super) fn read_line(&mut self) -> Result<()> {
        loop {
            let n = self.read()?;
            if n == 0 {
                return Err(Failure::Refused(400, "the request ends in the middle"));
            }
            let unread = self.input.unread();
            if self.input.is_full() || unread[unread.len() - n..].contains(&b'\n') {
                return Ok(());
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.conn.write_all(&self.output)?;
        self.output.clear();
        self.output.shrink_to(LONG);
        Ok(())
    }

    pub(super) fn flush_if_long(&mut self) -> io::Result<()> {
        if self.output.len() < LONG { Ok(()) } else { self.flush() }
    }

    /// Sends what is left and ends the connection. To close it with something unread would reset it
    /// and could lose the last reply. So a client that may still send something gets a moment to
    /// read that reply and to close first.
    pub(super) fn close(mut self, client_is_done: bool) -> io::Result<()> {
        self.flush()?;
        self.conn.close()?;
        if client_is_done && self.input.unread().is_empty() {
            return Ok(());
        }
        let socket = self.conn.socket();
        socket.shutdown(Shutdown::Write)?;
        let mut discard = || while matches!(self.conn.read(&mut self.input.bytes), Ok(1..)) {};
        // A client that sends for longer is cut off.
        let _ = timeout(LINGER, &mut discard);
        Ok(())
    }
}

/// The bytes that were read and have not been consumed.
pub(super) struct Input {
    bytes: Vec<u8>,
    // How far the buffer may grow.
    limit: usize,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Whether the unread bytes fill the buffer.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start == self.limit
    }

    fn read_from(&mut self, conn: &dyn Connection) -> io::Result<usize> {
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start.., 0);
            self.end -= self.start;
            self.start = 0;
            if self.end == self.bytes.len() {
                self.bytes.resize((2 * self.end).min(self.limit), 0);
            }
        }
        let n = conn.read(&mut self.bytes[self.end..])?;
        self.end += n;
        Ok(n)
    }
}
