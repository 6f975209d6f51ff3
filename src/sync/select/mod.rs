//! Waiting for the first of several operations: [`select!`](crate::select) and [`Select`].
//!
//! ```
//! use plainsong::select;
//! use plainsong::sync::channel::unbounded;
//!
//! plainsong::run(|| {
//!     let (numbers, number) = unbounded::<i32>();
//!     let (_words, word) = unbounded::<String>();
//!     plainsong::spawn(move || numbers.send(7));
//!     select! {
//!         recv(number) -> n => assert_eq!(n, Ok(7)),
//!         recv(word) -> _ => unreachable!("nobody sends"),
//!     }
//! });
//! ```
//!
//! The coroutine waits in all queues at once; none is made for each arm. To serve one of its
//! entries is to claim the whole wait first, so one operation is chosen and the others have not
//! happened.
//!
//! 1. Try all operations, in order. Begin the first that is ready. Done.
//! 2. Register with all, and stop at one that is ready by now: back to 1.
//! 3. Park. Or, in the forms that do not wait: ask the operations that make no claims once more.
//! 4. Withdraw the claim: from here on no entry is served. Deregister from all. If an entry was
//!    served before, its operation has begun. Done.
//! 5. Unless the wait is over, back to 1.
//!
//! Before it is done, a receive that has met the send of another `select!` waits for its item. If
//! none is made in time, it goes on at step 1. So a choice that is reported needs no wait.
//!
//! Why a form that does not wait may say that nothing is ready: each operation was not ready when
//! it was registered with, and each one that became ready after that would have claimed the choice.
//! So at the moment when the last operation of step 3 is asked, none of them is ready. One look at
//! each in turn would not do: an item may come to a channel that has been looked at, while another
//! is taken from a channel that is still to come. (Of one operation alone, one look is enough.)

mod join;
mod macros;
mod socket;

use std::error::Error;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::{Receiver, RecvError, SendError, Sender};
use super::event::Event;
use super::operation::{self, Direction, Operation, Place, Registration, Ticket};
use super::wait::Claim;
use crate::engine::park;
use crate::engine::reactor::Interest;
use crate::engine::task::Wake;
use crate::engine::waiter::Parker;
use crate::task::JoinHandle;

pub use self::join::Joined;
#[doc(hidden)]
pub use self::socket::{Accepting, Descriptor};
pub use self::socket::{Acceptor, Readable, Writable};

/// Waits for the first of several operations, when their number is not known beforehand. Otherwise
/// [`select!`](crate::select) reads better.
///
/// If several can be done at once, one of them is chosen at random, unless it was made by
/// [`new_biased`](Self::new_biased). An operation that fails at once, because the other side has
/// been dropped, can be done, too.
///
/// ```
/// use plainsong::sync::channel::unbounded;
/// use plainsong::sync::select::Select;
///
/// plainsong::run(|| {
///     let channels: Vec<_> = (0..10).map(|_| unbounded::<usize>()).collect();
///     channels[3].0.send(42).unwrap();
///     let mut select = Select::new();
///     for (_, receiver) in &channels {
///         select.recv(receiver);
///     }
///     let chosen = select.select();
///     let index = chosen.index();
///     assert_eq!((index, chosen.recv(&channels[index].1)), (3, Ok(42)));
/// });
/// ```
pub struct Select<'a> {
    operations: Vec<Option<Arm<'a>>>,
    biased: bool,
}

/// An operation that was added.
// Nothing that needs a drop: `select!` adds what it borrows after it has made the `Select`.
#[derive(Clone, Copy)]
enum Arm<'a> {
    Lent(&'a dyn Operation),
    Direction(Direction<'a>),
}

impl Arm<'_> {
    fn operation(&self) -> &dyn Operation {
        match self {
            Self::Lent(operation) => *operation,
            Self::Direction(direction) => direction,
        }
    }
}

