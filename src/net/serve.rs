//! A server: one coroutine a connection.

use std::io;
use std::net::Shutdown;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use super::addr::ToSocketAddrs;
use super::tcp::{TcpListener, TcpStream};
use crate::engine::context;
use crate::task::spawn_on;
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
        let spawned = Location::caller();
        assert!(
            context::in_coroutine(),
            "`serve` starts coroutines: call it inside of `plainsong::run`"
        );
        let handler = Rc::new(handler);
        let mut pause = Pause(PAUSE);
        loop {
            let stream = match self.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match classify(&error) {
                    Failure::OfConnection => continue,
                    Failure::OfResources => {
                        pause.wait();
                        continue;
                    }
                    Failure::OfListener => return Err(error),
                },
            };
            // What has been accepted is served, if later.
            let stack = loop {
                match context::with(|cx| cx.take_stack(cx.scheduler.stack_size())) {
                    Ok(stack) => break stack,
                    Err(_) => pause.wait(),
                }
            };
            pause = Pause(PAUSE);
            let handler = Rc::clone(&handler);
            let attend = move || attend(stream, &*handler);
            context::with(|cx| spawn_on(cx, stack, None, spawned, attend));
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
enum Failure {
    /// The connection that was to be accepted: the next one may be well.
    OfConnection,
    /// Descriptors or memory, which others may give back.
    OfResources,
    /// The listener.
    OfListener,
}

fn classify(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Failure::OfResources,
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
        ) => Failure::OfConnection,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(libc::ENONET) => Failure::OfConnection,
        _ if error.kind() == io::ErrorKind::ConnectionAborted => Failure::OfConnection,
        _ => Failure::OfListener,
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
