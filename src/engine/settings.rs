//! The settings of a run, and its hooks: functions of the program that are called when a coroutine
//! of the run begins a turn and when it ends one.
//!
//! A hook runs on the stack of its coroutine, and in place of it: no coroutine counts as running.
//! So it cannot park, and nothing it does is taken for the coroutine's own. A wait in a hook would
//! block the thread, and panics.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::id::Id;
use super::stack;

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Stack size in bytes of coroutines that do not ask for another size.
    pub(crate) stack_size: usize,
    /// No plain thread takes part, so waits that only a plain thread could end count for deadlocks.
    pub(crate) strict: bool,
    pub(crate) workers: usize,
    /// Each worker runs on a processor of its own.
    pub(crate) pin: bool,
    pub(crate) hooks: Hooks,
}

impl Default for Settings {
    fn default() -> Self {
        Self { stack_size: stack::DEFAULT_SIZE, strict: false, workers: 1, pin: false, hooks: None }
    }
}

/// The hooks of a run, if it has any.
pub(crate) type Hooks = Option<Arc<Each>>;

type Hook = Arc<dyn Fn(Id) + Send + Sync>;

/// When a hook is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// A turn begins.
    Resume,
    /// A turn ends with a wait.
    Suspend,
    /// The last turn ends.
    End,
}

/// The hooks for each moment, in the order in which they are called.
#[derive(Clone, Default)]
pub(crate) struct Each([Vec<Hook>; 3]);

// A panic stops at the hook.
impl UnwindSafe for Each {}
impl RefUnwindSafe for Each {}

impl Each {
    pub(crate) fn add(&mut self, moment: Moment, hook: impl Fn(Id) + Send + Sync + 'static) {
        let hooks = &mut self.0[moment as usize];
        // A context that was set up first is taken down last.
        let at = if moment == Moment::Resume { hooks.len() } else { 0 };
        hooks.insert(at, Arc::new(hook));
    }

    pub(super) fn at(&self, moment: Moment) -> &[Hook] {
        &self.0[moment as usize]
    }
}

impl fmt::Debug for Each {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.each_ref().map(Vec::len)).finish()
    }
}
