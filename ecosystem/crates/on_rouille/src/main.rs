//! rouille, a web framework on tiny_http, against curl.

use std::thread;

use rouille::{Response, Server};

fn main() {
    trial::http_server("rouille", || {
        let server = Server::new("127.0.0.1:0", |request| {
            if request.url() == "/panic" {
                std::panic::panic_any(trial::Planned);
            }
            thread::sleep(trial::DELAY);
            Response::text("plainsong")
        })?;
        let address = server.server_addr();
        thread::spawn(move || server.run());
        Ok(format!("http://{address}/"))
    });
}
