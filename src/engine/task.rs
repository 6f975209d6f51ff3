//! `Task`: one coroutine and the scheduler's bookkeeping about it.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe, Location};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use super::coroutine::Coroutine;
use super::id::Id;
use super::processor::{LINE, prefetch};
use super::scopes::Scopes;
use super::subject::{Alternative, Subject};
use super::timer::TimerKey;

/// Why a coroutine is parked, as the `Debug` of its handle and the report of a deadlock show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(super) reason: &'static Reason,
    // A number that stands for `{}` in the reason: a descriptor, an id.
    pub(super) detail: u32,
}

/// A kind of wait. Each place that waits has its own.
#[derive(Debug)]
pub(crate) struct Reason {
    by: EndedBy,
    text: &'static str,
    // The operation that waits, and the kind of its object, as a dump shows them.
    verb: &'static str,
    kind: &'static str,
}

/// The origin of what can end a wait, from the nearest to the farthest. In a deadlock, every wait
/// can be ended by the run alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum EndedBy {
    /// A coroutine of the same run, and nothing else.
    Run,
    /// Any thread that knows of it.
    AnyThread,
    /// The kernel, the clock, another run.
    Outside,
}

impl Reason {
    const fn new(by: EndedBy, text: &'static str) -> Self {
        Self { by, text, verb: "", kind: "" }
    }

    /// The same reason, with the names of the operation and of its object for dumps.
    pub(crate) const fn of(self, verb: &'static str, kind: &'static str) -> Self {
        Self { verb, kind, ..self }
    }
}

impl Wait {
    pub(crate) const fn new(reason: &'static Reason) -> Self {
        Self { reason, detail: 0 }
    }

    /// The reason of waits that only a coroutine of the same run can end.
    pub(crate) const fn for_run(text: &'static str) -> Reason {
        Reason::new(EndedBy::Run, text)
    }

    /// The reason of waits that any thread may end.
    pub(crate) const fn for_any_thread(text: &'static str) -> Reason {
        Reason::new(EndedBy::AnyThread, text)
    }

    /// The reason of waits that the kernel, the clock or another run ends.
    pub(crate) const fn outside(text: &'static str) -> Reason {
        Reason::new(EndedBy::Outside, text)
    }

    /// The same wait, with a number for the `{}` of its reason.
    pub(crate) const fn with(self, detail: u32) -> Self {
        Self { detail, ..self }
    }

