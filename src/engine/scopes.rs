//! The levels of one coroutine at which it can be cancelled. The outermost level is the root, which
//! belongs to the `JoinHandle`. Inside of it are the open scopes, which belong to time-outs and the
//! like. Scopes nest, and so do shields. A shield hides the levels that were open when it was
//! raised from the waits inside of it.
//!
//! A cancellation takes four steps, each of which has its own name:
//!
//! ```text
//! request   sets a flag on one level             any thread, through the coroutine's own
//! wake      ends the wait of a parked coroutine  the scheduler
//! raise     unwinds from the next wait           cancel.rs
//! catch     stops the unwind at its level        cancel.rs
//! ```
//!
//! This file is the first step. It only keeps the books of one coroutine, and wakes or unwinds
//! nothing.
//!
//! A request stays set until its level is closed, so a wait after a swallowed payload raises again.
//! The target of an unwind is the outermost requested level that no shield hides: an unwind to an
//! inner level would only have to be followed by another.

use std::cell::{Cell, OnceCell, RefCell};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timer::TimerKey;

/// Identifies a scope among those that a coroutine has open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ScopeId(u32);

/// The level that a cancellation is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// The whole coroutine.
    Root,
    /// The code inside of one scope.
    Scope(ScopeId),
}

/// Why a level was cancelled, in the program's words. It is one word, so that results stay small.
pub(crate) type CancelReason = Arc<Box<str>>;

/// Evidence that a coroutine unwinds, or has swallowed the payload of an unwind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Evidence {
    /// A cancellation was raised.
    pub(crate) raised: bool,
    /// It has begun to panic: since then, if a cancellation was raised.
    pub(crate) panicked: bool,
}

#[derive(Debug)]
struct Scope {
    id: ScopeId,
    requested: bool,
    reason: Option<CancelReason>,
    until: Until,
    // Armed at the first switch: most time-outs are around code that need not wait.
    timer: Option<TimerKey>,
    // When it was opened. It holds again when it is closed.
    outside: Evidence,
    // It was opened in a destructor that an unwind runs.
    cleanup: bool,
}

impl Scope {
    /// The deadline at which it will be cancelled, if it has not been before.
    fn awaits(&self) -> Option<Instant> {
        match self.until {
            Until::Later(deadline) if !self.requested => Some(deadline),
            _ => None,
        }
    }

    fn settings(&self) -> ScopeSettings {
        ScopeSettings { timer: self.timer, token: self.until.token() }
    }
}

/// The settings of a scope that the scheduler undoes when it is closed.
pub(crate) struct ScopeSettings {
    pub(crate) timer: Option<TimerKey>,
    /// As [`Until::token`].
    pub(crate) token: Option<bool>,
}

/// When a scope is cancelled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Not before it is closed.
    Closed,
    /// When a token is cancelled, perhaps by a plain thread, or by something outside, such as a
    /// signal.
    Token { outside: bool },
    /// At a deadline that was in the future when the caller last read the clock.
    Later(Instant),
    /// At once, because the deadline has passed.
    Passed,
    /// Never. Instead, each wait that can report the lack of time does so from this time on.
    Fails(Instant),
}

impl Until {
    /// If a token cancels the scope: whether something outside cancels the token.
    fn token(self) -> Option<bool> {
        match self {
            Self::Token { outside } => Some(outside),
            _ => None,
        }
    }
}

/// The levels of one coroutine and the requests to cancel them.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    /// Whether the next wait must raise a cancellation ([`PENDING`]), or panic because it is
    /// forbidden ([`FORBIDDEN`]). Each method here keeps it up to date, so that a wait reads only
    /// one byte. More bits say whether switches are [hooked](Self::is_hooked), and whether timers
    /// are to be [armed](Self::arm) or a [panic](Self::note_panic) is to be forgotten at the next.
    pending: Cell<u8>,
    root_requested: Cell<bool>,
    // How many `no_wait` calls are under way. Not in `nested`, as each poll of a future of tokio is
    // such a call.
    forbidden: Cell<u32>,
    // Few coroutines ever open a scope.
    nested: OnceCell<Box<Nested>>,
}

const PENDING: u8 = 1;
const HOOKED: u8 = 2;
const UNARMED: u8 = 4;
const FORBIDDEN: u8 = 8;
const PANICKED: u8 = 16;

#[derive(Debug, Default)]
struct Nested {
    root_reason: OnceCell<CancelReason>,
    open: RefCell<Vec<Scope>>,
    shields: RefCell<Vec<Shield>>,
}

#[derive(Debug)]
struct Shield {
    /// How many scopes were open when it was raised. These are hidden.
    open: usize,
    /// Whether it hides the root, too.
    hides_root: bool,
}

impl Nested {
    fn has(&self, id: ScopeId) -> bool {
        self.open.borrow().iter().any(|scope| scope.id == id)
    }

