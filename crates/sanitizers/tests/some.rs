//! Some tests of the integration suite, in a program of their own that is soon built.

#![allow(dead_code, reason = "other tests use the other helpers")]
#![allow(clippy::incompatible_msrv)]

#[path = "../../../tests/it/task/anywhere.rs"]
mod anywhere;
#[path = "../../../tests/it/task/blocking.rs"]
mod blocking;
#[path = "../../../tests/it/runtime/handle.rs"]
mod handle;
#[path = "../../../tests/it/traps/soundness.rs"]
mod soundness;
#[path = "../../../tests/it/sync/mod.rs"]
mod sync;
#[path = "../../../tests/it/sys.rs"]
mod sys;
#[path = "../../../tests/it/net/threads.rs"]
mod threads;
#[path = "../../../tests/it/util.rs"]
mod util;
#[path = "../../../tests/it/runtime/workers.rs"]
mod workers;
