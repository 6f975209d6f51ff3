//! A server: one coroutine a connection.

use std::io;
use std::panic::{self, AssertUnwindSafe, Location};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::addr::ToSocketAddrs;
use super::listener::Listener;
use super::socket::BACKLOG;
use super::tcp::{TcpListener, TcpStream};
use super::unix::{UnixListener, UnixStream};
use crate::engine::context;
use crate::engine::park;
use crate::engine::spawn::{self, Spec};
use crate::engine::stack::Stack;
use crate::task::{CancellationToken, Group};
use crate::time::{now, sleep};

/// The first and the longest pause after an `accept` that failed for want of something that the
/// system may have again later. (Go's `net/http` has the same two.)
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a connection's handler may return: `()`, or an [`io::Result`] whose error is dropped, as it
/// is that connection's own.
pub trait Outcome {}

impl Outcome for () {}
impl<T> Outcome for io::Result<T> {}
// A handler that never returns. Stable Rust cannot name its type but as what a function returns.
impl Outcome for <fn() -> ! as Returns>::Type {}

/// What a function returns.
#[doc(hidden)]
pub trait Returns {
    /// Its type.
    type Type;
}

impl<R> Returns for fn() -> R {
    type Type = R;
}

/// Listens on `addr` and calls `handler` with each connection, in a coroutine of its own.
///
/// The connection closes when its handler ends, in whatever way: a panic costs only its own
/// connection, and so does an error. A lack of descriptors or memory makes the server pause and
/// go on; connections wait in the kernel's queue meanwhile. The handler need not be `Send`.
///
/// It serves for ever; [`Server`] is one that can be stopped.
///
/// # Errors
///
/// Those of [`TcpListener::bind`]; later, one that says that the listener itself is broken.
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
///         std::io::copy(&mut &conn, &mut &conn).map(drop)
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
            /// One that says that the listener itself is broken.
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
    let (spawned, handler) = (Location::caller(), Rc::new(handler));
    accept_until(listener, Until::Never, |stack, stream| {
        let handler = Rc::clone(&handler);
        let attend = move || attend::<L, R>(stream, &*handler);
        context::with(|scheduler| {
            scheduler.add(spawn::detached(scheduler, stack, Spec::at(spawned), attend));
        });
    })
}

/// A server that can be stopped, on TCP or Unix sockets: it then accepts no more, lets its handlers
/// finish for some time, and cancels those that have not by then.
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
///         .serve(|conn| std::io::copy(&mut &conn, &mut &conn))
/// })
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until `serve`"]
pub struct Server<L = TcpListener> {
    listener: L,
    stop: CancellationToken,
    grace: Duration,
}

impl<L: Listener> Server<L> {
    /// A server on this listener, with a grace of 30 seconds.
    pub fn new(listener: L) -> Self {
        Self { listener, stop: CancellationToken::new(), grace: Duration::from_secs(30) }
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
        Ok(Self { listener, stop: self.stop.clone(), grace: self.grace })
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

    /// Calls `handler` with each connection as [`serve`](crate::net::serve()) does, until the server is
    /// stopped; returns when the last handler has ended.
    ///
    /// Connections that the kernel has already taken in for this listener when it is stopped are still
    /// accepted and handled, so that no client that was connected is reset. The listener closes
    /// then, unless it has clones. Clones, and other processes that have the same listener, go on
    /// accepting from it as before: a server can be replaced by one that was started on its listener,
    /// and nobody is refused.
    ///
    /// # Errors
    ///
    /// One that says that the listener itself is broken. The handlers are waited for all the same.
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
        let spawned = Location::caller();
        let Self { listener, stop, grace } = self;
        let handlers = Group::default();
        let handler = Rc::new(handler);
        let start = |stack, stream: L::Stream| {
            let handler = Rc::clone(&handler);
            let attend = move || attend::<L, R>(stream, &*handler);
            context::with(|scheduler| handlers.spawn(scheduler, stack, Spec::at(spawned), attend));
        };
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let serve = || accept_until(&listener, Until::Never, start);
            let stopped = stop.run_until_cancelled(serve);
            let deadline = park::deadline(grace);
            // What is queued has been let in: take it, and nothing that comes later.
            let result =
                stopped.unwrap_or_else(|| accept_until(&listener, Until::Drained(deadline), start));
            drop(listener);
            handlers.wait(deadline);
            result
        }));
        handlers.cancel();
        handlers.wait_for_all();
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

