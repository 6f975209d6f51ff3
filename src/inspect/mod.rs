//! A look at the coroutines of this process, for a program that hangs, leaks or is slow. (Feature
//! `inspect`, on by default.)
//!
//! [`dump`] lists every coroutine of every run, with its wait and how long that has lasted, the
//! place of its spawn and its parent, its deadline and its stack. The value prints itself for
//! people, and with the feature `serde` it can be serialised, for example as JSON. With the feature
//! `signal`, [`dump_on`] prints it whenever a signal comes.
//!
//! Nothing is recorded for this while the program runs: a worker is asked, and answers between two
//! turns. A worker that does not come to its next turn is interrupted by a signal (`SIGURG`), and
//! answers in the middle of what it does. The page `docs/debugging.md` of the repository shows what
//! is printed for each kind of trouble.
//!
//! [`metrics`] has numbers for dashboards, of the past and of this moment. They can be written
//! [for Prometheus](Metrics::prometheus), or published through the crate `metrics`
//! (feature of that name).
//!
//! The flight [`recorder`] keeps the last events of each worker, for a look at how a program came
//! into its state.
//!
//! [`watchdog`] reports a coroutine that holds up its worker, while it does.
//!
//! With the feature `top`, `serve` shows all of it to viewers on a Unix socket, such as the example
//! `top`.
//!
//! ```
//! plainsong::run(|| {
//!     let (sender, receiver) = plainsong::sync::channel::bounded::<i32>(16);
//!     plainsong::Builder::new().name("worker").spawn(move || receiver.recv()).unwrap();
//!     plainsong::yield_now();
//!     let dump = plainsong::inspect::dump();
//!     let worker = dump.coroutines().find(|it| it.name.as_deref() == Some("worker")).unwrap();
//!     let waits_for = worker.waits_for.as_ref().unwrap();
//!     assert!(waits_for.text.starts_with("recv, channel created at "));
//!     assert!(waits_for.text.ends_with(", 0 of 16"));
//!     drop(sender);
//! });
//! ```

mod dump;
mod frame;
#[cfg(feature = "backtrace")]
mod frames;
mod leaks;
#[cfg(target_os = "linux")]
mod memory;
mod metrics;
mod prometheus;
#[cfg(feature = "metrics")]
mod publisher;
mod recorder;
#[cfg(feature = "top")]
mod serve;
#[cfg(feature = "signal")]
mod signals;
mod text;
mod watchdog;

pub use self::dump::{
    Answer, Coroutine, Coroutines, Dump, Holder, Place, Stack, State, WaitsFor, Worker, dump,
};
pub use self::frame::Frame;
pub use self::leaks::{Leaks, leaks};
pub use self::metrics::{BlockingPool, Metrics, WorkerMetrics, measure_times, metrics};
pub use self::prometheus::Prometheus;
#[cfg(feature = "metrics")]
pub use self::publisher::publish_metrics;
pub use self::recorder::{Recorder, Trace, recorder};
#[cfg(feature = "top")]
pub use self::serve::{Serving, serve};
#[cfg(feature = "signal")]
pub use self::signals::dump_on;
pub use self::watchdog::{Cause, Stall, watchdog};
pub use crate::engine::numbers::{Counts, Histogram};
