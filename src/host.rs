//! Another event loop on the same thread, as the host of the coroutines.
//!
//! [`run`] gives each worker's loop to a function of its own, its host. The host runs the loop in
//! slices, waits for its descriptor and its deadline together with whatever else it waits for, and
//! so both loops share one thread. The crate `plainsong-tokio` does this for tokio; most programs
//! use that.
//!
//! A host in its smallest form, which waits for nothing else:
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! use plainsong::host::{Guest, Next};
//! use rustix::event::{PollFd, PollFlags, Timespec, poll};
//! use std::task::Waker;
//! use std::time::{Duration, Instant};
//!
//! fn host(mut guest: Guest<'_>) {
//!     loop {
//!         // On one thread, only other code of this host could call the waker. There is none.
//!         match guest.run_for(Duration::from_micros(200), Waker::noop()) {
//!             Next::Over => return,
//!             Next::Later => {}
//!             Next::Wait(until) => {
//!                 let left = until.map(|until| until.saturating_duration_since(Instant::now()));
//!                 let timeout = left.and_then(|left| Timespec::try_from(left).ok());
//!                 poll(&mut [PollFd::new(&guest, PollFlags::IN)], timeout.as_ref()).unwrap();
//!                 while guest.poll_io() {}
//!             }
//!         }
//!     }
//! }
//!
//! let answer = plainsong::host::run(&plainsong::Runtime::default(), host, || {
//!     plainsong::time::sleep(Duration::from_millis(1));
//!     42
//! });
//! assert_eq!(answer, 42);
//! # }
//! ```

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::engine::scheduler::{self, Slice};
use crate::runtime::Runtime;
use crate::task::Body;

/// Runs `f` as [`Runtime::run`] does, and calls `host` with the loop of each worker, on the
/// worker's thread.
///
/// When `host` returns before the loop is over, the worker goes on with its own loop, as without a
/// host.
///
/// While coroutines run, the host's code does not. Between two slices, and after the last one, it
/// is the other way round: until `host` returns, calls of this library that wait must not be made
/// on this thread, and panic. Spawning, waking, sending to channels and the like are fine, and call
/// the waker of [`run_for`](Guest::run_for).
///
/// A deadlock of the coroutines is not reported, because code of the host may end their waits.
///
/// # Panics
///
/// As [`Runtime::run`]. A panic of `host` ends the process, because coroutines that borrow would be
/// left behind.
#[track_caller]
pub fn run<F: Body<T>, T>(runtime: &Runtime, host: impl Fn(Guest<'_>) + Sync, f: F) -> T {
    runtime.run_hosted(&|guest| host(Guest(guest)), f)
}

/// The loop of one worker, which its host drives.
pub struct Guest<'a>(scheduler::Guest<'a>);

/// The next step of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The run is over: return.
    Over,
    /// The slice is over, and coroutines are ready: run another one soon.
    Later,
    /// Wait until the descriptor is readable and call [`poll_io`](Guest::poll_io), until this time,
    /// or until the waker is called. Then run another slice.
    Wait(Option<Instant>),
}

impl Guest<'_> {
    /// Runs timers that are due and coroutines that are ready, until none is, or for about `slice`.
    /// A coroutine that does not wait is not stopped.
    ///
    /// `waker` is called when something on this thread makes a coroutine ready before the next
    /// slice, or sets a timer for an earlier time than the host waits for. A wake from another
    /// thread makes the descriptor readable.
    ///
    /// # Panics
    ///
    /// In a coroutine.
    pub fn run_for(&mut self, slice: Duration, waker: &Waker) -> Next {
        match self.0.run_for(slice, waker) {
            Slice::Over => Next::Over,
            Slice::Later => Next::Later,
            Slice::Wait(until) => Next::Wait(until),
        }
    }

    /// Takes a batch of events from the kernel, without waiting. Returns whether there may be more.
    pub fn poll_io(&mut self) -> bool {
        self.0.poll_io()
    }

    /// Takes the time from `now` instead of [`Instant::now`], for timers and deadlines. `now` must
    /// only read a clock. In it no coroutine runs, and a wait panics. When it panics, the time is
    /// that of [`Instant::now`].
    pub fn set_clock(&mut self, now: fn() -> Instant) {
        self.0.set_clock(now);
    }
}

/// The descriptor that is readable when there are events to poll. It may be registered anywhere,
/// but only the guest may use it otherwise.
impl AsFd for Guest<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

impl fmt::Debug for Guest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}
