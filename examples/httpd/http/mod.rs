//! HTTP/1.1 over one connection. httparse splits a head into its parts; the rest is here.
//!
//! - `mod.rs`: the loop from a request to its reply
//! - `wire.rs`: the connection and its buffers
//! - `request.rs`: the meaning of a head
//! - `body.rs`: bodies with a length, and chunked bodies
//! - `reply.rs`: replies, and the `Date` in them
//!
//! A message that two readers could understand in two ways is refused, because that is how requests
//! are smuggled past proxies. So this is stricter than RFC 9112 where the RFC lets a server choose.

mod body;
mod reply;
mod request;
mod wire;

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use plainsong::net::TcpStream;
use plainsong::time::timeout_at;

use reply::Clock;
pub(crate) use reply::{Reply, Sent};
pub(crate) use request::Request;
use request::{Framing, HEADERS_MAX, parse};
use wire::Wire;

/// How much a client may send, and how long it may take. A client that exceeds this is refused.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a request's line and headers.
    pub(crate) head_bytes: usize,
    /// Bytes of a request's body.
    pub(crate) body_bytes: usize,
    /// From the first byte of a head to the last.
    pub(crate) head_time: Duration,
    /// From the end of a head to the end of its body.
    pub(crate) body_time: Duration,
    /// Between a reply and the next request.
    pub(crate) idle_time: Duration,
    /// For the client to receive what the server has to send.
    pub(crate) send_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            body_bytes: 1024 * 1024,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(60),
            send_time: Duration::from_secs(30),
        }
    }
}

/// Why the server ends a connection.
enum Failure {
    /// The connection has failed.
    Io(io::Error),
    /// The client gets a reply with this status and reason.
    Refused(u16, &'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// A connection to a client.
pub(crate) trait Connection {
    /// The socket below it.
    fn socket(&self) -> &TcpStream;

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize>;

    fn write_all(&self, bytes: &[u8]) -> io::Result<()>;

    /// Says that nothing more will be written, where that takes more than the end of the socket.
    fn close(&self) -> io::Result<()>;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, bytes)
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The state that all connections share.
pub(crate) struct Server {
    limits: Limits,
    clock: Clock,
}

impl Server {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, clock: Clock::new() }
    }

    /// Answers a client's requests with `answer`, until client or server end the connection.
    pub(crate) fn attend(
        &self,
        conn: &dyn Connection,
        answer: impl FnMut(&Request<'_>, Reply<'_>) -> Sent,
    ) -> io::Result<()> {
        let socket = conn.socket();
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(self.limits.idle_time))?;
        socket.set_write_timeout(Some(self.limits.send_time))?;
        let mut wire = Wire::new(conn, &self.clock, self.limits.head_bytes);
        let mut is_head = false;
        let client_is_done = match self.converse(&mut wire, &mut is_head, answer) {
            Ok(()) => true,
            Err(Failure::Io(error)) => return Err(error),
            Err(Failure::Refused(status, why)) => {
                self.clock.update();
                let reply = Reply::new(&mut wire.output, &self.clock).closes();
                let reply = if is_head { reply.without_body() } else { reply };
                reply.send(
                    status,
                    &[("Content-Type", "text/plain")],
                    format!("{why}\n").as_bytes(),
                );
                false
            }
        };
        wire.close(client_is_done)
    }

    /// Returns after the last reply, when the client has asked to close the connection or has
    /// closed its side. `is_head` says whether the latest request, complete or not, is one for a
    /// head alone.
    fn converse(
        &self,
        wire: &mut Wire<'_>,
        is_head: &mut bool,
        mut answer: impl FnMut(&Request<'_>, Reply<'_>) -> Sent,
    ) -> Result<()> {
        // A head that is followed by a body, and that body. Most requests leave both empty.
        let (mut head, mut body) = (Vec::new(), Vec::new());
        let mut head_due = None;
        let mut may_skip_line = true;
        loop {
            if may_skip_line && wire.input.unread().starts_with(b"\r\n") {
                // Some clients end a body with an empty line that is not part of it.
                wire.input.consume(2);
                may_skip_line = false;
            }
            *is_head = wire.input.unread().starts_with(b"HEAD ");
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let Some((len, request)) = parse(wire.input.unread(), &mut headers)? else {
                if self.read_head(wire, &mut head_due)? {
                    continue;
                }
                return Ok(());
            };
            (head_due, may_skip_line) = (None, true);
            let keeps_alive = request.keeps_alive();
            let framing = request.framing;
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let request = match framing {
                Framing::None => Some((len, request)),
                Framing::Length(_) | Framing::Chunked => {
                    let expects_continue = request.expects_continue;
                    // The body needs the buffer, so the head moves.
                    head.clear();
                    head.extend_from_slice(&wire.input.unread()[..len]);
                    wire.input.consume(len);
                    body::read(wire, framing, expects_continue, &self.limits, &mut body)?;
                    parse(&head, &mut headers)?.map(|(_, request)| (0, request.with_body(&body)))
                }
            };
            if let Some((len, request)) = request {
                answer(&request, Reply::new(&mut wire.output, &self.clock).to(&request));
                wire.input.consume(len);
            }
            if !keeps_alive {
                return Ok(());
            }
            // The replies to pipelined requests go out in one write, unless that becomes too long.
            wire.flush_if_long()?;
        }
    }

    /// Reads more of a head. Returns false when the client has closed the connection before it.
    fn read_head(&self, wire: &mut Wire<'_>, due: &mut Option<Instant>) -> Result<bool> {
        if wire.input.unread().is_empty() {
            return Ok(wire.read()? > 0);
        }
        if wire.input.is_full() {
            return Err(match wire.input.unread().contains(&b'\n') {
                true => Failure::Refused(431, "the headers are too long"),
                false => Failure::Refused(414, "the request line is too long"),
            });
        }
        // Outside of the timeout below: sending has its own, and must not be cut short by that for
        // a head.
        wire.flush()?;
        // Bytes that trickle in do not extend the deadline.
        let due = *due.get_or_insert_with(|| plainsong::time::now() + self.limits.head_time);
        match timeout_at(due, || wire.read_line()) {
            Ok(result) => result.map(|()| true),
            Err(_) => Err(Failure::Refused(408, "the headers took too long")),
        }
    }
}
