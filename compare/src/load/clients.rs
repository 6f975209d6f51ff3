//! Clients: non-blocking connections that each have at most one message under way, in one epoll set. A message
//! is one request, or as many as are pipelined.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::Plan;
use super::job::Expected;
use super::slow::SlowReaders;

/// How long the server may stay silent while messages are under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are made before they are all used: fewer than a listener's queue holds.
const CONNECT_AT_ONCE: usize = 64;
const EVENTS_AT_ONCE: usize = 1024;
const INBOX_BYTES: usize = 64 * 1024;

struct Client {
    socket: TcpStream,
    /// How many bytes of the message were sent, and how many came back.
    sent: usize,
    received: usize,
    /// Whether the epoll set also watches for room to send.
    watches_room: bool,
}

pub(super) struct Clients {
    epoll: OwnedFd,
    clients: Vec<Client>,
    message: Vec<u8>,
    expected: Expected,
    /// How many of the clients take part; those after them are connected and silent.
    active: usize,
    slow: SlowReaders,
    inbox: Vec<u8>,
    space: Vec<MaybeUninit<Event>>,
    ready: Vec<(usize, EventFlags)>,
    /// How many messages are under way.
    under_way: usize,
}

impl Clients {
    /// Connects clients and has each of them served once, so that the server knows them all.
    pub(super) fn connect(plan: &Plan) -> Result<Clients> {
        let shape = &plan.shape;
        let request = plan.job.request(shape.size);
        let reply = plan.job.reply(&request, || connect(plan.address))?;
        let mut clients = Clients {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(shape.connections + shape.idle),
            message: request.repeat(shape.pipeline),
            expected: reply.pipelined(shape.pipeline),
            active: shape.connections,
            slow: SlowReaders::connect(plan.address, shape.slow, &request)?,
            inbox: vec![0; INBOX_BYTES],
            space: vec![MaybeUninit::uninit(); EVENTS_AT_ONCE],
            ready: Vec::with_capacity(EVENTS_AT_ONCE),
            under_way: 0,
        };
        let (address, count) = (plan.address, shape.connections + shape.idle);
        while clients.clients.len() < count {
            let first = clients.clients.len();
            for index in first..count.min(first + CONNECT_AT_ONCE) {
                clients.add(address)?;
                clients.send(index)?;
            }
            clients.settle(|_, _| Ok(false))?;
        }
        Ok(clients)
    }

    fn add(&mut self, address: SocketAddr) -> Result<()> {
        let socket = connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let data = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &socket, data, EventFlags::IN)?;
        self.clients.push(Client { socket, sent: 0, received: 0, watches_room: false });
        Ok(())
    }

    /// How many clients take part.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Sends a client's next message. It must have none under way.
    pub(super) fn send(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        client.sent = 0;
        client.received = 0;
        self.under_way += 1;
        client.flush(&self.message)?;
        self.watch(index)
    }

    /// Looks once for messages that came back, and adds their clients to `done`.
    ///
    /// It never sleeps: the load has a core to itself. A sleeping client would have to be woken by the server,
    /// which costs the server's core more than the rest of its work and, with clients on another machine, would
    /// not be its job.
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
            let client = &mut self.clients[index];
            if client.sent < self.message.len() {
                client.flush(&self.message)?;
                self.watch(index)?;
            }
            let came_in = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
            let client = &mut self.clients[index];
            if flags.intersects(came_in) && client.receive(&mut self.inbox, &mut self.expected)? {
                self.under_way -= 1;
                done.push(index);
            }
        }
        Ok(())
    }

    /// Polls until no message is under way and `next`, which may send more, says that none will be.
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
                // Nobody has anything to say.
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

    /// Watches for room to send exactly while a client has something left to send.
    fn watch(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let wants_room = client.sent < self.message.len();
        if wants_room != client.watches_room {
            client.watches_room = wants_room;
            let room = if wants_room { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &client.socket, data, EventFlags::IN | room)?;
        }
        Ok(())
    }
}

impl Client {
    fn flush(&mut self, message: &[u8]) -> Result<()> {
        while self.sent < message.len() {
            match self.socket.write(&message[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// Takes what came in; true when that completes the message.
    fn receive(&mut self, inbox: &mut [u8], expected: &mut Expected) -> Result<bool> {
        let n = match self.socket.read(inbox) {
            Ok(0) => bail!("the server hung up"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot receive"),
        };
        ensure!(expected.check(self.received, &inbox[..n]), "the server sent something else");
        self.received += n;
        Ok(self.received == expected.len())
    }
}

/// Connects to a server that may have to start first.
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
            result => return result.with_context(|| format!("cannot connect to {address}")),
        }
    }
}
