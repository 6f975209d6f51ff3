//! A gRPC service on tonic, and a client for it. A code generator would write most of this, from:
//!
//! ```text
//! package plainsong;
//!
//! message Text { string text = 1; }
//!
//! service Greeter {
//!     rpc Greet(Text) returns (Text);
//!     rpc Count(Text) returns (stream Text);
//! }
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use plainsong::sync::channel;
use plainsong_tokio::block_on;
use tonic::body::Body;
use tonic::client;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{self, NamedService};
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

const GREET: &str = "/plainsong.Greeter/Greet";
const COUNT: &str = "/plainsong.Greeter/Count";

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// Greets by name. This and the next function are the service, written as coroutines.
fn greet(name: &str) -> Result<String, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("the name is empty"));
    }
    Ok(format!("hello, {name}"))
}

/// Sends the numbers below `end`, until the client has gone.
fn count(end: u64, numbers: &channel::Sender<u64>) {
    let _ = (0..end).try_for_each(|number| numbers.send(number));
}

/// The service.
#[derive(Clone, Debug)]
pub struct Greeter;

impl NamedService for Greeter {
    const NAME: &'static str = "plainsong.Greeter";
}

impl Service<http::Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::default());
            Ok(match request.uri().path() {
                GREET => grpc.unary(service_fn(serve_greet), request).await,
                COUNT => grpc.server_streaming(service_fn(serve_count), request).await,
                _ => Status::unimplemented("there are Greet and Count").into_http(),
            })
        })
    }
}

async fn serve_greet(request: Request<Text>) -> Result<Response<Text>, Status> {
    let work = plainsong::spawn(move || greet(&request.into_inner().text));
    let text = work.await.map_err(|error| Status::internal(error.to_string()))??;
    Ok(Response::new(Text { text }))
}

type Numbers = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

async fn serve_count(request: Request<Text>) -> Result<Response<Numbers>, Status> {
    let end = request.into_inner().text.parse();
    let end = end.map_err(|error| Status::invalid_argument(format!("not a number: {error}")))?;
    let (sender, receiver) = channel::bounded(16);
    plainsong::spawn(move || count(end, &sender));
    Ok(Response::new(Box::pin(stream::unfold(receiver, async |receiver| {
        let text = (&receiver).await.ok()?.to_string();
        Some((Ok(Text { text }), receiver))
    }))))
}

/// A client for coroutines: its calls are plain functions.
#[derive(Clone, Debug)]
pub struct Client(client::Grpc<Channel>);

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// When it cannot be reached.
    ///
    /// # Cancellation
    ///
    /// Unwinds while it waits.
    pub fn connect(address: SocketAddr) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(Self(client::Grpc::new(block_on(endpoint.connect())?)))
    }

    /// A greeting.
    ///
    /// # Errors
    ///
    /// When the name is empty, and those of the connection.
    ///
    /// # Cancellation
    ///
    /// Unwinds while it waits. The server is told.
    pub fn greet(&mut self, name: &str) -> Result<String, Status> {
        let request = Request::new(Text { text: name.to_owned() });
        let path = PathAndQuery::from_static(GREET);
        let answer = block_on(async {
            self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            self.0.unary(request, path, ProstCodec::<_, Text>::default()).await
        });
        Ok(answer?.into_inner().text)
    }

    /// The numbers below `end`, as they come.
    ///
    /// # Errors
    ///
    /// Those of the connection, also instead of a number.
    ///
    /// # Cancellation
    ///
    /// Unwinds while it waits, here and for each number. The server is told.
    pub fn count(
        &mut self,
        end: u64,
    ) -> Result<impl Iterator<Item = Result<String, Status>> + use<>, Status> {
        let request = Request::new(Text { text: end.to_string() });
        let path = PathAndQuery::from_static(COUNT);
        let mut numbers: Streaming<Text> = block_on(async {
            self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            self.0.server_streaming(request, path, ProstCodec::default()).await
        })?
        .into_inner();
        let next = move || block_on(numbers.message()).transpose();
        Ok(std::iter::from_fn(next).map(|number| Ok(number?.text)))
    }
}
