//! Coroutines: spawning, joining, cancelling, and everything that opens a scope.

mod anywhere;
mod asyncio;
mod blocking;
mod cancel;
mod deadline;
mod future;
mod generator;
mod groups;
mod join;
mod large_futures;
mod local;
mod pool;
mod scope;
mod spawn;
mod timeout;
mod token;
