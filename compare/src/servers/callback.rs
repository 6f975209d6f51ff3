//! A callback event loop on `polling`: one thread and a table of callbacks. Every connection is a
//! small state machine, whose state is captured by its callback.
//!
//! The sockets are registered level-triggered, so a callback may read once and return: if data is
//! left, it is called again. That saves both the re-arming of the one-shot mode and the extra read
//! of the edge mode.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;

use polling::{Event, Events, PollMode, Poller};
use slab::Slab;

/// The next event that a callback waits for.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Readable,
    Writable,
    Close,
}

type Callback = Box<dyn FnMut(&mut EventLoop) -> io::Result<Next>>;

struct Entry {
    socket: Rc<dyn AsFd>,
    waits_for: Next,
    /// Taken out while it runs, because it may change the table.
    callback: Option<Callback>,
}

struct EventLoop {
    poller: Poller,
    entries: Slab<Entry>,
}

impl EventLoop {
    /// Calls `callback` whenever `socket` is readable.
    fn add(&mut self, socket: Rc<dyn AsFd>, callback: Callback) -> io::Result<()> {
        let vacant = self.entries.vacant_entry();
        let event = Event::readable(vacant.key());
        // SAFETY: the table keeps the socket open until `turn` has deleted it from the poller.
        #[allow(unsafe_code)]
        unsafe {
            self.poller.add_with_mode(&socket.as_fd(), event, PollMode::Level)?;
        }
        vacant.insert(Entry { socket, waits_for: Next::Readable, callback: Some(callback) });
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::new();
        loop {
            events.clear();
            self.poller.wait(&mut events, None)?;
            for event in events.iter() {
                self.turn(event.key)?;
            }
        }
    }

    fn turn(&mut self, key: usize) -> io::Result<()> {
        let Some(mut callback) = self.entries.get_mut(key).and_then(|e| e.callback.take()) else {
            return Ok(());
        };
        let next = callback(self).unwrap_or_else(|error| {
            super::report(&error);
            Next::Close
        });
        let entry = &mut self.entries[key];
        entry.callback = Some(callback);
        if next == entry.waits_for {
            return Ok(());
        }
        entry.waits_for = next;
        let event = match next {
            Next::Readable => Event::readable(key),
            Next::Writable => Event::writable(key),
            Next::Close => {
                let entry = self.entries.remove(key);
                return self.poller.delete(entry.socket.as_fd());
            }
        };
        self.poller.modify_with_mode(entry.socket.as_fd(), event, PollMode::Level)
    }
}

/// Serves all clients from one thread's event loop.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let mut event_loop = EventLoop { poller: Poller::new()?, entries: Slab::new() };
    let listener = Rc::new(TcpListener::bind(address)?);
    listener.set_nonblocking(true)?;
    let accept = {
        let listener = Rc::clone(&listener);
        move |event_loop: &mut EventLoop| match listener.accept() {
            Ok((conn, _)) => echo(event_loop, conn).map(|()| Next::Readable),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Next::Readable),
            Err(error) => Err(error),
        }
    };
    event_loop.add(listener, Box::new(accept))?;
    event_loop.run()
}

fn echo(event_loop: &mut EventLoop, conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    conn.set_nonblocking(true)?;
    let conn = Rc::new(conn);
    let socket = Rc::clone(&conn);
    let mut buffer = [0; super::BUFFER_BYTES];
    let mut unsent = 0..0;
    let turn = move |_: &mut EventLoop| {
        if unsent.is_empty() {
            match (&*conn).read(&mut buffer) {
                Ok(0) => return Ok(Next::Close),
                Ok(n) => unsent = 0..n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Readable),
                Err(error) => return Err(error),
            }
        }
        while !unsent.is_empty() {
            match (&*conn).write(&buffer[unsent.clone()]) {
                Ok(n) => unsent.start += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Writable),
                Err(error) => return Err(error),
            }
        }
        Ok(Next::Readable)
    };
    event_loop.add(socket, Box::new(turn))
}
