//! What the scheduler knows of one coroutine.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use super::coroutine::{Coroutine, LINE, Suspended, prefetch};
use super::id::Id;
use super::ready::Link;
use super::scopes::Scopes;
use super::timer::TimerKey;

/// Why a coroutine is parked, as the `Debug` of its handle and the report of a deadlock show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    by: EndedBy,
    // A number that stands for `{}` in the reason: a descriptor, an id.
    detail: u32,
    reason: &'static str,
}

/// What can end a wait: a deadlock is a run whose every wait only the run itself could end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EndedBy {
    /// A coroutine of the same run, and nothing else.
    Run,
    /// Any thread that knows of it.
    AnyThread,
    /// The kernel, the clock, another run.
    Outside,
}

impl Wait {
    /// Not waiting.
    pub(crate) const NONE: Self = Self::outside("nothing");

    /// A wait that only a coroutine of the same run can end.
    pub(crate) const fn for_run(reason: &'static str) -> Self {
        Self { by: EndedBy::Run, detail: 0, reason }
    }

    /// A wait that any thread may end.
    pub(crate) const fn for_any_thread(reason: &'static str) -> Self {
        Self { by: EndedBy::AnyThread, detail: 0, reason }
    }

    /// A wait that the kernel, the clock or another run ends.
    pub(crate) const fn outside(reason: &'static str) -> Self {
        Self { by: EndedBy::Outside, detail: 0, reason }
    }

    /// The same wait, with a number for the `{}` of its reason.
    pub(crate) const fn with(self, detail: u32) -> Self {
        Self { detail, ..self }
    }

    /// Whether only a coroutine of the same run can end this wait.
    pub(crate) fn is_internal(self) -> bool {
        self.by == EndedBy::Run
    }

    /// Whether a plain thread could end this wait, if there is one that knows of it.
    pub(crate) fn is_ended_by_threads(self) -> bool {
        self.by == EndedBy::AnyThread
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.split_once("{}") {
            Some((before, after)) => write!(f, "{before}{}{after}", self.detail),
            None => f.write_str(self.reason),
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// What was waited for has happened, or may have.
    Ready,
    /// The deadline has passed first.
    TimedOut,
    /// A cancellation came first: the waiter unwinds.
    Cancelled,
}

/// Where a coroutine's result is awaited.
pub(crate) trait Completion {
    /// There is no result and never will be.
    fn abandon(&self);
}

/// A wait that has a place in some queue, which a cancellation takes out of it at once: what would be handed
/// over goes to the next waiter.
pub(crate) trait CancelWait {
    /// Takes the place out of its queue, unless it has been served. Returns whether it was taken out, so that
    /// the wait is over and has not happened. Called on the coroutine's own thread, outside of its
    /// coroutine; must run no code of users.
    fn cancel(&self) -> bool;
}

/// A coroutine and its bookkeeping. Only its own thread ever sees it. The table of its scheduler owns it,
/// from the moment it is added until its coroutine has ended.
///
/// What a turn touches stands together at the front.
#[repr(C)]
pub(crate) struct Task {
    pub(crate) coroutine: Coroutine,
    pub(crate) link: Link,
    pub(crate) slot: Cell<u32>,
    pub(crate) timer: Cell<Option<TimerKey>>,
    pub(crate) scopes: Scopes,
    /// Suspended until `unpark`; if not, it runs or is in the ready queue.
    pub(crate) parked: Cell<bool>,
    pub(crate) wake: Cell<Wake>,
    pub(crate) flags: Flags,
    /// The period of ambiguity in which the coroutine has begun to panic: see the scheduler's `unwinding.rs`.
    pub(crate) panicked_in: Cell<u32>,
    /// When the wait under way began, in milliseconds of the scheduler's time.
    pub(crate) since: Cell<u32>,
    /// The number of the wait under way; 0 when there is none, so that a late wake finds nothing.
    pub(crate) wait: Cell<u64>,
    pub(crate) waiting: Cell<Wait>,
    /// The place of the wait under way, on the coroutine's own stack.
    pub(crate) place: Cell<Option<NonNull<dyn CancelWait>>>,
    /// What the coroutine will look at first when its wait is over: fetched ahead of that, never followed.
    pub(crate) ahead: Cell<*const u8>,
    pub(crate) id: Id,
    pub(crate) spawned: &'static Location<'static>,
    /// What has to be told that this coroutine will never end, until it tells that itself. Nothing is set
    /// while code of users runs that may free it. (The main coroutine of a run never has one.)
    pub(crate) completion: Cell<Option<NonNull<dyn Completion>>>,
    extras: OnceCell<Box<Extras>>,
}

/// What is asked of a task too seldom to have a byte of its own.
#[derive(Default, Debug)]
pub(crate) struct Flags(Cell<u8>);

/// One of the [`Flags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Flag {
    /// A cancellation has been raised and not been caught where it belongs: the coroutine unwinds,
    /// or has swallowed the payload.
    Raised = 1,
    /// Its code borrows from another stack, so it must not be given up.
    Borrows = 2,
    /// `thread::unpark` came before `thread::park`.
    ParkToken = 4,
    /// The first coroutine of a run.
    Main = 64,
    /// Parked in `thread::park`.
    InPark = 8,
    /// Suspended while it unwinds: no cancellation may wake it.
    Unwinds = 16,
    /// Counted among the coroutines that are suspended while the thread panics.
    Counted = 32,
}

impl Flags {
    #[inline]
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.0.get() & flag as u8 != 0
    }

