//! Clients: non-blocking connections in one epoll set. Each has at most one message in flight. A
//! message is one request, or several pipelined ones.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::Plan;
use super::job::Expected;
use super::slow::SlowReaders;

/// How long the server may be silent while messages are in flight.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are opened at a time: fewer than a listener's queue holds.
const CONNECT_AT_ONCE: usize = 64;
const EVENTS_AT_ONCE: usize = 1024;
const INBOX_BYTES: usize = 64 * 1024;

struct Client {
    /// None before the first message, and between short connections.
    socket: Option<TcpStream>,
    /// How many messages the connection still carries, including the one in flight; none for all.
    left: Option<usize>,
    /// How many bytes of the message were sent, and how many of the reply were received.
    sent: usize,
    received: usize,
    /// Whether the epoll set also reports room to send.
    watches_room: bool,
}

/// A message and the expected reply.
struct Exchange {
    message: Vec<u8>,
    expected: Expected,
    /// Whether the server closes the connection after the reply.
    closes: bool,
}

impl Exchange {
    fn new(plan: &Plan, is_last: bool) -> Result<Exchange> {
        let Plan { job, shape, address, .. } = plan;
        let request = job.request(shape.size, is_last);
        let reply = job.reply(&request, || connect(*address))?;
        Ok(Exchange {
            message: request.repeat(shape.pipeline),
            expected: reply.pipelined(shape.pipeline),
            closes: is_last && job.server_closes(),
        })
    }
}

pub(super) struct Clients {
    epoll: OwnedFd,
    address: SocketAddr,
    requests_each: Option<usize>,
    clients: Vec<Client>,
    usual: Exchange,
    /// The last exchange of a short connection.
    last: Exchange,
    /// How many clients take part. The clients after them are connected and idle.
    active: usize,
    slow: SlowReaders,
    inbox: Vec<u8>,
    space: Vec<MaybeUninit<Event>>,
    ready: Vec<(usize, EventFlags)>,
    /// How many messages are in flight.
    under_way: usize,
}

impl Clients {
    /// Connects the clients and lets each exchange one message, so that the server has accepted
    /// all.
    pub(super) fn connect(plan: &Plan) -> Result<Clients> {
        let shape = &plan.shape;
        let request = plan.job.request(shape.size, false);
        let mut clients = Clients {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            address: plan.address,
            requests_each: shape.requests_each,
            clients: Vec::with_capacity(shape.connections + shape.idle),
            usual: Exchange::new(plan, false)?,
            last: Exchange::new(plan, shape.requests_each.is_some())?,
            active: shape.connections,
            slow: SlowReaders::connect(plan.address, shape.slow, &request)?,
            inbox: vec![0; INBOX_BYTES],
            space: vec![MaybeUninit::uninit(); EVENTS_AT_ONCE],
            ready: Vec::with_capacity(EVENTS_AT_ONCE),
            under_way: 0,
        };
        let count = shape.connections + shape.idle;
        while clients.clients.len() < count {
            let first = clients.clients.len();
            for index in first..count.min(first + CONNECT_AT_ONCE) {
                let (sent, received) = (0, 0);
                let client =
                    Client { socket: None, left: None, sent, received, watches_room: false };
                clients.clients.push(client);
                clients.send(index)?;
            }
            clients.settle(|_, _| Ok(false))?;
        }
        Ok(clients)
    }

