//! The signals that the engine handles itself.
//!
//! - `SIGSEGV` and `SIGBUS`: an overflow of a coroutine's stack is reported. All other faults go to
//!   the previous handler. On Rust's own threads, that is the one that reports their overflows.
//! - `SIGURG` asks a worker that does not come to its next turn: it has its thread answer in the
//!   middle of what it does. The handler runs the same survey as the loop. Programs ignore this
//!   signal by default (Go's runtime uses it for the same reason). A handler that the program has
//!   installed before is called for signals that are not ours.
//!
//! All run on the thread's alternate signal stack: the stack of a coroutine may be full.

#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;

use super::context;
use super::mapping::Mapping;
use super::overflow;
use super::processor::Registers;
use super::stack;

/// Room for the handler, and for the previous handlers that it may pass a signal on to.
const ALTERNATE_SIZE: usize = 64 * 1024;

const FAULTS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];
const INTERRUPT: libc::c_int = libc::SIGURG;

thread_local! {
    static ALTERNATE: OnceCell<Option<AlternateStack>> = const { OnceCell::new() };
}

/// An alternate signal stack of ours, on a thread that had none, or a smaller one.
struct AlternateStack(Option<Mapping>);

impl AlternateStack {
    fn new() -> Option<Self> {
        let present = set_alternate(None)?;
        // Rust gives a small one to its own threads, which is enough for their overflows, but not
        // for all that our handlers do.
        if present.ss_flags & libc::SS_DISABLE == 0 && present.ss_size >= ALTERNATE_SIZE {
            return None;
        }
        let ours = Mapping::new(ALTERNATE_SIZE).ok()?;
        set_alternate(Some((&ours, 0)))?;
        Some(Self(Some(ours)))
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // The previous one is not restored: Rust's has been unmapped by now, because this is called
        // when the thread's own code has ended.
        let ours = self.0.take();
        let done = ours.as_ref().and_then(|ours| set_alternate(Some((ours, libc::SS_DISABLE))));
        if done.is_none() {
            // A signal handler has called `exit`, and this runs on that very stack.
            mem::forget(ours);
        }
    }
}

/// Tells the kernel to use a signal stack for this thread, or none, if so asked. Returns the
/// previous one.
fn set_alternate(new: Option<(&Mapping, libc::c_int)>) -> Option<libc::stack_t> {
    let stack = |base, ss_flags| libc::stack_t { ss_sp: base, ss_flags, ss_size: ALTERNATE_SIZE };
    let new = new.map(|(new, flags)| stack(ptr::with_exposed_provenance_mut(new.start()), flags));
    let mut previous = stack(ptr::null_mut(), 0);
    // SAFETY: the memory is mapped until the drop of the `AlternateStack`, which first calls this
    // with `SS_DISABLE`, on the same thread, because a thread-local owns it. If the kernel refuses
    // that, the memory stays.
    let done = unsafe {
        libc::sigaltstack(new.as_ref().map_or(ptr::null(), ptr::from_ref), &mut previous)
    };
    (done == 0).then_some(previous)
}

/// Makes overflows on this thread reported. Call it before a coroutine or a generator can run here.
///
/// If no signal stack can be had, an overflow still ends the process, but without a message.
pub(crate) fn protect_thread() {
    static INSTALLED: OnceLock<[bool; 2]> = OnceLock::new();
    INSTALLED.get_or_init(|| FAULTS.map(install));
    // At the end of a thread, there is none.
    let _ = ALTERNATE.try_with(|stack| _ = stack.get_or_init(AlternateStack::new));
}

/// Interrupts a worker's thread. Returns `false` if the system cannot.
pub(crate) fn interrupt(thread: i32) -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if !*INSTALLED.get_or_init(|| install(INTERRUPT)) {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        // SAFETY: this sends a signal to a thread of this process, for which a handler is
        // installed. Should the thread have ended, the call fails, or reaches another thread, which
        // finds no question.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, INTERRUPT) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = thread;
        false
    }
}

