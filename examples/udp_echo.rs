//! A UDP echo server: each datagram goes back to where it came from.
//!
//! ```text
//! cargo run --release --example udp_echo [ADDR]
//! nc -u 127.0.0.1 4915
//! ```

use plainsong::net::UdpSocket;

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let socket = UdpSocket::bind(address)?;
        println!("listening on {}", socket.local_addr()?);
        // The longest datagram fits, so that none comes back cut off.
        let mut datagram = vec![0; 65536];
        loop {
            let (len, peer) = socket.recv_from(&mut datagram)?;
            // What cannot be sent is one peer's loss, as datagrams may be lost anyway.
            let _ = socket.send_to(&datagram[..len], peer);
        }
    })
}
