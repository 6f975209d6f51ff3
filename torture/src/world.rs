//! The things that the actors of a round share, and checks of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};

use plainsong::sync::channel::{Receiver, Sender, bounded, unbounded};
use plainsong::sync::{Event, Mutex, OnceLock, RwLock, Semaphore};
use plainsong::{CancellationToken, JoinHandle};

pub(crate) const PERMITS: usize = 5;
const LOCKS: usize = 3;

/// The result of an actor: its number.
pub(crate) type Handle = JoinHandle<u64>;

pub(crate) struct World {
    /// Whether plain threads may end the waits of coroutines.
    pub(crate) threads_wake: bool,
    /// Steps that are left.
    pub(crate) steps: AtomicI64,
    numbers: AtomicU64,
    lives: AtomicUsize,
    pub(crate) channels: Vec<(Sender<Item>, Receiver<Item>)>,
    pub(crate) items: Arc<Items>,
    pub(crate) mutexes: [Mutex<Exclusive>; LOCKS],
    pub(crate) rwlocks: [RwLock<Exclusive>; LOCKS],
    pub(crate) semaphore: Semaphore,
    pub(crate) permits_taken: AtomicUsize,
    pub(crate) event: Event,
    pub(crate) server: OnceLock<SocketAddr>,
    /// Spawns from plain threads.
    pub(crate) run: OnceLock<plainsong::Handle>,
    // std's locks, which nobody holds across a wait.
    handles: StdMutex<Vec<(u64, Handle)>>,
    tokens: StdMutex<Vec<CancellationToken>>,
    /// The steps that have begun and not ended, with the numbers of their actors.
    doing: StdMutex<Vec<(u64, &'static str)>>,
}

/// A value that its lock must protect.
#[derive(Default)]
pub(crate) struct Exclusive {
    writer: AtomicBool,
    readers: AtomicUsize,
}

impl Exclusive {
    /// Calls `f` as the only one.
    pub(crate) fn alone<T>(&self, f: impl FnOnce() -> T) -> T {
        assert!(!self.writer.swap(true, SeqCst), "two in an exclusive section");
        assert_eq!(self.readers.load(SeqCst), 0, "a reader beside a writer");
        let _end = on_drop(|| self.writer.store(false, SeqCst));
        f()
    }

    pub(crate) fn together<T>(&self, f: impl FnOnce() -> T) -> T {
        self.readers.fetch_add(1, SeqCst);
        assert!(!self.writer.load(SeqCst), "a writer beside a reader");
        let _end = on_drop(|| _ = self.readers.fetch_sub(1, SeqCst));
        f()
    }
}

/// The account of the items that go through the channels.
#[derive(Default)]
pub(crate) struct Items {
    made: AtomicU64,
    alive: AtomicUsize,
    sent: Sum,
    received: Sum,
}

#[derive(Default)]
struct Sum {
    count: AtomicU64,
    numbers: AtomicU64,
}

impl Sum {
    fn add(&self, number: u64) {
        self.count.fetch_add(1, SeqCst);
        self.numbers.fetch_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), SeqCst);
    }

    fn get(&self) -> (u64, u64) {
        (self.count.load(SeqCst), self.numbers.load(SeqCst))
    }
}

pub(crate) struct Item {
    number: u64,
    items: Arc<Items>,
}

impl Items {
    pub(crate) fn make(self: &Arc<Self>) -> Item {
        self.alive.fetch_add(1, SeqCst);
        Item { number: self.made.fetch_add(1, SeqCst), items: Arc::clone(self) }
    }

    /// A send of the item with this number has succeeded.
    pub(crate) fn sent(&self, number: u64) {
        self.sent.add(number);
    }

    pub(crate) fn received(&self, item: Item) {
        self.received.add(item.number);
    }
}

impl Item {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.items.alive.fetch_sub(1, SeqCst);
    }
}

/// Counts a closure from the moment at which it is made, whether it ever runs or not.
pub(crate) struct Life(Arc<World>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.lives.fetch_sub(1, SeqCst);
    }
}

