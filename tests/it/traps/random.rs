//! A hundred thousand random steps that spawn, cancel, join, time out and open scopes, with checks
//! of each coroutine.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use plainsong::time::{sleep, timeout};
use plainsong::{JoinHandle, thread};

use crate::util::{OnDrop, alone, below, descriptors, mappings, seeded, until};

const PANIC: &str = "scripted";

/// The expected state of one coroutine.
struct Record {
    id: usize,
    /// Cancelled through its handle before it had ended.
    cancelled: Cell<bool>,
    shields: Cell<u32>,
    /// Has caught a cancellation. While another coroutine is suspended in the middle of unwinding,
    /// the library cannot tell such a coroutine from one that unwinds.
    swallowed: Cell<bool>,
    /// Unwinds with a panic of its own.
    panics: Cell<bool>,
    begun: Cell<u32>,
    returned: Cell<bool>,
    dropped: Cell<u32>,
}

struct World {
    random: Cell<u64>,
    steps: Cell<usize>,
    ids: Cell<usize>,
    live: Cell<usize>,
    handles: RefCell<Vec<(Rc<Record>, JoinHandle<usize>)>>,
    records: RefCell<Vec<Rc<Record>>>,
}

impl World {
    fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            random: seeded(seed),
            steps: Cell::new(0),
            ids: Cell::new(0),
            live: Cell::new(0),
            handles: RefCell::default(),
            records: RefCell::default(),
        })
    }

    fn below(&self, bound: usize) -> usize {
        below(&self.random, bound)
    }

    fn pause(&self) -> Duration {
        Duration::from_micros(self.below(30) as u64)
    }

    fn record(&self) -> Rc<Record> {
        let id = self.ids.get();
        self.ids.set(id + 1);
        self.live.set(self.live.get() + 1);
        let record = Rc::new(Record {
            id,
            cancelled: Cell::new(false),
            shields: Cell::new(0),
            swallowed: Cell::new(false),
            panics: Cell::new(false),
            begun: Cell::new(0),
            returned: Cell::new(false),
            dropped: Cell::new(0),
        });
        self.records.borrow_mut().push(Rc::clone(&record));
        record
    }

    /// Any handle of a coroutine younger than `than`. Joining only younger ones makes no circle.
    fn take_handle(&self, than: usize) -> Option<(Rc<Record>, JoinHandle<usize>)> {
        let mut handles = self.handles.borrow_mut();
        if handles.is_empty() {
            return None;
        }
        let at = self.below(handles.len());
        (handles[at].0.id > than).then(|| handles.swap_remove(at))
    }
}

/// The end of one coroutine: dropped once, whether it has begun or not.
struct Life(Rc<World>, Rc<Record>);

impl Drop for Life {
    fn drop(&mut self) {
        let Self(world, record) = self;
        match world.below(8) {
            // Destructors may wait, also while a cancellation unwinds; but not while a panic does,
            // since the library cannot tell which of two suspended coroutines unwinds by a panic.
            _ if record.panics.get() => {}
            0 => plainsong::shield(plainsong::yield_now),
            1 => plainsong::shield(|| sleep(world.pause())),
            _ => {}
        }
        record.dropped.set(record.dropped.get() + 1);
        world.live.set(world.live.get() - 1);
    }
}

/// Waits. That must unwind if the coroutine was cancelled before, unless something hides it.
fn wait<T>(me: &Record, what: impl FnOnce() -> T) -> T {
    let doomed = me.cancelled.get() && me.shields.get() == 0 && !me.swallowed.get();
    let value = what();
    assert!(!doomed, "coroutine {} was cancelled, and a wait went through", me.id);
    value
}

fn spawn(world: &Rc<World>) {
    let record = world.record();
    let life = Life(Rc::clone(world), Rc::clone(&record));
    let handle = plainsong::spawn(move || {
        let Life(world, me) = &life;
        me.begun.set(me.begun.get() + 1);
        script(world, me, 0);
        me.returned.set(true);
        me.id
    });
    world.handles.borrow_mut().push((record, handle));
}

fn check(record: &Record, result: Result<usize, plainsong::JoinError>) {
    match result {
        Ok(id) => assert!(id == record.id && record.returned.get() && record.begun.get() == 1),
        Err(error) if error.is_cancelled() => {
            assert!(record.cancelled.get(), "nobody has cancelled {}", record.id);
            assert!(!record.returned.get());
        }
        Err(error) => {
            assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), PANIC);
        }
    }
}

