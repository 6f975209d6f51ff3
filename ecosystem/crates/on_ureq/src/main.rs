//! ureq, an HTTP client with a pool of connections, against a server in Python.

use trial::{expect, peer};

fn main() {
    let url = format!("http://{}/", peer("HTTP"));
    let agent = ureq::Agent::new_with_defaults();
    trial::client("ureq", 1000, move |middle| {
        let mut answer = agent.get(&url).call()?;
        middle();
        expect(answer.body_mut().read_to_string()?, "plainsong".into())
    });
}