    /// How many of the open scopes a shield hides.
    fn shielded(&self) -> usize {
        self.shields.borrow().last().map_or(0, |shield| shield.open)
    }

    /// How many of the open scopes are hidden, by a shield or by a scope of a clean-up.
    fn hidden(&self) -> usize {
        let by_cleanup = self.open.borrow().iter().rposition(|scope| scope.cleanup);
        self.shielded().max(by_cleanup.unwrap_or(0))
    }

    #[cold]
    fn fails_at(&self) -> Option<Instant> {
        let open = self.open.borrow();
        // These unwind nothing, so a clean-up need not be protected from them.
        let deadlines = open[self.shielded()..].iter().filter_map(|scope| match scope.until {
            Until::Fails(deadline) => Some(deadline),
            Until::Closed | Until::Token { .. } | Until::Later(_) | Until::Passed => None,
        });
        deadlines.min()
    }

    fn hides_root(&self) -> bool {
        self.shields.borrow().iter().any(|shield| shield.hides_root) || self.in_cleanup(false)
    }

    fn in_cleanup(&self, of_panic: bool) -> bool {
        let matches = |scope: &Scope| scope.cleanup && (!of_panic || scope.outside.panicked);
        self.open.borrow().iter().any(matches)
    }
}

impl Scopes {
    fn nested(&self) -> &Nested {
        self.nested.get_or_init(Box::default)
    }

