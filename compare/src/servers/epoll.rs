//! The floor: an epoll loop written by hand for this one job, with one `recv` and one `send` for a
//! request and one `epoll_wait` for a batch. No single-threaded echo server on readiness can do
//! with fewer system calls.
//!
//! It is edge-triggered, because the kernel then need not check a served socket again. After a
//! short read it may return to `epoll_wait` only while the peer has not hung up (RDHUP): data and
//! FIN that arrive together make one edge, and the FIN has to be read now or never.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;

const LISTENER: u64 = u64::MAX;
const EVENTS_AT_ONCE: usize = 1024;

struct Conn {
    socket: TcpStream,
    /// Data that was read and could not be sent yet. Empty and not allocated while the client keeps
    /// up.
    unsent: Vec<u8>,
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    conns: Slab<Conn>,
    buffer: [u8; super::BUFFER_BYTES],
}

/// Serves all clients from one thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut server =
        Server { epoll, listener, conns: Slab::new(), buffer: [0; super::BUFFER_BYTES] };
    let mut space = [const { MaybeUninit::uninit() }; EVENTS_AT_ONCE];
    loop {
        let (events, _) = match epoll::wait(&server.epoll, &mut space, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        for event in events {
            match event.data.u64() {
                LISTENER => server.accept()?,
                key => server.serve(key as usize, event.flags),
            }
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let vacant = self.conns.vacant_entry();
        let data = EventData::new_u64(vacant.key() as u64);
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, data, interest)?;
        vacant.insert(Conn { socket, unsent: Vec::new() });
        Ok(())
    }

    fn serve(&mut self, key: usize, flags: EventFlags) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        match conn.turn(&mut self.buffer, flags) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => super::report(&error),
        }
        // Closing the socket also removes it from the epoll set.
        self.conns.remove(key);
    }
}

impl Conn {
    /// Reads and sends until it would block. Returns false when the client has hung up.
    fn turn(&mut self, buffer: &mut [u8], flags: EventFlags) -> io::Result<bool> {
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !self.flush()? {
            return Ok(true);
        }
        loop {
            let n = match self.socket.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let sent = self.send(&buffer[..n])?;
            if sent < n {
                self.unsent.extend_from_slice(&buffer[sent..n]);
                return Ok(true);
            }
            if n < buffer.len() && !hung_up {
                return Ok(true);
            }
        }
    }

    /// Sends the rest of an earlier turn. Returns false when some of it is still left.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let sent = self.send(&unsent)?;
            self.unsent = unsent;
            self.unsent.drain(..sent);
        }
        Ok(self.unsent.is_empty())
    }

    /// Sends as much as the socket accepts.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}
