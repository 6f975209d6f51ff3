//! Async crates on plainsong's sockets, and in guest mode: tests beside the programs in `examples`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use async_tests::greeter::{Client, Greeter};
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, client};
use plainsong::net::{TcpListener, TcpStream};
use plainsong_compat::Async;
use plainsong_compat::hyper::{Executor, Timer};
use tonic::Code;
use tonic::service::Routes;
use tower_service::Service;

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    Ok(Response::new(request.into_body()))
}

/// Serves each connection in a coroutine of its own, and returns the address.
fn serve(handler: impl Fn(TcpStream) + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    plainsong::spawn(move || {
        for stream in listener.incoming() {
            let (stream, handler) = (stream.unwrap(), handler.clone());
            plainsong::spawn(move || handler(stream));
        }
    });
    address
}

fn body(len: usize) -> Bytes {
    (0..len).map(|n| n as u8).collect()
}

fn request(body: Bytes) -> Request<Full<Bytes>> {
    Request::post("http://plainsong/").body(Full::new(body)).unwrap()
}

#[test]
fn hyper_serves_and_asks_over_http1() {
    plainsong::run(|| {
        let address = serve(|stream| {
            let mut server = http1::Builder::new();
            server.timer(Timer).header_read_timeout(HOUR);
            let _ =
                plainsong::block_on(server.serve_connection(Async::new(stream), service_fn(echo)));
        });
        plainsong::scope(|s| {
            for n in 0..10 {
                s.spawn(move || {
                    let stream = Async::new(TcpStream::connect(address).unwrap());
                    let handshake = client::conn::http1::handshake(stream);
                    let (mut client, connection) = plainsong::block_on(handshake).unwrap();
                    let connection = plainsong::spawn(|| plainsong::block_on(connection));
                    for len in [0, 1, 1000, 300_000 * n] {
                        let sent = body(len);
                        let answer = client.send_request(request(sent.clone()));
                        let answer = plainsong::block_on(answer).unwrap();
                        let got = plainsong::block_on(answer.collect()).unwrap().to_bytes();
                        assert!(got == sent, "{len} bytes");
                    }
                    drop(client);
                    connection.join().unwrap().unwrap();
                });
            }
        });
    });
}

#[test]
fn hyper_serves_and_asks_over_http2() {
    plainsong::run(|| {
        let address = serve(|stream| {
            let mut server = http2::Builder::new(Executor);
            server.timer(Timer).keep_alive_interval(HOUR);
            let _ =
                plainsong::block_on(server.serve_connection(Async::new(stream), service_fn(echo)));
        });
        let stream = Async::new(TcpStream::connect(address).unwrap());
        let handshake = client::conn::http2::handshake(Executor, stream);
        let (client, connection) = plainsong::block_on(handshake).unwrap();
        plainsong::spawn(|| plainsong::block_on(connection));
        plainsong::scope(|s| {
            for n in 0..20 {
                let mut client = client.clone();
                s.spawn(move || {
                    let sent = body(100_000 * n);
                    let answer = client.send_request(request(sent.clone()));
                    let answer = plainsong::block_on(answer).unwrap();
                    let got = plainsong::block_on(answer.collect()).unwrap().to_bytes();
                    assert!(got == sent, "{n}");
                });
            }
        });
    });
}

#[test]
fn hypers_timer_ends_a_slow_request() {
    plainsong::run(|| {
        let ended = Rc::new(RefCell::new(None));
        let theirs = ended.clone();
        let address = serve(move |stream| {
            let mut server = http1::Builder::new();
            server.timer(Timer).header_read_timeout(MOMENT);
            let service = service_fn(echo);
            let result = plainsong::block_on(server.serve_connection(Async::new(stream), service));
            *theirs.borrow_mut() = Some(result.unwrap_err().is_timeout());
        });
        let mut stream = TcpStream::connect(address).unwrap();
        use std::io::{Read, Write};
        stream.write_all(b"GET / HT").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        while ended.borrow().is_none() {
            plainsong::time::sleep(MOMENT);
        }
        assert_eq!(ended.take(), Some(true));
    });
}