    /// The reason alone.
    pub(crate) fn reason(self) -> &'static Reason {
        self.reason
    }

    /// Whether another wait has the same reason.
    pub(crate) fn is_as(self, other: Self) -> bool {
        ptr::eq(self.reason, other.reason)
    }

    /// The operation that waits. Empty if the text says it all.
    pub(crate) fn verb(self) -> &'static str {
        self.reason.verb
    }

    /// The kind of object that is waited for.
    pub(crate) fn kind(self) -> &'static str {
        self.reason.kind
    }

    /// The reason as a text, with `{}` for the number.
    pub(crate) fn text(self) -> &'static str {
        self.reason.text
    }

    /// The number: a descriptor, an id.
    pub(crate) fn detail(self) -> u32 {
        self.detail
    }

    /// Whether only a coroutine of the same run can end this wait.
    pub(crate) fn is_internal(self) -> bool {
        self.reason.by == EndedBy::Run
    }

    /// Whether the kernel, the clock or another run ends this wait.
    pub(crate) fn is_outside(self) -> bool {
        self.reason.by == EndedBy::Outside
    }

    /// Whether a plain thread could end this wait, if there is one that knows of it.
    pub(crate) fn is_ended_by_threads(self) -> bool {
        self.reason.by == EndedBy::AnyThread
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.text.split_once("{}") {
            Some((before, after)) => write!(f, "{before}{}{after}", self.detail),
            None => f.write_str(self.reason.text),
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// The event has happened, or may have.
    Ready,
    /// The deadline passed first.
    TimedOut,
    /// A cancellation came first: the waiter unwinds.
    Cancelled,
}

/// The packet of a coroutine's result, as its task sees it: the first field of one.
pub(crate) struct Completion {
    /// Completes the packet without a result: there never will be one.
    ///
    /// # Safety
    ///
    /// The packet must be alive, and not completed.
    pub(crate) abandon: unsafe fn(NonNull<Completion>),
}

/// A wait that has a place in a queue. A cancellation takes the place out at once, so that a lock,
/// item or permit goes to the next waiter.
pub(crate) trait CancelWait {
    /// Takes the place out of its queue, unless it was already served. Returns whether it was taken
    /// out: then the wait is over without success. Called on the coroutine's own thread, but not in
    /// the coroutine. Must run no user code.
    fn cancel(&self) -> bool;

    /// The object of the queue. This may be called in a signal handler, so it neither allocates
    /// nor waits for a lock.
    fn subject(&self) -> Option<Subject>;

    /// The objects, if there are several.
    fn alternatives(&self) -> Box<[Alternative]> {
        Box::default()
    }
}

/// A coroutine and its bookkeeping. Only its own thread ever uses it. The scheduler's table owns it
/// from the moment it is added until its coroutine has ended.
///
/// The fields that a turn touches come first, next to each other.
#[repr(C)]
pub(crate) struct Task {
    pub(crate) coroutine: Coroutine,
    /// The task behind this one in the ready queue.
    pub(crate) link: Cell<Option<&'static Task>>,
    pub(crate) slot: Cell<u32>,
    pub(crate) timer: Cell<Option<TimerKey>>,
    pub(crate) scopes: Scopes,
    /// Suspended until it is woken. If not set, the task is running or in the ready queue.
    pub(crate) parked: Cell<bool>,
    pub(crate) wake: Cell<Wake>,
    pub(crate) flags: Flags,
    /// Eight more bits for [`since`](Self::since): 32 bits are over after 49 days.
    since_high: Cell<u8>,
    /// The period of ambiguity in which the coroutine panicked: see the scheduler's `unwinding.rs`.
    pub(crate) panicked_in: Cell<u32>,
    /// When the current wait began, in milliseconds of the scheduler's clock: the low bits. While
    /// the task is ready and turns are observed: since when, in the short form of ticks.
    pub(crate) since: Cell<u32>,
    detail: Cell<u32>,
    /// The number of the current wait. 0 if there is none, so that a late wake finds nothing.
    pub(crate) wait: Cell<u64>,
    reason: Cell<&'static Reason>,
    /// The place in a queue of the current wait. It is on the coroutine's own stack.
    place: Cell<Option<&'static dyn CancelWait>>,
    /// An address that the coroutine will read first after its wait. It is prefetched, and never
    /// dereferenced.
    pub(crate) ahead: Cell<*const u8>,
    pub(crate) id: Id,
    pub(crate) spawned: &'static Location<'static>,
    /// The coroutine that has spawned it.
    pub(crate) parent: Option<Id>,
    /// Completed if this coroutine is abandoned. The coroutine takes it out before it completes the
    /// packet itself, because user code may free the packet after that. (The main coroutine has
    /// none.)
    pub(crate) completion: Cell<Option<NonNull<Completion>>>,
    extras: OnceCell<Box<Extras>>,
}

/// Flags that are used too rarely to get a byte each.
#[derive(Default, Debug)]
pub(crate) struct Flags(Cell<u8>);

/// One of the [`Flags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Flag {
    /// A cancellation was raised, and its level has not caught it: the coroutine unwinds, or has
    /// swallowed the payload.
    Raised = 1,
    /// Its code borrows from another stack, so it must not be abandoned.
    Borrows = 2,
    /// `thread::unpark` came before `thread::park`.
    ParkToken = 4,
    /// The main coroutine of a run.
    Main = 64,
    /// Parked in `thread::park`.
    InPark = 8,
    /// Suspended while it unwinds: no cancellation may wake it.
    Unwinds = 16,
    /// Counted among the coroutines that were suspended while `thread::panicking` was true.
    Counted = 32,
    /// It has begun to panic since a cancellation was raised, whose payload it has swallowed.
    Panicked = 128,
}

impl Flags {
    #[inline]
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.0.get() & flag as u8 != 0
    }

    /// Sets a flag. Returns its old value.
    #[inline]
    pub(crate) fn set(&self, flag: Flag, on: bool) -> bool {
        let before = self.0.get();
        self.0.set(if on { before | flag as u8 } else { before & !(flag as u8) });
        before & flag as u8 != 0
    }
}

