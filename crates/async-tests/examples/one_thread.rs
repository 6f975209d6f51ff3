//! One program on one thread: axum on plainsong's sockets, and in its coroutines PostgreSQL by sqlx
//! and by tokio-postgres, redis, and reqwest, which calls this program itself.
//!
//! ```text
//! export PLAINSONG_POSTGRES=postgres://postgres@127.0.0.1:5432/postgres
//! export PLAINSONG_REDIS=redis://127.0.0.1:6379
//! cargo run --release -p async-tests --example one_thread 127.0.0.1:8080
//! curl http://127.0.0.1:8080/all
//! ```

use std::env;
use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use plainsong::net::TcpListener;
use plainsong_compat::{Async, hyper::Timer};
use plainsong_tokio::block_on;
use tower_service::Service;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The clients of the services, which all requests share.
#[derive(Clone)]
struct Services {
    here: SocketAddr,
    http: reqwest::Client,
    sqlx: sqlx::PgPool,
    redis: redis::aio::MultiplexedConnection,
}

impl Services {
    /// Connects to all services. A plain function, which waits as one.
    fn connect(here: SocketAddr) -> Result<Self> {
        let sqlx = block_on(sqlx::PgPool::connect(&env::var("PLAINSONG_POSTGRES")?))?;
        let redis = redis::Client::open(env::var("PLAINSONG_REDIS")?)?;
        let redis = block_on(redis.get_multiplexed_async_connection())?;
        Ok(Self { here, http: reqwest::Client::new(), sqlx, redis })
    }

    /// Asks all services, one after the other.
    fn ask_all(&self) -> Result<String> {
        let sum: i64 = block_on(sqlx::query_scalar("SELECT 40::int8 + 2").fetch_one(&self.sqlx))?;
        let mut redis = self.redis.clone();
        let visits: i64 = block_on(redis::cmd("INCR").arg("visits").query_async(&mut redis))?;
        let url = format!("http://{}/", self.here);
        let page = block_on(async { self.http.get(url).send().await?.text().await })?;
        let row = tokio_postgres()?;
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        let page = page.trim_end();
        Ok(format!("{sum} {row} {} {page} threads={threads}\n", visits > 0))
    }
}

/// A connection of its own, whose task tokio runs on this thread.
fn tokio_postgres() -> Result<i32> {
    let config = env::var("PLAINSONG_POSTGRES")?;
    let (client, connection) = block_on(tokio_postgres::connect(&config, tokio_postgres::NoTls))?;
    tokio::task::spawn_local(connection);
    Ok(block_on(client.query_one("SELECT 7", &[]))?.get(0))
}

fn main() -> Result<()> {
    plainsong_tokio::run(|| {
        let listener = TcpListener::bind(async_tests::address())?;
        let here = listener.local_addr()?;
        let services = Services::connect(here)?;
        println!("listening on {here}");
        let router = Router::new().route("/", get(|| async { "plainsong\n" })).route(
            "/all",
            get(move || {
                // The handler is a future, and its work a coroutine of this thread.
                let services = services.clone();
                let work = plainsong::spawn(move || services.ask_all());
                async move {
                    match work.await {
                        Ok(Ok(text)) => text,
                        Ok(Err(error)) => format!("error: {error}\n"),
                        Err(error) => format!("error: {error}\n"),
                    }
                }
            }),
        );
        listener.serve(move |stream| {
            let service = service_fn(|request| router.clone().call(request));
            let mut server = http1::Builder::new();
            server.timer(Timer);
            block_on(server.serve_connection(Async::new(stream), service))
        })?;
        Ok(())
    })?
}
