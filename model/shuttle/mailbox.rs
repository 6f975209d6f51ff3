//! Mailboxes: a message ends the sleep it is for, and no other.

use std::sync::Arc;
use std::time::Instant;

use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;

use super::check;
use crate::engine::mailbox::{Mailbox, Message};
use crate::engine::waiter::Parker;

/// Two threads send wakes to a thread that sleeps like a worker. Only a sender that finds it asleep
/// ends its sleep.
#[test]
fn a_worker_never_sleeps_on_a_message() {
    check(|| {
        let lease = Mailbox::lease();
        lease.set_running(true);
        let mailbox = *lease;
        let senders = [0, 1].map(|slot| {
            thread::spawn(move || {
                for wait in 0..2 {
                    mailbox.send(Message::Wake { slot, wait });
                }
            })
        });
        let (mut received, mut messages) = (0, Vec::new());
        while received < 4 {
            if mailbox.is_pending() {
                mailbox.receive(&mut messages);
                received += messages.drain(..).count();
            } else if mailbox.prepare_to_sleep() {
                while mailbox.is_asleep() {
                    thread::yield_now();
                }
                mailbox.stay_awake();
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// A thread that has a mailbox after another does not end its waits for the other's wakes, however
/// late they come.
#[test]
fn a_mailbox_used_again_has_no_wake_of_its_last_owner() {
    check(|| {
        let lease = Mailbox::lease();
        let stale = Parker::thread(*lease);
        // It comes before, during or after the change of owners.
        let late = thread::spawn(move || stale.send());
        drop(lease);
        let (is_set, own) = (Arc::new(AtomicBool::new(false)), Mailbox::lease());
        let parker = Parker::thread(*own);
        assert_ne!(parker, stale);
        let wakes = thread::spawn({
            let is_set = Arc::clone(&is_set);
            move || {
                is_set.store(true, Ordering::SeqCst);
                parker.send();
            }
        });
        assert!(parker.block(None));
        assert!(is_set.load(Ordering::SeqCst), "the wake of another wait has ended this one");
        wakes.join().unwrap();
        late.join().unwrap();
    });
}

/// A thread that gives up a wait may wait again at once: the wake of the first wait does not end
/// the second.
#[test]
fn a_wake_that_comes_too_late_ends_no_later_wait() {
    check(|| {
        let lease = Mailbox::lease();
        let is_set = Arc::new(AtomicBool::new(false));
        let first = Parker::thread(*lease);
        let late = thread::spawn(move || first.send());
        // The time is up at once, so the wake may come later.
        first.block(Some(Instant::now()));
        let second = Parker::thread(*lease);
        let wakes = thread::spawn({
            let is_set = Arc::clone(&is_set);
            move || {
                is_set.store(true, Ordering::SeqCst);
                second.send();
            }
        });
        assert!(second.block(None));
        assert!(is_set.load(Ordering::SeqCst), "the wake of the first wait has ended the second");
        wakes.join().unwrap();
        late.join().unwrap();
    });
}
