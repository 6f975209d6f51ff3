//! `CancellationToken` and its children.

use std::thread as system;
use std::time::Duration;

use plainsong::time::{sleep, timeout};
use plainsong::{CancellationToken, thread};

use crate::util::{HOUR, alone, run, until, until_parked};

#[test]
fn a_token_reaches_all_waiters_of_each_kind() {
    run(|| {
        let token = CancellationToken::new();
        let child = token.child_token();
        let grandchild = child.child_token();
        let cut_short = |token: CancellationToken| {
            plainsong::spawn(move || token.run_until_cancelled(|| sleep(HOUR)).is_none())
        };
        let waits = |token: CancellationToken| {
            plainsong::spawn(move || {
                token.cancelled();
                token.is_cancelled()
            })
        };
        let mut all = Vec::new();
        for token in [&token, &child, &grandchild] {
            all.extend([cut_short(token.clone()), waits(token.clone())]);
        }
        let blocked = [token.clone(), grandchild.clone()].map(|token| {
            system::spawn(move || {
                token.cancelled();
                token.run_until_cancelled(|| 5).is_none()
            })
        });
        let cut_short_threads = [token.clone(), grandchild.clone()].map(|token| {
            system::spawn(move || token.run_until_cancelled(|| sleep(HOUR)).is_none())
        });
        all.iter().for_each(until_parked);
        let theirs = token.clone();
        system::spawn(move || theirs.cancel()).join().unwrap();
        for handle in all {
            assert!(handle.join().unwrap());
        }
        for thread in blocked.into_iter().chain(cut_short_threads) {
            assert!(thread.join().unwrap());
        }
        assert!(token.child_token().is_cancelled());
        token.cancel();
        token.cancelled();
    });
}

#[test]
fn a_child_token_is_cancelled_by_itself() {
    run(|| {
        let token = CancellationToken::new();
        let (one, other) = (token.child_token(), token.child_token());
        one.cancel();
        assert!(one.is_cancelled() && !token.is_cancelled() && !other.is_cancelled());
        assert_eq!(other.run_until_cancelled(|| 5), Some(5));
        assert_eq!(one.run_until_cancelled(|| 5), None);
        // A token outlives its parent.
        drop(token);
        assert!(!other.is_cancelled());
        other.cancel();
        assert!(other.is_cancelled());
    });
}

#[test]
fn a_token_with_a_long_family() {
    run(|| {
        let token = CancellationToken::new();
        let mut family = vec![token.clone()];
        for _ in 0..100_000 {
            family.push(family.last().unwrap().child_token());
        }
        token.cancel();
        assert!(family.iter().all(CancellationToken::is_cancelled));
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_token_forgets_waiters_that_gave_up() {
    alone(a_token_forgets_waiters_that_gave_up, || {
        plainsong::run(|| {
            let token = CancellationToken::new();
            let some = |count| {
                for _ in 0..count {
                    assert!(timeout(Duration::ZERO, || token.cancelled()).is_err());
                    assert!(timeout(Duration::from_nanos(1), || token.cancelled()).is_err());
                    assert_eq!(token.run_until_cancelled(|| 5), Some(5));
                    drop(token.child_token());
                }
            };
            some(1000);
            let before = crate::util::resident();
            some(50_000);
            assert!(crate::util::resident() < before + 1500);
        });
    });
}

#[test]
fn a_token_s_own_scope_among_others() {
    run(|| {
        let (outer, inner) = (CancellationToken::new(), CancellationToken::new());
        let (theirs, cancelled) = (outer.clone(), inner.clone());
        let child = plainsong::spawn(move || {
            theirs.run_until_cancelled(|| {
                let within = cancelled.run_until_cancelled(|| sleep(HOUR));
                assert!(within.is_none());
                thread::park();
                "ended"
            })
        });
        until_parked(&child);
        inner.cancel();
        until(|| format!("{child:?}").contains("unpark"));
        child.thread().unpark();
        assert_eq!(child.join().unwrap(), Some("ended"));
        drop(outer);
    });
}

#[test]
fn a_token_cancelled_from_within() {
    run(|| {
        let token = CancellationToken::new();
        let result = token.run_until_cancelled(|| {
            token.cancel();
            5
        });
        assert_eq!(result, Some(5), "it did not wait any more");
        let token = CancellationToken::new();
        let result = token.run_until_cancelled(|| {
            token.cancel();
            plainsong::yield_now();
        });
        assert!(result.is_none());
    });
}

#[test]
fn a_grandchild_token_is_cancelled_though_its_parent_has_gone() {
    run(|| {
        let token = CancellationToken::new();
        let grandchild = token.child_token().child_token();
        let theirs = grandchild.clone();
        let waits = plainsong::spawn(move || theirs.run_until_cancelled(|| sleep(HOUR)));
        until_parked(&waits);
        token.cancel();
        assert!(grandchild.is_cancelled());
        assert!(waits.join().unwrap().is_none());
        // Here only the children keep their parents alive.
        let token = CancellationToken::new();
        let mut last = token.clone();
        for _ in 0..100_000 {
            last = last.child_token();
        }
        let other = last.child_token();
        drop(last);
        token.cancel();
        assert!(other.is_cancelled());
    });
}

#[test]
fn a_long_family_of_tokens_goes_at_once() {
    run(|| {
        let mut last = CancellationToken::new();
        for _ in 0..100_000 {
            last = last.child_token();
        }
        let held = last.clone();
        drop(last);
        held.cancel();
        assert!(held.is_cancelled());
        drop(held);
    });
}

#[test]
fn many_child_tokens_that_live_are_listed_in_no_time() {
    run(|| {
        let token = CancellationToken::new();
        let children: Vec<_> = (0..200_000).map(|_| token.child_token()).collect();
        token.cancel();
        assert!(children.iter().all(CancellationToken::is_cancelled));
    });
}

#[test]
fn the_reason_of_a_token_is_that_of_its_children_and_first_stays() {
    run(|| {
        let token = CancellationToken::new();
        let (early, other) = (token.child_token(), token.child_token());
        other.cancel();
        assert_eq!(token.reason(), None);
        token.cancel_with("the server stops");
        token.cancel_with("too late");
        assert_eq!(token.reason().as_deref(), Some("the server stops"));
        assert_eq!(early.reason(), token.reason());
        assert_eq!(token.child_token().reason(), token.reason());
        assert_eq!(other.reason(), None);
    });
}
