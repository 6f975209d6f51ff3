//! A coroutine is given up in a wait of the library, without an unwind. That wait pays its debts to
//! others all the same.

use std::rc::Rc;
use std::sync::Arc;

use plainsong::pool::Pool;
use plainsong::select;
use plainsong::sync::channel::bounded;
use plainsong::sync::{Condvar, Event, Mutex, RwLock, Semaphore};
use plainsong::time::after;
use plainsong::{JoinHandle, no_unwind, spawn, thread, yield_now};

use crate::util::{HOUR, count_drop, counter, load, on_another, run, run_on, until_parked, watch};

/// Starts a coroutine that waits in `f`, in which it cannot unwind.
fn waiting<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let handle = spawn(|| no_unwind(f));
    until_parked(&handle);
    handle
}

/// Gives a coroutine of [`waiting`] up.
fn give_up<T>(handle: JoinHandle<T>) {
    handle.cancel();
    assert!(handle.join().is_err_and(|error| error.is_cancelled()));
}

#[test]
fn permits_go_to_those_behind() {
    run(|| {
        let permits = Rc::new(Semaphore::new(1));
        let (many, one) = (Rc::clone(&permits), Rc::clone(&permits));
        let first = waiting(move || drop(many.acquire_many(2).unwrap()));
        let second = spawn(move || drop(one.acquire().unwrap()));
        until_parked(&second);
        give_up(first);
        second.join().unwrap();
    });
}

#[test]
fn readers_go_on_behind_a_writer() {
    run(|| {
        let lock = Arc::new(RwLock::new(()));
        let (write, read) = (Arc::clone(&lock), Arc::clone(&lock));
        let guard = lock.read().unwrap();
        let writer = waiting(move || drop(write.write()));
        let reader = spawn(move || drop(read.read()));
        until_parked(&reader);
        give_up(writer);
        reader.join().unwrap();
        drop(guard);
    });
}

#[test]
fn a_notification_goes_to_the_next_waiter() {
    run(|| {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let waiter = || {
            let shared = Rc::clone(&shared);
            move || {
                let mut guard = shared.0.lock().unwrap();
                while *guard == 0 {
                    guard = shared.1.wait(guard).unwrap();
                }
            }
        };
        let first = waiting(waiter());
        let second = spawn(waiter());
        until_parked(&second);
        let mut guard = shared.0.lock().unwrap();
        *guard = 1;
        shared.1.notify_one();
        // Until the first one waits for the mutex.
        (0..3).for_each(|_| yield_now());
        give_up(first);
        drop(guard);
        second.join().unwrap();
    });
}

#[test]
fn an_item_that_a_select_makes_for_it_goes_back() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let receiver = Rc::new(receiver);
        let (theirs, made) = (Rc::clone(&receiver), Rc::new(Event::new()));
        let making = Rc::clone(&made);
        let first = waiting(move || theirs.recv().unwrap());
        let sends = spawn(move || {
            let item = || {
                making.wait();
                7
            };
            select! { send(sender, item()) -> sent => sent.unwrap() }
        });
        until_parked(&sends);
        give_up(first);
        let second = spawn(move || receiver.recv().unwrap());
        until_parked(&second);
        made.set();
        sends.join().unwrap();
        assert_eq!(second.join().unwrap(), 7);
    });
}

/// Its destructor waits where the coroutine cannot unwind.
struct WaitsInDrop;

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        no_unwind(thread::park);
    }
}

#[test]
fn the_other_calls_of_a_worker_are_dropped() {
    let dropped = counter();
    let counts: Vec<_> = (0..4).map(|_| count_drop(&dropped)).collect();
    run_on(2, move || {
        let schedules = on_another(move || {
            for (number, count) in counts.into_iter().enumerate() {
                let waits = (number % 2 == 0).then(|| WaitsInDrop);
                after(HOUR, move || drop((count, waits)));
            }
        });
        schedules.join().unwrap();
    });
    assert_eq!(load(&dropped), 4);
}

#[test]
fn the_jobs_of_a_pool_are_cancelled() {
    watch(|| {
        let (jobs, workers) = run(|| {
            let pool = Pool::coroutines(1).unwrap();
            let begun = Arc::new(Event::new());
            let begins = Arc::clone(&begun);
            let job = pool.submit(move || {
                begins.set();
                no_unwind(thread::park);
            });
            let waits = WaitsInDrop;
            let jobs = [job, pool.submit(|| drop(waits)), pool.submit(|| ()), pool.submit(|| ())];
            begun.wait();
            // The worker is cancelled when this returns.
            (jobs, std::thread::spawn(|| pool.shutdown()))
        });
        for job in jobs {
            job.wait().unwrap_err();
            assert!(job.is_cancelled());
        }
        workers.join().unwrap();
    });
}
