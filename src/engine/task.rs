//! What the scheduler knows of one coroutine.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cancel::Scopes;
use super::coroutine::{Coroutine, LINE, Suspended, prefetch};
use super::packet::Header;
use super::ready::Link;
use super::timer::TimerKey;

/// Identifies a coroutine; no other coroutine of the process has had it or will.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(NonZeroU64);

impl Id {
    /// Ids that a thread takes at once, so that a spawn touches no shared memory.
    const BLOCK: u64 = 1024;

    /// The next id of this thread, whose counter is `next`.
    #[inline]
    pub(crate) fn allocate(next: &Cell<u64>) -> Self {
        static BLOCKS: AtomicU64 = AtomicU64::new(0);
        let mut id = next.get();
        if id.is_multiple_of(Self::BLOCK) {
            id = BLOCKS.fetch_add(1, Ordering::Relaxed) * Self::BLOCK;
        }
        next.set(id + 1);
        // Ids count from one, the way people do; a block's last id ends in 1024.
        Self(NonZeroU64::MIN.saturating_add(id))
    }

    /// The id as a number.
    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }

    /// The id as reports carry it, to keep a `Wait` in a word: exact for the first four billion.
    pub(crate) fn short(self) -> u32 {
        self.0.get() as u32
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a coroutine is parked, as the `Debug` of its handle and the report of a deadlock tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Not waiting.
    Nothing,
    Sleep,
    /// Until this descriptor is readable.
    Readable(i32),
    /// Until this descriptor is writable.
    Writable(i32),
    /// Until the coroutine with this id, cut to 32 bits, has ended.
    Join(u32),
    /// `thread::park`.
    Park,
    /// Until a thread of the blocking pool has done something.
    Blocking,
    /// Until the coroutine with this id, cut to 32 bits, of another run has ended.
    JoinElsewhere(u32),
    /// Until one of several coroutines has ended.
    JoinAny,
    /// Until one of several coroutines, some of other runs, has ended.
    JoinAnyElsewhere,
    /// Until the coroutines of a scope have ended.
    Children,
    /// Until a token is cancelled.
    Token,
    /// Until a lock is free that a coroutine of the same run holds.
    Lock,
    /// Until a future's waker is called.
    Future,
    /// Until something of `sync` is given that any thread could give.
    Sync(Given),
}

/// What can be given from any thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Given {
    Lock,
    Permit,
    Notice,
    Event,
    Barrier,
    Group,
    Once,
    QueueItem,
    QueueRoom,
    QueueDone,
    Promise,
    Bytes,
    Space,
    /// An item of a channel of whatever kind, or the value of a `watch`.
    Item,
    /// Room in a channel, or somebody who takes the item.
    Room,
    /// The end of a channel's receivers.
    Closing,
    /// One of the operations of a `select!`.
    Choice,
}

impl Wait {
    /// Whether only a coroutine of the same run can end this wait.
    pub(crate) fn is_internal(self) -> bool {
        matches!(self, Self::Join(_) | Self::JoinAny | Self::Children | Self::Lock)
    }