/// State that few coroutines need.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) locals: RefCell<Locals>,
    swallowed: Cell<u32>,
    on_abandon: Cell<Option<Box<dyn FnOnce()>>>,
}

/// The value of a `coroutine_local!` key.
#[derive(Debug)]
pub(crate) struct Local {
    /// The key's address.
    pub(crate) key: usize,
    pub(crate) value: Rc<dyn Any>,
    /// The destructor of the value does something.
    pub(crate) needs_drop: bool,
}

pub(crate) type Locals = Vec<Local>;

/// Takes out the values that have destructors, one by one, and passes each to `drop_one`. These are
/// user code, which may use the values that are left, and make new ones. Those are dropped in the
/// next round. After sixteen rounds the others stay.
pub(crate) fn drop_each(locals: &RefCell<Locals>, drop_one: impl Fn(Rc<dyn Any>)) {
    for _ in 0..16 {
        let values = locals.borrow().iter().filter(|local| local.needs_drop).count();
        if values == 0 {
            return;
        }
        for _ in 0..values {
            let mut list = locals.borrow_mut();
            let Some(at) = list.iter().position(|local| local.needs_drop) else { return };
            let local = list.remove(at);
            drop(list);
            drop_one(local.value);
        }
    }
}

/// Drops what [`drop_each`] has left. User code must not run any more, so values with destructors
/// are leaked.
pub(crate) fn forget_each(locals: Locals) {
    locals.into_iter().filter(|local| local.needs_drop).for_each(std::mem::forget);
}

/// The reason of a coroutine that has not waited yet.
static NOTHING: Reason = Wait::outside("nothing");

impl Task {
    /// For a debugger: where fields are, in the order in which `src/gdb.py` names them.
    pub(super) const FIELDS: [u64; 9] = [
        mem::offset_of!(Self, slot) as u64,
        mem::offset_of!(Self, parked) as u64,
        mem::offset_of!(Self, id) as u64,
        mem::offset_of!(Self, spawned) as u64,
        mem::offset_of!(Self, extras) as u64,
        mem::offset_of!(Self, reason) as u64,
        mem::offset_of!(Self, detail) as u64,
        mem::offset_of!(Extras, name) as u64,
        mem::offset_of!(Reason, text) as u64,
    ];

    /// The current wait, or the last one.
    pub(crate) fn waiting(&self) -> Wait {
        Wait { reason: self.reason.get(), detail: self.detail.get() }
    }

    /// A wait begins.
    #[inline]
    pub(crate) fn set_waiting(&self, wait: Wait) {
        self.reason.set(wait.reason);
        self.detail.set(wait.detail);
    }

    /// The object in whose queue the coroutine is parked.
    pub(crate) fn subject(&self) -> Option<Subject> {
        if !self.parked.get() {
            return None;
        }
        self.place.get()?.subject()
    }

    /// The objects that the coroutine is parked for, if there are several.
    pub(crate) fn alternatives(&self) -> Box<[Alternative]> {
        let place = self.place.get().filter(|_| self.parked.get());
        place.map_or_else(Box::default, CancelWait::alternatives)
    }

    /// Takes the place of the wait under way out of its queue, if it has one. Returns `false` if
    /// the wait has been served by then.
    pub(crate) fn leave_queue(&self) -> bool {
        self.place.get().is_none_or(CancelWait::cancel)
    }

    /// Notes the place in a queue of the wait that begins, or that the wait has ended.
    #[inline]
    pub(crate) fn set_place(&self, place: Option<&'static dyn CancelWait>) {
        self.place.set(place);
    }

    #[inline]
    pub(crate) fn new(
        coroutine: Coroutine,
        id: Id,
        name: Option<Arc<str>>,
        spawned: &'static Location<'static>,
        parent: Option<Id>,
    ) -> Self {
        let extras = match name {
            None => OnceCell::new(),
            name => Box::new(Extras { name, ..Extras::default() }).into(),
        };
        Self {
            coroutine,
            link: Cell::new(None),
            id,
            spawned,
            parent,
            completion: Cell::new(None),
            slot: Cell::new(0),
            timer: Cell::new(None),
            scopes: Scopes::default(),
            parked: Cell::new(false),
            wake: Cell::new(Wake::Ready),
            flags: Flags::default(),
            panicked_in: Cell::new(0),
            since_high: Cell::new(0),
            since: Cell::new(0),
            wait: Cell::new(0),
            reason: Cell::new(&NOTHING),
            detail: Cell::new(0),
            place: Cell::new(None),
            // Any valid address: prefetching an unmapped one takes the processor longer.
            ahead: Cell::new(ptr::from_ref(spawned).cast()),
            extras,
        }
    }

