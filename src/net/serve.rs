//! A server: one coroutine a connection.

use std::io;
use std::net::Shutdown;
use std::panic::{self, AssertUnwindSafe, Location};
use std::rc::Rc;
use std::time::Duration;

use super::addr::ToSocketAddrs;
use super::tcp::{BACKLOG, TcpListener, TcpStream};
use crate::engine::context;
use crate::io::source::after;
use crate::task::{CancellationToken, Group};
use crate::time::sleep;

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

impl TcpListener {
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
        F: Fn(TcpStream) -> R + 'static,
        R: Outcome,
    {
        check_runtime();
        serve_with(self, &Rc::default(), Location::caller(), &Rc::new(handler), usize::MAX)
    }
}

/// A server that can be stopped: it then accepts no more, lets its handlers finish for some time,
/// and cancels those that have not by then.
///
/// ```
/// use plainsong::CancellationToken;
/// use plainsong::net::{Server, TcpListener};
/// use std::time::Duration;
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
pub struct Server {
    listener: TcpListener,
    stop: CancellationToken,
    grace: Duration,
}

impl Server {
    /// A server on this listener, with a grace of 30 seconds.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, stop: CancellationToken::new(), grace: Duration::from_secs(30) }
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
    /// then, unless it has clones.
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
        F: Fn(TcpStream) -> R + 'static,
        R: Outcome,
    {
        check_runtime();
        let spawned = Location::caller();
        let Self { listener, stop, grace } = self;
        let handlers = Rc::default();
        let handler = Rc::new(handler);
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let accept = || serve_with(&listener, &handlers, spawned, &handler, usize::MAX);
            let result = stop.run_until_cancelled(accept).unwrap_or_else(|| {
                // What is queued has been let in: take it, and nothing that comes later.
                listener.set_nonblocking(true)?;
                match serve_with(&listener, &handlers, spawned, &handler, BACKLOG as usize) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                    result => result,
                }
            });
            drop(listener);
            handlers.wait(after(grace));
            result
        }));
        handlers.cancel();
        handlers.wait_for_all();
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

#[track_caller]
fn check_runtime() {
    assert!(
        context::in_coroutine(),
        "`serve` starts coroutines: call it inside of `plainsong::run`"
    );
}

/// Accepts connections, `limit` at most, and starts a handler for each, as a member of `group`.
fn serve_with<F, R>(
    listener: &TcpListener,
    group: &Rc<Group>,
    spawned: &'static Location<'static>,
    handler: &Rc<F>,
    limit: usize,
) -> io::Result<()>
where
    F: Fn(TcpStream) -> R + 'static,
    R: Outcome,
{
    let mut pause = Pause(PAUSE);
    for _ in 0..limit {
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => match classify(&error) {
                    Blame::Connection => {}
                    Blame::Resources => pause.wait(),
                    Blame::Listener => return Err(error),
                },
            }
        };
        // What has been accepted is served, if later.
        let stack = loop {
            match context::with(|cx| cx.take_stack(cx.scheduler.stack_size())) {
                Ok(stack) => break stack,
                Err(_) => pause.wait(),
            }
        };
        pause = Pause(PAUSE);
        let handler = Rc::clone(handler);
        group.spawn(stack, spawned, move || attend(stream, &*handler));
    }
    Ok(())
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
    /// The connection that was to be accepted: the next one may be well.
    Connection,
    /// Descriptors or memory, which others may give back.
    Resources,
    /// The listener.
    Listener,
}

fn classify(error: &io::Error) -> Blame {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Blame::Resources,
        // accept(2) lists these as errors of the new connection, "like EAGAIN".
        Some(
            libc::ECONNABORTED
            | libc::ENETDOWN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::EPERM,
        ) => Blame::Connection,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(libc::ENONET) => Blame::Connection,
        _ if error.kind() == io::ErrorKind::ConnectionAborted => Blame::Connection,
        _ => Blame::Listener,
    }
}

/// Runs a handler, and ends the connection for whoever still has a clone of it.
fn attend<R: Outcome>(stream: TcpStream, handler: impl Fn(TcpStream) -> R) {
    struct Close(TcpStream);
    impl Drop for Close {
        fn drop(&mut self) {
            if self.0.is_shared() {
                // It may have ended already.
                let _ = self.0.shutdown(Shutdown::Both);
            }
        }
    }
    let Ok(ours) = stream.try_clone() else { return };
    let _close = Close(ours);
    handler(stream);
}
