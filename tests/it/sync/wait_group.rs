//! `WaitGroup`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread as system;

use plainsong::sync::WaitGroup;

use crate::util::{MOMENT, both};

#[test]
fn a_wait_group_waits_for_every_share() {
    both(|| {
        let group = WaitGroup::new();
        let count = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..5)
            .map(|_| {
                let (share, count) = (group.clone(), Arc::clone(&count));
                system::spawn(move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    drop(share);
                })
            })
            .collect();
        let (early, late) = (group.clone(), group.clone());
        assert!(!early.wait_timeout(MOMENT));
        drop(late);
        group.wait();
        assert_eq!(count.load(Ordering::SeqCst), 5);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(WaitGroup::default().wait_timeout(MOMENT));
    });
}
