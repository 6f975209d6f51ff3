//! tungstenite, a WebSocket client, against a server in Python.

use std::net::TcpStream;

use trial::{expect, peer};
use tungstenite::{Message, client};

fn main() {
    let address = peer("WEBSOCKET");
    trial::client("tungstenite", 1000, move |middle| {
        let stream = TcpStream::connect(&address)?;
        let (mut socket, _) = client(format!("ws://{address}/"), stream)?;
        socket.send(Message::text("late"))?;
        expect(socket.read()?, Message::text("late"))?;
        middle();
        socket.close(None)?;
        while socket.can_read() {
            if let Err(error) = socket.read() {
                return match error {
                    tungstenite::Error::ConnectionClosed => Ok(()),
                    error => Err(error.into()),
                };
            }
        }
        Ok(())
    });
}
