//! redis, a client, against redis-server.

use trial::{expect, peer};

fn main() {
    let client = redis::Client::open(format!("redis://{}", peer("REDIS"))).expect("a URL");
    trial::client("redis", 1000, move |middle| {
        let mut connection = client.get_connection()?;
        // Nobody pushes, so the server answers after this time.
        let pushed: Option<(String, String)> =
            redis::cmd("BLPOP").arg("nothing").arg(0.1).query(&mut connection)?;
        expect(pushed, None)?;
        middle();
        expect(redis::cmd("PING").query::<String>(&mut connection)?, "PONG".into())
    });
}