#[track_caller]
fn check_runtime() {
    assert!(park::in_coroutine(), "`serve` starts coroutines: call it inside of `plainsong::run`");
}

/// When to stop accepting, other than when it fails.
#[derive(Clone, Copy)]
enum Until {
    Never,
    /// When the queue is empty, or as many have been accepted as it can hold; when there is nothing to
    /// accept with, also at this time.
    Drained(Option<Instant>),
}

/// Accepts connections and has `start` make a coroutine for each, on a stack that is there already.
fn accept_until<L: Listener>(
    listener: &L,
    until: Until,
    start: impl Fn(Stack, L::Stream),
) -> io::Result<()> {
    let (most, wait, deadline) = match until {
        Until::Never => (usize::MAX, true, None),
        // The kernel queues one more than it was asked to.
        Until::Drained(deadline) => (BACKLOG as usize + 1, false, deadline),
    };
    for _ in 0..most {
        let mut pause = Pause(PAUSE);
        // The stack comes first, so that whoever is accepted is served.
        let mut stack = Spare(None);
        let stream = loop {
            let error = match stack.fill().and_then(|()| listener.accept_one(wait)) {
                Ok(stream) => break stream,
                Err(error) => error,
            };
            match blame(&error) {
                Blame::Nobody if !wait => return Ok(()),
                Blame::Connection => {}
                Blame::Resources if deadline.is_some_and(|deadline| now() >= deadline) => {
                    return Err(error);
                }
                Blame::Resources => pause.wait(),
                Blame::Nobody | Blame::Listener => return Err(error),
            }
        };
        if let Some(stack) = stack.0.take() {
            start(stack, stream);
        }
    }
    Ok(())
}

/// A stack for the next connection; it goes back to the pool if there is none.
struct Spare(Option<Stack>);

impl Spare {
    fn fill(&mut self) -> io::Result<()> {
        if self.0.is_none() {
            self.0 = Some(context::with(|scheduler| spawn::take_stack::<()>(scheduler, None))?);
        }
        Ok(())
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(stack) = self.0.take() {
            context::with(|scheduler| scheduler.put_stack(stack));
        }
    }
}

/// The next pause; each is twice as long as the one before.
struct Pause(Duration);

impl Pause {
    fn wait(&mut self) {
        sleep(self.0);
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

/// What an error of `accept` is an error of.
enum Blame {
    /// There was no connection to accept.
    Nobody,
    /// The connection that was to be accepted: the next one may be well.
    Connection,
    /// Descriptors or memory, which others may give back.
    Resources,
    /// The listener.
    Listener,
}

fn blame(error: &io::Error) -> Blame {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Blame::Resources,
        // accept(2) lists these as errors of the new connection, "like EAGAIN". It has EOPNOTSUPP twice, but
        // what comes again and again is its other meaning: the socket is not one that can listen.
        Some(
            libc::ECONNABORTED
            | libc::ENETDOWN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPERM,
        ) => Blame::Connection,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(libc::ENONET) => Blame::Connection,
        _ if error.kind() == io::ErrorKind::WouldBlock => Blame::Nobody,
        _ if error.kind() == io::ErrorKind::ConnectionAborted => Blame::Connection,
        // No room for another stack.
        _ if error.kind() == io::ErrorKind::OutOfMemory => Blame::Resources,
        _ => Blame::Listener,
    }
}

/// Runs a handler, and ends the connection for whoever still has a clone of it.
fn attend<L: Listener, R: Outcome>(stream: L::Stream, handler: impl Fn(L::Stream) -> R) {
    struct Close<L: Listener>(L::Stream);
    impl<L: Listener> Drop for Close<L> {
        fn drop(&mut self) {
            L::end_shared(&self.0);
        }
    }
    let Ok(ours) = L::another(&stream) else { return };
    let _close = Close::<L>(ours);
    handler(stream);
}
