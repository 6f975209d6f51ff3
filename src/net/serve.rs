//! A server: one coroutine a connection.

use std::fmt::{self, Display};
use std::io;
use std::panic::{self, AssertUnwindSafe, Location};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::accept::{Limit, Slot, Until, accept_until};
use super::addr::ToSocketAddrs;
use super::listener::Listener;
use super::log::{Log, write_line};
use super::tcp::{TcpListener, TcpStream};
use super::unix::{UnixListener, UnixStream};
use crate::engine::context;
use crate::engine::park;
use crate::engine::spawn::{self, Spec};
use crate::engine::stack::Stack;
use crate::task::{CancellationToken, Group};

/// The result of a connection's handler: `()`, or any [`Result`] whose error can be displayed, such
/// as an [`io::Result`] or one with a `Box<dyn Error>`. A handler that never returns is fine too.
///
/// An error is the connection's own: it goes to [`Server::on_error`].
#[diagnostic::on_unimplemented(
    message = "the handler of a connection cannot return `{Self}`",
    label = "this handler returns `{Self}`",
    note = "return `()`, or a `Result` whose error implements `Display`"
)]
pub trait Outcome {
    /// Calls `f` with the error, if this is one.
    #[doc(hidden)]
    fn on_error(self, f: impl FnOnce(&dyn Display));
}

impl Outcome for () {
    fn on_error(self, _: impl FnOnce(&dyn Display)) {}
}

impl<T, E: Display> Outcome for Result<T, E> {
    fn on_error(self, f: impl FnOnce(&dyn Display)) {
        if let Err(error) = self {
            f(&error);
        }
    }
}

// A handler that never returns. Stable Rust has no name for `!`, except as the result of a
// function.
impl Outcome for <fn() -> ! as Returns>::Type {
    fn on_error(self, _: impl FnOnce(&dyn Display)) {}
}

/// A name for the result of a function.
#[doc(hidden)]
pub trait Returns {
    /// The result.
    type Type;
}

impl<R> Returns for fn() -> R {
    type Type = R;
}

/// Listens on `addr` and calls `handler` with each connection, in a coroutine of its own.
///
/// The connection closes when its handler returns or panics. A panic or an error concerns only its
/// own connection; errors are reported as [`Server::on_error`] describes. On a lack of descriptors
/// or memory the server pauses and goes on later, and connections wait in the kernel's queue
/// meanwhile. The handler need not be `Send`.
///
/// It serves for ever; [`Server`] can be stopped, and has options.
///
/// # Errors
///
/// Those of [`TcpListener::bind`]; later, an error of the listener itself.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled; the handlers go on.
///
/// # Panics
///
/// Outside of a runtime.
///
/// ```no_run
/// fn main() -> std::io::Result<()> {
///     plainsong::run(|| plainsong::net::serve("127.0.0.1:4915", |conn| {
///         std::io::copy(&mut &conn, &mut &conn)
///     }))
/// }
/// ```
#[track_caller]
pub fn serve<A, F, R>(addr: A, handler: F) -> io::Result<()>
where
    A: ToSocketAddrs,
    F: Fn(TcpStream) -> R + 'static,
    R: Outcome,
{
    TcpListener::bind(addr)?.serve(handler)
}

macro_rules! serves {
    ($listener:ident, $stream:ident) => {
        impl $listener {
            /// Calls `handler` with each connection: [`serve`], on this listener.
            ///
            /// # Errors
            ///
            /// An error of the listener itself. Its time-out and its non-blocking mode do not
            /// matter.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled; the handlers go on.
            ///
            /// # Panics
            ///
            /// Outside of a runtime.
            #[track_caller]
            pub fn serve<F, R>(&self, handler: F) -> io::Result<()>
            where
                F: Fn($stream) -> R + 'static,
                R: Outcome,
            {
                serve_on(self, handler)
            }
        }
    };
}

serves!(TcpListener, TcpStream);
serves!(UnixListener, UnixStream);

#[track_caller]
fn serve_on<L, F, R>(listener: &L, handler: F) -> io::Result<()>
where
    L: Listener,
    F: Fn(L::Stream) -> R + 'static,
    R: Outcome,
{
    check_runtime();
    let (spawned, attendant) = (Location::caller(), Rc::new((Common::<L>::default(), handler)));
    let paused = |error: Option<&io::Error>| attendant.0.paused(error);
    accept_until(listener, Until::Never, None, paused, |stack, stream, peer, slot| {
        let attendant = Rc::clone(&attendant);
        let attend = move || attend(&attendant.0, stream, &peer, slot, &attendant.1);
        context::with(|scheduler| {
            scheduler.add(spawn::detached(
                stack,
                scheduler.allocate_id(),
                scheduler.mailbox().thread(),
                Spec::at(spawned),
                attend,
            ));
        });
    })
}

