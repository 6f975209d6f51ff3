//! Tries the orders in which plain threads can run against each other at the locks, with shuttle.
//!
//! ```text
//! RUSTFLAGS='--cfg plainsong_model' CARGO_TARGET_DIR=target/model cargo test --lib --test model model
//! ```
//!
//! There are no coroutines and no time-outs here; a thread that is never woken is reported as a
//! deadlock. Of the engine this covers the door at which threads sleep, and the queue of those
//! who wait.

#![cfg(plainsong_model)]

mod model {
    use std::sync::Arc;

    use plainsong::sync::{
        Barrier, Condvar, Event, Mutex, OnceLock, ReentrantMutex, RwLock, RwLockWriteGuard,
        Semaphore,
    };
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::sync::atomic::{AtomicUsize, Ordering};
    use shuttle::{Config, Runner, thread};

    /// Schedules of each kind that a test tries.
    const SCHEDULES: usize = 2000;

    /// Runs `body` under many schedules: random ones, and such as change threads seldom.
    fn check(body: impl Fn() + Copy + Send + Sync + 'static) {
        let mut config = Config::new();
        // A thread's context is made on its stack.
        config.stack_size = 1 << 20;
        Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(body);
        Runner::new(PctScheduler::new(3, SCHEDULES), config).run(body);
    }

    /// Calls `body` on `count` threads, with their numbers, and waits for them.
    fn threads<T: Send + Sync + 'static>(shared: T, count: usize, body: fn(&T, usize)) -> Arc<T> {
        let shared = Arc::new(shared);
        let all: Vec<_> = (0..count)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || body(&shared, number))
            })
            .collect();
        all.into_iter().for_each(|one| one.join().unwrap());
        shared
    }

    /// What is inside of a lock: notices when others are there.
    #[derive(Default)]
    struct Inside(AtomicUsize);

    impl Inside {
        fn alone(&self) {
            assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0);
            thread::yield_now();
            self.0.fetch_sub(1, Ordering::SeqCst);
        }

        fn at_most(&self, most: usize, count: usize) {
            assert!(self.0.fetch_add(count, Ordering::SeqCst) + count <= most);
            thread::yield_now();
            self.0.fetch_sub(count, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_mutex_excludes_and_loses_nobody() {
        check(|| {
            let all = threads((Mutex::new(0), Inside::default()), 3, |(mutex, inside), _| {
                for _ in 0..2 {
                    let mut count = mutex.lock().unwrap();
                    *count += 1;
                    inside.alone();
                }
            });
            assert_eq!(*all.0.try_lock().unwrap(), 6);
        });
    }

    #[test]
    fn a_reentrant_mutex_excludes_and_loses_nobody() {
        check(|| {
            let all =
                threads((ReentrantMutex::new(()), Inside::default()), 3, |(mutex, inside), _| {
                    let (one, two) = (mutex.lock(), mutex.lock());
                    inside.alone();
                    drop((one, two));
                });
            assert!(all.0.try_lock().is_some());
        });
    }

    #[test]
    fn a_rwlock_excludes_and_loses_nobody() {
        check(|| {
            let all = threads((RwLock::new(0), Inside::default()), 4, |(lock, inside), number| {
                match number {
                    0 | 1 => {
                        let before = *lock.read().unwrap();
                        assert!(before <= 2);
                    }
                    2 => {
                        let mut count = lock.write().unwrap();
                        *count += 1;
                        inside.alone();
                    }
                    _ => {
                        let mut count = lock.write().unwrap();
                        *count += 1;
                        inside.alone();
                        let now = *count;
                        assert_eq!(*RwLockWriteGuard::downgrade(count), now);
                    }
                }
            });
            assert_eq!(*all.0.try_write().unwrap(), 2);
        });
    }

    #[test]
    fn a_semaphore_gives_what_it_has_and_loses_no_permit() {
        check(|| {
            let all = threads((Semaphore::new(2), Inside::default()), 3, |(permits, inside), n| {
                let count = 1 + n % 2;
                for _ in 0..2 {
                    let _permit = permits.acquire_many(count as u32).unwrap();
                    inside.at_most(2, count);
                }
            });
            assert_eq!(all.0.available_permits(), 2);
        });
    }

    #[test]
    fn a_notification_is_not_missed() {
        check(|| {
            threads((Mutex::new(0), Condvar::new()), 4, |(items, changed), number| {
                if number < 2 {
                    *items.lock().unwrap() += 1;
                    changed.notify_one();
                } else {
                    *changed.wait_while(items.lock().unwrap(), |items| *items == 0).unwrap() -= 1;
                }
            });
        });
    }

    #[test]
    fn an_event_lets_all_go() {
        check(|| {
            threads(Event::new(), 3, |event, number| {
                if number == 0 {
                    event.set();
                } else {
                    event.wait();
                }
            });
        });
    }

    #[test]
    fn a_barrier_has_one_leader_each_time() {
        check(|| {
            let all =
                threads((Barrier::new(3), AtomicUsize::new(0)), 3, |(barrier, leaders), _| {
                    for _ in 0..2 {
                        leaders
                            .fetch_add(usize::from(barrier.wait().is_leader()), Ordering::SeqCst);
                    }
                });
            assert_eq!(all.1.load(Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn one_of_many_initialises() {
        check(|| {
            let all =
                threads((OnceLock::new(), AtomicUsize::new(0)), 3, |(once, calls), number| {
                    if number == 0 {
                        assert_eq!(*once.wait(), 7);
                    } else {
                        once.get_or_init(|| {
                            calls.fetch_add(1, Ordering::SeqCst);
                            7
                        });
                    }
                });
            assert_eq!(all.1.load(Ordering::SeqCst), 1);
        });
    }
}
