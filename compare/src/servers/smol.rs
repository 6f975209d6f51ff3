//! async/await on smol, as in smol's own echo example.

use std::io;
use std::net::SocketAddr;

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};

/// Serves each client in a task of smol's global executor.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    smol::block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (conn, _) = listener.accept().await?;
            let task = smol::spawn(async move {
                if let Err(error) = echo(conn).await {
                    super::report(&error);
                }
            });
            task.detach();
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