/// A server with options, on TCP or Unix sockets. It can be stopped: it then accepts no more
/// connections, lets its handlers finish for some time, and cancels those that have not by then.
///
/// ```
/// use plainsong::CancellationToken;
/// use plainsong::net::{Server, TcpListener};
/// use std::time::{Duration, Instant};
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let stop = CancellationToken::new();
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let stopper = stop.clone();
///     plainsong::time::after(Duration::from_millis(10), move || stopper.cancel());
///     Server::new(listener)
///         .stop_with(&stop)
///         .grace(Duration::from_secs(30))
///         .max_connections(10_000)
///         .serve(|conn| std::io::copy(&mut &conn, &mut &conn))
/// })
/// # }
/// ```
#[must_use = "a server does nothing until `serve`"]
pub struct Server<L: Listener = TcpListener> {
    listener: L,
    stop: CancellationToken,
    grace: Duration,
    limit: Option<Limit>,
    common: Common<L>,
}

impl<L: Listener> Server<L> {
    /// A server on this listener, with a grace of 30 seconds.
    pub fn new(listener: L) -> Self {
        Self {
            listener,
            stop: CancellationToken::new(),
            grace: Duration::from_secs(30),
            limit: None,
            common: Common::default(),
        }
    }

    /// This server for the first worker of several, and the token that stops it alone.
    pub(super) fn on_one_worker(mut self) -> (Self, CancellationToken) {
        self.stop = self.stop.child_token();
        let stop = self.stop.clone();
        (self, stop)
    }

    /// The same for another worker.
    pub(super) fn sibling(&self) -> io::Result<Self> {
        let listener = self.listener.sibling()?;
        let (stop, common) = (self.stop.clone(), self.common.clone());
        Ok(Self { listener, stop, grace: self.grace, limit: self.limit.clone(), common })
    }

    /// Sets the token whose cancellation stops the server. A handler may look at it too, to
    /// end a connection early that its client would keep open.
    pub fn stop_with(mut self, stop: &CancellationToken) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Sets how long the handlers may take to finish after the stop.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how many connections are served at once, on all workers together. Further connections
    /// wait in the kernel's queue.
    ///
    /// # Panics
    ///
    /// When the number is zero.
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(connections > 0, "a server without connections would serve no client");
        self.limit = Some(Limit::new(connections));
        self
    }

    /// Sets the function that is called with the error of a handler and the address of its client,
    /// after the connection has been closed.
    ///
    /// Without one, a line is written to the standard error, at most one a second: the next line
    /// counts the errors that were left out. It is not written if that would have to wait.
    pub fn on_error<F>(mut self, f: F) -> Self
    where
        F: Fn(&dyn Display, &L::Address) + Send + Sync + 'static,
    {
        self.common.on_error = Some(Arc::new(f));
        self
    }

    /// Sets the function that is called with the error when the server pauses accepting, for lack
    /// of descriptors or memory, and with `None` when it resumes.
    ///
    /// Without one, a line is written to the standard error in both cases, as in
    /// [`on_error`](Self::on_error).
    pub fn on_pause<F>(mut self, f: F) -> Self
    where
        F: Fn(Option<&io::Error>) + Send + Sync + 'static,
    {
        self.common.on_pause = Some(Arc::new(f));
        self
    }

    /// The counters of this server, which go on while it serves.
    pub fn counters(&self) -> ServerCounters {
        self.common.counters.clone()
    }

    /// Calls `handler` with each connection as [`serve`](crate::net::serve()) does, until the
    /// server is stopped; returns when the last handler has ended.
    ///
    /// Connections that are in the kernel's queue for this listener when the server is stopped are
    /// still accepted and handled, so that no connected client is reset. The listener closes then,
    /// unless it has clones. Clones, and other processes that have the same listener, go on
    /// accepting from it: a server can be replaced by one that was started on its listener, and no
    /// client is refused.
    ///
    /// # Errors
    ///
    /// An error of the listener itself. The handlers are waited for all the same.
    ///
    /// # Cancellation
    ///
    /// When the coroutine is cancelled, so are the handlers; unwinds when they have ended.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn serve<F, R>(self, handler: F) -> io::Result<()>
    where
        F: Fn(L::Stream) -> R + 'static,
        R: Outcome,
    {
        check_runtime();
        // The handlers are waited for even where waits are forbidden. So none may be started there.
        park::check_cancelled();
        // So no callback may suspend a generator with this frame, either.
        let _scope = park::open_scope();
        let spawned = Location::caller();
        let Self { listener, stop, grace, limit, common } = self;
        let handlers = Group::default();
        let attendant = Rc::new((common, handler));
        let start = |stack: Stack, stream: L::Stream, peer: L::Address, slot: Option<Slot>| {
            let attendant = Rc::clone(&attendant);
            let attend = move || attend(&attendant.0, stream, &peer, slot, &attendant.1);
            context::with(|scheduler| handlers.spawn(scheduler, stack, Spec::at(spawned), attend));
        };
        let paused = |error: Option<&io::Error>| attendant.0.paused(error);
        let accept =
            |listener: &L, until| accept_until(listener, until, limit.as_ref(), paused, start);
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let stopped = stop.run_until_cancelled(|| accept(&listener, Until::Never));
            let deadline = park::deadline(grace);
            // The kernel has taken these connections in: accept them, and none that comes later.
            let result = stopped.unwrap_or_else(|| accept(&listener, Until::Drained(deadline)));
            drop(listener);
            handlers.wait(deadline);
            result
        }));
        handlers.cancel(None);
        handlers.wait_for_all();
        result.unwrap_or_else(|payload| park::resume_unwind(payload))
    }
}

