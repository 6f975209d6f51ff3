//! Bodies: with a length, or in chunks.

use plainsong::time::timeout;

use super::request::{Framing, HEADERS_MAX, check_line_ends};
use super::wire::Wire;
use super::{Failure, Limits, Result};

/// The longest line before a chunk: its size, extensions and CR LF.
const CHUNK_LINE_BYTES: usize = 256;
/// The most digits of a chunk's size, zeros in front included.
const SIZE_DIGITS: usize = 16;
/// The capacity that a body's buffer may keep from one request to the next.
const RETAINED_BYTES: usize = 64 * 1024;

/// Reads a body into `body`.
pub(super) fn read(
    wire: &mut Wire<'_>,
    framing: Framing,
    expects_continue: bool,
    limits: &Limits,
    body: &mut Vec<u8>,
) -> Result<()> {
    body.clear();
    body.shrink_to(RETAINED_BYTES);
    let mut body = Body { wire, body, bytes_max: limits.body_bytes };
    if let Framing::Length(length) = framing {
        body.check(length)?;
    }
    if expects_continue && body.wire.input.unread().is_empty() {
        body.wire.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let is_here = |length| length <= body.wire.input.unread().len();
    if !matches!(framing, Framing::Length(length) if is_here(length)) {
        // Outside of the timeout for the body: see `read_head`.
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
    /// Refuses a body that would become too long with this many more bytes.
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

    /// Takes the next `left` bytes.
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

    /// Takes the line before a chunk, and returns the chunk's size.
    fn chunk_size(&mut self) -> Result<usize> {
        loop {
            let unread = self.wire.input.unread();
            let start = &unread[..unread.len().min(CHUNK_LINE_BYTES)];
            if let Some(end) = start.iter().position(|&byte| byte == b'\n') {
                let size = start[..end].strip_suffix(b"\r").and_then(parse_size);
                self.wire.input.consume(end + 1);
                return size.ok_or(Failure::Refused(400, "a chunk has no proper size"));
            }
            if start.len() == CHUNK_LINE_BYTES {
                return Err(Failure::Refused(400, "the line before a chunk is too long"));
            }
            self.read()?;
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

    /// The lines after the last chunk are headers again. No handler here asks for them.
    fn skip_trailers(&mut self) -> Result<()> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let unread = self.wire.input.unread();
            match httparse::parse_headers(unread, &mut headers) {
                Ok(httparse::Status::Complete((len, trailers))) => {
                    check_line_ends(&unread[..len])?;
                    if trailers.iter().any(is_about_message) {
                        return Err(Failure::Refused(400, "these trailers are not allowed"));
                    }
                    self.wire.input.consume(len);
                    return Ok(());
                }
                Ok(httparse::Status::Partial) if !self.wire.input.is_full() => {
                    self.wire.read_line()?;
                }
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(Failure::Refused(431, "the trailers are too long"));
                }
                Err(_) => return Err(Failure::Refused(400, "the trailers are not headers")),
            }
        }
    }
}

/// The size in a line `SIZE[;NAME[=VALUE]]...`, if the line is just that. Blanks are allowed only
/// in a value in quotes: readers disagree about the others.
fn parse_size(line: &[u8]) -> Option<usize> {
    let (size, mut extensions) = split(line, u8::is_ascii_hexdigit);
    while let Some(extension) = extensions.strip_prefix(b";") {
        let (name, rest) = split(extension, is_token);
        if name.is_empty() {
            return None;
        }
        extensions = match rest.strip_prefix(b"=") {
            None => rest,
            Some(value) if value.starts_with(b"\"") => after_quotes(&value[1..])?,
            Some(value) => {
                let (value, rest) = split(value, is_token);
                if value.is_empty() {
                    return None;
                }
                rest
            }
        };
    }
    let size = std::str::from_utf8(size).ok().filter(|size| size.len() <= SIZE_DIGITS)?;
    if !extensions.is_empty() {
        return None;
    }
    usize::from_str_radix(size, 16).ok()
}

/// Splits before the first byte that is not `wanted`.
fn split(bytes: &[u8], wanted: fn(&u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|byte| !wanted(byte)).unwrap_or(bytes.len()))
}

/// The bytes after a string whose opening quote has been removed.
fn after_quotes(string: &[u8]) -> Option<&[u8]> {
    let mut bytes = string.iter().enumerate();
    loop {
        match bytes.next()? {
            (end, b'"') => return Some(&string[end + 1..]),
            (_, b'\\') => _ = bytes.next().filter(|(_, byte)| is_text(byte))?,
            (_, byte) if is_text(byte) => {}
            _ => return None,
        }
    }
}

fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Whether a trailer would change the message for a reader that treats it as a header.
fn is_about_message(trailer: &httparse::Header<'_>) -> bool {
    let names = ["Content-Length", "Transfer-Encoding", "Host", "Connection", "Expect"];
    names.iter().any(|name| trailer.name.eq_ignore_ascii_case(name))
}
