//! Some tests of the integration suite, in a program of their own that is soon built.

#![allow(dead_code, reason = "other tests use the other helpers")]
#![allow(clippy::incompatible_msrv)]

#[path = "../../../tests/it/traps/soundness.rs"]
mod soundness;
#[path = "../../../tests/it/sync/mod.rs"]
mod sync;
#[path = "../../../tests/it/sys.rs"]
mod sys;
#[path = "../../../tests/it/util.rs"]
mod util;
