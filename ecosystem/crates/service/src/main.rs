//! The program of docs/porting.md, against redis-server, a server in Python and curl.

mod program;

use trial::peer;

fn main() {
    trial::http_server("service", || {
        let redis = format!("redis://{}", peer("REDIS"));
        let backend = format!("http://{}/", peer("HTTP"));
        Ok(format!("http://{}/", program::start("127.0.0.1:0", &redis, &backend)?))
    });
}
