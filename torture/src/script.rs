//! An actor: a coroutine or a plain thread that takes random steps.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::thread as std_thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use plainsong::time::{sleep, timeout};
use plainsong::{
    Builder, CancellationToken, JoinError, blocking, scope, shield, spawn, spawn_anywhere, thread,
    yield_now,
};

use crate::process::forget;
use crate::watch::Scripted;
use crate::world::{World, on_drop};
use crate::{steps, traffic};

/// How deep scopes, time-outs and shields may nest.
const DEPTH_MAX: u32 = 4;
/// Actors that may be alive when another one is started.
const LIVES_MAX: usize = 300;

/// A step of its own, with a name for reports.
pub(crate) type Step = (&'static str, fn(&Actor));

pub(crate) struct Actor {
    pub(crate) world: Arc<World>,
    pub(crate) rng: RefCell<Rng>,
    number: u64,
    depth: Cell<u32>,
    /// Whether this is a coroutine, and not a plain thread.
    is_coroutine: bool,
    /// Has caught a cancellation. While another coroutine is suspended in the middle of unwinding,
    /// the library cannot tell such a coroutine from one that unwinds.
    pub(crate) swallowed: Cell<bool>,
}

plainsong::coroutine_local! {
    static LOCAL: RefCell<Option<Restless>> = RefCell::default();
}

/// A value whose destructor waits, or panics where nothing unwinds.
pub(crate) struct Restless {
    choice: u8,
}

impl Restless {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { choice: rng.u8(..8) }
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        match self.choice {
            0 => shield(yield_now),
            1 => yield_now(),
            2 => shield(|| sleep(Duration::from_micros(20))),
            3 => _ = timeout(Duration::from_micros(20), || sleep(Duration::from_secs(1))),
            // Makes the local again that may be destroyed at this moment.
            4 => _ = LOCAL.try_with(|local| local.try_borrow().map(drop)),
            _ => {}
        }
    }
}

/// The result of a coroutine that nobody joins; its destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic_any(Scripted);
        }
    }
}

impl Actor {
    pub(crate) fn new(world: &Arc<World>, rng: Rng, number: u64, is_coroutine: bool) -> Self {
        Self {
            world: Arc::clone(world),
            rng: RefCell::new(rng),
            number,
            depth: Cell::new(0),
            is_coroutine,
            swallowed: Cell::new(false),
        }
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        self.rng.borrow_mut().usize(..bound)
    }

    pub(crate) fn fork(&self) -> Rng {
        self.rng.borrow_mut().fork()
    }

