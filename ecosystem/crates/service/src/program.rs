//! A web service with a thread for each request: it counts visits in redis and fetches a page from
//! a server behind it. It knows std, tiny_http, redis and ureq, and nothing of plainsong.

use std::error::Error;
use std::sync::Arc;
use std::thread;

use redis::Commands;
use tiny_http::{Request, Response, Server};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

struct Service {
    redis: redis::Client,
    http: ureq::Agent,
    backend: String,
}

/// Serves at an address, and returns it.
pub fn start(address: &str, redis: &str, backend: &str) -> Outcome<String> {
    let service = Arc::new(Service {
        redis: redis::Client::open(redis)?,
        http: ureq::Agent::new_with_defaults(),
        backend: backend.to_owned(),
    });
    let server = Server::http(address)?;
    let address = server.server_addr().to_string();
    thread::spawn(move || {
        for request in server.incoming_requests() {
            let service = service.clone();
            thread::spawn(move || service.answer(request));
        }
    });
    Ok(address)
}

impl Service {
    fn answer(&self, request: Request) {
        let response = match self.page() {
            Ok(page) => Response::from_string(page),
            Err(error) => Response::from_string(error.to_string()).with_status_code(502),
        };
        // The client may have left.
        let _ = request.respond(response);
    }

    fn page(&self) -> Outcome<String> {
        let visits: u64 = self.redis.get_connection()?.incr("visits", 1)?;
        let page = self.http.get(&self.backend).call()?.body_mut().read_to_string()?;
        Ok(format!("visit {visits}: {page}\n"))
    }
}