    /// Notes that a wait begins at `millis` of the scheduler's clock.
    #[inline]
    pub(crate) fn set_since(&self, millis: u64) {
        self.since.set(millis as u32);
        self.since_high.set((millis >> u32::BITS) as u8);
    }

    /// For how many milliseconds the current wait has lasted at `millis`: 17 years at most.
    pub(crate) fn waited(&self, millis: u64) -> u64 {
        const MAX: u64 = (1 << (u32::BITS + u8::BITS)) - 1;
        let began = u64::from(self.since_high.get()) << u32::BITS | u64::from(self.since.get());
        let waited = millis.wrapping_sub(began) & MAX;
        // The clock may have gone back, to a time before the wait.
        if waited <= MAX / 2 { waited } else { 0 }
    }

    /// Prefetches the part of a task that a turn touches.
    #[inline]
    pub(crate) fn fetch(place: *const Self) {
        let lines = (0..mem::offset_of!(Self, id)).step_by(LINE);
        lines.for_each(|at| prefetch(place.wrapping_byte_add(at)));
    }

    /// Prefetches the memory that the coroutine's next turn begins with.
    #[inline]
    pub(crate) fn fetch_ahead(&self) {
        self.coroutine.fetch_top();
        prefetch(self.ahead.get());
    }

    /// Tells the waiters for this coroutine's result that there will be none. Their wakers are user
    /// code. A panic of theirs ends here: the coroutine must not go on.
    pub(crate) fn abandoned(&self) {
        // The drop of a payload may panic, too.
        let catch = |f: &dyn Fn()| {
            panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(mem::forget);
        };
        catch(&|| {
            if let Some(completion) = self.completion.take() {
                // SAFETY: it is alive until the coroutine completes it. Before that, the coroutine
                // takes the pointer out of the task.
                unsafe { (completion.as_ref().abandon)(completion) }
            }
        });
        // Taken out no earlier: the coroutine may have been given up again in a waker, which has
        // made the call then.
        catch(&|| {
            if let Some(call) = self.extras.get().and_then(|extras| extras.on_abandon.take()) {
                call();
            }
        });
    }

    /// Notes that no payload is on its way any more: its level has caught it, or no request is
    /// pending.
    pub(crate) fn clear_raised(&self) {
        self.forget_panic();
        self.forget_raised();
    }

    /// Notes that a panic of the coroutine has been caught.
    pub(crate) fn forget_panic(&self) {
        self.panicked_in.set(0);
        self.flags.set(Flag::Panicked, false);
    }

    /// Notes that no cancellation is on its way any more. A panic may be.
    pub(crate) fn forget_raised(&self) {
        self.flags.set(Flag::Raised, false);
        // While a level is requested, those that were swallowed count.
        if let Some(extras) = self.extras.get().filter(|_| !self.scopes.is_any_requested()) {
            extras.swallowed.set(0);
        }
    }

    /// Sets a function that is called if the coroutine is abandoned.
    pub(crate) fn on_abandon(&self, f: Box<dyn FnOnce()>) {
        self.extras.get_or_init(Box::default).on_abandon.set(Some(f));
    }

    /// Counts a swallowed payload. Returns how many there were.
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

    /// Whether it may have locals. Few coroutines do.
    #[inline]
    pub(crate) fn may_have_locals(&self) -> bool {
        self.extras.get().is_some()
    }

    /// Drops the locals whose destructors do nothing, and leaks the others.
    #[inline]
    pub(crate) fn forget_locals(&self) {
        if self.may_have_locals() {
            forget_each(self.locals().take());
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("name", &self.name())
            .field("parked", &self.parked.get())
            .field("waiting", &self.waiting())
            .field("spawned", &self.spawned)
            .finish_non_exhaustive()
    }
}
