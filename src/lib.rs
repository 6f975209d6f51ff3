//! Stackful coroutines (green threads) for servers that are written as plain sequential code.
//!
//! Each call that looks blocking (`accept`, `read`, `write`, `sleep`, `join`) parks only its
//! coroutine. A scheduler on the same thread resumes the coroutine when the descriptor, the timer
//! or the peer is ready. There is no `async`, no second kind of function, and no `unsafe` in the
//! API.
//!
//! An echo server for any number of connections:
//!
//! ```no_run
//! fn main() -> std::io::Result<()> {
//!     plainsong::run(|| plainsong::net::serve("127.0.0.1:4915", |conn| {
//!         std::io::copy(&mut &conn, &mut &conn)      // an ordinary blocking loop
//!     }))
//! }
//! ```
//!
//! # Tour
//!
//! - [`run`] runs a program of coroutines on this thread. [`spawn`] starts another coroutine, and
//!   its [`JoinHandle`] takes the result. [`Builder`] gives a coroutine a name or another stack
//!   size. [`coroutine_local!`] is `thread_local!` for coroutines.
//! - [`Runtime`] has settings for all coroutines. With many [`workers`](RuntimeBuilder::workers) it
//!   runs on many cores: [`spawn_anywhere`] starts a coroutine on any of them, and a [`Handle`]
//!   lets plain threads spawn.
//! - [`thread`] has coroutines under the names of [`std::thread`], and [`net`] has TCP, UDP and
//!   Unix sockets under the names of [`std::net`] and [`std::os::unix::net`]. So to port a threaded
//!   program, change its `use` lines. A crate that is generic over `Read + Write` works as it is.
//!   [`net::serve`] is a whole server.
//! - [`scope`] starts coroutines that borrow, and waits for them. [`task`] has `gather`, `race`,
//!   `wait` and the like.
//! - [`pool`] has workers for jobs, and [`io::duplex`] has connections in memory.
//! - [`time`] has the clock, `sleep`, `timeout`, intervals, and calls for later.
//! - [`io`] has the standard streams, waits for descriptors of any kind, and turns them into
//!   streams. [`fs`] and [`process`] have std's files and child processes (features of these names,
//!   enabled by default).
//! - [`blocking`] makes any other call that blocks, on another thread. It may borrow.
//! - [`sync`] has locks in the shape of [`std::sync`], channels in the shape of crossbeam's, and
//!   [`select!`] to wait for the first of several events.
//! - [`block_on`] waits for a future, and `async` code can await a [`JoinHandle`].
//! - [`generator`] has producers, which are iterators, and consumers, which receive values.
//! - [`stack`] has room for deep recursion.
//! - [`inspect`] lists all coroutines with their waits, for a program that hangs.
//! - `signal` waits for signals of the operating system (feature `signal`, enabled by default).
//!
//! On a plain thread the same calls block that thread, so a coroutine and a thread may use the two
//! ends of a socket or a channel. A call that makes no sense there, such as [`spawn`] outside of
//! [`run`], panics or returns an error that explains it.
//!
//! # Cancellation
//!
//! A cancelled coroutine unwinds: its current or next wait does not return, and destructors run as
//! in a panic. But no panic hook runs, and nothing is printed. [`JoinHandle::cancel`], an expired
//! [`time::timeout`], the panic of a sibling in a [`scope`] and the end of [`run`] all work this
//! way. Each operation that can unwind has a section *Cancellation* in its documentation. An
//! operation that has moved data returns. Only an operation that is still waiting unwinds.
//!
//! Cancellations nest. The unwind stops at the level that was cancelled, and its owner gets an
//! error: `timeout` returns `Err(Elapsed)`, and `join` an error that
//! [`is_cancelled`](JoinError::is_cancelled). [`shield`] holds a cancellation off while clean-up
//! waits. A [`CancellationToken`] stops many coroutines at once. If a deadline should be an error
//! instead of an unwind, set the socket's own time-outs.
//!
//! `catch_unwind` in your code catches a cancellation too. Pass on any payload that is not of your
//! own panic, with [`resume_unwind`](std::panic::resume_unwind). A swallowed cancellation is raised
//! again at the next wait. After a thousand times, the coroutine is reported and abandoned.
//!
//! # Deadlocks
//!
//! If every remaining coroutine waits for another of the same run, [`run`] panics with a report. It
//! says of each coroutine what it waits for, for how long, and where it was spawned. It
//! names the holders of locks, and their cycle. A plain thread
//! could end some waits, such as [`thread::park`]. These are not reported, unless
//! [`RuntimeBuilder::strict_deadlock`] says that there is no such thread.
//!
//! # Rules worth knowing
//!
//! The page `docs/pitfalls.md` of the repository has more rules of this kind, and says what to do
//! about each.
//!
//! **A coroutine never leaves its thread,** even with many workers. So the values that it shares
//! with others of its thread need not be `Send`: `Rc` and `Cell` are enough. While a coroutine
//! computes without waiting, the others of its thread do not run: call [`yield_now`] from time to
//! time.
//!
//! **A lock of std that is held across a wait blocks the thread.** Another coroutine that wants the
//! same [`std::sync::Mutex`] blocks the thread, and then the holder cannot run to release it. That
//! is a deadlock, and it is not reported. Drop such a guard before you wait, or use a
//! [`sync::Mutex`], which parks its waiters. std's `stdout().lock()` belongs to the thread: held
//! across a wait, it blocks the printing of all other threads, but does not exclude the other
//! coroutines of its own thread. The lock of [`io::stdout`] belongs to the coroutine, and may be
//! held across a wait.
//!
//! **The coroutines of a thread share its thread-locals.** This library cannot make two uses of
//! them sound, and neither can any other scheduler of stackful coroutines:
//!
//! - An initialiser of `thread_local!` must not wait. Otherwise another coroutine may initialise
//!   the same value meanwhile, and references to the first value dangle. (An initialiser of
//!   [`coroutine_local!`] may wait.)
//! - Some crates keep pointers to the stack in a thread-local, and rely on scopes to end in reverse
//!   order. A coroutine must not wait inside of such a scope. `scoped-tls` is such a crate: it is
//!   sound in a coroutine only if nothing inside of `set` waits. Runtimes such as tokio, which mark
//!   their thread as entered, panic.
//!
//! Put [`no_wait`] around such code: it panics at a wait inside of it.
//!
//! **A destructor may wait.** There is one exception: while its coroutine unwinds, I/O that would
//! have to wait fails. A destructor that panics during an unwind ends the process, as always in
//! Rust.
//!
//! **A panic hook must not wait.** Otherwise other coroutines run in the middle of the panic, and
//! if one of them panics too, the process ends.
//!
//! **`std::thread::panicking` speaks for the whole thread.** It is true in all coroutines of a
//! thread while one of them is suspended in the middle of an unwind. If another coroutine drops a
//! [`std::sync::MutexGuard`] at such a time, the lock is poisoned. [`thread::panicking`] and the
//! locks of [`sync`] tell the coroutines apart.
//!
//! **With `panic = "abort"`, nothing can unwind.** Coroutines, sockets, timers and generators that
//! run to their end work. A panic ends the process, as always. So does each cancellation, with a
//! message. Join the coroutines that you spawn or use [`run_all`], and use the sockets' own
//! time-outs.
//!
//! **`O_NONBLOCK` belongs to the open file and not to the descriptor.** This library sets it on its
//! own sockets, on sockets converted from std's, and on descriptors in an [`io::Pollable`]. Never
//! wrap an inherited standard stream, because the shell's stream would become non-blocking too. A
//! listener that several processes share is non-blocking in all of them. That is fine for processes
//! that wait for it before they accept. No process may make it blocking again while one of ours
//! still uses it. [`io::stdin`] and the like, and [`io::wait_readable`], leave the mode unchanged.
//!
//! # Stacks
//!
//! A stack has 256 KiB of address space by default. It uses memory only as far as it is touched,
//! which is one page for most coroutines. [`RuntimeBuilder::stack_size`] changes the size for all
//! coroutines of a runtime, and [`Builder::stack_size`] for one. Below each stack is a guard page.
//! An overflow runs into it and ends the process with a message:
//!
//! ```text
//! plainsong: coroutine #7 'parser', spawned at src/main.rs:12:9, has overflowed its stack of
//! 262144 bytes
//! Give it more with `Builder::stack_size`, give all of them more with
//! `Runtime::builder().stack_size`, or recurse less.
//! ```
//!
//! # Platforms
//!
//! Linux on x86-64 is tested. The code also has a path for the other Unix systems and processors
//! that `corosensei` and `polling` support, but that path is not tested on them. Windows is not
//! supported.