fn axum(router: Router) -> SocketAddr {
    serve(move |stream| {
        let service = service_fn(|request| router.clone().call(request));
        let server = http1::Builder::new();
        let _ = plainsong::block_on(server.serve_connection(Async::new(stream), service));
    })
}

#[test]
fn reqwest_asks_axum_on_the_same_thread() {
    plainsong_tokio::run(|| {
        let here = std::thread::current().id();
        let router = Router::new().route(
            "/",
            get(move || async move {
                plainsong::time::Sleep::new(MOMENT).await;
                tokio::time::sleep(MOMENT).await;
                assert_eq!(std::thread::current().id(), here);
                "hello"
            }),
        );
        let url = format!("http://{}/", axum(router));
        let client = reqwest::Client::new();
        plainsong::scope(|s| {
            for _ in 0..50 {
                s.spawn(|| {
                    for _ in 0..2 {
                        let answer = plainsong_tokio::block_on(client.get(&url).send()).unwrap();
                        assert_eq!(plainsong_tokio::block_on(answer.text()).unwrap(), "hello");
                    }
                });
            }
        });
    })
    .unwrap();
}

#[test]
fn tonic_serves_and_asks_on_the_same_thread() {
    plainsong_tokio::run(|| {
        let routes = Routes::new(Greeter).prepare();
        let address = serve(move |stream| {
            let service = service_fn(|request| routes.clone().call(request));
            let server = http2::Builder::new(Executor);
            let _ = plainsong::block_on(server.serve_connection(Async::new(stream), service));
        });
        let client = Client::connect(address).unwrap();
        plainsong::scope(|s| {
            for n in 0..20 {
                let mut client = client.clone();
                s.spawn(move || {
                    let name = format!("client {n}");
                    assert_eq!(client.greet(&name).unwrap(), format!("hello, {name}"));
                    let numbers: Result<Vec<_>, _> = client.count(100 * n).unwrap().collect();
                    assert_eq!(numbers.unwrap().len() as u64, 100 * n);
                });
            }
        });
        let mut client = client;
        assert_eq!(client.greet("").unwrap_err().code(), Code::InvalidArgument);
        // A call that is given up, in a stream without end. The server's coroutine ends too.
        let coroutines = || plainsong::inspect::dump().coroutines().count();
        let before = coroutines();
        let timed = plainsong::time::timeout(20 * MOMENT, || {
            client.count(u64::MAX).unwrap().for_each(|number| drop(number.unwrap()));
        });
        assert!(timed.is_err());
        while coroutines() > before {
            plainsong::time::sleep(MOMENT);
        }
        assert_eq!(client.greet("you").unwrap(), "hello, you");
    })
    .unwrap();
}

#[test]
fn a_cancelled_request_of_reqwest_closes_its_connection() {
    plainsong_tokio::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        for _ in 0..10 {
            let url = url.clone();
            let asking = plainsong::spawn(move || {
                plainsong_tokio::block_on(reqwest::Client::new().get(url).send()).map(drop)
            });
            let (mut stream, _) = listener.accept().unwrap();
            use std::io::Read;
            assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            // It waits for an answer that never comes.
            asking.cancel();
            assert!(asking.join().unwrap_err().is_cancelled());
            assert_eq!(stream.read(&mut [0; 1000]).unwrap_or(0), 0);
        }
    })
    .unwrap();
}

/// Guards that are held across the waits of two coroutines would be dropped out of order.
#[test]
fn coroutines_wait_in_turn_for_futures_that_need_tokio_around_them() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let tokio = builder.worker_threads(1).enable_all().build().unwrap();
    plainsong::run(|| {
        let sleepers = [3, 1, 2].map(|moments| {
            let handle = tokio.handle().clone();
            plainsong::spawn(move || {
                let slept = async move {
                    tokio::time::sleep(moments * MOMENT).await;
                    tokio::spawn(async move { moments }).await.unwrap()
                };
                plainsong::block_on_with(|| handle.enter(), slept)
            })
        });
        assert_eq!(sleepers.map(|sleeper| sleeper.join().unwrap()), [3, 1, 2]);
    });
}