impl<L: Listener + fmt::Debug> fmt::Debug for Server<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("grace", &self.grace)
            .field("counters", &self.common.counters)
            .finish_non_exhaustive()
    }
}

#[track_caller]
fn check_runtime() {
    assert!(park::in_coroutine(), "`serve` starts coroutines: call it inside of `plainsong::run`");
}

type OnError<A> = Arc<dyn Fn(&dyn Display, &A) + Send + Sync>;
type OnPause = Arc<dyn Fn(Option<&io::Error>) + Send + Sync>;

/// The part of a server that its workers share.
struct Common<L: Listener> {
    counters: ServerCounters,
    on_error: Option<OnError<L::Address>>,
    on_pause: Option<OnPause>,
}

impl<L: Listener> Common<L> {
    fn failed(&self, error: &dyn Display, peer: &L::Address) {
        static LOG: Log = Log::new();
        self.counters.0.failed.fetch_add(1, Ordering::Relaxed);
        match &self.on_error {
            Some(on_error) => on_error(error, peer),
            None => {
                LOG.line(&format_args!("the connection from {} failed: {error}", L::show(peer)));
            }
        }
    }

    fn paused(&self, error: Option<&io::Error>) {
        static LOG: Log = Log::new();
        if error.is_some() {
            self.counters.0.pauses.fetch_add(1, Ordering::Relaxed);
        }
        match (&self.on_pause, error) {
            (Some(on_pause), _) => on_pause(error),
            (None, Some(error)) => {
                LOG.line(&format_args!(
                    "a server pauses, as it cannot accept connections: {error}; they wait in the \
                     queue until it can"
                ));
            }
            (None, None) => {
                write_line("a server that has paused accepts connections again");
            }
        }
    }
}

impl<L: Listener> Clone for Common<L> {
    fn clone(&self) -> Self {
        let Self { counters, on_error, on_pause } = self;
        Self { counters: counters.clone(), on_error: on_error.clone(), on_pause: on_pause.clone() }
    }
}

impl<L: Listener> Default for Common<L> {
    fn default() -> Self {
        Self { counters: ServerCounters::default(), on_error: None, on_pause: None }
    }
}

/// Counts what a [`Server`] does, on all its workers; made by [`Server::counters`].
#[derive(Clone, Default, Debug)]
pub struct ServerCounters(Arc<Counts>);

#[derive(Default, Debug)]
struct Counts {
    accepted: AtomicU64,
    active: AtomicUsize,
    failed: AtomicU64,
    pauses: AtomicU64,
}

impl ServerCounters {
    /// Connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Connections whose handlers are running.
    pub fn active(&self) -> usize {
        self.0.active.load(Ordering::Relaxed)
    }

    /// Connections whose handlers have returned an error.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// How often accepting has paused for lack of descriptors or memory.
    pub fn pauses(&self) -> u64 {
        self.0.pauses.load(Ordering::Relaxed)
    }
}

/// One connection while its handler runs. The drop ends it, also for clones that the handler has
/// left somewhere.
struct Open<'a, L: Listener> {
    stream: L::Stream,
    counts: &'a Counts,
    _slot: Option<Slot>,
}

impl<L: Listener> Drop for Open<'_, L> {
    fn drop(&mut self) {
        L::end_shared(&self.stream);
        self.counts.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a handler, ends its connection, and then reports its error.
fn attend<L: Listener, R: Outcome>(
    common: &Common<L>,
    stream: L::Stream,
    peer: &L::Address,
    slot: Option<Slot>,
    handler: &impl Fn(L::Stream) -> R,
) {
    let counts = &*common.counters.0;
    let Ok(ours) = L::another(&stream) else { return };
    counts.accepted.fetch_add(1, Ordering::Relaxed);
    counts.active.fetch_add(1, Ordering::Relaxed);
    let open = Open::<L> { stream: ours, counts, _slot: slot };
    let outcome = handler(stream);
    drop(open);
    outcome.on_error(|error| common.failed(error, peer));
}
