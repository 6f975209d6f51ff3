//! Clients that send much and read little, as attackers do. They are not measured: the question is
//! whether the server keeps the other clients waiting.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::clients::connect;

/// How often a client reads, and how much.
const PERIOD: Duration = Duration::from_millis(5);
const BYTES: usize = 256;
/// The size of their receive buffers in the kernel.
const WINDOW: usize = 4096;

pub(super) struct SlowReaders {
    /// Each with the number of bytes of its request that were sent.
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

    /// Lets them read and send, if it is time.
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
