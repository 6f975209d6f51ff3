//! Waiting for descriptors, and any descriptor as a stream.

mod pollable;
pub(crate) mod source;

pub use pollable::{Pollable, wait_readable, wait_writable};
