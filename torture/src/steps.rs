//! Steps at channels, locks and other meeting places.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, Waker};
use std::time::Duration;

use plainsong::pool::{MapError, Pool};
use plainsong::sync::channel::{self, Receiver, RecvTimeoutError, TrySendError, bounded};
use plainsong::sync::{
    Barrier, Condvar, Event, Mutex, OnceLock, Promise, Queue, TryLockError, WaitGroup, broadcast,
    oneshot, watch,
};
use plainsong::time::timeout;
use plainsong::{CancellationToken, block_on, select, thread};

use crate::script::{Actor, Step};
use crate::world::{Item, PERMITS, on_drop};

/// A step at what all actors share. It waits for nothing that only some other actor's choice could
/// end, except within a time-out.
pub(crate) fn any(me: &Actor) {
    match me.below(9) {
        0 | 1 => send(me),
        2 | 3 => receive(me),
        // A receive whose partner's item panics goes on without the limit of its `select!`.
        4 => _ = timeout(Duration::from_millis(20), || choose(me)),
        5 => lock(me),
        6 => read_write(me),
        7 => permits(me),
        _ => event(me),
    }
}

const MEETINGS: [Step; 14] = [
    ("exchange", exchange),
    ("exchange", exchange),
    ("once_through", once_through),
    ("promise", promise),
    ("ping_pong", ping_pong),
    ("wait_group", wait_group),
    ("unpark", unpark),
    ("queue", queue),
    ("watch_values", watch_values),
    ("hear", hear),
    ("future", future),
    ("token", token),
    ("pool", pool),
    ("initialise", initialise),
];

/// A step with a partner that was started for it. Waits without a time-out, so a wake that is lost
/// is noticed.
pub(crate) fn meet(me: &Actor) {
    let (name, step) = MEETINGS[me.below(MEETINGS.len())];
    let _doing = me.doing(name);
    step(me);
}

// ---- what all share ----

fn send(me: &Actor) {
    let world = &me.world;
    let (sender, _) = &world.channels[me.below(world.channels.len())];
    let item = world.items.make();
    let number = item.number();
    let sent = |result: bool| {
        if result {
            world.items.sent(number);
        }
    };
    match me.below(3) {
        0 => sent(sender.try_send(item).is_ok()),
        1 => sent(sender.send_timeout(item, me.pause()).is_ok()),
        // Counted inside: a time-out that comes later drops the result.
        _ => _ = timeout(me.pause(), || sent(sender.send(item).is_ok())),
    }
}

fn receive(me: &Actor) {
    let world = &me.world;
    let (_, receiver) = &world.channels[me.below(world.channels.len())];
    let got = |item: Item| world.items.received(item);
    match me.below(4) {
        0 => _ = receiver.try_recv().map(got),
        1 => _ = receiver.recv_timeout(me.pause()).map(got),
        2 => _ = timeout(me.pause(), || receiver.recv().map(got)),
        _ => {
            let limit = me.pause();
            _ = timeout(limit, || block_on(receiver).map(got));
        }
    }
}

/// A `select!` of several of the shared channels, with a limit of its own or from outside.
fn choose(me: &Actor) {
    let world = &me.world;
    let (one, two) = (me.below(4), me.below(4));
    let (sender, other) = (&world.channels[one].0, &world.channels[two].0);
    let (receiver, third) = (&world.channels[two].1, &world.channels[me.below(4)].1);
    let panics = me.below(20) == 0;
    // Made only when its send has been chosen, and counted when that has succeeded.
    let number = std::cell::Cell::new(0);
    let make = || {
        let item = world.items.make();
        number.set(item.number());
        if panics {
            std::panic::panic_any(crate::watch::Scripted);
        }
        item
    };
    let sent = |result: Result<(), _>| {
        if result.is_ok() {
            world.items.sent(number.get());
        }
    };
    let got = |item: Result<Item, _>| {
        if let Ok(item) = item {
            world.items.received(item);
        }
    };
    let limit = me.pause();
    match me.below(3) {
        0 => select! {
            send(sender, make()) -> result => sent(result),
            recv(receiver) -> item => got(item),
            default => {}
        },
        1 => select! {
            recv(receiver) -> item => got(item),
            send(other, make()) -> result => sent(result),
            recv(third) -> item => got(item),
            default(limit) => {}
        },
        _ => {
            let clock = channel::after(limit);
            select! {
                recv(third) -> item => got(item),
                recv(clock) -> _ => {}
                send(sender, make()) -> result => sent(result),
                wait(world.event) => {}
            }
        }
    }
}