fn script(world: &Rc<World>, me: &Record, depth: usize) {
    for _ in 0..world.below(6) {
        world.steps.set(world.steps.get() + 1);
        let deeper = depth < 4;
        match world.below(16) {
            0 | 1 => wait(me, plainsong::yield_now),
            2 => wait(me, || sleep(world.pause())),
            3 => wait(me, || {
                thread::park_timeout(world.pause());
                // An earlier unpark may have let the park return without a wait.
                plainsong::yield_now();
            }),
            4 | 5 if world.live.get() < 200 => spawn(world),
            6 | 7 => join(world, me),
            8 | 9 => {
                let handles = world.handles.borrow();
                if let Some((record, handle)) = handles.get(world.below(handles.len().max(1))) {
                    record.cancelled.set(record.cancelled.get() || !handle.is_finished());
                    handle.cancel();
                    handle.thread().unpark();
                }
            }
            10 | 11 if deeper => {
                let limit = world.pause();
                let start = Instant::now();
                if timeout(limit, || script(world, me, depth + 1)).is_err() {
                    assert!(start.elapsed() >= limit, "a time-out before its time");
                }
            }
            12 if deeper => open_scope(world, me, depth + 1),
            13 if deeper => {
                let through = Cell::new(false);
                me.shields.set(me.shields.get() + 1);
                let guard = OnDrop(|| me.shields.set(me.shields.get() - 1));
                let result = catch_unwind(AssertUnwindSafe(|| {
                    plainsong::shield(|| script(world, me, depth + 1));
                    through.set(true);
                }));
                drop(guard);
                if let Err(payload) = result {
                    assert!(payload.is::<&str>() && !through.get(), "a shield has a hole");
                    resume_unwind(payload);
                }
            }
            14 => {
                let caught = catch_unwind(AssertUnwindSafe(|| wait(me, plainsong::yield_now)));
                me.swallowed.set(me.swallowed.get() || caught.is_err());
            }
            15 if world.below(8) == 0 => {
                me.panics.set(true);
                resume_unwind(Box::new(PANIC));
            }
            _ => {}
        }
    }
}

fn join(world: &World, me: &Record) {
    let Some((record, handle)) = world.take_handle(me.id) else { return };
    if world.below(2) == 0 {
        // A coroutine that has ended needs no wait.
        let result = if handle.is_finished() { handle.join() } else { wait(me, || handle.join()) };
        return check(&record, result);
    }
    match handle.join_timeout(world.pause()) {
        Ok(result) => check(&record, result),
        Err(handle) => world.handles.borrow_mut().push((record, handle)),
    }
}

/// A scope whose children borrow from this stack until they have ended.
fn open_scope(world: &Rc<World>, me: &Record, depth: usize) {
    let users = Cell::new(0);
    let canary = world.below(1000);
    let lent = vec![canary; 10];
    let result = catch_unwind(AssertUnwindSafe(|| {
        plainsong::scope(|s| {
            for _ in 0..world.below(4) {
                let record = world.record();
                let life = Life(Rc::clone(world), record);
                let (users, lent) = (&users, &lent);
                let child = s.spawn(move || {
                    let Life(world, me) = &life;
                    me.begun.set(1);
                    users.set(users.get() + 1);
                    let _guard = OnDrop(|| {
                        assert!(lent.iter().all(|n| *n == canary));
                        users.set(users.get() - 1);
                    });
                    script(world, me, depth);
                });
                match world.below(3) {
                    0 => std::mem::forget(child),
                    1 => child.cancel(),
                    _ => {}
                }
            }
            script(world, me, depth);
            if world.below(4) == 0 {
                s.cancel();
            }
        });
    }));
    assert_eq!(users.get(), 0, "the scope is over, and a child is left");
    match result {
        Ok(()) => {}
        // Catches half of the panics.
        Err(payload) if payload.is::<&str>() && world.below(2) == 0 => {
            // A child's panic takes the place of the cancellation that the body unwound with. And
            // while another coroutine is suspended in its unwind, one that has caught a panic
            // counts as unwinding, so no cancellation reaches it.
            me.swallowed.set(true);
            me.panics.set(false);
        }
        Err(payload) => {
            me.panics.set(payload.is::<&str>());
            resume_unwind(payload);
        }
    }
}

/// Returns the number of steps.
fn play(seed: u64) -> usize {
    let world = World::new(seed);
    let theirs = Rc::clone(&world);
    plainsong::run(move || {
        for _ in 0..20 {
            spawn(&theirs);
        }
        while theirs.steps.get() < 1000 {
            if theirs.live.get() < 50 {
                spawn(&theirs);
            }
            plainsong::yield_now();
        }
        loop {
            let Some((record, handle)) = theirs.handles.borrow_mut().pop() else {
                if theirs.live.get() == 0 {
                    break;
                }
                plainsong::yield_now();
                continue;
            };
            check(&record, handle.join());
        }
        until(|| theirs.live.get() == 0);
    });
    for record in &*world.records.borrow() {
        assert!(record.dropped.get() == 1 && record.begun.get() <= 1 && record.shields.get() == 0);
    }
    world.steps.get()
}

#[test]
fn a_hundred_thousand_steps() {
    alone(a_hundred_thousand_steps, || {
        let (mut steps, mut seed, mut before) = (0, 0, None);
        while steps < 100_000 {
            seed += 1;
            let result = catch_unwind(|| play(seed));
            steps += result.unwrap_or_else(|_| panic!("with the seed {seed}"));
            if seed == 20 {
                before = Some((descriptors(), mappings()));
            }
        }
        let (descriptors_before, mappings_before) = before.unwrap();
        assert_eq!(descriptors(), descriptors_before);
        assert!(mappings() <= mappings_before + 8, "{} of {mappings_before}", mappings());
    });
}
