//! Packets: the result of a coroutine reaches its handle or is dropped, once, whatever each of the
//! two does meanwhile.

use std::sync::Arc;
use std::time::Instant;

use shuttle::thread;

use super::check;
use crate::engine::id::Id;
use crate::engine::packet::{Home, Receiver, Sender, packet};
use crate::engine::park;
use crate::engine::waiter::Waiter;

/// A packet for any thread, and a result whose owners can be counted.
fn any_home() -> (Sender<Arc<()>>, Receiver<Arc<()>>, Arc<()>) {
    let (sender, receiver) = packet(Home::Unknown);
    (sender, receiver, Arc::new(()))
}

fn id() -> Id {
    crate::engine::context::with(|scheduler| scheduler.allocate_id())
}

/// Runs `joins` while another thread leaves the result. Nothing may be left of that.
fn check_join(joins: fn(Receiver<Arc<()>>)) {
    check(move || {
        let (sender, receiver, result) = any_home();
        let theirs = Arc::clone(&result);
        let ends = thread::spawn(move || sender.finish(Ok(theirs)));
        joins(receiver);
        ends.join().unwrap();
        assert_eq!(Arc::strong_count(&result), 1, "the result was lost, or dropped twice");
    });
}

#[test]
fn a_joiner_gets_the_result() {
    check_join(|receiver| {
        assert!(receiver.wait(id(), None));
        assert!(receiver.take().is_ok());
    });
}

#[test]
fn a_handle_is_dropped_at_any_moment() {
    check_join(drop);
}

#[test]
fn a_joiner_that_gives_up_may_join_again_or_drop_the_handle() {
    check_join(|receiver| {
        if receiver.wait(id(), Some(Instant::now())) {
            assert!(receiver.take().is_ok());
        } else {
            assert!(receiver.wait(id(), None));
        }
    });
    check_join(|receiver| {
        receiver.wait(id(), Some(Instant::now()));
    });
}

#[test]
fn a_handle_is_joined_on_a_third_thread() {
    check_join(|receiver| {
        receiver.wait(id(), Some(Instant::now()));
        let joins = thread::spawn(move || {
            receiver.wait(id(), None);
            receiver.take().is_ok()
        });
        assert!(joins.join().unwrap());
    });
}

#[test]
fn a_waiter_that_leaves_the_list_is_not_needed_any_more() {
    check_join(|receiver| {
        let waiter = Waiter::from(park::waiter());
        if receiver.register(waiter.clone()) {
            receiver.unregister(&waiter);
        }
        assert!(receiver.wait(id(), None));
    });
}