/// Why a wait without a deadline has a result.
const ENDLESS: &str = "a wait without end ends with a choice";

/// How long an operation is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Now,
    Ever,
    Time(Instant),
}

impl Until {
    fn after(timeout: Duration) -> Self {
        park::deadline(timeout).map_or(Self::Ever, Self::Time)
    }

    /// The same, as it is now.
    fn update(self) -> Self {
        match self {
            Self::Time(deadline) => match park::limited(deadline) {
                deadline if deadline > park::now() => Self::Time(deadline),
                _ => Self::Now,
            },
            until => until,
        }
    }
}

/// The treatment of an operation that is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    Choose,
    Watch,
}

/// The index of an operation that is ready, and its ticket if it was begun.
type Chosen = (usize, Option<Ticket>);

/// The operations with their indices, in the order in which they are tried.
type Order<'a> = [(usize, Arm<'a>)];

/// How a registration with all operations ended.
enum Outcome {
    Chosen(Chosen),
    /// One may be ready.
    Retry,
    /// There was a moment at which none was ready.
    NoneReady,
}

impl<'a> Select<'a> {
    /// No operations yet. Of several that can be done one is chosen at random.
    pub const fn new() -> Self {
        Self { operations: Vec::new(), biased: false }
    }

    /// No operations yet. Of several that can be done the first is chosen.
    pub const fn new_biased() -> Self {
        Self { operations: Vec::new(), biased: true }
    }

