//! HTTP/1.1 over one connection: heads are httparse's job, the rest is here.
//!
//! - `mod.rs`: the loop, from a request to its answer
//! - `wire.rs`: the connection and its buffers
//! - `request.rs`: what a head means
//! - `body.rs`: bodies of a known length, and chunked ones
//! - `reply.rs`: answers, and the `Date` in them

mod body;
mod reply;
mod request;
mod wire;

use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use plainsong::net::TcpStream;
use plainsong::time::timeout_at;

use reply::Clock;
pub(crate) use reply::{Reply, Sent};
pub(crate) use request::Request;
use request::{Framing, HEADERS_MAX, parse};
use wire::Wire;

/// What a client may ask of the server. Whoever asks for more is refused.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a request's line and headers.
    pub(crate) head_bytes: usize,
    /// Bytes of a request's body.
    pub(crate) body_bytes: usize,
    /// From the first byte of a head to its last.
    pub(crate) head_time: Duration,
    /// From the end of a head to the end of its body.
    pub(crate) body_time: Duration,
    /// Between an answer and the next request.
    pub(crate) idle_time: Duration,
    /// For the client to take what waits to be sent.
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

/// Why a connection ends before its client ends it.
enum Failure {
    /// There is nobody left to be told.
    Gone(io::Error),
    /// The client is told a status and a reason.
    Refused(u16, &'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// What the connections have in common.
pub(crate) struct Server {
    limits: Limits,
    clock: Clock,
}

impl Server {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, clock: Clock::new() }
    }

    /// Answers a client's requests with `answer`, until either of the two is done.
    pub(crate) fn attend(
        &self,
        conn: &TcpStream,
        answer: impl FnMut(&Request<'_>, Reply<'_>) -> Sent,
    ) -> io::Result<()> {
        conn.set_nodelay(true)?;
        conn.set_read_timeout(Some(self.limits.idle_time))?;
        conn.set_write_timeout(Some(self.limits.send_time))?;
        let mut wire = Wire::new(conn, &self.clock, self.limits.head_bytes);
        match self.converse(&mut wire, answer) {
            Ok(()) => {}
            Err(Failure::Gone(error)) => return Err(error),
            Err(Failure::Refused(status, why)) => {
                self.clock.look();
                let reply = Reply::new(&mut wire.output, &self.clock).closes();
                reply.send(
                    status,
                    &[("Content-Type", "text/plain")],
                    format!("{why}\n").as_bytes(),
                );
            }
        }
        wire.close()
    }

    /// Returns when no more is to be answered.
    fn converse(
        &self,
        wire: &mut Wire<'_>,
        mut answer: impl FnMut(&Request<'_>, Reply<'_>) -> Sent,
    ) -> Result<()> {
        // A head that has a body behind it, and that body; most requests leave both empty.
        let (mut head, mut body) = (Vec::new(), Vec::new());
        let mut head_due = None;
        loop {
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let Some((len, request)) = parse(wire.input.unread(), &mut headers)? else {
                if self.read_head(wire, &mut head_due)? {
                    continue;
                }
                return Ok(());
            };
            head_due = None;
            let keeps_alive = request.keeps_alive();
            let framing = request.framing;
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let request = match framing {
                Framing::None => Some((len, request)),
                Framing::Length(_) | Framing::Chunked => {
                    let expects_continue = request.expects_continue;
                    // The body needs the buffer.
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
            // Pipelined requests are answered in one write, unless that becomes too long.
            wire.flush_if_long()?;
        }
    }

    /// Reads more of a head; false when the client has ended instead of beginning one.
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
        // By itself: its time-out is that of sending, and a flush must not be given up half-way.
        wire.flush()?;
        // What comes byte by byte gets no more time for it.
        let due = *due.get_or_insert_with(|| plainsong::time::now() + self.limits.head_time);
        match timeout_at(due, || wire.read_line()) {
            Ok(result) => result.map(|()| true),
            Err(_) => Err(Failure::Refused(408, "the headers took too long")),
        }
    }
}