    /// Whether a plain thread could end this wait, if there is one that knows of it.
    pub(crate) fn is_ended_by_threads(self) -> bool {
        matches!(self, Self::Park | Self::Token | Self::Sync(_))
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Sleep => f.write_str("a timer"),
            Self::Readable(fd) => write!(f, "descriptor {fd} to be readable"),
            Self::Writable(fd) => write!(f, "descriptor {fd} to be writable"),
            Self::Join(id) => write!(f, "coroutine #{id} to end"),
            Self::Park => f.write_str("unpark"),
            Self::JoinElsewhere(id) => write!(f, "coroutine #{id} of another runtime to end"),
            Self::JoinAny => f.write_str("one of several coroutines to end"),
            Self::JoinAnyElsewhere => {
                f.write_str("one of several coroutines, some of other runtimes, to end")
            }
            Self::Children => f.write_str("the coroutines of its scope to end"),
            Self::Token => f.write_str("a token to be cancelled"),
            Self::Lock => f.write_str("a lock that a coroutine of the same run holds"),
            Self::Sync(Given::Lock) => f.write_str("a lock that is held elsewhere"),
            Self::Sync(Given::Permit) => f.write_str("permits of a semaphore"),
            Self::Sync(Given::Notice) => f.write_str("a condition variable to be notified"),
            Self::Sync(Given::Event) => f.write_str("an event to be set"),
            Self::Sync(Given::Barrier) => f.write_str("the others at a barrier"),
            Self::Sync(Given::Group) => f.write_str("the members of a wait group to be done"),
            Self::Sync(Given::Once) => f.write_str("a value to be initialised"),
            Self::Sync(Given::QueueItem) => f.write_str("an item of a queue"),
            Self::Sync(Given::QueueRoom) => f.write_str("room in a queue"),
            Self::Sync(Given::QueueDone) => f.write_str("the items of a queue to be dealt with"),
            Self::Sync(Given::Promise) => f.write_str("a promise to be kept"),
            Self::Sync(Given::Bytes) => f.write_str("bytes of a stream in memory"),
            Self::Sync(Given::Space) => f.write_str("space in a stream in memory"),
            Self::Future => f.write_str("a future"),
            Self::Sync(Given::Item) => f.write_str("an item of a channel"),
            Self::Sync(Given::Room) => f.write_str("room in a channel"),
            Self::Sync(Given::Closing) => f.write_str("the receivers of a channel to go"),
            Self::Sync(Given::Choice) => f.write_str("one of several operations of a `select!`"),
            Self::Blocking => f.write_str("a blocking call on another thread"),
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
    /// A cancellation came first: who waited unwinds.
    Cancelled,
}

/// A coroutine and its bookkeeping. Only its own thread ever sees it.
///
/// What a turn touches stands together at the front.
#[repr(C)]
pub(crate) struct Task {
    pub(crate) coroutine: Coroutine,
    pub(crate) link: Link,
    pub(crate) slot: Cell<u32>,
    pub(crate) timer: Cell<Option<TimerKey>>,
    /// A wait must unwind: a scope is cancelled that no shield hides, or waits are forbidden.
    pub(crate) interrupt: Cell<bool>,
    /// Suspended until `unpark`; if not, it runs or is in the ready queue.
    pub(crate) parked: Cell<bool>,
    pub(crate) wake: Cell<Wake>,
    pub(crate) flags: Flags,
    /// When the wait under way began, in milliseconds of the scheduler's time.
    pub(crate) since: Cell<u32>,
    /// The number of the wait under way; 0 when there is none, so that a late wake finds nothing.
    pub(crate) wait: Cell<u64>,
    pub(crate) waiting: Cell<Wait>,
    /// What the coroutine will look at first when its wait is over: fetched ahead of that, never followed.
    pub(crate) ahead: Cell<*const u8>,
    pub(crate) id: Id,
    pub(crate) spawned: &'static Location<'static>,
    /// Where the result goes; not for a runtime's main coroutine.
    pub(crate) packet: Cell<Option<NonNull<Header>>>,
    extras: OnceCell<Box<Extras>>,
}

/// Where a task lives and stays; when it has ended, the next may live there.
#[derive(Default)]
pub(crate) struct Home(Box<Option<Task>>);

const _: () = assert!(size_of::<Option<Task>>() == size_of::<Task>());

impl Home {
    /// Moves a task into a home that is free.
    #[inline]
    pub(crate) fn move_in(&mut self, task: Task) {
        *self.0 = Some(task);
    }

    /// Takes the task out.
    #[inline]
    pub(crate) fn move_out(&mut self) -> Option<Task> {
        self.0.take()
    }
}

impl Deref for Home {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        match &*self.0 {
            Some(task) => task,
            None => unreachable!("nobody looks into a home that is free"),
        }
    }
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
    /// The `JoinHandle`'s scope is cancelled.
    RootCancelled = 8,
    /// Suspended while it unwinds: no cancellation may wake it.
    Unwinds = 16,
    /// Counted among those who are suspended while the thread panics.
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
    pub(crate) scopes: Scopes,
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
            packet: Cell::new(None),
            slot: Cell::new(0),
            timer: Cell::new(None),
            interrupt: Cell::new(false),
            parked: Cell::new(false),
            wake: Cell::new(Wake::Ready),
            flags: Flags::default(),
            since: Cell::new(0),
            wait: Cell::new(0),
            waiting: Cell::new(Wait::Nothing),
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

    /// Tells those who wait for this coroutine that it will never end.
    pub(crate) fn abandoned(&self) {
        if let Some(packet) = self.packet.take() {
            // SAFETY: the packet is alive until its sender has finished, and that is on the stack
            // of this coroutine, which has not ended.
            unsafe { packet.as_ref() }.abandon();
        }
        if let Some(f) = self.extras.get().and_then(|extras| extras.on_abandon.take()) {
            f();
        }
    }

    /// Notes that no payload is on its way: it was caught where it belongs, or nothing asks for it
    /// any more.
    pub(crate) fn obeyed(&self) {
        self.flags.set(Flag::Raised, false);
        self.extras.get().inspect(|extras| extras.swallowed.set(0));
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

    pub(crate) fn scopes(&self) -> &Scopes {
        &self.extras.get_or_init(Box::default).scopes
    }

    pub(crate) fn scopes_if_any(&self) -> Option<&Scopes> {
        self.extras.get().map(|extras| &extras.scopes)
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
