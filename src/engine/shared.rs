//! The primitives that threads share: std's, or shuttle's in the model check, which tries the
//! orders in which threads can run. Only code that the model check covers takes them from here.
//!
//! The library has no dependency for this. The package in `model/` compiles the same source as a
//! test of its own. It sets `plainsong_model`, and depends on shuttle.

#[cfg(not(plainsong_model))]
pub(crate) use std::{
    hint,
    sync::atomic,
    sync::{Condvar, Mutex, MutexGuard, mpsc},
    thread, thread_local,
};

#[cfg(plainsong_model)]
#[path = "../../model/shuttle/primitives.rs"]
mod model;
#[cfg(plainsong_model)]
pub(crate) use model::*;