    /// Adds receiving from `receiver`. Returns the index of the operation.
    pub fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        self.add(receiver)
    }

    /// Adds sending on `sender`. Returns the index of the operation.
    pub fn send<T>(&mut self, sender: &'a Sender<T>) -> usize {
        self.add(sender)
    }

    /// Adds a wait for the end of a coroutine, whose join then returns at once. Returns the index
    /// of the operation.
    pub fn join<T>(&mut self, handle: &'a mut JoinHandle<T>) -> usize {
        self.add(handle)
    }

    /// Adds a wait until `event` is set. Returns the index of the operation.
    pub fn wait(&mut self, event: &'a Event) -> usize {
        self.add(event)
    }

    /// Adds a wait until `socket` can be read without blocking: there is data, a connection, the
    /// end, or an error. Nothing is read. Returns the index of the operation. A wait panics when
    /// the kernel refuses to watch the socket.
    pub fn readable(&mut self, socket: &'a impl Readable) -> usize {
        self.push(Arm::Direction(socket.read_side().direction(Interest::Read)))
    }

    /// Adds a wait until `socket` can be written without blocking: there is room, or an error.
    /// Nothing is written. Returns the index of the operation. A wait panics when the kernel
    /// refuses to watch the socket.
    pub fn writable(&mut self, socket: &'a impl Writable) -> usize {
        self.push(Arm::Direction(socket.write_side().direction(Interest::Write)))
    }

    /// Adds an accept. Returns the index of the operation.
    #[doc(hidden)]
    pub fn accept<L: Acceptor>(&mut self, accepting: &'a Accepting<'_, L>) -> usize {
        self.add(accepting)
    }

    fn add(&mut self, operation: &'a dyn Operation) -> usize {
        self.push(Arm::Lent(operation))
    }

    fn push(&mut self, arm: Arm<'a>) -> usize {
        self.operations.push(Some(arm));
        self.operations.len() - 1
    }

    /// Removes an operation that was added. The indices of the others stay.
    ///
    /// # Panics
    ///
    /// When there is no operation with this index.
    pub fn remove(&mut self, index: usize) {
        let operation = self.operations.get_mut(index).and_then(Option::take);
        assert!(operation.is_some(), "there is no operation {index} in this `Select` to remove");
    }

    /// Waits until an operation can be done and begins it. It must then be completed.
    ///
    /// # Panics
    ///
    /// When there are no operations.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no operation has been done then.
    pub fn select(&mut self) -> SelectedOperation<'a> {
        self.choose(Until::Ever).expect(ENDLESS)
    }

    /// Begins an operation that can be done at once. It must then be completed.
    ///
    /// # Errors
    ///
    /// When there was a moment at which none could be done.
    ///
    /// # Cancellation
    ///
    /// May let others run first, or wait for an item that is being made. Unwinds then if cancelled.
    pub fn try_select(&mut self) -> Result<SelectedOperation<'a>, TrySelectError> {
        self.choose(Until::Now).ok_or(TrySelectError)
    }

    /// [`select`](Self::select), for `timeout` at most.
    ///
    /// # Errors
    ///
    /// When the time is over.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no operation has been done then.
    pub fn select_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<SelectedOperation<'a>, SelectTimeoutError> {
        self.choose(Until::after(timeout)).ok_or(SelectTimeoutError)
    }

    /// [`select`](Self::select), until `deadline` at most.
    ///
    /// # Errors
    ///
    /// When the time has come.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no operation has been done then.
    pub fn select_deadline(
        &mut self,
        deadline: Instant,
    ) -> Result<SelectedOperation<'a>, SelectTimeoutError> {
        self.choose(Until::Time(deadline)).ok_or(SelectTimeoutError)
    }

    /// Waits until an operation could be done, and returns its index. Another may do it first.
    ///
    /// # Panics
    ///
    /// When there are no operations.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn ready(&mut self) -> usize {
        self.first(Aim::Watch, Until::Ever).map(|(index, _)| index).expect(ENDLESS)
    }

    /// The index of an operation that could be done at once.
    ///
    /// # Errors
    ///
    /// When there was a moment at which none could be done.
    ///
    /// # Cancellation
    ///
    /// May let others run first, and unwinds then when the coroutine is cancelled.
    pub fn try_ready(&mut self) -> Result<usize, TryReadyError> {
        self.first(Aim::Watch, Until::Now).map(|(index, _)| index).ok_or(TryReadyError)
    }

    /// [`ready`](Self::ready), for `timeout` at most.
    ///
    /// # Errors
    ///
    /// When the time is over.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn ready_timeout(&mut self, timeout: Duration) -> Result<usize, ReadyTimeoutError> {
        let chosen = self.first(Aim::Watch, Until::after(timeout));
        chosen.map(|(index, _)| index).ok_or(ReadyTimeoutError)
    }

    /// [`ready`](Self::ready), until `deadline` at most.
    ///
    /// # Errors
    ///
    /// When the time has come.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn ready_deadline(&mut self, deadline: Instant) -> Result<usize, ReadyTimeoutError> {
        let chosen = self.first(Aim::Watch, Until::Time(deadline));
        chosen.map(|(index, _)| index).ok_or(ReadyTimeoutError)
    }

    fn choose(&self, until: Until) -> Option<SelectedOperation<'a>> {
        let (index, ticket) = self.first(Aim::Choose, until)?;
        Some(SelectedOperation { index, arm: self.operations[index]?, ticket: ticket? })
    }

    /// The operations in the order in which they are tried.
    fn in_order(&self) -> Vec<(usize, Arm<'a>)> {
        let operations = self.operations.iter().enumerate();
        let mut order: Vec<_> = operations.filter_map(|(at, &one)| Some((at, one?))).collect();
        if !self.biased {
            shuffle(&mut order);
        }
        order
    }

    fn first(&self, aim: Aim, until: Until) -> Option<Chosen> {
        park::spend();
        let order = self.in_order();
        assert!(
            !(order.is_empty() && until == Until::Ever),
            "no operations have been added to `Select`: it would wait for ever"
        );
        loop {
            let chosen = match scan(&order, aim) {
                Some(chosen) => chosen,
                None => {
                    let until = until.update();
                    if until == Until::Now && order.len() <= 1 {
                        return None;
                    }
                    match register_all(&order, aim, until) {
                        Outcome::Chosen(chosen) => chosen,
                        Outcome::Retry => continue,
                        Outcome::NoneReady => return None,
                    }
                }
            };
            if self.settle(chosen, until) {
                return Some(chosen);
            }
        }
    }

    /// Whether an operation that was chosen has happened. If not, there may be another.
    fn settle(&self, (index, ticket): Chosen, until: Until) -> bool {
        let deadline = match until {
            Until::Time(deadline) => Some(deadline),
            Until::Now | Until::Ever => None,
        };
        let arm = &self.operations[index];
        ticket.is_none_or(|ticket| arm.is_some_and(|arm| arm.operation().settle(ticket, deadline)))
    }
}

