//! `Mutex`: std's contract, and the order in which waiters are served.

use std::sync::Arc;

use plainsong::sync::{Mutex, TryLockError};

use super::{NonCopy, cancelled_with, panic_with, would_block};
use crate::util::{MOMENT, both, run};

#[test]
fn a_mutex_is_what_it_is_in_std() {
    both(|| {
        let mut mutex = Mutex::new(NonCopy(1));
        mutex.lock().unwrap().0 += 1;
        assert_eq!(*mutex.try_lock().unwrap(), NonCopy(2));
        assert!(mutex.lock_timeout(MOMENT).is_ok());
        let guard = mutex.lock().unwrap();
        assert!(would_block(mutex.try_lock()));
        assert!(would_block(mutex.lock_timeout(MOMENT)));
        assert_eq!(format!("{mutex:?}"), "Mutex { data: <locked>, poisoned: false, .. }");
        assert_eq!(format!("{guard:?}"), "NonCopy(2)");
        drop(guard);
        let text = "Mutex { data: NonCopy(2), poisoned: false, .. }";
        assert_eq!(format!("{mutex:?}"), text);
        mutex.get_mut().unwrap().0 = 7;
        assert_eq!(mutex.into_inner().unwrap(), NonCopy(7));
        let unsized_one: &Mutex<[i32]> = &Mutex::new([1, 2, 3]);
        unsized_one.lock().unwrap()[0] = 4;
        assert_eq!(&*unsized_one.lock().unwrap(), &[4, 2, 3]);
        assert_eq!(*Mutex::from(5).lock().unwrap() + *Mutex::<i32>::default().lock().unwrap(), 5);
    });
}

#[test]
fn a_panic_poisons_a_mutex_and_a_cancellation_does_not() {
    both(|| {
        let mut mutex = Mutex::new(1);
        cancelled_with(|| mutex.lock().unwrap());
        assert!(!mutex.is_poisoned());
        panic_with(|| mutex.lock().unwrap());
        assert!(mutex.is_poisoned());
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 1, poisoned: true, .. }");
        assert_eq!(**mutex.lock().unwrap_err().get_ref(), 1);
        assert!(matches!(mutex.try_lock(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(mutex.lock_timeout(MOMENT), Err(TryLockError::Poisoned(_))));
        assert_eq!(**mutex.get_mut().unwrap_err().get_ref(), 1);
        mutex.clear_poison();
        assert!(mutex.lock().is_ok());
        let shared = Arc::new(mutex);
        panic_with(|| Arc::clone(&shared).lock_owned().unwrap());
        assert!(Arc::clone(&shared).try_lock_owned().is_err());
        assert_eq!(Arc::into_inner(shared).unwrap().into_inner().unwrap_err().into_inner(), 1);
    });
}

#[test]
fn a_guard_taken_in_a_panic_does_not_poison() {
    struct Locks<'a>(&'a Mutex<i32>);
    impl Drop for Locks<'_> {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    both(|| {
        let mutex = Mutex::new(0);
        panic_with(|| Locks(&mutex));
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn locks_go_round_in_the_order_of_asking() {
    run(|| {
        let mutex = Mutex::new(Vec::new());
        plainsong::scope(|s| {
            let first = mutex.lock().unwrap();
            for n in 0..100 {
                let mutex = &mutex;
                s.spawn(move || mutex.lock().unwrap().push(n));
            }
            plainsong::yield_now();
            drop(first);
            // A later waiter does not overtake them.
            mutex.lock().unwrap().push(100);
        });
        assert_eq!(mutex.into_inner().unwrap(), (0..=100).collect::<Vec<_>>());
    });
}
