//! A pool of ten threads: sequential code that serves ten clients at a time. The eleventh waits
//! until one of them hangs up.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

/// How many clients the pool can serve at a time.
pub const THREADS: usize = 10;

/// Accepts clients and hands them to the pool's threads.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..THREADS {
        let receiver = Arc::clone(&receiver);
        thread::spawn(move || work(&receiver));
    }
    for conn in TcpListener::bind(address)?.incoming() {
        // The workers never end, so the receiver always exists.
        let _ = sender.send(conn?);
    }
    Ok(())
}

fn work(queue: &Mutex<mpsc::Receiver<TcpStream>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(conn) = next else { return };
        if let Err(error) = echo(conn) {
            super::report(&error);
        }
    }
}

fn echo(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buffer = [0; super::BUFFER_BYTES];
    loop {
        match conn.read(&mut buffer)? {
            0 => return Ok(()),
            n => conn.write_all(&buffer[..n])?,
        }
    }
}
