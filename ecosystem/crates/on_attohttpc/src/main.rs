//! attohttpc, an HTTP client, against a server in Python.

use trial::{expect, peer};

fn main() {
    let url = format!("http://{}/", peer("HTTP"));
    trial::client("attohttpc", 1000, move |middle| {
        let answer = attohttpc::get(&url).send()?;
        middle();
        expect(answer.text()?, "plainsong".into())
    });
}
