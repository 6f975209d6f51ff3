//! async/await on tokio's multi-thread runtime, which `#[tokio::main]` makes.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves each client in a task, on as many worker threads as there are cores to run on.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (conn, _) = listener.accept().await?;
            tokio::spawn(async move {
                if let Err(error) = echo(conn).await {
                    super::report(&error);
                }
            });
        }
    })
}

async fn echo(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buffer = [0; super::BUFFER_BYTES];
    loop {
        match conn.read(&mut buffer).await? {
            0 => return Ok(()),
            n => conn.write_all(&buffer[..n]).await?,
        }
    }
}