impl World {
    pub(crate) fn new(steps: u64, threads_wake: bool) -> Arc<Self> {
        let channels = vec![bounded(0), bounded(1), bounded(3), unbounded()];
        Arc::new(Self {
            threads_wake,
            steps: AtomicI64::new(steps.try_into().unwrap_or(i64::MAX)),
            numbers: AtomicU64::new(0),
            lives: AtomicUsize::new(0),
            channels,
            items: Arc::default(),
            mutexes: Default::default(),
            rwlocks: Default::default(),
            semaphore: Semaphore::new(PERMITS),
            permits_taken: AtomicUsize::new(0),
            event: Event::new(),
            server: OnceLock::new(),
            run: OnceLock::new(),
            handles: StdMutex::default(),
            tokens: StdMutex::default(),
            doing: StdMutex::default(),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, SeqCst)
    }

    pub(crate) fn life(self: &Arc<Self>) -> Life {
        self.lives.fetch_add(1, SeqCst);
        Life(Arc::clone(self))
    }

    pub(crate) fn lives(&self) -> usize {
        self.lives.load(SeqCst)
    }

    pub(crate) fn keep_handle(&self, number: u64, handle: Handle) {
        self.handles.lock().unwrap().push((number, handle));
    }

    /// Any handle of a coroutine younger than `than`. Joining only younger ones makes no circle.
    pub(crate) fn take_handle(&self, than: u64, pick: usize) -> Option<(u64, Handle)> {
        let mut handles = self.handles.lock().unwrap();
        let at = pick % handles.len().max(1);
        (handles.get(at)?.0 > than).then(|| handles.swap_remove(at))
    }

    pub(crate) fn with_handle(&self, pick: usize, f: impl FnOnce(&Handle)) {
        let handles = self.handles.lock().unwrap();
        if let Some((_, handle)) = handles.get(pick % handles.len().max(1)) {
            f(handle);
        }
    }

    pub(crate) fn take_handles(&self) -> Vec<(u64, Handle)> {
        std::mem::take(&mut *self.handles.lock().unwrap())
    }

    pub(crate) fn keep_token(&self, token: CancellationToken) {
        self.tokens.lock().unwrap().push(token);
    }

    pub(crate) fn take_token(&self, pick: usize) -> Option<CancellationToken> {
        let mut tokens = self.tokens.lock().unwrap();
        let at = pick % tokens.len().max(1);
        (at < tokens.len()).then(|| tokens.swap_remove(at))
    }

    pub(crate) fn begin(&self, number: u64, what: &'static str) {
        self.doing.lock().unwrap().push((number, what));
    }

    pub(crate) fn end(&self, number: u64, what: &'static str) {
        let mut doing = self.doing.lock().unwrap();
        if let Some(at) = doing.iter().rposition(|step| *step == (number, what)) {
            doing.remove(at);
        }
    }

    /// Prints the steps that have not ended.
    pub(crate) fn show(&self) {
        eprintln!("torture: {} coroutines are left", self.lives());
        for (number, what) in &*self.doing.lock().unwrap() {
            eprintln!("torture: {number} does: {what}");
        }
    }

    /// Checks the world after the run is over and every thread of the round has ended.
    pub(crate) fn check(self: Arc<Self>) {
        assert_eq!(self.lives(), 0, "coroutines are left behind");
        for (number, handle) in self.take_handles() {
            assert!(handle.is_finished(), "coroutine {number} has not ended");
        }
        for (_, receiver) in &self.channels {
            while let Ok(item) = receiver.try_recv() {
                self.items.received(item);
            }
        }
        let items = Arc::clone(&self.items);
        assert_eq!(items.sent.get(), items.received.get(), "items were lost, or came twice");
        for mutex in &self.mutexes {
            assert!(!is_busy(&mutex.try_lock()), "a mutex is locked, and nobody holds it");
        }
        for lock in &self.rwlocks {
            assert!(!is_busy(&lock.try_write()), "a lock is locked, and nobody holds it");
        }
        assert_eq!(self.semaphore.available_permits(), PERMITS, "permits were lost");
        let world = Arc::into_inner(self).expect("somebody keeps the world of a round");
        drop(world);
        assert_eq!(items.alive.load(SeqCst), 0, "items were leaked");
    }
}

fn is_busy<T>(result: &plainsong::sync::TryLockResult<T>) -> bool {
    matches!(result, Err(plainsong::sync::TryLockError::WouldBlock))
}

pub(crate) struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(crate) fn on_drop<F: FnMut()>(f: F) -> OnDrop<F> {
    OnDrop(f)
}
