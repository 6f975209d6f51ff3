//! Stack overflows: a message that names the coroutine, and the end of the process.
//!
//! The kernel delivers the fault on the thread's alternate signal stack. The handler looks the
//! address up among this thread's guard pages. If it is in none of them, the handler passes the
//! fault on to the previous handler. On Rust's own threads, that is the one that reports their
//! overflows.

#![allow(unsafe_code)]

use std::fmt::{self, Write};
use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;

use super::current;
use super::stack::{self, Purpose};
use super::task::Task;

/// Room for the handler, and for the previous handlers that it may pass a fault on to.
const ALTERNATE_SIZE: usize = 64 * 1024;

/// An alternate signal stack of ours, on a thread that had none, or a smaller one.
#[derive(Debug)]
pub(crate) struct AlternateStack {
    base: *mut libc::c_void,
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // The previous one is not restored: Rust's has been unmapped by now, because this is called
        // when the thread's own code has ended.
        let mut none = alternate(ptr::null_mut(), 0);
        none.ss_flags = libc::SS_DISABLE;
        // SAFETY: the kernel forgets the stack before its memory is unmapped. The drop runs on the
        // thread that made it (a thread-local owns it), and not in a signal handler.
        unsafe {
            libc::sigaltstack(&none, ptr::null_mut());
            libc::munmap(self.base, ALTERNATE_SIZE);
        }
    }
}

fn alternate(base: *mut libc::c_void, size: usize) -> libc::stack_t {
    libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: size }
}

/// Makes overflows on this thread reported.
///
/// If no signal stack can be had, an overflow still ends the process, but without a message.
pub(crate) fn protect_thread() -> Option<AlternateStack> {
    install();
    let mut present = alternate(ptr::null_mut(), 0);
    // SAFETY: this only asks, and `present` is valid for the answer.
    let asked = unsafe { libc::sigaltstack(ptr::null(), &mut present) };
    // Rust gives a small one to its own threads, which is enough for their overflows, but not for
    // all that our handlers do.
    let none = present.ss_flags & libc::SS_DISABLE != 0;
    if asked != 0 || !none && present.ss_size >= ALTERNATE_SIZE {
        return None;
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new private mapping at an address of the kernel's choice.
    //
    // The memory is ours until `drop` takes the signal stack away from the thread.
    unsafe {
        let base = libc::mmap(ptr::null_mut(), ALTERNATE_SIZE, access, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return None;
        }
        let ours = AlternateStack { base };
        let set = libc::sigaltstack(&alternate(ours.base, ALTERNATE_SIZE), ptr::null_mut());
        (set == 0).then_some(ours)
    }
}

/// The previous handlers, for SIGSEGV and SIGBUS.
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

fn install() {
    PREVIOUS.get_or_init(|| {
        SIGNALS.map(|signal| {
            // SAFETY: an all-zero `sigaction` is valid: no flags, no mask, SIG_DFL.
            //
            // `handler` has the signature that SA_SIGINFO demands, and is async-signal-safe.
            unsafe {
                let (mut ours, mut previous): (libc::sigaction, libc::sigaction) = mem::zeroed();
                ours.sa_sigaction = handler as *const () as usize;
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(signal, &ours, &mut previous);
                previous
            }
        })
    });
}

extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    ucontext: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid `siginfo_t`, which for these signals has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    if let Some((size, guard, purpose)) = stack::overflowed(address) {
        // A generator has its own stack, and so its own guard.
        current::with(|task| {
            let own = task.is_some_and(|task| task.coroutine.is_above(guard, size));
            let kind = match purpose {
                Purpose::Grown => Kind::Grown,
                Purpose::Own if !own => Kind::Generator,
                Purpose::Own | Purpose::Lent => Kind::Own,
            };
            report(task, kind, size);
        });
        // SAFETY: `abort` is async-signal-safe by POSIX.
        unsafe { libc::abort() };
    }
    pass_on(signal, info, ucontext);
}

/// Handles a fault that is not ours as it would have been handled without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, ucontext: *mut libc::c_void) {
    // There is no entry yet for a fault between `sigaction` and the end of `install`.
    let at = usize::from(signal != SIGNALS[0]);
    let previous = PREVIOUS.get().map(|previous| previous[at]);
    match previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: after the return, the faulting instruction runs again, now with the default
            // action. So the process ends as it would have without us. (The kernel does not allow a
            // synchronous fault to be ignored either.)
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        address => {
            let flags = previous.map_or(0, |previous| previous.sa_flags);
            type Plain = extern "C" fn(libc::c_int);
            type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: its flags say whether it was installed as a handler of three arguments or of
            // one.
            unsafe {
                if flags & libc::SA_SIGINFO != 0 {
                    mem::transmute::<usize, Full>(address)(signal, info, ucontext);
                } else {
                    mem::transmute::<usize, Plain>(address)(signal);
                }
            }
        }
    }
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

/// Writes the message. It is formatted into a buffer on this stack, so this allocates nothing and
/// takes no lock.
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