    /// Whether the next wait must raise a cancellation, or panic because it is forbidden.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.get() & (PENDING | FORBIDDEN) != 0
    }

    /// Whether the hooks of the run are called at each switch.
    #[inline]
    pub(crate) fn is_hooked(&self) -> bool {
        self.pending.get() & HOOKED != 0
    }

    /// Whether the next switch has more to do than to switch: to call hooks, to arm timers, or to
    /// forget a panic.
    #[inline]
    pub(crate) fn switches_slowly(&self) -> bool {
        self.pending.get() & (HOOKED | UNARMED | PANICKED) != 0
    }

    /// [`is_pending`](Self::is_pending) or [`switches_slowly`](Self::switches_slowly), at the price
    /// of one.
    #[inline]
    pub(crate) fn yields_slowly(&self) -> bool {
        self.pending.get() != 0
    }

    /// Has the hooks of the run called at each switch.
    pub(crate) fn set_hooked(&self) {
        self.pending.set(self.pending.get() | HOOKED);
    }

    /// Notes that the coroutine panics. If it catches that, the next switch has to forget it.
    pub(crate) fn note_panic(&self) {
        self.pending.set(self.pending.get() | PANICKED);
    }

    /// Undoes [`note_panic`](Self::note_panic). Returns whether there was one.
    pub(crate) fn forget_panic(&self) -> bool {
        let pending = self.pending.get();
        self.pending.set(pending & !PANICKED);
        pending & PANICKED != 0
    }

    /// An id for the next scope, from this thread's counter.
    #[inline]
    pub(crate) fn next_id(&self, counter: &Cell<u32>) -> ScopeId {
        loop {
            let id = ScopeId(counter.get());
            counter.set(id.0.wrapping_add(1));
            // A busy thread has used all numbers within hours, and an outer scope may have been
            // open for that long.
            if !self.nested.get().is_some_and(|nested| nested.has(id)) {
                return id;
            }
        }
    }

    /// Opens a scope inside of the open ones. `cleanup`: in a destructor that an unwind runs. An
    /// unwind that starts inside of such a scope must not leave the destructor, so the levels
    /// outside are hidden while it is open.
    #[inline]
    pub(crate) fn open(&self, id: ScopeId, until: Until, outside: Evidence, cleanup: bool) {
        let (requested, reason, timer) = (false, None, None);
        let scope = Scope { id, requested, reason, until, timer, outside, cleanup };
        let unarmed = if scope.awaits().is_some() { UNARMED } else { 0 };
        let panicked = if cleanup { PANICKED } else { 0 };
        self.pending.set(self.pending.get() | unarmed | panicked);
        self.nested().open.borrow_mut().push(scope);
        self.update();
    }

    /// Arms the timers of the open scopes that have none yet. Timers fire only while the coroutine
    /// is suspended, so this need not be done before.
    pub(crate) fn arm(&self, timer: impl Fn(ScopeId, Instant) -> TimerKey) {
        if self.pending.get() & UNARMED == 0 {
            return;
        }
        self.pending.set(self.pending.get() & !UNARMED);
        for scope in &mut *self.nested().open.borrow_mut() {
            if let Some(deadline) = scope.awaits().filter(|_| scope.timer.is_none()) {
                scope.timer = Some(timer(scope.id, deadline));
            }
        }
    }

    /// Closes the innermost scope. Returns its settings, and the last two arguments of
    /// [`open`](Self::open).
    #[inline]
    pub(crate) fn close(&self, id: ScopeId) -> Option<(ScopeSettings, Evidence, bool)> {
        let scope = self.nested().open.borrow_mut().pop();
        debug_assert_eq!(scope.as_ref().map(|scope| scope.id), Some(id), "scopes nest");
        let scope = scope?;
        self.update();
        Some((scope.settings(), scope.outside, scope.cleanup))
    }

    /// Whether a destructor that an unwind runs has opened one of the scopes. `of_panic`: the
    /// unwind of a panic.
    pub(crate) fn in_cleanup(&self, of_panic: bool) -> bool {
        self.nested.get().is_some_and(|nested| nested.in_cleanup(of_panic))
    }

    /// No coroutine unwinds, so no open scope is one of a clean-up. Returns whether one was taken
    /// for that.
    pub(crate) fn end_cleanups(&self) -> bool {
        let Some(nested) = self.nested.get() else { return false };
        let mut any = false;
        for scope in nested.open.borrow_mut().iter_mut().filter(|scope| scope.cleanup) {
            (any, scope.cleanup, scope.outside.panicked) = (true, false, false);
        }
        self.update();
        any
    }

    /// Whether the cancellation of an open level has been requested, hidden or not.
    pub(crate) fn is_any_requested(&self) -> bool {
        let requested = |nested: &Nested| nested.open.borrow().iter().any(|scope| scope.requested);
        self.root_requested.get() || self.nested.get().is_some_and(|nested| requested(nested))
    }

    /// Whether an unwind may be on its way to this level: the level is open, and its cancellation
    /// has been requested.
    pub(crate) fn is_requested(&self, level: Level) -> bool {
        match level {
            Level::Root => self.root_requested.get(),
            Level::Scope(id) => self.nested.get().is_some_and(|nested| {
                nested.open.borrow().iter().any(|scope| scope.id == id && scope.requested)
            }),
        }
    }

    /// Requests the cancellation of a level. Does nothing if the scope is closed. The reason of the
    /// first request stays.
    pub(crate) fn request(&self, level: Level, reason: Option<&CancelReason>) {
        match level {
            Level::Root => {
                let first = !self.root_requested.replace(true);
                if let Some(reason) = reason.filter(|_| first) {
                    let _ = self.nested().root_reason.set(reason.clone());
                }
            }
            Level::Scope(id) => self.with_open(id, |scope| {
                if !mem::replace(&mut scope.requested, true) {
                    scope.reason = reason.cloned();
                }
            }),
        }
        self.update();
    }

    /// Why an open level was cancelled, if it was and the request said why.
    pub(crate) fn reason(&self, level: Level) -> Option<CancelReason> {
        let nested = self.nested.get()?;
        match level {
            Level::Root => nested.root_reason.get().cloned(),
            Level::Scope(id) => {
                nested.open.borrow().iter().find(|scope| scope.id == id)?.reason.clone()
            }
        }
    }

    /// How long until the first deadline of the open scopes that no shield hides.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        let nested = self.nested.get()?;
        let open = nested.open.borrow();
        let cancels = open[nested.hidden()..].iter().filter_map(|scope| match scope.until {
            Until::Closed | Until::Token { .. } | Until::Fails(_) => None,
            Until::Later(deadline) => Some(deadline),
            Until::Passed => Some(now),
        });
        let first = cancels.chain(nested.fails_at()).min()?;
        Some(first.saturating_duration_since(now))
    }

    /// Whether a scope or a shield is open, or was.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.nested.get().is_some()
    }

    /// When waits that can report the lack of time begin to do so: the first [`Until::Fails`] of
    /// the open scopes that no shield hides.
    #[inline]
    pub(crate) fn fails_at(&self) -> Option<Instant> {
        self.nested.get().and_then(|nested| nested.fails_at())
    }

    /// The earlier of `deadline` and [`fails_at`](Self::fails_at).
    #[cold]
    pub(crate) fn limited(&self, deadline: Instant) -> Instant {
        self.fails_at().map_or(deadline, |fails_at| fails_at.min(deadline))
    }

    /// Notes that the timer of a scope has fired.
    pub(crate) fn forget_timer(&self, id: ScopeId) {
        self.with_open(id, |scope| scope.timer = None);
    }

    fn with_open(&self, id: ScopeId, f: impl FnOnce(&mut Scope)) {
        let Some(nested) = self.nested.get() else { return };
        if let Some(scope) = nested.open.borrow_mut().iter_mut().find(|scope| scope.id == id) {
            f(scope);
        }
    }

    /// Hides all levels that are open now, until the guard is dropped. The root is an exception
    /// unless `hides_root`.
    pub(crate) fn shield(&self, hides_root: bool) -> impl Drop + '_ {
        struct Lower<'a>(&'a Scopes);
        impl Drop for Lower<'_> {
            fn drop(&mut self) {
                self.0.nested().shields.borrow_mut().pop();
                self.0.update();
            }
        }
        let nested = self.nested();
        let open = nested.open.borrow().len();
        nested.shields.borrow_mut().push(Shield { open, hides_root });
        self.update();
        Lower(self)
    }

    /// Makes waits panic until the guard is dropped.
    #[inline]
    pub(crate) fn forbid_waits(&self) -> impl Drop + '_ {
        struct Allow<'a>(&'a Scopes);
        impl Drop for Allow<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.forbid(self.0.forbidden.get() - 1);
            }
        }
        self.forbid(self.forbidden.get() + 1);
        Allow(self)
    }

    /// Notes that so many `no_wait` calls are under way.
    #[inline]
    fn forbid(&self, calls: u32) {
        self.forbidden.set(calls);
        let others = self.pending.get() & !FORBIDDEN;
        self.pending.set(others | if calls > 0 { FORBIDDEN } else { 0 });
    }

    /// Lets waits happen in spite of cancellations and `no_wait` until the guard is dropped. A
    /// frame that has lent out borrows must wait for them before it is left.
    pub(crate) fn allow_waits(&self) -> impl Drop + '_ {
        struct Restore<'a, S>(&'a Scopes, u32, S);
        impl<S> Drop for Restore<'_, S> {
            fn drop(&mut self) {
                self.0.forbid(self.1);
            }
        }
        let restore = Restore(self, self.forbidden.get(), self.shield(true));
        self.forbid(0);
        restore
    }

    /// Whether a shield hides the root.
    #[inline]
    pub(crate) fn is_root_shielded(&self) -> bool {
        self.nested.get().is_some_and(|nested| nested.hides_root())
    }

    /// Whether a cancellation of the root may not unwind, so that it abandons the coroutine.
    pub(crate) fn abandons(&self) -> bool {
        let is_shielded = || self.nested.get().is_some_and(|n| !n.shields.borrow().is_empty());
        self.target() == Some(Level::Root) && is_shielded()
    }

    /// Whether waits panic.
    #[inline]
    pub(crate) fn are_waits_forbidden(&self) -> bool {
        self.forbidden.get() > 0
    }

    /// How many scopes, shields and `no_wait` calls are open.
    pub(crate) fn depth(&self) -> usize {
        let nested = self
            .nested
            .get()
            .map_or(0, |nested| nested.open.borrow().len() + nested.shields.borrow().len());
        nested + self.forbidden.get() as usize
    }

    /// How many scopes are open, and the first deadline at which one will be cancelled.
    pub(crate) fn deadlines(&self) -> (usize, Option<Instant>) {
        let Some(nested) = self.nested.get() else { return (0, None) };
        let open = nested.open.borrow();
        (open.len(), open.iter().filter_map(Scope::awaits).min())
    }

    /// The settings of the open scopes. An abandoned coroutine never closes them.
    pub(crate) fn settings(&self) -> Vec<ScopeSettings> {
        let Some(nested) = self.nested.get() else { return Vec::new() };
        nested.open.borrow().iter().map(Scope::settings).collect()
    }

    fn update(&self) {
        let pending = if self.target().is_some() { PENDING } else { 0 };
        self.pending.set(self.pending.get() & !PENDING | pending);
    }

    /// The outermost requested level that no shield hides: the target of an unwind.
    pub(crate) fn target(&self) -> Option<Level> {
        let root = self.root_requested.get().then_some(Level::Root);
        let Some(nested) = self.nested.get() else { return root };
        if root.is_some() && !nested.hides_root() {
            return root;
        }
        let open = nested.open.borrow();
        if !open.iter().any(|scope| scope.requested) {
            // This is so most of the time, and no shield matters then.
            return None;
        }
        let mut visible = open[nested.hidden()..].iter();
        visible.find(|scope| scope.requested).map(|scope| Level::Scope(scope.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_scope_shares_its_id_with_no_other_when_the_counter_has_wrapped_around() {
        let (scopes, counter) = (Scopes::default(), Cell::new(u32::MAX));
        let none = Evidence { raised: false, panicked: false };
        let outer = scopes.next_id(&counter);
        scopes.open(outer, Until::Closed, none, false);
        counter.set(u32::MAX);
        let inner = scopes.next_id(&counter);
        scopes.open(inner, Until::Closed, none, false);
        scopes.request(Level::Scope(inner), None);
        assert_eq!(scopes.target(), Some(Level::Scope(inner)));
        assert!(
            scopes.is_requested(Level::Scope(inner)) && !scopes.is_requested(Level::Scope(outer))
        );
        scopes.close(inner);
        assert_eq!(scopes.target(), None);
        assert_eq!(scopes.next_id(&counter), ScopeId(1));
    }
}