/// The previous action of each signal that was installed.
static PREVIOUS: [OnceLock<libc::sigaction>; 3] = [const { OnceLock::new() }; 3];

fn previous(signal: libc::c_int) -> &'static OnceLock<libc::sigaction> {
    &PREVIOUS[FAULTS.iter().position(|fault| *fault == signal).unwrap_or(FAULTS.len())]
}

/// Installs the handler for a signal. Returns `false` if the system refuses.
fn install(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero `sigaction` is valid: no flags, no mask, SIG_DFL.
    //
    // `handler` has the signature that SA_SIGINFO demands. It calls only what is async-signal-safe.
    // Of ours, that is `overflow::report_at` and `Scheduler::answer_interrupted`. Both allocate
    // nothing and take no lock, and find borrowed what is being changed at this moment. The memory
    // for an answer is there, and the thread-locals have no destructors.
    unsafe {
        let (mut ours, mut before): (libc::sigaction, libc::sigaction) = mem::zeroed();
        if libc::sigaction(signal, ptr::null(), &mut before) != 0 {
            return false;
        }
        // Before the handler can run.
        let _ = previous(signal).set(before);
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(signal, &ours, ptr::null_mut()) == 0
    }
}

extern "C" fn handler(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    ucontext: *mut libc::c_void,
) {
    let error = io::Error::last_os_error().raw_os_error();
    // SAFETY: the kernel passes a valid `siginfo_t`, with room for the address that faults have,
    // and a valid `ucontext_t`.
    let (address, context) =
        unsafe { ((*info).si_addr().addr(), &*ucontext.cast::<Interrupted>()) };
    let is_ours = if signal == INTERRUPT {
        // When the thread ends, it has dropped its alternate stack. The stack of a coroutine may
        // have no room for an answer.
        let has_room = stack::bounds_of(ptr::from_ref(&error).addr()).is_none();
        let answer = || context::if_known(|it| it.answer_interrupted(registers(context)));
        has_room && answer().unwrap_or(false)
    } else {
        overflow::report_at(address)
    };
    if !is_ours {
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
    let Some(previous) = previous(signal).get() else { return };
    let address = previous.sa_sigaction;
    type Plain = extern "C" fn(libc::c_int);
    type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    let is_default = address == libc::SIG_DFL || address == libc::SIG_IGN;
    if is_default && signal == INTERRUPT {
        return; // The default action of this signal is to ignore it.
    }
    // SAFETY: a handler is called as its flags say, which is with three arguments or with one.
    //
    // Without one, the faulting instruction runs again after the return, now with the default
    // action. So the process ends as it would have without us. (The kernel does not allow a
    // synchronous fault to be ignored either.)
    unsafe {
        if is_default {
            libc::signal(signal, libc::SIG_DFL);
        } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
            mem::transmute::<usize, Full>(address)(signal, info, ucontext);
        } else {
            mem::transmute::<usize, Plain>(address)(signal);
        }
    }
}

/// The state of the interrupted code, where we know its form.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
type Interrupted = libc::ucontext_t;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
type Interrupted = ();

/// The registers at the moment of the signal.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn registers(context: &Interrupted) -> Option<Registers> {
    let get = |register: libc::c_int| context.uc_mcontext.gregs[register as usize] as usize;
    Some(Registers {
        instruction: get(libc::REG_RIP),
        stack: get(libc::REG_RSP),
        frame: get(libc::REG_RBP),
        link: 0,
    })
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn registers(context: &Interrupted) -> Option<Registers> {
    let context = &context.uc_mcontext;
    Some(Registers {
        instruction: context.pc as usize,
        stack: context.sp as usize,
        frame: context.regs[29] as usize,
        link: context.regs[30] as usize,
    })
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn registers(_: &Interrupted) -> Option<Registers> {
    None
}
