//! A UDP echo server: each datagram goes back to its sender.
//!
//! ```text
//! cargo run --release --example udp_echo [ADDR]
//! nc -u 127.0.0.1 4915
//! ```

mod args;

use plainsong::net::UdpSocket;

fn main() -> std::io::Result<()> {
    plainsong::run(|| {
        let socket = UdpSocket::bind(args::address())?;
        println!("listening on {}", socket.local_addr()?);
        // The longest datagram fits, so none comes back truncated.
        let mut datagram = vec![0; 65536];
        loop {
            let (len, peer) = socket.recv_from(&mut datagram)?;
            // A failed send is this peer's loss alone. UDP may lose a datagram anyway.
            let _ = socket.send_to(&datagram[..len], peer);
        }
    })
}
