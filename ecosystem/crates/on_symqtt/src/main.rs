//! symqtt, an MQTT client with threads for each connection, against mosquitto.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use symqtt::v3::{Client, ConnectOptions, InboundHandler, Publish, PublishMessage, QoS, Session};
use symqtt_transport::tcp::TcpTransport;
use trial::{DELAY, expect, peer};

const LONG: Duration = Duration::from_secs(60);
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

struct Forward(Sender<Bytes>);

impl InboundHandler for Forward {
    fn on_publish(&self, message: &Publish) {
        // Nobody waits for it any more once the operation was ended.
        let _ = self.0.send(message.payload.clone());
    }
}

fn main() {
    let address = peer("MQTT");
    trial::client("symqtt", 500, move |middle| {
        let name = format!("client-{}", CLIENTS.fetch_add(1, Ordering::Relaxed));
        let options = ConnectOptions {
            client_id: name.clone(),
            clean_session: true,
            keep_alive: LONG,
            will: None,
            username: None,
            password: None,
            connect_timeout: Some(LONG),
            ping_timeout: None,
        };
        let (sender, messages) = channel();
        let transport = TcpTransport::builder(&address).connect()?;
        let client = Client::connect(options, Forward(sender), Session::new(), transport)?;
        client.subscribe(&[(&name, QoS::AtLeastOnce)], None)?.wait_timeout(LONG)?;
        // A broker has nothing that takes its time.
        thread::sleep(DELAY);
        middle();
        let message = PublishMessage::new(&name, Bytes::from(name.clone())).qos(QoS::AtLeastOnce);
        if let Some(token) = client.publish(&message)? {
            token.wait_timeout(LONG)?;
        }
        expect(messages.recv()?, Bytes::from(name))?;
        let _ = client.disconnect(Some(LONG));
        Ok(())
    });
}
