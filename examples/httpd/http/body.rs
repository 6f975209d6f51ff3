//! Bodies: of a known length, or in chunks.

use plainsong::time::timeout;

use super::request::{Framing, HEADERS_MAX};
use super::wire::Wire;
use super::{Failure, Limits, Result};

/// A chunk's size and what else may stand in its line.
const CHUNK_LINE_BYTES: usize = 256;
/// What a body's buffer may keep from one request to the next.
const KEPT_BYTES: usize = 64 * 1024;

/// Reads a body into `body`.
pub(super) fn read(
    wire: &mut Wire<'_>,
    framing: Framing,
    expects_continue: bool,
    limits: &Limits,
    body: &mut Vec<u8>,
) -> Result<()> {
    body.clear();
    body.shrink_to(KEPT_BYTES);
    let mut body = Body { wire, body, bytes_max: limits.body_bytes };
    if let Framing::Length(length) = framing {
        body.check(length)?;
    }
    if expects_continue && body.wire.input.unread().is_empty() {
        body.wire.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let is_here = |length| length <= body.wire.input.unread().len();
    if !matches!(framing, Framing::Length(length) if is_here(length)) {
        // Not in the time for the body: see `read_head`.
        body.wire.flush()?;
    }
    let read = || match framing {
        Framing::None => Ok(()),
        Framing::Length(length) => body.take(length),
        Framing::Chunked => body.take_chunks(),
    };
    timeout(limits.body_time, read).unwrap_or(Err(Failure::Refused(408, "the body took too long")))
}

struct Body<'a, 'wire> {
    wire: &'a mut Wire<'wire>,
    body: &'a mut Vec<u8>,
    bytes_max: usize,
}

impl Body<'_, '_> {
    /// Whether that many more bytes may come.
    fn check(&self, more: usize) -> Result<()> {
        if more > self.bytes_max - self.body.len() {
            return Err(Failure::Refused(413, "the body is too long"));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        match self.wire.read()? {
            0 => Err(Failure::Refused(400, "the body ends in the middle")),
            _ => Ok(()),
        }
    }

    /// Takes the next `left` bytes of what comes.
    fn take(&mut self, mut left: usize) -> Result<()> {
        loop {
            let unread = self.wire.input.unread();
            let n = left.min(unread.len());
            self.body.extend_from_slice(&unread[..n]);
            self.wire.input.consume(n);
            left -= n;
            if left == 0 {
                return Ok(());
            }
            self.read()?;
        }
    }

    fn take_chunks(&mut self) -> Result<()> {
        loop {
            let size = self.chunk_size()?;
            if size == 0 {
                return self.skip_trailers();
            }
            self.check(size)?;
            self.take(size)?;
            self.skip_line_end()?;
        }
    }

    /// Takes a chunk's line, extensions and all, and returns its size.
    fn chunk_size(&mut self) -> Result<usize> {
        loop {
            let unread = self.wire.input.unread();
            match httparse::parse_chunk_size(unread) {
                Ok(httparse::Status::Complete((len, size))) => {
                    self.wire.input.consume(len);
                    return Ok(usize::try_from(size).unwrap_or(usize::MAX));
                }
                Ok(httparse::Status::Partial) if unread.len() < CHUNK_LINE_BYTES => self.read()?,
                _ => return Err(Failure::Refused(400, "a chunk has no proper size")),
            }
        }
    }

    fn skip_line_end(&mut self) -> Result<()> {
        while self.wire.input.unread().len() < 2 {
            self.read()?;
        }
        if !self.wire.input.unread().starts_with(b"\r\n") {
            return Err(Failure::Refused(400, "a chunk is longer than its size"));
        }
        self.wire.input.consume(2);
        Ok(())
    }

    /// What comes behind the last chunk are headers again. Nobody here asks for them.
    fn skip_trailers(&mut self) -> Result<()> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            match httparse::parse_headers(self.wire.input.unread(), &mut headers) {
                Ok(httparse::Status::Complete((len, _))) => {
                    self.wire.input.consume(len);
                    return Ok(());
                }
                Ok(httparse::Status::Partial) if !self.wire.input.is_full() => {
                    self.wire.read_line()?;
                }
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(Failure::Refused(431, "the trailers are too long"));
                }
                Err(_) => return Err(Failure::Refused(400, "these trailers are no headers")),
            }
        }
    }
}
