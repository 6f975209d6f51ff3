//! Stackful coroutines (green threads) for servers that are written as plain sequential code.
//!
//! Every call that looks blocking (`accept`, `read`, `write`, `sleep`, `join`) parks only the
//! coroutine that makes it. A scheduler on the same thread resumes it when the descriptor, the
//! timer or the peer is ready. There is no `async`, no second kind of function, and no `unsafe` in
//! the API.
//!
//! An echo server for any number of connections:
//!
//! ```no_run
//! fn main() -> std::io::Result<()> {
//!     plainsong::run(|| plainsong::net::serve("127.0.0.1:4915", |conn| {
//!         std::io::copy(&mut &conn, &mut &conn).map(drop)      // an ordinary blocking loop
//!     }))
//! }
//! ```
//!
//! # Tour
//!
//! - [`run`] runs a program of coroutines on this thread, [`spawn`] starts one more, and its
//!   [`JoinHandle`] takes the result. [`Builder`] gives a coroutine a name or another stack size,
//!   and [`Runtime`] sets it for all. [`coroutine_local!`] is `thread_local!` for coroutines.
//! - [`Runtime`] with many [`workers`](RuntimeBuilder::workers) runs on many cores:
//!   [`spawn_anywhere`] starts a coroutine on any of them, and a [`Handle`] lets plain threads
//!   spawn.
//! - [`thread`] is the same under the names of [`std::thread`]. [`net`] has TCP, UDP and Unix
//!   sockets under the names of [`std::net`] and [`std::os::unix::net`], and [`net::serve`]. So
//!   porting a threaded program is changing its `use` lines, and a crate that is generic over
//!   `Read + Write` works as it is.
//! - [`scope`] starts coroutines that borrow and waits for them. [`task`] has `gather`, `race`,
//!   `wait` and the like.
//! - [`pool`] has workers for jobs, and [`io::duplex`] connections in memory.
//! - [`time`] has the clock, `sleep`, `timeout`, intervals, and calls for later.
//! - [`io`] waits for descriptors of any kind, makes streams of them, and has the standard streams.
//!   [`fs`] and [`process`] are std's files and children.
//! - [`blocking`] makes any other call that blocks, on a thread of its own; it may borrow.
//! - [`sync`] has what they talk with: locks in the shape of [`std::sync`], channels in that of
//!   crossbeam, and [`select!`] to wait for the first of several things.
//! - [`block_on`] waits for a future, and a [`JoinHandle`] is one for `async` code.
//! - [`generator`] has producers that are iterators, and consumers that are sent values.
//! - `signal` waits for signals of the operating system (feature `signal`, on by default).
//!
//! On a plain thread the same calls block that thread, so a coroutine and a thread may be at the
//! two ends of a socket or a [`JoinHandle`]. What means nothing there, such as [`spawn`] outside of
//! [`run`], is a panic or an error that says so.
//!
//! # Cancellation
//!
//! A coroutine is stopped by unwinding it: its next wait does not return, and destructors run as in
//! a panic, but no panic hook runs and nothing is written. [`JoinHandle::cancel`], an expired
//! [`time::timeout`], a sibling's panic in a [`scope`] and the end of [`run`] all do this one
//! thing. Every wait is such a point and says so in its documentation. An operation that has moved
//! data returns; only one that is still waiting unwinds.
//!
//! These scopes nest. An unwinding stops at the one that was cancelled, and its owner learns of it:
//! `timeout` returns `Err(Elapsed)`, `join` an error that
//! [`is_cancelled`](JoinError::is_cancelled). [`shield`] holds a cancellation off while clean-up
//! waits. A [`CancellationToken`] asks many at once. To have a deadline that is an error and not an
//! unwinding, set the socket's own time-outs.
//!
//! `catch_unwind` in your code catches a cancellation too. Pass on with
//! [`resume_unwind`](std::panic::resume_unwind) what is not your panic. One that is swallowed is
//! raised again at the next wait; after a thousand times the coroutine is reported and abandoned.
//!
//! # Deadlocks
//!
//! When every coroutine that is left waits for another of the same run, [`run`] panics with a
//! report that names each: what it waits for, since when, and where it was spawned. A wait that a
//! plain thread could end, such as [`thread::park`], is not counted, unless
//! [`RuntimeBuilder::strict_deadlock`] says that there is no such thread.
//!
//! # Rules worth knowing
//!
//! **A coroutine never leaves its thread,** with many workers neither. So what it spawns and shares
//! need not be `Send`: `Rc` and `Cell` will do. A coroutine that computes for long without waiting
//! keeps the others of its thread waiting: let it call [`yield_now`] now and then.
//!
//! **A lock of std held across a wait blocks the thread.** Another coroutine that wants the same
//! [`std::sync::Mutex`] blocks the thread on which its holder would have to run: that is a
//! deadlock, and no report comes of it. Drop such a guard before you wait, or take a
//! [`sync::Mutex`], which parks who waits. std's
//! `stdout().lock()` belongs to the thread: held across a wait, it keeps all other threads from
//! printing, and does not keep out the other coroutines of its own. That of [`io::stdout`] belongs
//! to the coroutine and may be held.
//!
//! **Thread-locals are shared by the coroutines of a thread.** Two uses of them are outside of what
//! this library can keep sound, as they are under any scheduler of stackful coroutines:
//!
//! - An initialiser of `thread_local!` must not wait. Another coroutine would initialise the same
//!   value meanwhile, and references to the first would dangle. ([`coroutine_local!`] initialisers
//!   may.)
//! - A crate that keeps pointers to the stack in a thread-local, and trusts that scopes end in
//!   reverse order, must not have a wait inside of such a scope. `scoped-tls` is one: it is safe in
//!   a coroutine only when nothing under its `set` waits. Runtimes such as tokio, which mark their
//!   thread as entered, panic.
//!
//! [`no_wait`] panics at a wait inside of it, for code that must be sure.
//!
//! **A destructor may wait,** except that I/O which would have to wait fails while its coroutine
//! unwinds. A destructor that panics while its coroutine unwinds ends the process, as in all Rust.
//!
//! **A panic hook must not wait.** Other coroutines would run in the middle of a panic, and one
//! that panics then ends the process.
//!
//! **`std::thread::panicking` speaks for the thread.** It is true for all coroutines of a thread
//! while one is suspended in the middle of its unwinding. A [`std::sync::MutexGuard`] that was
//! taken before and is dropped then poisons its lock. [`thread::panicking`] and the locks of
//! [`sync`] tell the coroutines apart.
//!
//! **`panic = "abort"` leaves no way to unwind.** Coroutines, sockets, timers and generators that
//! run to their end work. A panic ends the process, as ever. So does every cancellation, with a
//! message that says so: join what you spawn or use [`run_all`], and use the sockets' own
//! time-outs.
//!
//! **`O_NONBLOCK` belongs to the open file and not to the descriptor.** It is set on sockets made
//! here, on those converted from std's, and on what [`io::Pollable`] wraps. Never wrap an inherited
//! standard stream: the shell's own would change with it. A listener that several processes share
//! is non-blocking in all of them, which suits all that wait for it before they accept; while one
//! of ours still uses it, none may make it blocking again. [`io::stdin`] and the like, and
//! [`io::wait_readable`], leave the mode alone.
//!
//! # Stacks
//!
//! A stack has 256 KiB of address space by default. Memory is used as far as it is touched, which
//! is a page for most coroutines. [`RuntimeBuilder::stack_size`] changes the size for all of a
//! runtime, [`Builder::stack_size`] for one. Below each stack is a guard page, and running into it
//! ends the process with a message:
//!
//! ```text
//! plainsong: coroutine #7 'parser', spawned at src/main.rs:12:9, has overflowed its stack of 262144 bytes
//! Give it more with `Builder::stack_size`, give all of them more with `Runtime::builder().stack_size`, or recurse less.
//! ```
//!
//! # Platforms
//!
//! Linux on x86-64 is what is tested. Other Unix systems and processors that `corosensei` and
//! `polling` support have a path in the code, and nobody has proven it. Windows has none yet.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod engine;
pub mod fs;
mod future;
pub mod generator;
pub mod io;
pub mod net;
pub mod pool;
pub mod process;
mod runtime;
#[cfg(feature = "signal")]
pub mod signal;
pub mod sync;
pub mod task;
pub mod thread;
pub mod time;

pub use engine::blocking::blocking;
pub use engine::id::Id;
pub use future::{JoinFuture, block_on};
pub use runtime::{Builder as RuntimeBuilder, Handle, Runtime, run, run_all};
pub use task::thread::current;
pub use task::{
    AccessError, Builder, CancellationToken, JoinError, JoinHandle, LocalKey, Scope,
    ScopedJoinHandle, no_wait, scope, shield, spawn, spawn_anywhere, yield_now,
};
