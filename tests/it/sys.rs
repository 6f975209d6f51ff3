//! System calls for the tests that have no safe wrapper.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
use std::task::{RawWaker, RawWakerVTable, Waker};

/// Lets the kernel end this process after some seconds, so that a child that hangs does not outlive
/// its test.
pub(crate) fn end_in(seconds: u32) {
    // SAFETY: `alarm` has no preconditions.
    unsafe { libc::alarm(seconds) };
}

/// Runs `f` on a thread that Rust has not started, and waits for it.
pub(crate) fn on_foreign_thread(f: fn()) {
    extern "C" fn enter(f: *mut c_void) -> *mut c_void {
        // SAFETY: `on_foreign_thread` passes a pointer to a `fn()` on its stack, and waits for us.
        let f = unsafe { *f.cast::<fn()>() };
        f();
        ptr::null_mut()
    }
    let mut f = f;
    let mut thread = 0;
    let argument = (&raw mut f).cast::<c_void>();
    // SAFETY: the attributes may be null, and `f` outlives the thread, which is joined below.
    let failed = unsafe { libc::pthread_create(&mut thread, ptr::null(), enter, argument) };
    assert_eq!(failed, 0);
    // SAFETY: the thread was made above, and is neither joined nor detached elsewhere.
    let failed = unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    assert_eq!(failed, 0);
}

/// A waker that does nothing but call `f` when it is cloned.
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
pub(crate) fn waker_that_clones_with(f: &'static fn()) -> Waker {
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, ignore, ignore, ignore);
    fn clone(data: *const ()) -> RawWaker {
        // SAFETY: `waker_that_clones_with` passes a reference for good.
        let f = unsafe { *data.cast::<fn()>() };
        f();
        RawWaker::new(data, &TABLE)
    }
    fn ignore(_: *const ()) {}
    // SAFETY: all threads may call these functions, and there is nothing to free.
    unsafe { Waker::new(ptr::from_ref(f).cast(), &TABLE) }
}

/// Reads the byte at address 8: a fault that has nothing to do with stacks.
pub(crate) fn read_near_null() -> u8 {
    let nowhere = std::hint::black_box(ptr::without_provenance::<u8>(8));
    // SAFETY: none. The process ends here, as the caller wants.
    unsafe { nowhere.read_volatile() }
}

/// Calls `exit` in a signal handler, on the alternate signal stack of this thread.
pub(crate) fn exit_in_a_handler() {
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: the signal has interrupted nothing, as this thread has raised it.
        unsafe { libc::exit(0) }
    }
    // SAFETY: an all-zero `sigaction` is valid, and the handler takes one argument, as its flags
    // say.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()), 0);
        libc::raise(libc::SIGUSR1);
    }
}

/// A function that sends a signal to the thread that called this, while it lives.
pub(crate) fn interrupter(signal: i32) -> impl Fn() + Send {
    // SAFETY: it has no arguments.
    let thread = unsafe { libc::pthread_self() } as usize;
    // SAFETY: the thread lives, as the caller promises, and the signal has a handler.
    move || assert_eq!(unsafe { libc::pthread_kill(thread as libc::pthread_t, signal) }, 0)
}

/// Closes a standard stream of this process.
pub(crate) fn close_stream(fd: i32) {
    assert!((0..3).contains(&fd));
    // SAFETY: std and this library expect that these three may be closed.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

/// Forks this process. `child` runs in the child, which then ends; returns whether it ended well.
/// No other thread may hold anything that `child` needs: there is none, or it sleeps in a wait of
/// this library.
pub(crate) fn fork(child: impl FnOnce()) -> bool {
    // SAFETY: the caller promises that `child` needs nothing that other threads hold.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            end_in(20);
            let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(i32::from(!ok)) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` is valid for the answer.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            status == 0
        }
    }
}
