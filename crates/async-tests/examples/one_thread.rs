//! One program on one thread: axum on plainsong's sockets, and in its coroutines PostgreSQL by sqlx
//! and by tokio-postgres, redis with and without futures, and reqwest, which calls this program
//! itself.
//!
//! ```text
//! export PLAINSONG_POSTGRES=postgres://postgres@127.0.0.1:5432/postgres
//! export PLAINSONG_REDIS=127.0.0.1:6379
//! cargo run --release -p async-tests --example one_thread 127.0.0.1:8080
//! curl http://127.0.0.1:8080/all
//! curl http://127.0.0.1:8080/parked
//! ```

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tests::redis_sync;
use axum::Router;
use axum::routing::{MethodRouter, get};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use plainsong::inspect::{self, State};
use plainsong::net::TcpListener;
use plainsong::sync::Event;
use plainsong_compat::{Async, hyper::Timer};
use plainsong_tokio::block_on;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Commands};
use tower_service::Service;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Waits for the lock of `Services::park_in_all`.
const LOCK: &str = "SELECT pg_advisory_lock(1)";
const UNLOCK: &str = "SELECT pg_advisory_unlock_all()";
const WAITERS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

type Wait = fn(&Services) -> Result<()>;

/// The names of coroutines that wait in a service, and what they do.
const WAITS: [(&str, Wait); 5] = [
    ("redis", Services::wait_in_redis),
    ("redis-sync", Services::wait_in_redis_sync),
    ("reqwest", Services::wait_here),
    ("sqlx", Services::wait_in_sqlx),
    ("tokio-postgres", Services::wait_in_tokio_postgres),
];

/// The clients of the services, which all requests share.
#[derive(Clone)]
struct Services {
    here: SocketAddr,
    /// The page `/gate` is answered when this is set.
    gate: Arc<Event>,
    http: reqwest::Client,
    sqlx: sqlx::PgPool,
    redis: MultiplexedConnection,
}

impl Services {
    /// Connects to all services. A plain function, which waits as one.
    fn connect(here: SocketAddr) -> Result<Self> {
        let sqlx = block_on(sqlx::PgPool::connect(&env::var("PLAINSONG_POSTGRES")?))?;
        let (gate, http) = (Arc::default(), reqwest::Client::new());
        Ok(Self { here, gate, http, sqlx, redis: redis()? })
    }

    /// Asks all services, one after the other.
    fn ask_all(&self) -> Result<String> {
        let sum: i64 = block_on(sqlx::query_scalar("SELECT 40::int8 + 2").fetch_one(&self.sqlx))?;
        let mut redis = self.redis.clone();
        let visits: i64 = block_on(redis::cmd("INCR").arg("visits").query_async(&mut redis))?;
        let seen: i64 = redis_sync()?.get("visits")?;
        let page = self.get("")?;
        let row: i32 = block_on(tokio_postgres()?.query_one("SELECT 7", &[]))?.get(0);
        let (page, counted) = (page.trim_end(), (1..=seen).contains(&visits));
        Ok(format!("{sum} {row} {counted} {page} threads={}\n", threads()?))
    }

    /// Gets a page of this program.
    fn get(&self, path: &str) -> Result<String> {
        let url = format!("http://{}/{path}", self.here);
        Ok(block_on(async { self.http.get(url).send().await?.text().await })?)
    }

    /// Has a coroutine wait in each of the services at the same time, and lists those that are seen
    /// parked. Only one call at a time.
    fn park_in_all(&self) -> Result<String> {
        let mut holder = block_on(self.sqlx.acquire())?;
        block_on(sqlx::query(LOCK).execute(&mut *holder))?;
        self.gate.clear();
        plainsong::scope(|s| {
            let waiting = WAITS.map(|(name, wait)| {
                plainsong::Builder::new().name(name).spawn_scoped(s, move || wait(self))
            });
            let seen = self.see_parked();
            self.gate.set();
            block_on(sqlx::query(UNLOCK).execute(&mut *holder))?;
            redis_sync()?.rpush::<_, _, ()>("list", &[1, 2])?;
            for coroutine in waiting {
                coroutine?.join()??;
            }
            seen
        })
    }

