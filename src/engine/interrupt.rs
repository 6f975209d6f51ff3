//! How a worker is asked that does not come to its next turn: a signal has its thread answer in the
//! middle of what it does.
//!
//! The handler runs the same survey as the loop. It allocates nothing and takes no lock: the memory
//! for the answer is there, and what is being changed at this moment is left out. The signal is
//! `SIGURG`, which programs ignore by default (Go's runtime uses it for the same reason). A handler
//! that the program has installed before is called for signals that are not ours.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;

use super::context;
use super::coroutine::Registers;

const SIGNAL: libc::c_int = libc::SIGURG;

/// Interrupts a worker's thread. Returns `false` if the system cannot.
pub(crate) fn send(thread: i32) -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if !*INSTALLED.get_or_init(install) {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        // SAFETY: this sends a signal to a thread of this process, for which a handler is
        // installed. Should the thread have ended, the call fails, or reaches another thread, which
        // finds no question.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = thread;
        false
    }
}

/// The previous action.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

fn install() -> bool {
    // SAFETY: an all-zero `sigaction` is valid: no flags, no mask, SIG_DFL.
    //
    // `handler` has the signature that SA_SIGINFO demands, and is async-signal-safe. It runs on the
    // alternate stack, because the stack of a coroutine may be nearly full.
    unsafe {
        let (mut ours, mut previous): (libc::sigaction, libc::sigaction) = mem::zeroed();
        if libc::sigaction(SIGNAL, ptr::null(), &mut previous) != 0 {
            return false;
        }
        let _ = PREVIOUS.set(previous);
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(SIGNAL, &ours, ptr::null_mut()) == 0
    }
}

extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    ucontext: *mut libc::c_void,
) {
    let error = io::Error::last_os_error().raw_os_error();
    // SAFETY: the kernel passes a valid `ucontext_t`.
    let registers = unsafe { registers(ucontext) };
    let answered = context::if_known(|scheduler| scheduler.answer_interrupted(registers));
    if answered != Some(true) {
        pass_on(signal, info, ucontext);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: it is this thread's own `errno`, which the interrupted code may be about to read.
    unsafe {
        *libc::__errno_location() = error.unwrap_or(0);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = error;
}

/// Handles a signal that is not ours as it would have been handled without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, ucontext: *mut libc::c_void) {
    let Some(previous) = PREVIOUS.get() else { return };
    let address = previous.sa_sigaction;
    // The default action of this signal is to ignore it.
    if address == libc::SIG_DFL || address == libc::SIG_IGN {
        return;
    }
    type Plain = extern "C" fn(libc::c_int);
    type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    // SAFETY: its flags say whether it was installed as a handler of three arguments or of one.
    unsafe {
        if previous.sa_flags & libc::SA_SIGINFO != 0 {
            mem::transmute::<usize, Full>(address)(signal, info, ucontext);
        } else {
            mem::transmute::<usize, Plain>(address)(signal);
        }
    }
}

/// The registers at the moment of the signal, where we know them.
///
/// # Safety
///
/// The argument must be the one of a signal handler.
unsafe fn registers(ucontext: *mut libc::c_void) -> Option<Registers> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        // SAFETY: by the caller's promise.
        let context = unsafe { &(*ucontext.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let get = |register: libc::c_int| context[register as usize] as usize;
        return Some(Registers {
            instruction: get(libc::REG_RIP),
            stack: get(libc::REG_RSP),
            frame: get(libc::REG_RBP),
            link: 0,
        });
    }
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    {
        // SAFETY: by the caller's promise.
        let context = unsafe { &(*ucontext.cast::<libc::ucontext_t>()).uc_mcontext };
        return Some(Registers {
            instruction: context.pc as usize,
            stack: context.sp as usize,
            frame: context.regs[29] as usize,
            link: context.regs[30] as usize,
        });
    }
    #[allow(unreachable_code)]
    {
        let _ = ucontext;
        None
    }
}
