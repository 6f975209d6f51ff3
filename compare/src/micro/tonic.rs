//! `tonic`: unary calls of tonic over loopback. The server and the callers share a thread.
//!
//! The server is a task of tokio in either arm. The callers are tasks, or coroutines on a thread
//! that also runs tokio.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::{Result, ensure};
use plainsong_tokio::block_on;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{self, NamedService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::line::ns_each;
use super::{Bench, Peer, Sample, no_arm};

const TEXT: &str = "a text of some length, as a name or an address has";

/// Makes `work` calls in all, `callers` at a time.
pub(super) fn sample(peer: Peer, callers: usize, work: usize) -> Result<Sample> {
    let each = (work / callers).max(1);
    match peer {
        Peer::Tokio => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = start().await?;
                tasks(&client, callers, each / 10).await?;
                let began = Instant::now();
                tasks(&client, callers, each).await?;
                Ok(vec![Some(ns_each(began.elapsed(), callers * each))])
            })
        }
        Peer::Guest => plainsong_tokio::run(|| {
            let client = block_on(start())?;
            coroutines(&client, callers, each / 10)?;
            let began = Instant::now();
            coroutines(&client, callers, each)?;
            Ok(vec![Some(ns_each(began.elapsed(), callers * each))])
        })?,
        _ => Err(no_arm(Bench::Tonic, peer)),
    }
}

async fn tasks(client: &client::Grpc<Channel>, callers: usize, each: usize) -> Result<()> {
    let caller = |_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for _ in 0..each {
                call(&mut client).await?;
            }
            anyhow::Ok(())
        })
    };
    for task in (0..callers).map(caller).collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

fn coroutines(client: &client::Grpc<Channel>, callers: usize, each: usize) -> Result<()> {
    let caller = |_| {
        let mut client = client.clone();
        plainsong::spawn(move || (0..each).try_for_each(|_| block_on(call(&mut client))))
    };
    for coroutine in (0..callers).map(caller).collect::<Vec<_>>() {
        coroutine.join()??;
    }
    Ok(())
}

async fn call(client: &mut client::Grpc<Channel>) -> Result<()> {
    client.ready().await?;
    let path = PathAndQuery::from_static("/compare.Echo/Echo");
    let codec = ProstCodec::<String, String>::default();
    let answer = client.unary(Request::new(TEXT.to_owned()), path, codec).await?;
    ensure!(answer.get_ref() == TEXT, "the server sent something else");
    Ok(())
}

/// Starts a server in a task, and connects to it.
async fn start() -> Result<client::Grpc<Channel>> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(Echo).serve_with_incoming(incoming));
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    Ok(client::Grpc::new(channel))
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "compare.Echo";
}

impl Service<HttpRequest<Body>> for Echo {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async {
            let mut grpc = server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(service_fn(echo), request).await)
        })
    }
}

async fn echo(request: Request<String>) -> Result<Response<String>, Status> {
    Ok(Response::new(request.into_inner()))
}
