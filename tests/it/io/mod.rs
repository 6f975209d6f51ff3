//! The standard streams, pollable descriptors, and connections in memory.

mod duplex;
mod pollable;
mod stdio;
