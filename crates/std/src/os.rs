//! [`std::os`](mod@::std::os): Unix sockets, and the traits that std keeps for its own types.

pub use ::std::os::*;

/// [`std::os::unix`](mod@::std::os::unix).
pub mod unix {
    pub use ::std::os::unix::*;

    /// [`std::os::unix::fs`](mod@::std::os::unix::fs).
    pub mod fs {
        pub use ::plainsong::fs::symlink;
        pub use ::std::os::unix::fs::*;
    }

    /// [`std::os::unix::net`](mod@::std::os::unix::net): sockets park the coroutine that waits.
    pub mod net {
        pub use ::plainsong::net::{UnixDatagram, UnixListener, UnixStream};
        pub use ::std::os::unix::net::*;

        /// The connections of a [`UnixListener`].
        pub type Incoming<'a, L = UnixListener> = ::plainsong::net::Incoming<'a, L>;
    }

    /// [`std::os::unix::process`](mod@::std::os::unix::process).
    pub mod process {
        pub use super::super::command::CommandExt;
        pub use ::std::os::unix::process::*;
    }

    /// [`std::os::unix::thread`](mod@::std::os::unix::thread).
    pub mod thread {
        pub use crate::thread::JoinHandleExt;
        pub use ::std::os::unix::thread::*;
    }

    /// [`std::os::unix::prelude`](mod@::std::os::unix::prelude).
    pub mod prelude {
        #[doc(no_inline)]
        pub use super::process::CommandExt;
        #[doc(no_inline)]
        pub use super::thread::JoinHandleExt;
        #[doc(no_inline)]
        pub use ::std::os::unix::prelude::*;
    }
}

#[path = "command.rs"]
mod command;
