//! `Event`.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread as system;
use std::time::Duration;

use plainsong::sync::Event;

use crate::util::{MOMENT, both, run};

#[test]
fn ten_thousand_wait_for_one_event() {
    run(|| {
        let (event, order) = (Event::new(), RefCell::new(Vec::new()));
        plainsong::scope(|s| {
            for n in 0..10_000 {
                let (event, order) = (&event, &order);
                s.spawn(move || {
                    event.wait();
                    order.borrow_mut().push(n);
                });
            }
            plainsong::yield_now();
            event.set();
            // They have been released, so clearing the event changes nothing for them.
            event.clear();
        });
        assert_eq!(order.into_inner(), (0..10_000).collect::<Vec<_>>());
        assert!(!event.is_set());
    });
}

#[test]
fn an_event_is_what_it_is_in_python() {
    both(|| {
        let event = Arc::new(Event::default());
        assert!(!event.is_set() && !event.wait_timeout(MOMENT));
        assert_eq!(format!("{event:?}"), "Event { set: false, .. }");
        event.set();
        event.set();
        event.wait();
        assert!(event.is_set() && event.wait_timeout(Duration::ZERO));
        event.clear();
        let theirs = Arc::clone(&event);
        let thread = system::spawn(move || theirs.set());
        event.wait();
        thread.join().unwrap();
    });
}
