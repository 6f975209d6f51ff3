//! Pinning threads to processors.

use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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
        let _ = sched_setaffinity(None, before);
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
        let before = sched_getaffinity(None)?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu)).collect();
        if let Some(cpu) = allowed.iter().cycle().nth(number) {
            let mut one = CpuSet::new();
            one.set(*cpu);
            sched_setaffinity(None, &one)?;
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
        let _ = sched_setaffinity(None, &self.before);
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