/// The first operation that is ready.
fn scan(order: &Order<'_>, aim: Aim) -> Option<Chosen> {
    for (index, arm) in order {
        let operation = arm.operation();
        match aim {
            Aim::Watch if operation.is_ready() => return Some((*index, None)),
            Aim::Watch => {}
            Aim::Choose => {
                if let Some(ticket) = operation.choose() {
                    return Some((*index, Some(ticket)));
                }
            }
        }
    }
    None
}

/// Waits in all queues at once until an operation is chosen, or all must be tried again.
fn register_all(order: &Order<'_>, aim: Aim, until: Until) -> Outcome {
    park::check_cancelled();
    for (_, arm) in order {
        arm.operation().prepare();
    }
    let parker = park::waiter();
    let choice = Arc::new(Claim::new());
    let mut registrations: Vec<(usize, Box<dyn Registration + '_>)> =
        Vec::with_capacity(order.len());
    for (index, arm) in order {
        let operation = arm.operation();
        let registration = match aim {
            Aim::Choose => operation.register(parker.into(), &choice, *index),
            Aim::Watch => operation.watch(parker.into(), &choice, *index),
        };
        match registration {
            Some(registration) => registrations.push((*index, registration)),
            None => break,
        }
    }
    let (mut wake, mut none_ready) = (Wake::Ready, false);
    if registrations.len() == order.len() {
        let mut operations = order.iter().map(|(_, arm)| arm.operation());
        let place = Place { choice: &choice, registrations: &registrations };
        match until {
            Until::Now => none_ready = operations.all(|one| one.claims() || !one.is_ready()),
            Until::Ever => wake = park_for_all(parker, order, None, &place),
            Until::Time(deadline) => wake = park_for_all(parker, order, Some(deadline), &place),
        }
    }
    // From here on no entry is served. If an entry has been, it counts, whatever ended the wait.
    let served = choice.withdraw();
    let mut chosen = None;
    for (index, registration) in registrations {
        if let Some(ticket) = registration.deregister(served == Some(index)) {
            chosen = Some((index, Some(ticket)));
        }
    }
    match chosen {
        Some(chosen) => Outcome::Chosen(chosen),
        None if wake == Wake::Cancelled => park::raise(),
        None if none_ready && served.is_none() => Outcome::NoneReady,
        None => Outcome::Retry,
    }
}

fn park_for_all(
    parker: Parker,
    order: &Order<'_>,
    deadline: Option<Instant>,
    place: &Place<'_>,
) -> Wake {
    let due = order.iter().filter_map(|(_, arm)| arm.operation().due());
    let why = operation::why(order.iter().map(|(_, arm)| arm.operation().ended_by()));
    let until = due.chain(deadline).min();
    park::running(|running| park::block_in_queue(running, parker, why, until, place))
}

/// Puts operations in random order, each as likely as the others.
fn shuffle<T>(order: &mut [T]) {
    static SEED: AtomicU64 = AtomicU64::new(0);
    if order.len() < 2 {
        return;
    }
    // Steele, Lea and Flood's SplitMix: fair enough for this, and its shared state is used once.
    let mut state = SEED.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        order.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
    }
}

/// An operation that was chosen. It must be completed, by the call that belongs to it.
#[must_use = "the operation must be completed"]
pub struct SelectedOperation<'a> {
    index: usize,
    arm: Arm<'a>,
    ticket: Ticket,
}

