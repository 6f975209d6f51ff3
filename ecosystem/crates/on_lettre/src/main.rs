//! lettre, which sends mail, against an SMTP server in Python.

use lettre::{Message, SmtpTransport, Transport};
use trial::{expect, peer};

fn main() {
    let address = peer("SMTP");
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mail = Message::builder()
        .from("nobody@example.org".parse().expect("an address"))
        .to("somebody@example.org".parse().expect("an address"))
        .subject("plainsong")
        .body("A line.\r\n.\r\nAnother.".to_owned())
        .expect("a message");
    trial::client("lettre", 1000, move |middle| {
        let transport = SmtpTransport::builder_dangerous("127.0.0.1").port(port).build();
        // The server takes its time before it accepts the message.
        let answer = transport.send(&mail)?;
        middle();
        expect(answer.is_positive(), true)
    });
}
