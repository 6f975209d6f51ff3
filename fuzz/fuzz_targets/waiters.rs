//! Channels, semaphores and locks on one thread, against exact models: after each operation, what
//! every coroutine has got, and who still waits. (Waiters are served in the order of arrival.)

#![no_main]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plainsong::sync::channel::{TryRecvError, TrySendError, bounded, unbounded};
use plainsong::sync::{RwLock, Semaphore};
use plainsong::{JoinHandle, spawn, thread, yield_now};

const OPERATIONS_MAX: usize = 64;

#[derive(Arbitrary, Debug)]
enum Program {
    Channel { capacity: Option<u8>, operations: Vec<ChannelOp> },
    Semaphore { permits: u8, operations: Vec<SemaphoreOp> },
    RwLock { operations: Vec<LockOp> },
}

#[derive(Arbitrary, Debug)]
enum ChannelOp {
    Send,
    Receive,
    TrySend,
    TryReceive,
    Cancel(u8),
    DropSender,
}

#[derive(Arbitrary, Debug)]
enum SemaphoreOp {
    Acquire(u8),
    TryAcquire(u8),
    Release(u8),
    Cancel(u8),
    Add(u8),
    Forget(u8),
    Close,
}

#[derive(Arbitrary, Debug)]
enum LockOp {
    Read,
    Write,
    TryRead,
    TryWrite,
    Release(u8),
    Cancel(u8),
}

/// Lets all coroutines go as far as they can.
fn settle() {
    (0..6).for_each(|_| yield_now());
}

fuzz_target!(|program: Program| {
    plainsong::run(|| match program {
        Program::Channel { capacity, operations } => channel(capacity, &operations),
        Program::Semaphore { permits, operations } => semaphore(permits, &operations),
        Program::RwLock { operations } => rwlock(&operations),
    });
});

// ---- a channel ----

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Got {
    Waits,
    Sent,
    Item(usize),
    Closed,
    Cancelled,
}

fn channel(capacity: Option<u8>, operations: &[ChannelOp]) {
    let capacity = capacity.map(|capacity| usize::from(capacity % 4));
    let (sender, receiver) = capacity.map_or_else(unbounded, bounded::<usize>);
    let room = capacity.unwrap_or(usize::MAX);
    let mut sender = Some(sender);
    let mut tasks: Vec<(JoinHandle<()>, Rc<Cell<Got>>)> = Vec::new();
    let mut model: Vec<Got> = Vec::new();
    let mut items = VecDeque::new();
    let (mut senders, mut receivers) = (VecDeque::new(), VecDeque::new());
    for (number, operation) in operations.iter().take(OPERATIONS_MAX).enumerate() {
        match operation {
            ChannelOp::Send => {
                let Some(sender) = sender.clone() else { continue };
                let got = Rc::new(Cell::new(Got::Waits));
                let theirs = Rc::clone(&got);
                let task = spawn(move || {
                    theirs.set(sender.send(number).map_or(Got::Closed, |()| Got::Sent));
                });
                let me = tasks.len();
                tasks.push((task, got));
                model.push(Got::Sent);
                match receivers.pop_front() {
                    Some(receiver) => model[receiver] = Got::Item(number),
                    None if items.len() < room => items.push_back(number),
                    None => {
                        model[me] = Got::Waits;
                        senders.push_back((me, number));
                    }
                }
            }
            ChannelOp::Receive => {
                let got = Rc::new(Cell::new(Got::Waits));
                let (theirs, receiver) = (Rc::clone(&got), receiver.clone());
                let task = spawn(move || {
                    theirs.set(receiver.recv().map_or(Got::Closed, Got::Item));
                });
                tasks.push((task, got));
                let me = model.len();
                model.push(Got::Waits);
                match take(&mut items, &mut senders, &mut model) {
                    Some(item) => model[me] = Got::Item(item),
                    None if sender.is_none() => model[me] = Got::Closed,
                    None => receivers.push_back(me),
                }
            }
            ChannelOp::TrySend => {
                let Some(sender) = &sender else { continue };
                let result = sender.try_send(number);
                match receivers.pop_front() {
                    Some(receiver) => {
                        assert_eq!(result, Ok(()));
                        model[receiver] = Got::Item(number);
                    }
                    None if items.len() < room => {
                        assert_eq!(result, Ok(()));
                        items.push_back(number);
                    }
                    None => assert_eq!(result, Err(TrySendError::Full(number))),
                }
            }
            ChannelOp::TryReceive => {
                let result = receiver.try_recv();
                match take(&mut items, &mut senders, &mut model) {
                    Some(item) => assert_eq!(result, Ok(item)),
                    None if sender.is_none() => assert_eq!(result, Err(TryRecvError::Disconnected)),
                    None => assert_eq!(result, Err(TryRecvError::Empty)),
                }
            }
            ChannelOp::Cancel(pick) => {
                let Some(task) = usize::from(*pick).checked_rem(tasks.len()) else { continue };
                tasks[task].0.cancel();
                if model[task] == Got::Waits {
                    model[task] = Got::Cancelled;
                    senders.retain(|(sender, _)| *sender != task);
                    receivers.retain(|receiver| *receiver != task);
                }
            }
            ChannelOp::DropSender => {
                sender = None;
                // A sender that waits has a share of its own; no receiver waits beside it.
                receivers.drain(..).for_each(|receiver| model[receiver] = Got::Closed);
            }
        }
        settle();
        assert_eq!(receiver.len(), items.len());
        for (at, ((task, got), model)) in tasks.iter().zip(&model).enumerate() {
            let got = match got.get() {
                Got::Waits if task.is_finished() => Got::Cancelled,
                got => got,
            };
            assert_eq!(got, *model, "coroutine {at} after {operation:?}");
        }
    }
}

