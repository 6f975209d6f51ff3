//! Some tests of the integration suite, in a program of their own that is soon built.

#![allow(dead_code, reason = "other tests use the other helpers")]
#![allow(clippy::incompatible_msrv)]

#[path = "../../it/traps/soundness.rs"]
mod soundness;
#[path = "../../it/sync/mod.rs"]
mod sync;
#[path = "../../it/sys.rs"]
mod sys;
#[path = "../../it/util.rs"]
mod util;
