//! `Semaphore`.

use std::error::Error;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lock::{Guard, Lock};
use super::wait::{About, WaitQueue, wait_unless_cancelled};
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::task::Wait;
use crate::engine::waiter::Waiters;

const WAIT: Wait =
    Wait::new(&Wait::for_any_thread("permits of a semaphore").of("acquire", "Semaphore"));

/// A number of permits, for as many as may do something at once. (The names are tokio's.)
///
/// Requests are granted in the order in which they were made, also where one is for many permits
/// and the next for few.
///
/// ```
/// use plainsong::sync::Semaphore;
///
/// let five = Semaphore::new(5);
/// plainsong::run(|| {
///     plainsong::scope(|s| {
///         for _ in 0..100 {
///             s.spawn(|| {
///                 let _permit = five.acquire().unwrap();
///                 plainsong::yield_now(); // five at most are here at once
///             });
///         }
///     });
/// });
/// assert_eq!(five.available_permits(), 5);
/// ```
pub struct Semaphore {
    state: Lock<State>,
}

struct State {
    permits: usize,
    closed: bool,
    queue: WaitQueue<Request>,
}

/// The request of a waiter, and then the answer to it.
#[derive(Clone, Copy)]
enum Request {
    Wants(usize),
    Granted,
    Refused,
}

// Nothing in here can be left half-done.
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

/// The semaphore is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcquireError(());

/// Why no permits were acquired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TryAcquireError {
    /// The semaphore is closed.
    Closed,
    /// Not enough permits are available, or earlier waiters are ahead; for a `_timeout` call: the
    /// deadline passed first.
    NoPermits,
}

const CLOSED: &str = "the semaphore is closed: it gives no more permits";

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CLOSED)
    }
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => CLOSED,
            Self::NoPermits => "the semaphore has not enough permits",
        })
    }
}

impl Error for AcquireError {}
impl Error for TryAcquireError {}

impl State {
    /// Gives the first waiters their permits, as far as the permits go.
    fn grant(&mut self) -> Waiters {
        let Self { permits, queue, .. } = self;
        let mut served = Waiters::default();
        let mut take = |request: &mut Request| match *request {
            Request::Wants(wanted) if *permits >= wanted => {
                *permits -= wanted;
                *request = Request::Granted;
                Some(())
            }
            _ => None,
        };
        while let Some(((), waiter)) = queue.serve_if(&mut take) {
            served.push(waiter);
        }
        served
    }

    fn has_waiter(&self) -> bool {
        !self.queue.is_empty() && self.queue.has_waiter(None)
    }
}

impl Semaphore {
    /// The largest number of permits that a semaphore can have.
    pub const MAX_PERMITS: usize = usize::MAX >> 3;

    /// A semaphore with `permits` permits.
    ///
    /// # Panics
    ///
    /// When that is more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    #[track_caller]
    pub const fn new(permits: usize) -> Self {
        assert!(permits <= Self::MAX_PERMITS, "more than `Semaphore::MAX_PERMITS` permits");
        Self { state: Lock::new(State { permits, closed: false, queue: WaitQueue::new() }) }
    }