    /// Waits until each service has its waiters, and looks at the coroutines.
    fn see_parked(&self) -> Result<String> {
        let mut redis = redis_sync()?;
        loop {
            let waiters: i64 = block_on(sqlx::query_scalar(WAITERS).fetch_one(&self.sqlx))?;
            let clients: String = redis::cmd("INFO").arg("clients").query(&mut redis)?;
            let dump = inspect::dump();
            let parked = dump.coroutines().filter(|coroutine| coroutine.state == State::Parked);
            let mut names: Vec<_> = parked.filter_map(|coroutine| coroutine.name.clone()).collect();
            // The coroutine behind the page `/gate` is one more.
            names.retain(|name| **name == *"axum" || WAITS.iter().any(|wait| *wait.0 == **name));
            if waiters == 2 && clients.contains("blocked_clients:2") && names.len() > WAITS.len() {
                names.sort();
                return Ok(format!("{} threads={}\n", names.join(" "), threads()?));
            }
            plainsong::time::sleep(Duration::from_millis(1));
        }
    }

    fn wait_in_redis(&self) -> Result<()> {
        Ok(block_on(redis::cmd("BLPOP").arg("list").arg(0).exec_async(&mut redis()?))?)
    }

    fn wait_in_redis_sync(&self) -> Result<()> {
        Ok(redis::cmd("BLPOP").arg("list").arg(0).exec(&mut redis_sync()?)?)
    }

    fn wait_here(&self) -> Result<()> {
        self.get("gate").map(drop)
    }

    fn wait_in_sqlx(&self) -> Result<()> {
        let mut connection = block_on(self.sqlx.acquire())?;
        block_on(sqlx::query(LOCK).execute(&mut *connection))?;
        block_on(sqlx::query(UNLOCK).execute(&mut *connection))?;
        Ok(())
    }

    fn wait_in_tokio_postgres(&self) -> Result<()> {
        // The end of its connection unlocks it.
        Ok(block_on(tokio_postgres()?.batch_execute(LOCK))?)
    }
}

fn redis() -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{}", env::var("PLAINSONG_REDIS")?))?;
    // BLPOP takes as long as it takes.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(block_on(client.get_multiplexed_async_connection_with_config(&config))?)
}

fn redis_sync() -> Result<redis_sync::Connection> {
    Ok(redis_sync::Connection::connect(env::var("PLAINSONG_REDIS")?.parse()?)?)
}

/// A connection of its own, whose task tokio runs on this thread.
fn tokio_postgres() -> Result<tokio_postgres::Client> {
    let config = env::var("PLAINSONG_POSTGRES")?;
    let (client, connection) = block_on(tokio_postgres::connect(&config, tokio_postgres::NoTls))?;
    tokio::task::spawn_local(connection);
    Ok(client)
}

/// How many threads this process has.
fn threads() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// A page whose text comes from a coroutine of its own: the handler is a future, and its work is
/// not.
fn page(
    name: &'static str,
    services: &Services,
    text: fn(&Services) -> Result<String>,
) -> MethodRouter {
    let services = services.clone();
    get(move || async move {
        let work = plainsong::Builder::new().name(name).spawn(move || text(&services));
        match async { work?.await? }.await {
            Ok(text) => text,
            Err(error) => format!("error: {error}\n"),
        }
    })
}

fn main() -> Result<()> {
    plainsong_tokio::run(|| {
        let listener = TcpListener::bind(async_tests::address())?;
        let here = listener.local_addr()?;
        let services = Services::connect(here)?;
        println!("listening on {here}");
        let router = Router::new()
            .route("/", get(|| async { "plainsong\n" }))
            .route("/all", page("all", &services, Services::ask_all))
            .route("/parked", page("parked", &services, Services::park_in_all))
            .route(
                "/gate",
                page("axum", &services, |services| {
                    services.gate.wait();
                    Ok(String::new())
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
