//! Runtimes: how a run begins and ends, its workers, its stacks, its handle.

mod handle;
mod hooks;
mod pinned;
mod run;
mod stacks;
mod workers;