    /// Says what this actor does, if the run hangs before the result is dropped.
    pub(crate) fn doing(&self, what: &'static str) -> impl Drop + use<'_> {
        self.world.begin(self.number, what);
        on_drop(move || self.world.end(self.number, what))
    }

    pub(crate) fn pause(&self) -> Duration {
        Duration::from_micros(self.below(60) as u64)
    }

    /// Waits, or computes, for a short time.
    pub(crate) fn idle(&self) {
        match self.below(4) {
            0 if self.is_coroutine => yield_now(),
            1 => sleep(self.pause()),
            2 => thread::park_timeout(self.pause()),
            _ => {}
        }
    }

    pub(crate) fn restless(&self) -> Restless {
        Restless::new(&mut self.rng.borrow_mut())
    }

    /// Calls `f` one level deeper.
    fn deeper<T>(&self, f: impl FnOnce() -> T) -> T {
        self.depth.set(self.depth.get() + 1);
        let _end = on_drop(|| self.depth.set(self.depth.get() - 1));
        f()
    }

    fn may_nest(&self) -> bool {
        self.depth.get() < DEPTH_MAX
    }

    fn may_spawn(&self) -> bool {
        self.world.lives() < LIVES_MAX
    }

    /// Takes a few random steps.
    pub(crate) fn play(&self) {
        for _ in 0..self.below(8) {
            if self.world.steps.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 0 {
                return;
            }
            self.step();
        }
    }

    fn step(&self) {
        let kinds = if self.is_coroutine { 24 } else { 10 };
        match self.below(kinds) {
            // On plain threads too.
            0 => self.idle(),
            1..=4 => {
                let _doing = self.doing("what all share");
                steps::any(self);
            }
            5 => self.join(),
            6 => self.cancel(),
            7 if self.may_spawn() => self.start_anywhere(),
            8 => self.fire_token(),
            9 if self.may_nest() => self.deeper(|| steps::meet(self)),
            // In coroutines only.
            10 | 11 if self.may_spawn() => self.start(),
            12 | 13 if self.may_nest() => self.limit(),
            14 if self.may_nest() && self.may_spawn() => self.open_scope(),
            15 if self.may_nest() => shield(|| self.deeper(|| self.play())),
            16 if self.may_nest() => self.with_token(),
            17..=19 => traffic::any(self),
            20 if self.may_nest() => self.block(),
            21 => self.make_local(),
            22 => self.swallow(),
            // A panic that the hook sees: beside another unwind, the library knows no other.
            23 if self.below(6) == 0 => panic_any(Scripted),
            _ => {}
        }
    }

    // ---- other actors ----

    /// An actor's closure. It counts from now on, also if it never runs.
    pub(crate) fn offspring(&self) -> (u64, impl FnOnce() -> u64 + Send + use<>) {
        let (world, rng, number) = (Arc::clone(&self.world), self.fork(), self.world.number());
        let life = world.life();
        let body = move || {
            let _life = life;
            let actor = Self::new(&world, rng, number, true);
            let _restless = actor.restless();
            actor.play();
            number
        };
        (number, body)
    }

    fn start(&self) {
        let (number, body) = self.offspring();
        let handle = match self.below(6) {
            0 => {
                // Nobody joins it, and its result panics.
                drop(spawn(move || (body(), Bomb)));
                return;
            }
            1 => {
                let size = 16 * 1024 * (8 + self.below(20));
                // The system may have no room for the stack.
                let Ok(handle) = Builder::new().stack_size(size).name("odd").spawn(body) else {
                    return;
                };
                handle
            }
            2 => {
                plainsong::time::after(self.pause(), move || _ = body());
                return;
            }
            _ => spawn(body),
        };
        if self.below(8) > 0 {
            self.world.keep_handle(number, handle);
        }
    }

    fn start_anywhere(&self) {
        let (number, body) = self.offspring();
        if self.is_coroutine {
            self.world.keep_handle(number, spawn_anywhere(body));
        } else if let Some(handle) = self.world.run.get() {
            self.world.keep_handle(number, handle.spawn(body));
        }
    }

    /// Has another coroutine call `f`, which may be dropped instead.
    pub(crate) fn partner(&self, f: impl FnOnce() + Send + 'static) {
        let life = self.world.life();
        let body = move || {
            let _life = life;
            f();
            0
        };
        let handle = match self.world.run.get() {
            Some(handle) if !self.is_coroutine => handle.spawn(body),
            _ if self.below(2) == 0 => spawn(body),
            _ => spawn_anywhere(body),
        };
        if self.below(8) == 0 {
            handle.cancel();
        }
    }

    fn join(&self) {
        let pick = self.below(1 << 20);
        let Some((number, handle)) = self.world.take_handle(self.number, pick) else { return };
        let _doing = self.doing("join");
        match self.below(3) {
            0 => check(number, handle.join()),
            1 => match handle.join_timeout(self.pause()) {
                Ok(result) => check(number, result),
                Err(handle) => self.world.keep_handle(number, handle),
            },
            _ if self.is_coroutine => check(number, plainsong::block_on(handle)),
            _ => self.world.keep_handle(number, handle),
        }
    }

    fn cancel(&self) {
        let (pick, how) = (self.below(1 << 20), self.below(3));
        self.world.with_handle(pick, |handle| match how {
            0 => handle.cancel(),
            1 => handle.thread().unpark(),
            _ => drop(format!("{handle:?}")),
        });
    }

    // ---- scopes of cancellation ----

    fn limit(&self) {
        let (limit, start) = (self.pause(), Instant::now());
        if timeout(limit, || self.deeper(|| self.play())).is_err() {
            assert!(start.elapsed() >= limit, "a time-out before its time");
        }
    }

    fn with_token(&self) {
        let token = CancellationToken::new();
        self.world.keep_token(token.child_token());
        self.world.keep_token(token.clone());
        let result = token.run_until_cancelled(|| self.deeper(|| self.play()));
        assert!(result.is_some() || token.is_cancelled(), "nobody has cancelled the token");
    }

    fn fire_token(&self) {
        let pick = self.below(1 << 20);
        if let Some(token) = self.world.take_token(pick) {
            token.cancel();
        }
    }

    /// A scope whose children borrow from this stack until they have ended.
    fn open_scope(&self) {
        let _doing = self.doing("scope");
        let users = std::sync::atomic::AtomicUsize::new(0);
        let canary = self.below(1000);
        let lent = vec![canary; 10];
        let work = |body: Box<dyn FnOnce() -> u64 + Send>| {
            let (users, lent) = (&users, &lent);
            move || {
                users.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _end = on_drop(|| {
                    assert!(lent.iter().all(|number| *number == canary));
                    users.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                });
                body()
            }
        };
        let _left = on_drop(|| {
            let left = users.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!(left, 0, "the scope is over, and a child is left");
        });
        scope(|s| {
            for _ in 0..self.below(4) {
                let (_, body) = self.offspring();
                let work = work(Box::new(body));
                let child = if self.below(2) == 0 { s.spawn(work) } else { s.spawn_anywhere(work) };
                match self.below(4) {
                    0 => forget(child),
                    1 => child.cancel(),
                    2 => _ = child.join(),
                    _ => {}
                }
            }
            self.deeper(|| self.play());
            if self.below(4) == 0 {
                s.cancel();
            }
        });
    }

    // ---- the rest ----

    /// A call on a thread of the blocking pool, where this actor goes on as a plain thread.
    fn block(&self) {
        let (world, rng, number) = (&self.world, self.fork(), self.number);
        blocking(|| Self::new(world, rng, number, false).play());
    }

    fn make_local(&self) {
        let restless = self.restless();
        let before = LOCAL.with(|local| local.borrow_mut().replace(restless));
        drop(before);
    }

    /// Catches a cancellation. It is raised again at the next wait.
    fn swallow(&self) {
        let caught = catch_unwind(AssertUnwindSafe(|| self.idle()));
        self.swallowed.set(self.swallowed.get() || caught.is_err());
    }
}

fn check(number: u64, result: Result<u64, JoinError>) {
    match result {
        Ok(result) => assert_eq!(result, number, "another coroutine's result"),
        Err(error) if error.is_cancelled() => {}
        Err(error) => assert!(error.into_panic().is::<Scripted>(), "a payload of nobody"),
    }
}

/// Starts a plain thread that takes part until the steps are used up, also after the end of the
/// run.
pub(crate) fn start_thread(world: &Arc<World>, rng: Rng) -> std_thread::JoinHandle<()> {
    let (world, number) = (Arc::clone(world), world.number());
    std_thread::spawn(move || {
        let actor = Actor::new(&world, rng, number, false);
        while world.steps.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| actor.play())) {
                assert!(payload.is::<Scripted>(), "a thread was cancelled");
            }
        }
    })
}