/// Takes the next item, and moves up the first sender that waits.
fn take(
    items: &mut VecDeque<usize>,
    senders: &mut VecDeque<(usize, usize)>,
    model: &mut [Got],
) -> Option<usize> {
    let waiting = if items.is_empty() && senders.is_empty() { None } else { senders.pop_front() };
    if let Some((sender, item)) = waiting {
        model[sender] = Got::Sent;
        items.push_back(item);
    }
    items.pop_front()
}

// ---- holders of a semaphore or a lock ----

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    Waits,
    Holds,
    Refused,
    Over,
}

struct Holder {
    task: JoinHandle<()>,
    state: Rc<Cell<Hold>>,
}

impl Holder {
    /// Acquires with `acquire`, and holds what it returns until it is unparked.
    fn start<G>(acquire: impl FnOnce() -> Option<G> + 'static) -> Self {
        let state = Rc::new(Cell::new(Hold::Waits));
        let theirs = Rc::clone(&state);
        let task = spawn(move || match acquire() {
            Some(_held) => {
                theirs.set(Hold::Holds);
                thread::park();
                theirs.set(Hold::Over);
            }
            None => theirs.set(Hold::Refused),
        });
        Self { task, state }
    }

    fn check(&self, model: Hold) {
        let state = match self.state.get() {
            Hold::Waits | Hold::Holds if self.task.is_finished() => Hold::Over,
            state => state,
        };
        assert_eq!(state, model);
    }
}

fn pick(holders: &[Holder], pick: u8) -> Option<usize> {
    usize::from(pick).checked_rem(holders.len())
}

