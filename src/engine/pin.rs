//! Pinning threads to processors.

#![cfg_attr(any(target_os = "linux", target_os = "android"), allow(unsafe_code))]

use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's number of the calling thread.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn this_thread() -> i32 {
    // SAFETY: the call has no arguments and cannot fail. (Older C libraries have no function of its
    // name.)
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// A set of processors: a bit for each, in the words of a `cpu_set_t`.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy, Debug)]
struct CpuSet([usize; CpuSet::WORDS]);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl CpuSet {
    const WORDS: usize = size_of::<libc::cpu_set_t>() / size_of::<usize>();
    const EMPTY: Self = Self([0; Self::WORDS]);

    /// The processors on which the calling thread may run.
    fn of_this_thread() -> io::Result<Self> {
        let mut set = Self::EMPTY;
        // SAFETY: the place is valid for as many bytes as it is told to have.
        let done = unsafe { libc::sched_getaffinity(0, size_of_val(&set), (&raw mut set).cast()) };
        if done == 0 { Ok(set) } else { Err(io::Error::last_os_error()) }
    }

    /// Lets the calling thread run on these only.
    fn apply(&self) -> io::Result<()> {
        // SAFETY: the set is valid for as many bytes as it is told to have, and is only read.
        let done =
            unsafe { libc::sched_setaffinity(0, size_of_val(self), (&raw const *self).cast()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Only the processor at place `number` of the set, counted round and round.
    fn only(&self, number: usize) -> Option<Self> {
        let bits = usize::BITS as usize;
        let has = |cpu: &usize| self.0[cpu / bits] & 1 << (cpu % bits) != 0;
        let all: Vec<usize> = (0..self.0.len() * bits).filter(has).collect();
        let cpu = all.get(number.checked_rem(all.len())?)?;
        let mut one = Self::EMPTY;
        one.0[cpu / bits] = 1 << (cpu % bits);
        Some(one)
    }
}

/// How many threads are pinned, and the processors that the last of them was allowed before. A
/// thread that a pinned one starts gets these back.
#[cfg(any(target_os = "linux", target_os = "android"))]
static PINNED: Mutex<(usize, Option<CpuSet>)> = Mutex::new((0, None));

#[cfg(any(target_os = "linux", target_os = "android"))]
fn pinned() -> MutexGuard<'static, (usize, Option<CpuSet>)> {
    PINNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Undoes what the calling thread has inherited if a pinned thread has started it.
pub(crate) fn unpin() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let (_, Some(before)) = &*pinned() {
        // If these processors are no longer allowed, the thread stays where it is.
        let _ = before.apply();
    }
}

/// Keeps a thread on one processor until this is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    before: CpuSet,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Pinned {
    /// Pins the calling thread to the processor with this number among those that it may use.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(crate) fn new(number: usize) -> io::Result<Self> {
        let before = CpuSet::of_this_thread()?;
        if let Some(one) = before.only(number) {
            one.apply()?;
        }
        let mut pinned = pinned();
        *pinned = (pinned.0 + 1, Some(before));
        Ok(Self { before })
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Drop for Pinned {
    fn drop(&mut self) {
        // If these processors are no longer allowed, the thread stays where it is.
        let _ = self.before.apply();
        let mut pinned = pinned();
        pinned.0 -= 1;
        if pinned.0 == 0 {
            pinned.1 = None;
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Pinned {
    pub(crate) fn new(_number: usize) -> io::Result<Self> {
        Ok(Self {})
    }
}
