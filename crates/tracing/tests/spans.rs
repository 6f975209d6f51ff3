//! Spans that are entered across waits.

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};
use std::time::Duration;

use plainsong::time::{sleep, timeout};
use plainsong::{spawn, yield_now};
use plainsong_tracing::{Spans, in_span, spans};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, info, info_span, instrument};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const MOMENT: Duration = Duration::from_millis(1);

/// Each event, and the names of the spans around it, the outermost first.
static EVENTS: Mutex<Vec<(String, Vec<&'static str>)>> = Mutex::new(Vec::new());

struct Record;

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.0 = format!("{value:?}");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Record {
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let scope = cx.event_scope(event).into_iter();
        let names = scope.flat_map(|scope| scope.from_root().map(|span| span.name())).collect();
        EVENTS.lock().unwrap().push((message.0, names));
    }
}

fn run(workers: usize, body: impl FnOnce()) {
    static SUBSCRIBE: Once = Once::new();
    SUBSCRIBE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Record).with(Spans::new());
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    spans(plainsong::Runtime::builder().workers(workers)).build().unwrap().run(body);
}

/// The spans around the events whose message begins with this.
#[track_caller]
fn around(prefix: impl fmt::Display) -> Vec<Vec<&'static str>> {
    let prefix = prefix.to_string();
    let events = EVENTS.lock().unwrap();
    let found = events.iter().filter(|(message, _)| message.starts_with(&prefix));
    found.map(|(_, names)| names.clone()).collect()
}

#[test]
fn a_span_is_not_current_in_another_coroutine() {
    run(1, || {
        let one = spawn(|| {
            let _one = info_span!("one").entered();
            info!("first in one");
            sleep(MOMENT);
            let _inner = info_span!("inner").entered();
            yield_now();
            info!("first in inner");
        });
        let two = spawn(|| {
            info!("first in none");
            info_span!("two").in_scope(|| {
                sleep(MOMENT);
                info!("first in two");
            });
            info!("first in none");
        });
        for _ in 0..3 {
            yield_now();
            info!("first in none");
        }
        one.join().unwrap();
        two.join().unwrap();
    });
    assert_eq!(around("first in one"), [["one"]]);
    assert_eq!(around("first in inner"), [["one", "inner"]]);
    assert_eq!(around("first in two"), [["two"]]);
    assert_eq!(around("first in none"), [[""; 0]; 5]);
}

#[instrument]
fn instrumented(number: usize) {
    for _ in 0..3 {
        sleep(MOMENT);
        info!("second {number}");
    }
}

#[test]
fn instrumented_functions_wait_on_several_workers() {
    run(2, || {
        let all: Vec<_> = (0..20)
            .map(|number| {
                plainsong::spawn_anywhere(in_span(info_span!("outer"), move || {
                    instrumented(number)
                }))
            })
            .collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    assert_eq!(around("second"), vec![["outer", "instrumented"]; 60]);
}

#[test]
fn spans_end_with_panics_and_cancellations() {
    run(1, || {
        let panics = spawn(|| {
            let _span = info_span!("panics").entered();
            yield_now();
            panic!("on purpose");
        });
        assert!(panics.join().is_err());
        let waits = spawn(in_span(info_span!("waits"), || sleep(Duration::MAX)));
        yield_now();
        waits.cancel();
        assert!(waits.join().is_err());
        let in_time = timeout(MOMENT, || info_span!("late").in_scope(|| sleep(Duration::MAX)));
        assert!(in_time.is_err());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _span = info_span!("caught").entered();
            yield_now();
            panic!("on purpose, too");
        }));
        assert!(caught.is_err());
        info!("third");
    });
    assert_eq!(around("third"), [[""; 0]]);
}

#[test]
fn a_guard_that_is_leaked_ends_with_its_coroutine() {
    run(1, || {
        let leaks = spawn(|| {
            std::mem::forget(info_span!("leaked").entered());
            yield_now();
            info!("fourth inside");
        });
        leaks.join().unwrap();
        info!("fourth outside");
    });
    assert_eq!(around("fourth inside"), [["leaked"]]);
    assert_eq!(around("fourth outside"), [[""; 0]]);
}

#[test]
fn a_span_around_the_run_is_around_its_coroutines() {
    // Once, so that the subscriber is there.
    run(1, || ());
    let around_all = info_span!("all").entered();
    run(1, || {
        spawn(in_span(info_span!("child"), || {
            yield_now();
            info!("fifth inside");
        }))
        .join()
        .unwrap();
        info!("fifth after");
    });
    info!("fifth on the thread");
    drop(around_all);
    info!("fifth at last");
    assert_eq!(around("fifth inside"), [["all", "child"]]);
    assert_eq!(around("fifth after"), [["all"]]);
    assert_eq!(around("fifth on the thread"), [["all"]]);
    assert_eq!(around("fifth at last"), [[""; 0]]);
}

#[test]
fn guards_dropped_out_of_order() {
    run(1, || {
        let outer = info_span!("outer").entered();
        let inner = info_span!("inner").entered();
        yield_now();
        drop(outer);
        yield_now();
        info!("sixth");
        drop(inner);
    });
    // The parent of a span stays its parent.
    assert_eq!(around("sixth"), [["outer", "inner"]]);
}
