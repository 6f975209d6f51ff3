//! async/await on tokio's current-thread runtime, as in tokio's own echo example.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves each client in a task; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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
