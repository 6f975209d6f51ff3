#![doc = include_str!("../README.md")]

pub use ::std::*;

pub mod fs;
pub mod io;
mod must_return;
pub mod net;
pub mod os;
pub mod process;
pub mod sync;
pub mod thread;

/// [`std::thread_local!`](::std::thread_local): each coroutine has its own values.
///
/// Code takes a coroutine for a thread here: it may keep the [`thread::current`] of a thread in a
/// thread-local of it. The macro is this one where it is called as `std::thread_local!`, or where
/// the root of the crate says
///
/// ```text
/// #[macro_use(thread_local)]
/// extern crate std as plainsong_std_macros;
/// ```
///
/// Elsewhere `thread_local!` is std's own, from its prelude, and the coroutines of a worker share
/// the values.
#[macro_export]
macro_rules! thread_local {
    ($($declarations:tt)*) => {
        $crate::plainsong::coroutine_local! { $($declarations)* }
    };
}

/// The whole of [plainsong](::plainsong), for what std has no name for: time-outs, cancellation,
/// `select!` and settings.
pub mod plainsong {
    pub use ::plainsong::*;
    pub use ::plainsong_macros::{std_main as main, std_test as test};
}