impl SelectedOperation<'_> {
    /// The index of the `default` of a `select!`.
    #[doc(hidden)]
    pub const DEFAULT: usize = usize::MAX;

    /// The `default` of a `select!`, when nothing was chosen.
    #[doc(hidden)]
    pub fn or_default<E>(chosen: Result<Self, E>) -> Self {
        chosen.unwrap_or_else(|_| Self {
            index: Self::DEFAULT,
            arm: Arm::Lent(&operation::Nothing),
            ticket: 0,
        })
    }

    /// The index of the operation, as it was returned when it was added.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The ticket, if this is the operation of `end`.
    #[track_caller]
    fn redeem<T>(self, end: &T) -> Ticket {
        let chosen = ptr::from_ref(self.arm.operation()).cast::<T>();
        assert!(ptr::eq(chosen, end), "this is not what was chosen: look at its index");
        let ticket = self.ticket;
        std::mem::forget(self);
        ticket
    }

    /// Completes a send. On a channel without room this hands `item` to the receiver that was met.
    /// If that has been cancelled or has timed out meanwhile, the channel keeps `item`.
    ///
    /// # Errors
    ///
    /// When every receiver has been dropped, with the item.
    ///
    /// # Panics
    ///
    /// When it is not this sender that was chosen.
    #[track_caller]
    pub fn send<T>(self, sender: &Sender<T>, item: T) -> Result<(), SendError<T>> {
        sender.finish(self.redeem(sender), item)
    }

    /// Completes a receive.
    ///
    /// # Errors
    ///
    /// When the channel is empty and every sender has been dropped.
    ///
    /// # Panics
    ///
    /// When it is not this receiver that was chosen.
    #[track_caller]
    pub fn recv<T>(self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        receiver.finish(self.redeem(receiver))
    }

    /// Completes an operation that moves no item: the coroutine has ended, so its handle's
    /// [`join`](JoinHandle::join) will not wait; the event has been set; or the socket is ready.
    ///
    /// # Panics
    ///
    /// When a channel's operation was chosen.
    #[track_caller]
    pub fn done(self) {
        assert!(
            !self.arm.operation().moves_item(),
            "a channel was chosen: complete its send or recv"
        );
        std::mem::forget(self);
    }
}

impl Drop for SelectedOperation<'_> {
    /// Takes the choice back. Panics, unless the thread is unwinding already.
    fn drop(&mut self) {
        self.arm.operation().release(self.ticket);
        if !thread::panicking() {
            panic!("a `SelectedOperation` was dropped, and not completed");
        }
    }
}

impl Default for Select<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations = self.operations.iter().flatten().count();
        f.debug_struct("Select").field("operations", &operations).finish_non_exhaustive()
    }
}

impl fmt::Debug for SelectedOperation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectedOperation").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Returned by [`Select::try_select`]: no operation can be done now.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub struct TrySelectError;

/// Returned by [`Select::select_timeout`]: the time was over before an operation could be done.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub struct SelectTimeoutError;

/// Returned by [`Select::try_ready`]: no operation could be done now.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub struct TryReadyError;

/// Returned by [`Select::ready_timeout`]: the time was over before an operation could be done.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub struct ReadyTimeoutError;

const NONE_READY: &str = "none of the operations can be done now";
const TIMED_OUT: &str = "timed out waiting for one of several operations";

impl fmt::Display for TrySelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NONE_READY)
    }
}

impl fmt::Display for SelectTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TIMED_OUT)
    }
}

impl fmt::Display for TryReadyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NONE_READY)
    }
}

impl fmt::Display for ReadyTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TIMED_OUT)
    }
}

impl Error for TrySelectError {}
impl Error for SelectTimeoutError {}
impl Error for TryReadyError {}
impl Error for ReadyTimeoutError {}
