//! The primitives that threads share: std's, or in a model check those of a model checker, which
//! tries the orders in which threads can run: shuttle's, or loom's for memory orders. Only code
//! that a model check covers takes them from here.
//!
//! The library has no dependency for this. The package in `model/` compiles the same source as a
//! test of its own. It sets `plainsong_model`, and `plainsong_loom` for loom.

#[cfg(not(plainsong_model))]
pub(crate) use std::{
    hint,
    sync::atomic,
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

/// Starts a thread of the library's own, which nothing joins. The body is in a box, so that std's
/// part of it is compiled once.
///
/// # Errors
///
/// When the system starts no more threads.
pub(crate) fn start_thread(name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

#[cfg(plainsong_model)]
#[cfg_attr(not(plainsong_loom), path = "../../model/shuttle/primitives.rs")]
#[cfg_attr(plainsong_loom, path = "../../model/loom/primitives.rs")]
mod model;
#[cfg(plainsong_model)]
pub(crate) use model::*;