    /// Opens a client's connection, unless it is open.
    fn open(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        if client.socket.is_some() {
            return Ok(());
        }
        let socket = connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)?;
        client.socket = Some(socket);
        client.left = self.requests_each;
        client.watches_room = false;
        Ok(())
    }

    /// How many clients take part.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Sends a client's next message. The last one must be complete.
    pub(super) fn send(&mut self, index: usize) -> Result<()> {
        self.open(index)?;
        let client = &mut self.clients[index];
        client.sent = 0;
        client.received = 0;
        self.under_way += 1;
        self.flush(index)
    }

    /// Sends as much as possible, and waits for room for the rest.
    fn flush(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let exchange = if client.left == Some(1) { &self.last } else { &self.usual };
        client.flush(&exchange.message)?;
        client.watch(&self.epoll, index, client.sent < exchange.message.len())
    }

    /// Polls once, and adds the clients whose messages are complete to `done`.
    ///
    /// It never sleeps, because the load has a core to itself. The server would have to wake a
    /// sleeping client, which costs its core more than the rest of its work. With clients on
    /// another machine the server would not have to do that.
    pub(super) fn poll(&mut self, done: &mut Vec<usize>) -> Result<()> {
        self.slow.turn()?;
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let events = match epoll::wait(&self.epoll, &mut self.space[..], Some(&at_once)) {
            Err(Errno::INTR) => return Ok(()),
            result => result?.0,
        };
        self.ready.clear();
        self.ready.extend(events.iter().map(|event| (event.data.u64() as usize, event.flags)));
        for next in 0..self.ready.len() {
            let (index, flags) = self.ready[next];
            if self.clients[index].watches_room {
                self.flush(index)?;
            }
            let came_in = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
            if flags.intersects(came_in) && self.receive(index)? {
                self.under_way -= 1;
                done.push(index);
            }
        }
        Ok(())
    }

    /// Polls until no message is in flight and `next` returns false. `next` may send further
    /// messages.
    pub(super) fn settle(
        &mut self,
        mut next: impl FnMut(&mut Clients, &mut Vec<usize>) -> Result<bool>,
    ) -> Result<()> {
        let mut done = Vec::new();
        let mut heard = Instant::now();
        loop {
            let goes_on = next(self, &mut done)?;
            done.clear();
            if self.under_way == 0 {
                // No client waits for the server.
                heard = Instant::now();
                if !goes_on {
                    return Ok(());
                }
            }
            self.poll(&mut done)?;
            if !done.is_empty() {
                heard = Instant::now();
            }
            ensure!(
                heard.elapsed() < PATIENCE,
                "the server was silent for {} s",
                PATIENCE.as_secs()
            );
        }
    }

    /// Receives, and returns true when that completes the exchange. After its last exchange, a
    /// short connection closes.
    fn receive(&mut self, index: usize) -> Result<bool> {
        let client = &mut self.clients[index];
        let exchange = if client.left == Some(1) { &mut self.last } else { &mut self.usual };
        let socket = client.socket.as_mut().context("an event of a closed connection")?;
        let n = match socket.read(&mut self.inbox) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot receive"),
        };
        let came = &self.inbox[..n];
        ensure!(exchange.expected.check(client.received, came), "the server sent something else");
        client.received += n;
        let is_whole = client.received == exchange.expected.len();
        ensure!(n > 0 || (is_whole && exchange.closes), "the server hung up");
        if !is_whole || (n > 0 && exchange.closes) {
            return Ok(false);
        }
        if let Some(left) = &mut client.left {
            *left -= 1;
            if *left == 0 {
                client.socket = None;
            }
        }
        Ok(true)
    }
}

impl Client {
    fn flush(&mut self, message: &[u8]) -> Result<()> {
        let socket = self.socket.as_mut().context("the connection is closed")?;
        while self.sent < message.len() {
            match socket.write(&message[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// Asks epoll for room to send exactly while there is something left to send.
    fn watch(&mut self, epoll: &OwnedFd, index: usize, wants_room: bool) -> Result<()> {
        if wants_room != self.watches_room {
            self.watches_room = wants_room;
            let room = if wants_room { EventFlags::OUT } else { EventFlags::empty() };
            let socket = self.socket.as_ref().context("the connection is closed")?;
            epoll::modify(epoll, socket, EventData::new_u64(index as u64), EventFlags::IN | room)?;
        }
        Ok(())
    }
}

/// Connects to a server that may still be starting.
pub(super) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let began = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(error)
                if error.kind() == ErrorKind::ConnectionRefused
                    && began.elapsed() < START_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            // The ports of closed connections are free again after a second.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                return Err(error).context("no port is left: choose a shorter --window");
            }
            result => return result.with_context(|| format!("cannot connect to {address}")),
        }
    }
}
