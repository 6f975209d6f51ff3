#![doc = include_str!("../README.md")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use plainsong::RuntimeBuilder;
use tracing::span::Id;
use tracing::{Span, Subscriber, dispatcher};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

thread_local! {
    // A coroutine runs, so the spans that are entered are its own.
    static RUNS: Cell<bool> = const { Cell::new(false) };
    // The spans that the running coroutine has entered, the innermost last.
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
    // Those of the suspended coroutines that have entered any.
    static ASIDE: RefCell<HashMap<plainsong::Id, Vec<Id>>> = RefCell::default();
}

/// Notes which spans are entered. Add it to the subscriber, at any place, and add [`spans`] to the
/// runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans(());

impl Spans {
    /// The layer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S: Subscriber> Layer<S> for Spans {
    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        if RUNS.get() {
            ENTERED.with_borrow_mut(|entered| entered.push(id.clone()));
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        if RUNS.get() {
            ENTERED.with_borrow_mut(|entered| {
                // Guards may be dropped in any order.
                if let Some(at) = entered.iter().rposition(|other| other == id) {
                    entered.remove(at);
                }
            });
        }
    }
}

/// Has each coroutine of the runtime exit its spans when it waits, and enter them again when it
/// goes on. The subscriber needs the layer [`Spans`].
pub fn spans(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder.on_resume(resume).on_suspend(suspend).on_end(|_| drop(exit_all()))
}

fn resume(coroutine: plainsong::Id) {
    let entered = ASIDE
        .with_borrow_mut(|aside| if aside.is_empty() { None } else { aside.remove(&coroutine) });
    if let Some(entered) = entered {
        dispatcher::get_default(|subscriber| entered.iter().for_each(|id| subscriber.enter(id)));
        ENTERED.set(entered);
    }
    RUNS.set(true);
}

fn suspend(coroutine: plainsong::Id) {
    let entered = exit_all();
    if !entered.is_empty() {
        ASIDE.with_borrow_mut(|aside| aside.insert(coroutine, entered));
    }
}

/// Exits the spans of the running coroutine, and returns them.
fn exit_all() -> Vec<Id> {
    // The spans that are exited from here on stay the coroutine's.
    RUNS.set(false);
    let entered = ENTERED.take();
    if !entered.is_empty() {
        dispatcher::get_default(|subscriber| {
            entered.iter().rev().for_each(|id| subscriber.exit(id));
        });
    }
    entered
}

/// The body of a coroutine that runs inside of `span`, for any function that spawns.
///
/// ```
/// use plainsong_tracing::in_span;
/// use tracing::info_span;
///
/// plainsong::run(|| {
///     let sum = plainsong::spawn(in_span(info_span!("sum", of = 2), || 20 + 22));
///     assert_eq!(sum.join().unwrap(), 42);
/// });
/// ```
pub fn in_span<T>(span: Span, f: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || span.in_scope(f)
}
