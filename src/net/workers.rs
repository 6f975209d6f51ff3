//! A server on all workers of a runtime.

use std::io;

use super::addr::ToSocketAddrs;
use super::listener::Listener;
use super::serve::{Outcome, Server};
use super::tcp::{TcpListener, TcpStream};
use crate::Runtime;
use crate::task::scope;

impl Runtime {
    /// Listens on `addr` on all workers, and runs the handler that each makes with `factory` for its
    /// own connections. Runs this runtime for that, and serves for ever; [`Server::serve_on`] is
    /// the same with a listener that is there already, and can be stopped.
    ///
    /// A connection stays on the worker that has accepted it, so what a handler shares with the others of
    /// its worker need not be `Send`.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`], a port that somebody else has being one; later, one that says that a
    /// listener is broken.
    ///
    /// # Panics
    ///
    /// As [`Runtime::run`], and when `factory` does.
    ///
    /// ```no_run
    /// use std::{cell::Cell, io, rc::Rc};
    ///
    /// fn main() -> io::Result<()> {
    ///     let runtime = plainsong::Runtime::builder().workers(4).build()?;
    ///     runtime.serve("127.0.0.1:4915", || {
    ///         let count = Rc::new(Cell::new(0)); // of this worker's connections
    ///         move |conn| {
    ///             count.set(count.get() + 1);
    ///             io::copy(&mut &conn, &mut &conn)
    ///         }
    ///     })
    /// }
    /// ```
    pub fn serve<A, M, F, R>(&self, addr: A, factory: M) -> io::Result<()>
    where
        A: ToSocketAddrs,
        M: Fn() -> F + Send + Sync,
        F: Fn(TcpStream) -> R + 'static,
        R: Outcome,
    {
        Server::new(TcpListener::bind(addr)?).serve_on(self, factory)
    }
}

impl<L: Listener + Send> Server<L> {
    /// Serves as [`serve`](Self::serve) does, on all workers of `runtime`, which it runs for that.
    /// `factory` is called on each, and makes the handler of its connections.
    ///
    /// Each worker has a TCP listener of its own on the same port, where the system has `SO_REUSEPORT`: the
    /// kernel shares the connections out among them. They have the first one's TTL and are for IPv6 only if
    /// that is, and have no other options of it. Otherwise, and with Unix sockets, all accept from one.
    /// When the server is stopped, each accepts what is queued for it.
    ///
    /// # Errors
    ///
    /// One that says that a listener is broken; then all workers stop.
    ///
    /// # Panics
    ///
    /// As [`Runtime::run`], and when `factory` does.
    ///
    /// ```
    /// use plainsong::net::{Server, TcpListener};
    /// use plainsong::{CancellationToken, Runtime};
    /// use std::io;
    ///
    /// # fn main() -> io::Result<()> {
    /// let runtime = Runtime::builder().workers(2).build()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stop = CancellationToken::new();
    /// # stop.cancel();
    /// Server::new(listener)
    ///     .stop_with(&stop)
    ///     .serve_on(&runtime, || |conn| io::copy(&mut &conn, &mut &conn))
    /// # }
    /// ```
    pub fn serve_on<M, F, R>(self, runtime: &Runtime, factory: M) -> io::Result<()>
    where
        M: Fn() -> F + Send + Sync,
        F: Fn(L::Stream) -> R + 'static,
        R: Outcome,
    {
        let (first, stop) = self.on_one_worker();
        let others: io::Result<Vec<_>> = (1..runtime.workers()).map(|_| first.sibling()).collect();
        let others = others?;
        let serve = |server: Self| {
            let result = server.serve(factory());
            if result.is_err() {
                stop.cancel();
            }
            result
        };
        runtime.run(|| {
            scope(|s| {
                let start = |(number, server)| s.spawn_on(number, || serve(server));
                let others: Vec<_> = (1..).zip(others).map(start).collect();
                let first = serve(first);
                // One that has panicked has its panic resumed by the scope.
                others
                    .into_iter()
                    .filter_map(|other| other.join().ok())
                    .fold(first, io::Result::and)
            })
        })
    }
}
