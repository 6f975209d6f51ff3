//! HTTP by hyper on tokio's current-thread runtime, as in hyper's own single-threaded example.
//! Replies to pipelined requests are sent together, which is an option of hyper.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::MESSAGE;
use crate::load::TEXT;

/// Serves each client in a task; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (conn, _) = listener.accept().await?;
            conn.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let service = service_fn(answer);
                let mut http = http1::Builder::new();
                let served =
                    http.pipeline_flush(true).serve_connection(TokioIo::new(conn), service);
                if let Err(error) = served.await {
                    super::report(&io::Error::other(error));
                }
            });
        }
    })
}

pub(super) async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match request.uri().path() {
        "/plaintext" => page("text/plain", Bytes::from_static(TEXT.as_bytes())),
        "/json" => {
            page("application/json", serde_json::to_vec(&MESSAGE).unwrap_or_default().into())
        }
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn page(kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