    /// Sets a flag; returns what it was.
    #[inline]
    pub(crate) fn set(&self, flag: Flag, on: bool) -> bool {
        let before = self.0.get();
        self.0.set(if on { before | flag as u8 } else { before & !(flag as u8) });
        before & flag as u8 != 0
    }
}

/// What few coroutines have.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) locals: RefCell<Locals>,
    swallowed: Cell<u32>,
    on_abandon: Cell<Option<Box<dyn FnOnce()>>>,
}

/// Values of `coroutine_local!` keys, by the key's address.
pub(crate) type Locals = Vec<(usize, Rc<dyn Any>)>;

impl Task {
    /// Goes back to the scheduler, which knows from `how` what comes next.
    ///
    /// # Safety
    ///
    /// This must be the current task: the code that calls this is its coroutine's.
    #[inline]
    pub(crate) unsafe fn suspend(&self, how: Suspended) {
        // SAFETY: by the caller's promise we are on the coroutine's stack, or on that of a generator
        // which it resumed.
        unsafe { self.coroutine.suspend(how) };
    }

    #[inline]
    pub(crate) fn new(
        coroutine: Coroutine,
        id: Id,
        name: Option<Arc<str>>,
        spawned: &'static Location<'static>,
    ) -> Self {
        let extras = match name {
            None => OnceCell::new(),
            name => Box::new(Extras { name, ..Extras::default() }).into(),
        };
        Self {
            coroutine,
            link: Link::new(),
            id,
            spawned,
            completion: Cell::new(None),
            slot: Cell::new(0),
            timer: Cell::new(None),
            scopes: Scopes::default(),
            parked: Cell::new(false),
            wake: Cell::new(Wake::Ready),
            flags: Flags::default(),
            panicked_in: Cell::new(0),
            since: Cell::new(0),
            wait: Cell::new(0),
            waiting: Cell::new(Wait::NONE),
            place: Cell::new(None),
            // Something that is there, as what is not takes the processor longer.
            ahead: Cell::new(ptr::from_ref(spawned).cast()),
            extras,
        }
    }

    /// Has the processor fetch a task.
    #[inline]
    pub(crate) fn fetch(place: *const Self) {
        (0..size_of::<Self>()).step_by(LINE).for_each(|at| prefetch(place.wrapping_byte_add(at)));
    }

    /// Has the processor fetch what the coroutine's next turn begins with.
    #[inline]
    pub(crate) fn fetch_ahead(&self) {
        self.coroutine.fetch_top();
        prefetch(self.ahead.get());
    }

    /// Says to the waiters for this coroutine that it will never end.
    pub(crate) fn abandoned(&self) {
        if let Some(completion) = self.completion.take() {
            // SAFETY: it is alive until the coroutine completes it, and takes it out of the task before.
            unsafe { completion.as_ref() }.abandon();
        }
        if let Some(f) = self.extras.get().and_then(|extras| extras.on_abandon.take()) {
            f();
        }
    }

    /// Notes that no payload is on its way: it was caught at its level, or nothing asks for it any more.
    pub(crate) fn clear_raised(&self) {
        self.flags.set(Flag::Raised, false);
        self.panicked_in.set(0);
        if let Some(extras) = self.extras.get() {
            extras.swallowed.set(0);
        }
    }

    /// Has `f` called if the coroutine is given up.
    pub(crate) fn on_abandon(&self, f: Box<dyn FnOnce()>) {
        self.extras.get_or_init(Box::default).on_abandon.set(Some(f));
    }

    /// Counts a payload that was swallowed; returns how many have been.
    pub(crate) fn count_swallowed(&self) -> u32 {
        let swallowed = &self.extras.get_or_init(Box::default).swallowed;
        swallowed.set(swallowed.get() + 1);
        swallowed.get()
    }

    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.extras.get()?.name.as_ref()
    }

    pub(crate) fn locals(&self) -> &RefCell<Locals> {
        &self.extras.get_or_init(Box::default).locals
    }

    /// Takes the locals, to drop them; allocates nothing where there are none.
    pub(crate) fn take_locals(&self) -> Locals {
        self.extras.get().map(|extras| extras.locals.take()).unwrap_or_default()
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("name", &self.name())
            .field("parked", &self.parked.get())
            .field("waiting", &self.waiting.get())
            .field("spawned", &self.spawned)
            .finish_non_exhaustive()
    }
}
