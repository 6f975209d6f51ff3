//! Whether core files have the stacks of coroutines.

use std::sync::atomic::{AtomicBool, Ordering};

static STACKS: AtomicBool = AtomicBool::new(false);

/// Has core files contain the stacks that are made from now on.
pub(crate) fn keep_stacks() {
    STACKS.store(true, Ordering::Relaxed);
}

/// Whether core files are to contain new stacks. Then guards are mappings of their own: a debugger
/// that writes a core file stops at the first page of a mapping that it cannot read.
pub(super) fn have_stacks() -> bool {
    STACKS.load(Ordering::Relaxed)
}
