//! minreq, an HTTP client, against a server in Python.

use trial::{expect, peer};

fn main() {
    let url = format!("http://{}/", peer("HTTP"));
    trial::client("minreq", 1000, move |middle| {
        let answer = minreq::get(&url).with_timeout(60).send()?;
        middle();
        expect(answer.as_str()?, "plainsong")
    });
}
