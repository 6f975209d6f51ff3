//! Calls out of which no panic may get, because other threads may use the stack that it would free.

use ::std::io::{self, Write};
use ::std::mem;
use ::std::process;

/// Where waits are forbidden, for messages.
pub(crate) const WHERE: &str = "in `no_wait`, in the poll of a future of \
                                `plainsong_tokio::block_on`, in a task of tokio or other code of \
                                the host of a worker's thread, in a hook of a runtime";

/// Calls `f`, which waits for `call`. If it panics, the process ends.
#[inline]
pub(crate) fn must_return<T>(call: &'static str, f: impl FnOnce() -> T) -> T {
    let abort = AbortOnUnwind(call);
    let value = f();
    mem::forget(abort);
    value
}

struct AbortOnUnwind(&'static str);

impl Drop for AbortOnUnwind {
    #[cold]
    fn drop(&mut self) {
        // Nothing more can be done if this cannot be written.
        let _ = writeln!(
            io::stderr(),
            "plainsong: `{}` of plainsong-std has panicked, as the message above says. That must \
             not unwind: other threads may use what is on the stack. So the process ends.\nIt \
             panics if it has to wait where waits are forbidden ({WHERE}). Wait in a coroutine or \
             a thread of its own, or outside of `no_wait`.",
            self.0,
        );
        process::abort();
    }
}
