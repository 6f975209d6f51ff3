//! The memory, descriptors, mappings and threads of this process.

use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many handles the script has forgotten. Each leaks less than a KiB.
static FORGOTTEN: AtomicUsize = AtomicUsize::new(0);

/// Forgets a handle, as safe code may.
pub(crate) fn forget<T>(handle: T) {
    FORGOTTEN.fetch_add(1, Ordering::Relaxed);
    std::mem::forget(handle);
}

/// Figures of this process that must not grow for ever.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// Resident memory without file pages, in KiB.
    pub(crate) resident: usize,
    pub(crate) descriptors: usize,
    pub(crate) mappings: usize,
    pub(crate) threads: usize,
}

impl Held {
    /// # Panics
    ///
    /// When no descriptor is left.
    pub(crate) fn now() -> Self {
        Self::read().expect("/proc can be read")
    }

    /// # Errors
    ///
    /// When no descriptor is left.
    pub(crate) fn read() -> io::Result<Self> {
        Ok(Self {
            resident: resident()?,
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            mappings: fs::read_to_string("/proc/self/maps")?.lines().count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
        })
    }

    /// Fails when this is more than `before` by more than what the allocator and the pools of
    /// stacks and threads may keep.
    pub(crate) fn check(&self, before: &Self) {
        // The blocking pool keeps idle threads for ten seconds, and each has a reactor of four
        // descriptors, if it has ever waited.
        let threads = self.threads.saturating_sub(before.threads);
        let descriptors = before.descriptors.max(4 * self.threads + 8);
        let room = before.resident / 2 + 32 * 1024 + FORGOTTEN.load(Ordering::Relaxed);
        let checks = [
            ("resident KiB", self.resident, before.resident + room),
            ("descriptors", self.descriptors, descriptors),
            ("mappings", self.mappings, before.mappings + before.mappings / 4 + 64 + 4 * threads),
            ("threads", self.threads, before.threads + 64),
        ];
        for (what, now, limit) in checks {
            assert!(now <= limit, "{what} grew: {before} before, {self} now");
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, descriptors, mappings, threads } = self;
        write!(
            f,
            "{resident} KiB resident, {descriptors} descriptors, {mappings} mappings, {threads} \
             threads"
        )
    }
}

fn resident() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kibibytes.ok_or(io::ErrorKind::InvalidData.into())
}