    /// Waits for a permit. Dropping it gives it back.
    ///
    /// # Errors
    ///
    /// When the semaphore is closed, or is closed meanwhile.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits.
    ///
    /// # Errors
    ///
    /// When the semaphore is closed, or is closed meanwhile.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.take(n, None).map_err(|_| AcquireError(()))?;
        Ok(SemaphorePermit { semaphore: self, permits: n })
    }

    /// Waits for a permit, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `NoPermits` when the time is over first; `Closed` when the semaphore is.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.acquire_many_timeout(1, timeout)
    }

    /// Waits for `n` permits, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `NoPermits` when the time is over first; `Closed` when the semaphore is.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn acquire_many_timeout(
        &self,
        n: u32,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.take(n, park::deadline(timeout))?;
        Ok(SemaphorePermit { semaphore: self, permits: n })
    }

    /// Takes a permit, if one is available and there is no waiter.
    ///
    /// # Errors
    ///
    /// `NoPermits` when there is none; `Closed` when the semaphore is.
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits, if they are available and there is no waiter.
    ///
    /// # Errors
    ///
    /// `NoPermits` when there are too few; `Closed` when the semaphore is.
    pub fn try_acquire_many(&self, n: u32) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_take(n, &mut self.state.lock())?;
        Ok(SemaphorePermit { semaphore: self, permits: n })
    }

    /// [`acquire`](Self::acquire), for a permit that owns a share of the semaphore, so that it can
    /// be stored anywhere.
    ///
    /// # Errors
    ///
    /// When the semaphore is closed, or is closed meanwhile.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.acquire_many_owned(1)
    }

    /// [`acquire_many`](Self::acquire_many), for permits that own a share of the semaphore.
    ///
    /// # Errors
    ///
    /// When the semaphore is closed, or is closed meanwhile.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn acquire_many_owned(
        self: Arc<Self>,
        n: u32,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.take(n, None).map_err(|_| AcquireError(()))?;
        Ok(OwnedSemaphorePermit { semaphore: self, permits: n })
    }

    /// [`try_acquire`](Self::try_acquire), for a permit that owns a share of the semaphore.
    ///
    /// # Errors
    ///
    /// `NoPermits` when there is none; `Closed` when the semaphore is.
    pub fn try_acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// [`try_acquire_many`](Self::try_acquire_many), for permits that own a share of the semaphore.
    ///
    /// # Errors
    ///
    /// `NoPermits` when there are too few; `Closed` when the semaphore is.
    pub fn try_acquire_many_owned(
        self: Arc<Self>,
        n: u32,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_take(n, &mut self.state.lock())?;
        Ok(OwnedSemaphorePermit { semaphore: self, permits: n })
    }

    /// Adds `n` permits.
    ///
    /// # Panics
    ///
    /// When there would be more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    pub fn add_permits(&self, n: usize) {
        let mut state = self.state.lock();
        let permits = state.permits.checked_add(n).filter(|sum| *sum <= Self::MAX_PERMITS);
        let Some(permits) = permits else {
            drop(state);
            panic!("adding {n} permits makes more than `Semaphore::MAX_PERMITS`");
        };
        state.permits = permits;
        Self::grant(state);
    }

    /// Adds `n` permits that were taken before. Destructors call it, so it does not panic if others
    /// have been added meanwhile.
    fn give_back(&self, n: u32) {
        let mut state = self.state.lock();
        state.permits = state.permits.saturating_add(n as usize);
        Self::grant(state);
    }

    /// Gives the first waiters their permits, as far as the permits go.
    fn grant(mut state: Guard<'_, State>) {
        let served = state.grant();
        drop(state);
        park::wake_all(served);
    }

    /// Removes up to `n` available permits for good. Returns how many these were.
    pub fn forget_permits(&self, n: usize) -> usize {
        let mut state = self.state.lock();
        let taken = n.min(state.permits);
        state.permits -= taken;
        taken
    }

    /// How many permits can be acquired at once: none while there is a waiter.
    pub fn available_permits(&self) -> usize {
        let state = self.state.lock();
        if state.has_waiter() { 0 } else { state.permits }
    }

    /// Gives no more permits: all waiters get an error, and so do all later calls. Permits that are
    /// in use can still be given back.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let served = state.queue.serve_all(|request| *request = Request::Refused);
        drop(state);
        park::wake_all(served);
    }

    /// Whether the semaphore is closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn try_take(&self, n: u32, state: &mut State) -> Result<(), TryAcquireError> {
        if state.closed {
            return Err(TryAcquireError::Closed);
        }
        if state.permits < n as usize || state.has_waiter() {
            return Err(TryAcquireError::NoPermits);
        }
        state.permits -= n as usize;
        Ok(())
    }

    #[track_caller]
    fn take(&self, n: u32, deadline: Option<Instant>) -> Result<(), TryAcquireError> {
        self.take_for(n, WAIT, deadline)
    }

    /// Takes `n` permits, which the caller must give back; it waits for the reason `why`.
    #[track_caller]
    pub(super) fn take_for(
        &self,
        n: u32,
        why: Wait,
        deadline: Option<Instant>,
    ) -> Result<(), TryAcquireError> {
        park::spend();
        let mut state = self.state.lock();
        if self.try_take(n, &mut state) != Err(TryAcquireError::NoPermits) {
            return if state.closed { Err(TryAcquireError::Closed) } else { Ok(()) };
        }
        // If this waiter gives up, there may be permits enough for those behind it.
        let give_up = Defer::new(|| self.give_back(0));
        let request = Request::Wants(n as usize);
        let about = |state: &State| About::count(state.permits, None);
        let lock = &self.state;
        match wait_unless_cancelled(
            lock,
            state,
            |state| &mut state.queue,
            request,
            why,
            deadline,
            (),
            about,
        ) {
            Ok(Request::Refused) => Err(TryAcquireError::Closed),
            Ok(_) => {
                give_up.disarm();
                Ok(())
            }
            Err(unserved) => {
                drop(give_up);
                unserved.into_slot();
                Err(TryAcquireError::NoPermits)
            }
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("permits", &self.available_permits())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Permits of a [`Semaphore`]; dropping them gives them back.
#[must_use = "the permits are given back when this is dropped"]
#[derive(Debug)]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    permits: u32,
}

/// Permits of a [`Semaphore`], and a share of it; dropping them gives them back.
#[must_use = "the permits are given back when this is dropped"]
#[derive(Debug)]
pub struct OwnedSemaphorePermit {
    semaphore: Arc<Semaphore>,
    permits: u32,
}

impl SemaphorePermit<'_> {
    /// Drops this without giving the permits back.
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// How many permits these are.
    pub fn num_permits(&self) -> usize {
        self.permits as usize
    }

    /// Adds the permits of another to these.
    ///
    /// # Panics
    ///
    /// When they are of different semaphores, or too many together for a `u32`.
    #[track_caller]
    pub fn merge(&mut self, mut other: Self) {
        let same = ptr::eq(self.semaphore, other.semaphore);
        merge(same, &mut self.permits, &mut other.permits);
    }

    /// Takes `n` of these permits off. `None` if there are fewer.
    ///
    /// ```
    /// use plainsong::sync::Semaphore;
    ///
    /// let semaphore = Semaphore::new(5);
    /// let mut all = semaphore.try_acquire_many(5).unwrap();
    /// let two = all.split(2).unwrap();
    /// assert_eq!((all.num_permits(), two.num_permits()), (3, 2));
    /// assert!(all.split(4).is_none());
    /// all.merge(two);
    /// assert_eq!(all.num_permits(), 5);
    /// ```
    pub fn split(&mut self, n: usize) -> Option<Self> {
        let permits = split(&mut self.permits, n)?;
        Some(Self { semaphore: self.semaphore, permits })
    }
}

