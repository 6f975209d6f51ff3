#![doc = include_str!("../README.md")]

pub use ::std::*;

pub mod fs;
pub mod io;
pub mod net;
pub mod os;
pub mod process;
pub mod sync;
pub mod thread;

/// The whole of [plainsong](::plainsong), for what std has no name for: time-outs, cancellation,
/// `select!` and settings.
pub mod plainsong {
    pub use ::plainsong::*;
    pub use ::plainsong_macros::{std_main as main, std_test as test};
}