fn semaphore(permits: u8, operations: &[SemaphoreOp]) {
    let semaphore = Arc::new(Semaphore::new(permits.into()));
    let mut holders: Vec<Holder> = Vec::new();
    let mut model: Vec<(Hold, usize)> = Vec::new();
    let (mut free, mut closed) = (usize::from(permits), false);
    let mut queue = VecDeque::new();
    for operation in operations.iter().take(OPERATIONS_MAX) {
        match *operation {
            SemaphoreOp::Acquire(count) => {
                let semaphore = Arc::clone(&semaphore);
                holders
                    .push(Holder::start(move || semaphore.acquire_many_owned(count.into()).ok()));
                model.push((if closed { Hold::Refused } else { Hold::Waits }, count.into()));
                if !closed {
                    queue.push_back(model.len() - 1);
                }
            }
            SemaphoreOp::TryAcquire(count) => {
                let count = usize::from(count);
                let enough = !closed && queue.is_empty() && count <= free;
                let result = semaphore.try_acquire_many(count as u32);
                assert_eq!(result.is_ok(), enough);
            }
            SemaphoreOp::Release(at) => {
                let Some(at) = pick(&holders, at) else { continue };
                if model[at].0 == Hold::Holds {
                    holders[at].task.thread().unpark();
                    model[at].0 = Hold::Over;
                    free += model[at].1;
                }
            }
            SemaphoreOp::Cancel(at) => {
                let Some(at) = pick(&holders, at) else { continue };
                holders[at].task.cancel();
                match model[at].0 {
                    Hold::Holds => free += model[at].1,
                    Hold::Waits => queue.retain(|waiter| *waiter != at),
                    Hold::Refused | Hold::Over => continue,
                }
                model[at].0 = Hold::Over;
            }
            SemaphoreOp::Add(count) => {
                semaphore.add_permits(count.into());
                free += usize::from(count);
            }
            SemaphoreOp::Forget(count) => {
                let forgotten = usize::from(count).min(free);
                assert_eq!(semaphore.forget_permits(count.into()), forgotten);
                free -= forgotten;
            }
            SemaphoreOp::Close => {
                semaphore.close();
                closed = true;
                queue.drain(..).for_each(|waiter| model[waiter].0 = Hold::Refused);
            }
        }
        while let Some(&first) = queue.front() {
            if model[first].1 > free {
                break;
            }
            free -= model[first].1;
            model[first].0 = Hold::Holds;
            queue.pop_front();
        }
        settle();
        holders.iter().zip(&model).for_each(|(holder, (state, _))| holder.check(*state));
        let available = if queue.is_empty() { free } else { 0 };
        assert_eq!(semaphore.available_permits(), available);
    }
}

fn rwlock(operations: &[LockOp]) {
    let lock = Arc::new(RwLock::new(()));
    let mut holders: Vec<Holder> = Vec::new();
    // Whether it is a writer.
    let mut model: Vec<(Hold, bool)> = Vec::new();
    let inside = RefCell::new((0_usize, false));
    let enters = |writes: bool| {
        let mut inside = inside.borrow_mut();
        let free = !inside.1 && (inside.0 == 0 || !writes);
        if free {
            if writes { inside.1 = true } else { inside.0 += 1 }
        }
        free
    };
    let leaves = |writes: bool| {
        let mut inside = inside.borrow_mut();
        if writes { inside.1 = false } else { inside.0 -= 1 }
    };
    let mut queue = VecDeque::new();
    for operation in operations.iter().take(OPERATIONS_MAX) {
        match *operation {
            LockOp::Read | LockOp::Write => {
                let (lock, writes) = (Arc::clone(&lock), matches!(operation, LockOp::Write));
                holders.push(if writes {
                    Holder::start(move || lock.write_owned().ok())
                } else {
                    Holder::start(move || lock.read_owned().ok())
                });
                queue.push_back(model.len());
                model.push((Hold::Waits, writes));
            }
            LockOp::TryRead => {
                let free = queue.is_empty() && !inside.borrow().1;
                assert_eq!(lock.try_read().is_ok(), free);
            }
            LockOp::TryWrite => {
                let free = queue.is_empty() && *inside.borrow() == (0, false);
                assert_eq!(lock.try_write().is_ok(), free);
            }
            LockOp::Release(at) => {
                let Some(at) = pick(&holders, at) else { continue };
                if model[at].0 == Hold::Holds {
                    holders[at].task.thread().unpark();
                    model[at].0 = Hold::Over;
                    leaves(model[at].1);
                }
            }
            LockOp::Cancel(at) => {
                let Some(at) = pick(&holders, at) else { continue };
                holders[at].task.cancel();
                match model[at].0 {
                    Hold::Holds => leaves(model[at].1),
                    Hold::Waits => queue.retain(|waiter| *waiter != at),
                    Hold::Refused | Hold::Over => continue,
                }
                model[at].0 = Hold::Over;
            }
        }
        while let Some(&first) = queue.front() {
            if !enters(model[first].1) {
                break;
            }
            model[first].0 = Hold::Holds;
            queue.pop_front();
        }
        settle();
        holders.iter().zip(&model).for_each(|(holder, (state, _))| holder.check(*state));
    }
}
