//! Stack overflows: a message that names the coroutine, and the end of the process.
//!
//! All of it runs in a signal handler, on the thread's alternate signal stack: it allocates nothing
//! and takes no lock.

use std::fmt::{self, Write};
use std::io;
use std::process;

use super::current;
use super::stack::{self, Purpose};
use super::task::Task;

/// Reports a fault at an address in one of this thread's guards, and ends the process. Returns
/// `false` if it is in none of them. Async-signal-safe.
pub(super) fn report_at(address: usize) -> bool {
    let Some((bottom, size, purpose)) = stack::overflowed(address) else { return false };
    // A generator has its own stack, and so its own guard.
    current::with(|task| {
        let own = task.is_some_and(|task| task.coroutine.is_on(bottom, size));
        let kind = match purpose {
            Purpose::Grown => Kind::Grown,
            Purpose::Own if !own => Kind::Generator,
            Purpose::Own | Purpose::Lent => Kind::Own,
        };
        report(task, kind, size);
    });
    // On Unix, this is the `abort` of libc and nothing else.
    process::abort()
}

/// The stack that has overflowed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// That of the running coroutine, or one as large that a call of it has been lent.
    Own,
    /// That of a generator.
    Generator,
    /// A stack that a call has got from [`grow`](crate::stack::grow).
    Grown,
}

/// Writes the message. It is formatted into a buffer on this stack.
fn report(task: Option<&Task>, kind: Kind, size: usize) {
    let mut line = Line { bytes: [0; 1024], len: 0 };
    let _ = line.write_str("\nplainsong: ");
    let name = task.and_then(Task::name).map_or("<unnamed>", |name| name);
    let _ = match task {
        Some(Task { id, spawned, .. }) if kind != Kind::Generator => write!(
            line,
            "coroutine {id} '{name}', spawned at {spawned}, has overflowed {} stack of {size} bytes",
            if kind == Kind::Own { "its" } else { "a grown" }
        ),
        None if kind == Kind::Grown => {
            write!(line, "a thread has overflowed a grown stack of {size} bytes")
        }
        Some(Task { id, spawned, .. }) => write!(
            line,
            "a generator has overflowed its stack of {size} bytes; it was resumed by coroutine {id} '{name}', \
             spawned at {spawned}"
        ),
        None => write!(line, "a generator has overflowed its stack of {size} bytes"),
    };
    let _ = line.write_str(match kind {
        Kind::Own => {
            "\nGive it more with `Builder::stack_size`, give all of them more with \
             `Runtime::builder().stack_size`, or recurse less.\n"
        }
        Kind::Generator => "\nGive it more with `Generator::with_stack_size`, or recurse less.\n",
        Kind::Grown => {
            "\nCall `plainsong::stack::grow` at each step of the recursion, ask it for more, or \
             recurse less.\n"
        }
    });
    let _ = rustix::io::write(io::stderr(), &line.bytes[..line.len]);
}

struct Line {
    bytes: [u8; 1024],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A message that is too long is cut off.
        let room = self.bytes.len() - self.len;
        let taken = text.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        Ok(())
    }
}
