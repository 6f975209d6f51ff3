//! The clients' requests, and the replies that they must get.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A server's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Job {
    /// Echoes every message.
    Echo,
    /// Answers `GET /plaintext` with a short text.
    Plaintext,
    /// Answers `GET /json` with an object that it serialises each time.
    Json,
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Job::Echo => "echo",
            Job::Plaintext => "plaintext",
            Job::Json => "json",
        })
    }
}

/// The reply of [`Job::Plaintext`].
pub const TEXT: &str = "Hello, World!";
/// The reply of [`Job::Json`].
pub const JSON: &str = r#"{"message":"Hello, World!"}"#;

impl Job {
    /// A request. Only that of echo has the size that the client chooses. `is_last` says whether it
    /// is the last of its connection.
    pub(super) fn request(self, size: usize, is_last: bool) -> Vec<u8> {
        let path = match self {
            // No two neighbouring bytes are equal, so a lost or repeated byte is noticed.
            Job::Echo => return (0..size).map(|i| (i * 31 + i / 256) as u8).collect(),
            Job::Plaintext => "/plaintext",
            Job::Json => "/json",
        };
        // Longer than the requests of `wrk`, and shorter than those of a browser.
        let close = if is_last { "Connection: close\r\n" } else { "" };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: compare\r\n{close}\r\n"
        );
        head.into_bytes()
    }

    /// Whether the server closes a connection after its last reply. Otherwise the client does.
    pub(super) fn server_closes(self) -> bool {
        self != Job::Echo
    }

    /// The reply to `request`. HTTP servers are asked for it, because their headers differ.
    pub(super) fn reply(
        self,
        request: &[u8],
        server: impl FnOnce() -> Result<TcpStream>,
    ) -> Result<Reply> {
        match self {
            Job::Echo => Ok(Reply { bytes: request.to_vec(), date: 0..0 }),
            Job::Plaintext => Reply::ask(server()?, request, TEXT),
            Job::Json => Reply::ask(server()?, request, JSON),
        }
    }
}

/// The reply that a client must get. All of it is fixed except the date.
pub(super) struct Reply {
    bytes: Vec<u8>,
    date: Range<usize>,
}

impl Reply {
    fn ask(mut server: TcpStream, request: &[u8], body: &str) -> Result<Reply> {
        server.set_read_timeout(Some(super::clients::PATIENCE))?;
        server.write_all(request)?;
        let mut bytes = Vec::new();
        loop {
            let mut some = [0; 4096];
            let n = server.read(&mut some).context("no answer to the first request")?;
            ensure!(n > 0, "the server hung up on the first request");
            bytes.extend_from_slice(&some[..n]);
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(len) = head.parse(&bytes)? else { continue };
            ensure!(head.code == Some(200), "the server answered {:?}", head.code);
            if bytes.len() < len + body.len() {
                continue;
            }
            ensure!(&bytes[len..] == body.as_bytes(), "the answer is another than {body:?}");
            let date = headers.iter().find(|header| header.name.eq_ignore_ascii_case("date"));
            let date = date.context("the answer has no date")?.value;
            let Some(start) = bytes.windows(date.len()).position(|text| text == date) else {
                bail!("the date is not where it was found");
            };
            let date = start..start + date.len();
            return Ok(Reply { bytes, date });
        }
    }

    /// The same, `times` in a row.
    pub(super) fn pipelined(self, times: usize) -> Expected {
        Expected { reply: self.bytes.len(), date: self.date, bytes: self.bytes.repeat(times) }
    }
}

/// The replies that a client must get before it sends again.
pub(super) struct Expected {
    bytes: Vec<u8>,
    /// The length of one reply, and the place of the date in it.
    reply: usize,
    date: Range<usize>,
}

impl Expected {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether `came` is the expected text at `at`. The date may have changed: the new one is
    /// expected from then on.
    pub(super) fn check(&mut self, at: usize, came: &[u8]) -> bool {
        let Some(expected) = self.bytes.get_mut(at..at + came.len()) else { return false };
        if expected == came {
            return true;
        }
        let is_date = |place: usize| self.date.contains(&((at + place) % self.reply));
        let same = expected.iter().zip(came).enumerate().all(|(i, (a, b))| a == b || is_date(i));
        if same {
            expected.copy_from_slice(came);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_date_may_change() {
        let reply = Reply { bytes: b"date: 1, x".to_vec(), date: 6..7 };
        let mut expected = reply.pipelined(2);
        assert!(expected.check(0, b"date: 1, xdate: 1, x"));
        assert!(expected.check(3, b"e: 2, xdate: 3, "));
        assert!(!expected.check(0, b"date: 2, y") && !expected.check(15, b"3, x!"));
    }
}
