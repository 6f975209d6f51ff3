//! socks, a client of proxies, against microsocks and a server in Python behind it.

use std::io::{Read, Write};

use socks::Socks5Stream;
use trial::{expect, peer};

fn main() {
    let (proxy, address) = (peer("SOCKS"), peer("HTTP"));
    trial::client("socks", 400, move |middle| {
        let mut stream = Socks5Stream::connect(&proxy, address.as_str())?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        middle();
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        expect(answer.ends_with("\r\n\r\nplainsong"), true)
    });
}
