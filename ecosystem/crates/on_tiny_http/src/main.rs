//! tiny_http, an HTTP server with a thread for each request, against curl.

use std::thread;

use tiny_http::{Response, Server};

fn main() {
    trial::http_server("tiny_http", || {
        let server = Server::http("127.0.0.1:0")?;
        let address = server.server_addr();
        thread::spawn(move || {
            for request in server.incoming_requests() {
                thread::spawn(move || {
                    if request.url() == "/panic" {
                        std::panic::panic_any(trial::Planned);
                    }
                    thread::sleep(trial::DELAY);
                    // The client may have left.
                    let _ = request.respond(Response::from_string("plainsong"));
                });
            }
        });
        Ok(format!("http://{address}/"))
    });
}
