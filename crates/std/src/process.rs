//! [`std::process`](mod@::std::process): a wait for a child or its pipes parks the coroutine.

pub use ::plainsong::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
pub use ::std::process::*;
