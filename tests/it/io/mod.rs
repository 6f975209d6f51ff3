//! The standard streams, pollable descriptors, and connections in memory.

mod duplex;
mod pipe;
mod pollable;
mod ready;
mod std_names;
mod stdio;
