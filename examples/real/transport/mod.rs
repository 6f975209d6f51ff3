//! ureq over plainsong's sockets: a connector, and a lookup of names that parks.

use std::io::{self, Read, Write};
use std::time::Duration;

use plainsong::net::{TcpStream, ToSocketAddrs};
use plainsong::time::timeout;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Error};

/// As many addresses of a name as ureq has room for.
const ADDRESSES_MAX: usize = 16;

/// An agent whose connections, names and time-outs park the coroutine.
pub(crate) fn agent(config: Config) -> Agent {
    let connector = <Sockets as Connector>::chain(Sockets, RustlsConnector::default());
    Agent::with_parts(config, connector, Names)
}

/// The time that is left, if it is limited. For `timeout` and sockets, zero would be none.
fn left(limit: NextTimeout) -> Option<Duration> {
    limit.not_zero().map(|left| *left)
}

/// Makes the call, and gives up when the time is over.
fn within<T>(limit: NextTimeout, f: impl FnOnce() -> io::Result<T>) -> Result<T, Error> {
    let outcome = match left(limit) {
        Some(left) => timeout(left, f).map_err(|_| Error::Timeout(limit.reason))?,
        None => f(),
    };
    Ok(outcome?)
}

#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        limit: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.scheme().zip(uri.authority());
        let name = name
            .and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority))
            .ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let mut addresses = self.empty();
        let found = within(limit, || name.to_socket_addrs())?;
        found.take(ADDRESSES_MAX).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

#[derive(Debug)]
struct Sockets;

impl Connector for Sockets {
    type Out = Socket;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Socket>, Error> {
        let socket = within(details.timeout, || TcpStream::connect(&details.addrs[..]))?;
        socket.set_nodelay(details.config.no_delay())?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Socket { socket, buffers }))
    }
}

#[derive(Debug)]
struct Socket {
    socket: TcpStream,
    buffers: LazyBuffers,
}

impl Socket {
    /// TLS lies above, and takes an error better than an unwind: so this is the socket's time-out.
    fn limited<T>(
        limit: NextTimeout,
        set: impl FnOnce(Option<Duration>) -> io::Result<()>,
        f: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Error> {
        set(left(limit))?;
        f().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(limit.reason),
            _ => error.into(),
        })
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, limit: NextTimeout) -> Result<(), Error> {
        let (socket, output) = (&self.socket, &self.buffers.output()[..amount]);
        let set = |left| socket.set_write_timeout(left);
        Self::limited(limit.for_write(), set, || (&self.socket).write_all(output))
    }

    fn await_input(&mut self, limit: NextTimeout) -> Result<bool, Error> {
        let (socket, input) = (&self.socket, self.buffers.input_append_buf());
        let set = |left| socket.set_read_timeout(left);
        let read = Self::limited(limit.for_read(), set, || (&self.socket).read(input))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// Whether the server still waits for a request. It has nothing to say before that.
    fn is_open(&mut self) -> bool {
        let unasked = self.socket.set_nonblocking(true).and_then(|()| self.socket.peek(&mut [0]));
        matches!(unasked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            && self.socket.set_nonblocking(false).is_ok()
    }
}
