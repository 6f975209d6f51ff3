//! Channels: queues that carry items between coroutines and threads, with many at each end.
//!
//! They have the names and the behaviour of crossbeam's. [`unbounded`] takes any number of items,
//! [`bounded`] as many as it was made for, and with none at all each sender waits for its receiver.
//! An item is handed to the receiver that has waited longest. When all senders have been dropped,
//! the receivers get the items that are left and then an error; when all receivers have been
//! dropped, the items that are left are dropped and the senders get an error.
//!
//! ```
//! use plainsong::sync::channel;
//!
//! plainsong::run(|| {
//!     let (sender, receiver) = channel::bounded(8);
//!     plainsong::spawn(move || {
//!         for n in 0..100 {
//!             sender.send(n).unwrap(); // waits when eight are on their way
//!         }
//!     });
//!     assert_eq!(receiver.iter().sum::<i32>(), 4950);
//! });
//! ```
//!
//! The ends may be in coroutines and in threads, and a coroutine that waits stays on its thread.

mod alarm;
pub mod broadcast;
mod choice;
mod clock;
mod core;
mod ends;
mod error;
mod future;
mod iter;
pub mod oneshot;
pub mod watch;

pub use self::ends::{Receiver, Sender, after, at, bounded, never, tick, unbounded};
pub use self::error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
pub use self::future::RecvFuture;
pub use self::iter::{IntoIter, Iter, TryIter};