#![warn(clippy::print_stdout, clippy::print_stderr)]
// The engine has all that `inspect` asks it for, also where that is not compiled.
#![cfg_attr(not(feature = "inspect"), allow(dead_code, unused_imports, unreachable_pub))]
#![debugger_visualizer(gdb_script_file = "gdb.py")]
// Only `host` uses guests of other loops, and it needs the descriptor of an epoll instance.
#![cfg_attr(
    any(not(target_os = "linux"), plainsong_portable_reactor),
    allow(dead_code, unused_imports)
)]

#[cfg(not(unix))]
compile_error!(
    "plainsong runs on Unix-like systems: it parks on their descriptors. On Windows, build for \
     Linux in WSL"
);

mod engine;
#[cfg(feature = "fs")]
pub mod fs;
mod future;
pub mod generator;
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
pub mod host;
#[cfg(feature = "inspect")]
pub mod inspect;
pub mod io;
#[cfg(all(test, plainsong_model))]
#[cfg_attr(not(plainsong_loom), path = "../model/shuttle/mod.rs")]
#[cfg_attr(plainsong_loom, path = "../model/loom/mod.rs")]
mod model;
pub mod net;
pub mod pool;
#[cfg(feature = "process")]
pub mod process;
mod runtime;
#[cfg(feature = "signal")]
pub mod signal;
pub mod stack;
pub mod sync;
pub mod task;
pub mod thread;
pub mod time;

#[doc(inline)]
pub use engine::blocking::{blocking, offload};
#[doc(inline)]
pub use engine::id::Id;
#[doc(inline)]
pub use future::{JoinFuture, block_on, block_on_with};
#[cfg(feature = "macros")]
pub use plainsong_macros::{main, test};
#[doc(inline)]
pub use runtime::{Builder as RuntimeBuilder, Handle, Runtime, run, run_all};
#[doc(inline)]
pub use task::thread::current;
#[doc(inline)]
pub use task::{
    AccessError, Builder, CancellationToken, JoinError, JoinHandle, LocalKey, Scope,
    ScopedJoinHandle, no_unwind, no_wait, scope, shield, spawn, spawn_anywhere, yield_now,
};