fn lock(me: &Actor) {
    let mutex = &me.world.mutexes[me.below(3)];
    let guard = match me.below(3) {
        0 => mutex.try_lock(),
        1 => mutex.lock_timeout(me.pause()),
        _ => mutex.lock().map_err(TryLockError::Poisoned),
    };
    let guard = match guard {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    guard.alone(|| me.idle());
}

fn read_write(me: &Actor) {
    let lock = &me.world.rwlocks[me.below(3)];
    if me.below(2) == 0 {
        let guard = match me.below(3) {
            0 => lock.try_read(),
            1 => lock.read_timeout(me.pause()),
            _ => lock.read().map_err(TryLockError::Poisoned),
        };
        match guard {
            Ok(guard) => guard.together(|| me.idle()),
            Err(TryLockError::Poisoned(error)) => error.into_inner().together(|| me.idle()),
            Err(TryLockError::WouldBlock) => {}
        }
        return;
    }
    let guard = match me.below(3) {
        0 => lock.try_write(),
        1 => lock.write_timeout(me.pause()),
        _ => lock.write().map_err(TryLockError::Poisoned),
    };
    match guard {
        Ok(guard) => guard.alone(|| me.idle()),
        Err(TryLockError::Poisoned(error)) => error.into_inner().alone(|| me.idle()),
        Err(TryLockError::WouldBlock) => {}
    }
}

fn permits(me: &Actor) {
    let (world, count) = (&me.world, 1 + me.below(PERMITS));
    let permit = match me.below(3) {
        0 => world.semaphore.try_acquire_many(count as u32).ok(),
        1 => world.semaphore.acquire_many_timeout(count as u32, me.pause()).ok(),
        _ => world.semaphore.acquire_many(count as u32).ok(),
    };
    if let Some(_permit) = permit {
        let taken = world.permits_taken.fetch_add(count, SeqCst) + count;
        let _back = on_drop(|| _ = world.permits_taken.fetch_sub(count, SeqCst));
        assert!(taken <= PERMITS, "{taken} permits are in use");
        me.idle();
    }
}

fn event(me: &Actor) {
    let event = &me.world.event;
    match me.below(3) {
        0 => event.set(),
        1 => event.clear(),
        _ => _ = event.wait_timeout(me.pause()),
    }
}

// ---- with a partner ----

/// Items through a channel of their own: all that were sent come, in order.
fn exchange(me: &Actor) {
    let (count, way) = (me.below(40), me.below(4));
    let (sender, receiver) = bounded(me.below(4));
    let (sent, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(Event::new()));
    let (theirs, end, mut rng) = (Arc::clone(&sent), Arc::clone(&over), me.fork());
    // Also if the partner never begins.
    let end = on_drop(move || end.set());
    me.partner(move || {
        let _end = end;
        for number in 0..count {
            let mut item = number;
            loop {
                match rng.u8(..4) {
                    0 => match sender.try_send(item) {
                        Ok(()) => break,
                        Err(TrySendError::Full(back)) => item = back,
                        Err(TrySendError::Disconnected(_)) => return,
                    },
                    1 => match sender.send_timeout(item, Duration::from_micros(10)) {
                        Ok(()) => break,
                        Err(error) if error.is_timeout() => item = error.into_inner(),
                        Err(_) => return,
                    },
                    2 => {
                        let result = select! { send(sender, item) -> result => result };
                        match result {
                            Ok(()) => break,
                            Err(_) => return,
                        }
                    }
                    _ => match sender.send(item) {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
            theirs.store(number + 1, SeqCst);
        }
    });
    let mut next = 0;
    while let Some(number) = next_item(me, &receiver, way) {
        assert_eq!(number, next, "items in another order");
        next += 1;
    }
    // The last item may have been received before its sender could count it.
    over.wait();
    let sent = sent.load(SeqCst);
    assert!(next == sent || next == sent + 1 && sent < count, "{next} items of {sent}");
}

fn next_item(me: &Actor, receiver: &Receiver<usize>, way: usize) -> Option<usize> {
    loop {
        match way {
            0 => return receiver.recv().ok(),
            1 => match receiver.recv_timeout(me.pause()) {
                Err(RecvTimeoutError::Timeout) => {}
                result => return result.ok(),
            },
            2 => return select! { recv(receiver) -> item => item.ok() },
            _ => match timeout(me.pause(), || receiver.recv()) {
                Ok(result) => return result.ok(),
                Err(_) => continue,
            },
        }
    }
}

fn once_through(me: &Actor) {
    let (sender, receiver) = oneshot::channel();
    me.partner(move || _ = sender.send(Box::new(42)));
    if let Ok(value) = receiver.recv() {
        assert_eq!(*value, 42);
    }
}

fn promise(me: &Actor) {
    let promise = Promise::new();
    let (theirs, restless) = (promise.clone(), me.restless());
    promise.on_done(move |_| drop(restless));
    let cancel = on_drop(move || _ = theirs.cancel());
    let theirs = promise.clone();
    me.partner(move || {
        let _cancel = cancel;
        _ = theirs.set(42);
    });
    if let Ok(value) = promise.wait() {
        assert_eq!(*value, 42);
    }
}

/// Turns taken with a mutex and a condition variable.
fn ping_pong(me: &Actor) {
    #[derive(Default)]
    struct Table {
        turn: usize,
        over: bool,
    }
    let shared = Arc::new((Mutex::new(Table::default()), Condvar::new()));
    let rounds = 2 * me.below(10);
    let play = move |shared: &(Mutex<Table>, Condvar), mine: usize| {
        let (table, changed) = shared;
        let _over = on_drop(|| {
            plainsong::shield(|| table.lock().unwrap_or_else(|e| e.into_inner()).over = true);
            changed.notify_all();
        });
        let Ok(mut table) = table.lock() else { return };
        while table.turn < rounds {
            let waits = |table: &mut Table| table.turn % 2 != mine && !table.over;
            let Ok(guard) = changed.wait_while(table, waits) else { return };
            table = guard;
            if table.over {
                return;
            }
            table.turn += 1;
            changed.notify_one();
        }
    };
    let theirs = Arc::clone(&shared);
    // Says that it is over if its closure is dropped.
    let over = Arc::clone(&shared);
    let dropped = on_drop(move || {
        plainsong::shield(|| over.0.lock().unwrap_or_else(|e| e.into_inner()).over = true);
        over.1.notify_all();
    });
    me.partner(move || {
        let _dropped = dropped;
        play(&theirs, 1);
    });
    play(&shared, 0);
}

fn wait_group(me: &Actor) {
    let group = WaitGroup::new();
    for _ in 0..me.below(4) {
        let (share, restless) = (group.clone(), me.restless());
        me.partner(move || {
            let _share = share;
            drop(restless);
        });
    }
    group.wait();
}

fn unpark(me: &Actor) {
    let flag = Arc::new(AtomicBool::new(false));
    let (theirs, parked) = (Arc::clone(&flag), thread::current());
    let wake = on_drop(move || {
        theirs.store(true, SeqCst);
        parked.unpark();
    });
    me.partner(move || drop(wake));
    while !flag.load(SeqCst) {
        thread::park();
    }
}

fn queue(me: &Actor) {
    let (count, capacity) = (me.below(20), 1 + me.below(3));
    let queue = Arc::new(match me.below(3) {
        0 => Queue::fifo(Some(capacity)),
        1 => Queue::lifo(Some(capacity)),
        _ => Queue::priority(Some(capacity)),
    });
    let theirs = Arc::clone(&queue);
    // A partner that waits for room ends if this actor unwinds.
    let _leave = on_drop(move || theirs.shutdown(true));
    let theirs = Arc::clone(&queue);
    let end = on_drop(move || theirs.shutdown(false));
    let theirs = Arc::clone(&queue);
    me.partner(move || {
        let _end = end;
        for number in 0..count {
            if theirs.put(number).is_err() {
                return;
            }
        }
    });
    let mut seen = vec![false; count];
    while let Ok(number) = queue.get() {
        assert!(!std::mem::replace(&mut seen[number], true), "an item came twice");
        queue.task_done();
    }
    queue.join();
    // The partner puts them in order, and may be cancelled on the way.
    assert!(seen.is_sorted_by(|a, b| a >= b), "an item was lost: {seen:?}");
}

fn watch_values(me: &Actor) {
    let (sender, mut receiver) = watch::channel(0);
    let count = me.below(20);
    let done = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&done);
    me.partner(move || {
        for number in 1..=count {
            if sender.send(number).is_err() {
                return;
            }
        }
        theirs.store(true, SeqCst);
    });
    let mut last = 0;
    while receiver.changed().is_ok() {
        let value = *receiver.borrow_and_update();
        assert!(value > last, "{value} after {last}");
        last = value;
    }
    assert!(last == count || !done.load(SeqCst), "the last value is {last} of {count}");
}

fn hear(me: &Actor) {
    let (sender, mut receiver) = broadcast::channel(4);
    let count = me.below(20);
    me.partner(move || {
        for number in 0..count {
            if sender.send(number).is_err() {
                return;
            }
        }
    });
    let mut next = 0;
    loop {
        match receiver.recv() {
            Ok(number) => {
                assert!(number >= next, "{number} where {next} was next");
                next = number + 1;
            }
            Err(broadcast::RecvError::Closed) => return,
            Err(broadcast::RecvError::Lagged(_)) => {}
        }
    }
}

/// A future whose waker is called elsewhere, more often than it should be.
fn future(me: &Actor) {
    let state: Arc<StdMutex<(bool, Option<Waker>)>> = Arc::default();
    let theirs = Arc::clone(&state);
    let wake = on_drop(move || {
        let waker = {
            let mut state = theirs.lock().unwrap();
            state.0 = true;
            state.1.clone()
        };
        if let Some(waker) = waker {
            waker.wake_by_ref();
            waker.wake();
        }
    });
    me.partner(move || drop(wake));
    let wait = poll_fn(move |context| {
        let mut state = state.lock().unwrap();
        state.1 = Some(context.waker().clone());
        if state.0 { Poll::Ready(()) } else { Poll::Pending }
    });
    if me.below(4) == 0 {
        // The waker outlives the future.
        _ = timeout(me.pause(), || block_on(wait));
    } else {
        block_on(wait);
    }
}

fn token(me: &Actor) {
    let token = CancellationToken::new();
    let theirs = token.clone();
    let fire = on_drop(move || theirs.cancel());
    let child = token.child_token();
    me.partner(move || drop(fire));
    child.cancelled();
    assert!(token.is_cancelled());
}

fn pool(me: &Actor) {
    let panics = me.below(10) == 0;
    let job = move |number: usize| {
        if panics && number == 2 {
            std::panic::panic_any(crate::watch::Scripted);
        }
        2 * number
    };
    // Outside of a run there are no coroutines.
    let made = if me.world.threads_wake && me.below(4) == 0 {
        Pool::threads(1)
    } else {
        Pool::coroutines(2)
    };
    let Ok(pool) = made else { return };
    let results = pool.map(0..me.below(6), job);
    let results = if me.below(2) == 0 { results.timeout(me.pause()) } else { results };
    for (number, result) in results.enumerate() {
        match result {
            Ok(value) => assert_eq!(value, 2 * number),
            Err(MapError::Panicked(_)) => assert!(panics && number == 2),
            Err(MapError::Cancelled | MapError::TimedOut) => {}
        }
    }
    if me.below(2) == 0 {
        pool.shutdown();
    }
}

/// Several that initialise the same cell, and meet at a barrier.
fn initialise(me: &Actor) {
    let shared = Arc::new((OnceLock::new(), Barrier::new(2), Event::new()));
    for number in 0..2 {
        let (theirs, mine) = (Arc::clone(&shared), Arc::clone(&shared));
        let done = on_drop(move || mine.2.set());
        me.partner(move || {
            let _done = done;
            theirs.0.get_or_init(|| {
                plainsong::yield_now();
                number
            });
            _ = theirs.1.wait_timeout(Duration::from_micros(50));
        });
    }
    let value = *shared.0.get_or_init(|| 7);
    assert_eq!(*shared.0.wait(), value);
    shared.2.wait();
}
