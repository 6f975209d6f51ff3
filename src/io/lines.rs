//! `LineReader`: lines, of which an interruption loses nothing.

use std::io::{self, BufRead, ErrorKind};
use std::mem;

use crate::engine::error::explained;

/// An iterator over the lines of a reader, without their ends: [`Lines`](std::io::Lines) of std,
/// which keeps what it has when a read fails or unwinds.
///
/// The first part of a line stays here, and the next call goes on behind it. So it may be called in
/// a [`timeout`](crate::time::timeout), again and again, where std's `lines().next()` and
/// `read_line` lose what they have got of a line.
///
/// A line that is not UTF-8 is an error (`InvalidData`), and the next call returns the line after
/// it.
///
/// ```
/// use std::io::{BufReader, Write};
/// use std::time::Duration;
/// use plainsong::io::LineReader;
/// use plainsong::net::UnixStream;
/// use plainsong::time::timeout;
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let (client, mut server) = UnixStream::pair()?;
///     let mut lines = LineReader::new(BufReader::new(client));
///     server.write_all(b"half a ")?;
///     assert!(timeout(Duration::from_millis(1), || lines.next()).is_err());
///     assert_eq!(lines.partial(), b"half a ");
///     server.write_all(b"line\r\n")?;
///     assert_eq!(lines.next().unwrap()?, "half a line");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct LineReader<B> {
    reader: B,
    line: Vec<u8>,
}

impl<B: BufRead> LineReader<B> {
    /// Reads the lines of `reader`.
    pub fn new(reader: B) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The part of the next line that has come already.
    pub fn partial(&self) -> &[u8] {
        &self.line
    }

    /// The reader. Bytes that are read from it directly are missing in the lines.
    pub fn get_mut(&mut self) -> &mut B {
        &mut self.reader
    }

    /// The reader, and the part of the next line that has come already.
    pub fn into_parts(self) -> (B, Vec<u8>) {
        (self.reader, self.line)
    }
}

impl<B: BufRead> Iterator for LineReader<B> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        // This appends what it has before it reads on.
        match self.reader.read_until(b'\n', &mut self.line) {
            Err(error) => return Some(Err(error)),
            Ok(_) if self.line.is_empty() => return None,
            Ok(_) => {}
        }
        let mut line = mem::take(&mut self.line);
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        let text = "a line is not UTF-8: read it with `read_until`, as bytes";
        Some(String::from_utf8(line).map_err(|_| explained(ErrorKind::InvalidData, text)))
    }
}
