//! Clients that ask for much and read little, as some do on purpose. What a server does for them is its own
//! business, as long as it does not keep the others waiting; nothing they get is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::clients::connect;

/// How often they read, and how much.
const PERIOD: Duration = Duration::from_millis(5);
const BYTES: usize = 256;
/// What their kernel may hold for them.
const WINDOW: usize = 4096;

pub(super) struct SlowReaders {
    /// Each with how much of its request it has sent.
    sockets: Vec<(TcpStream, usize)>,
    request: Vec<u8>,
    next: Instant,
}

impl SlowReaders {
    pub(super) fn connect(
        address: SocketAddr,
        count: usize,
        request: &[u8],
    ) -> Result<SlowReaders> {
        let socket = |_| {
            let socket = connect(address)?;
            set_socket_recv_buffer_size(&socket, WINDOW)?;
            socket.set_nonblocking(true)?;
            Ok((socket, 0))
        };
        let sockets = (0..count).map(socket).collect::<Result<_>>()?;
        Ok(SlowReaders { sockets, request: request.to_vec(), next: Instant::now() })
    }

    /// Lets them read and ask for more, if it is time to.
    pub(super) fn turn(&mut self) -> Result<()> {
        if self.sockets.is_empty() || Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + PERIOD;
        for (socket, sent) in &mut self.sockets {
            *sent += allow_blocking(socket.write(&self.request[*sent..]))?;
            *sent %= self.request.len();
            allow_blocking(socket.read(&mut [0; BYTES]))?;
        }
        Ok(())
    }
}

fn allow_blocking(result: std::io::Result<usize>) -> Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => Ok(result?),
    }
}
