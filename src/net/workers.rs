//! A server on all workers of a runtime.

use std::io;

use super::addr::ToSocketAddrs;
use super::listener::Listener;
use super::serve::{Outcome, Server};
use super::tcp::{TcpListener, TcpStream};
use crate::Runtime;
use crate::task::scope;

impl Runtime {
    /// Listens on `addr` on all workers, and runs the handler that each makes with `factory` for
    /// its own connections. Runs this runtime for that, and serves for ever; [`Server::serve_on`]
    /// takes a listener, and can be stopped.
    ///
    /// A connection stays on the worker that has accepted it, so values that the handlers of one
    /// worker share need not be `Send`.
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`], such as for a port that is in use; later, an error of a
    /// listener itself.
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
    /// On Linux each worker has a TCP listener of its own on the same port (`SO_REUSEPORT`), and
    /// the kernel distributes the connections. Of the first listener's options, the others have its
    /// TTL and its restriction to IPv6. On other systems, and with Unix sockets, all workers accept
    /// from one listener. When the server is stopped, each worker accepts the connections in its
    /// queue.
    ///
    /// # Errors
    ///
    /// An error of a listener itself; then all workers stop.
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
                // The scope resumes the panic of a worker.
                others
                    .into_iter()
                    .filter_map(|other| other.join().ok())
                    .fold(first, io::Result::and)
            })
        })
    }
}