impl OwnedSemaphorePermit {
    /// Drops this without giving the permits back.
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// How many permits these are.
    pub fn num_permits(&self) -> usize {
        self.permits as usize
    }

    /// Adds the permits of another to these.
    ///
    /// # Panics
    ///
    /// When they are of different semaphores, or too many together for a `u32`.
    #[track_caller]
    pub fn merge(&mut self, mut other: Self) {
        let same = Arc::ptr_eq(&self.semaphore, &other.semaphore);
        merge(same, &mut self.permits, &mut other.permits);
    }

    /// Takes `n` of these permits off. `None` if there are fewer.
    pub fn split(&mut self, n: usize) -> Option<Self> {
        let permits = split(&mut self.permits, n)?;
        Some(Self { semaphore: Arc::clone(&self.semaphore), permits })
    }

    /// The semaphore.
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}

/// Moves permits, if both counts are of the same semaphore.
#[track_caller]
fn merge(same: bool, to: &mut u32, from: &mut u32) {
    assert!(same, "permits of different semaphores cannot be merged: keep them apart");
    let sum = to.checked_add(*from);
    *to = sum.expect("too many permits for a `u32`: keep them apart");
    *from = 0;
}

/// Takes `n` permits off a count, if it has as many.
fn split(from: &mut u32, n: usize) -> Option<u32> {
    let permits = u32::try_from(n).ok()?;
    *from = from.checked_sub(permits)?;
    Some(permits)
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        self.semaphore.give_back(self.permits);
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        self.semaphore.give_back(self.permits);
    }
}
