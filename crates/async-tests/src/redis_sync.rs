//! The commands of the `redis` crate over a socket of plainsong, without a future.

use std::io::Write;
use std::net::SocketAddr;

use plainsong::net::TcpStream;
use redis::{ConnectionLike, Parser, RedisResult, Value};

/// A connection on which [`redis::Commands`] park the coroutine.
pub struct Connection {
    stream: TcpStream,
    parser: Parser,
    open: bool,
}

impl Connection {
    /// Connects to a server that asks for no password.
    ///
    /// # Errors
    ///
    /// When it cannot be reached.
    ///
    /// # Cancellation
    ///
    /// Unwinds while it waits.
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, parser: Parser::new(), open: true })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        Ok(self.req_packed_commands(command, 0, 1)?.remove(0))
    }

    fn req_packed_commands(
        &mut self,
        commands: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        // An error, or an unwind of a cancelled coroutine, leaves answers behind.
        if !std::mem::replace(&mut self.open, false) {
            return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
        }
        self.stream.write_all(commands)?;
        let mut answers = Vec::with_capacity(offset + count);
        for _ in 0..offset + count {
            answers.push(self.parser.parse_value(&self.stream)?);
        }
        self.open = true;
        answers.drain(..offset);
        Ok(answers)
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.open
    }
}
