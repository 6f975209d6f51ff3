//! What plainsong promises, tried from outside: real sockets, real threads, real processes.
//!
//! A module per concern. Nothing here waits for a time to pass where it can wait for an event, and
//! nothing fails because a machine is slow: `util::watch` only turns a hang into a failure.

mod accept;
mod anywhere;
mod asyncio;
mod blocking;
mod broadcast;
mod cancel;
mod cancellation;
mod channel;
mod deadlock;
mod depth;
mod fairness;
mod fs;
mod future;
mod generator;
mod groups;
mod handover;
mod hostile;
mod local;
mod locks;
mod new_io_pipe;
mod new_io_std_names;
mod new_net_as_std;
mod new_net_server;
mod overflow;
mod permits;
mod process;
mod queue;
mod random;
mod registration;
mod run;
mod scope;
mod select;
mod serve;
mod serve_workers;
mod shutdown;
mod signals;
mod spawn;
mod stacks;
mod stdio;
mod sys;
mod tcp;
mod threads;
mod time;
mod timeout;
mod udp;
mod unix;
mod unix_datagram;
mod unwinding;
mod util;
mod wakes;
mod workers;
