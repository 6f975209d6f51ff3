//! Code of users that runs where the engine must expect it: destructors of results and locals,
//! destructors during an unwind, destructors of thread-locals, wakers.

use std::cell::{Cell, RefCell};
use std::future::{Future, IntoFuture};
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use plainsong::time::{sleep, timeout};
use plainsong::{CancellationToken, coroutine_local, scope, shield, spawn, sync, yield_now};

use crate::util::{alone, dying, run, watch};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(5);

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Swallows its cancellation until it is given up.
fn refuse_to_end() {
    loop {
        let _ = catch_unwind(|| sleep(HOUR));
    }
}

// ---- coroutines that are given up while their result is dropped ----

#[test]
fn a_coroutine_is_given_up_in_the_destructor_of_its_result() {
    alone(a_coroutine_is_given_up_in_the_destructor_of_its_result, || {
        plainsong::run(|| {
            drop(spawn(|| OnDrop(refuse_to_end)));
            yield_now();
        });
        // The memory that was freed meanwhile is used again.
        plainsong::run(|| (0..100).for_each(|n| drop(spawn(move || vec![n; 100]))));
    });
}

#[test]
fn a_coroutine_is_given_up_in_the_destructor_of_its_panic() {
    alone(a_coroutine_is_given_up_in_the_destructor_of_its_panic, || {
        plainsong::run(|| {
            drop(spawn(|| panic::panic_any(OnDropSend)));
            yield_now();
        });
        plainsong::run(|| (0..100).for_each(|n| drop(spawn(move || vec![n; 100]))));
    });
}

/// It went on, and its result was written to memory that had been freed.
#[test]
fn a_coroutine_that_is_given_up_does_not_go_on_when_the_waker_that_awaits_it_panics() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            resume_unwind(Box::new("scripted"));
        }
    }
    run(|| {
        let went_on = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&went_on);
        let handle = spawn(move || {
            let _ = catch_unwind(|| plainsong::no_unwind(|| sleep(HOUR)));
            theirs.set(true);
        });
        yield_now();
        handle.cancel();
        let mut end = pin!(handle.into_future());
        let waker = Waker::from(Arc::new(Panics));
        assert!(end.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        yield_now();
        yield_now();
        assert!(end.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(!went_on.get());
    });
}

struct OnDropSend;

impl Drop for OnDropSend {
    fn drop(&mut self) {
        refuse_to_end();
    }
}

struct Refuses;

impl Wake for Refuses {
    fn wake(self: Arc<Self>) {
        refuse_to_end();
    }
}

#[test]
fn a_coroutine_is_given_up_in_the_waker_that_awaits_it() {
    alone(a_coroutine_is_given_up_in_the_waker_that_awaits_it, || {
        plainsong::run(|| {
            let child = spawn(|| 7);
            let mut future = pin!(child.into_future());
            let waker = Waker::from(Arc::new(Refuses));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            yield_now();
        });
        plainsong::run(|| (0..100).for_each(|n| drop(spawn(move || vec![n; 100]))));
    });
}

// ---- the process is ended in a coroutine ----

type AtExit = RefCell<Vec<OnDrop<fn()>>>;

thread_local! {
    static AT_EXIT: AtExit = const { RefCell::new(Vec::new()) };
}

coroutine_local! {
    static LOCAL: Cell<u32> = Cell::new(7);
}

fn use_everything() {
    yield_now();
    sleep(Duration::from_millis(1));
    LOCAL.with(|local| local.set(local.get() + 1));
    shield(yield_now);
    plainsong::no_wait(|| ());
    let lock = sync::ReentrantMutex::new(());
    drop((lock.lock(), lock.lock()));
    let _ = sync::channel::bounded::<u32>(1).0.send(1);
    assert!(plainsong::current().name() != Some("no such name"));
}

fn exits_in_a_coroutine(first: bool) {
    // The list is made before the library's own thread-locals and dropped after them, or the other
    // way round.
    let at_exit = || AT_EXIT.with_borrow_mut(|list| list.push(OnDrop(use_everything as fn())));
    if first {
        at_exit();
    }
    plainsong::run(|| {
        spawn(|| (0..10).for_each(|_| yield_now()));
        spawn(|| sleep(HOUR));
        let last = spawn(move || {
            yield_now();
            if !first {
                at_exit();
            }
            std::process::exit(0);
        });
        let _ = last.join();
    });
}

#[test]
fn exit_in_a_coroutine_with_older_thread_locals() {
    alone(exit_in_a_coroutine_with_older_thread_locals, || exits_in_a_coroutine(true));
}

#[test]
fn exit_in_a_coroutine_with_newer_thread_locals() {
    alone(exit_in_a_coroutine_with_newer_thread_locals, || exits_in_a_coroutine(false));
}

#[test]
fn exit_in_a_signal_handler() {
    alone(exit_in_a_signal_handler, || plainsong::run(crate::sys::exit_in_a_handler));
}

// ---- destructors of locals ----

struct Again(Rc<Cell<u32>>);

coroutine_local! {
    static AGAIN: RefCell<Vec<Again>> = RefCell::new(Vec::new());
}

impl Drop for Again {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        yield_now();
        if self.0.get() < 40 {
            AGAIN.with(|list| list.borrow_mut().push(Again(Rc::clone(&self.0))));
        }
    }
}

#[test]
fn locals_that_make_locals_are_dropped_in_their_coroutine() {
    run(|| {
        let drops = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&drops);
        spawn(move || AGAIN.with(|list| list.borrow_mut().push(Again(theirs)))).join().unwrap();
        // Not for ever, but for a good while.
        assert!((16..=40).contains(&drops.get()), "{}", drops.get());
    });
}

#[test]
fn a_result_whose_destructor_makes_a_local_that_panics() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            yield_now();
            panic!("of a local");
        }
    }
    coroutine_local! {
        static LATE: RefCell<Vec<Panics>> = RefCell::new(Vec::new());
    }
    alone(a_result_whose_destructor_makes_a_local_that_panics, || {
        plainsong::run(|| {
            drop(spawn(|| OnDrop(|| LATE.with(|list| list.borrow_mut().push(Panics)))));
            (0..5).for_each(|_| yield_now());
        });
    });
}

// ---- two coroutines that unwind at once ----

/// Two coroutines panic, and both wait in a destructor.
fn two_that_panic(end: impl FnOnce(&plainsong::JoinHandle<()>) + Send + 'static) {
    run(move || {
        let gate = Rc::new(sync::Event::new());
        let panicking = |gate: &Rc<sync::Event>| {
            let gate = Rc::clone(gate);
            spawn(move || {
                let _wait = OnDrop(|| gate.wait());
                panic!("one of two");
            })
        };
        let (one, two) = (panicking(&gate), panicking(&gate));
        yield_now();
        end(&two);
        yield_now();
        gate.set();
        assert!(one.join().unwrap_err().is_panic());
        assert!(two.join().unwrap_err().is_panic());
    });
}

#[test]
fn the_second_of_two_that_panic_is_cancelled() {
    two_that_panic(|two| two.cancel());
}

#[test]
fn the_second_of_two_that_panic_outlives_the_run() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    run(move || {
        for _ in 0..2 {
            let count = Arc::clone(&count);
            spawn(move || {
                let _wait = OnDrop(|| {
                    sleep(MOMENT);
                    count.fetch_add(1, Ordering::SeqCst);
                });
                panic!("one of two");
            });
        }
        yield_now();
    });
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

#[test]
fn the_second_of_two_that_panic_is_a_sibling() {
    let result = watch(|| {
        catch_unwind(|| {
            plainsong::run(|| {
                scope(|s| {
                    for _ in 0..2 {
                        s.spawn(|| {
                            let _wait = OnDrop(|| (0..3).for_each(|_| yield_now()));
                            panic!("one of two");
                        });
                    }
                });
            });
        })
    });
    assert!(result.is_err());
}

#[test]
fn a_panic_beside_one_that_is_suspended_in_its_unwind_poisons() {
    run(|| {
        let gate = Rc::new(sync::Event::new());
        let theirs = Rc::clone(&gate);
        let first = spawn(move || {
            let _wait = OnDrop(|| theirs.wait());
            panic!("the first");
        });
        yield_now();
        let (mutex, rwlock) = (Arc::new(sync::Mutex::new(0)), Arc::new(sync::RwLock::new(0)));
        let (lock, write) = (Arc::clone(&mutex), Arc::clone(&rwlock));
        let panicking = Rc::new(Cell::new(false));
        let seen = Rc::clone(&panicking);
        let second = spawn(move || {
            let _seen = OnDrop(|| seen.set(plainsong::thread::panicking()));
            let _guards = (lock.lock().unwrap(), write.write().unwrap());
            panic!("the second");
        });
        assert!(second.join().unwrap_err().is_panic());
        assert!(panicking.get());
        assert!(mutex.is_poisoned() && rwlock.is_poisoned());
        // Nor is a lock poisoned by a coroutine that does not panic.
        let sound = sync::Mutex::new(0);
        spawn(move || drop(sound.lock().unwrap())).join().unwrap();
        let other = Arc::new(sync::Mutex::new(0));
        let theirs = Arc::clone(&other);
        spawn(move || drop(theirs.lock().unwrap())).join().unwrap();
        assert!(!other.is_poisoned());
        gate.set();
        assert!(first.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_destructor_waits_for_a_coroutine_that_it_cancels() {
    run(|| {
        let waits = spawn(|| {
            // It has a turn while the other is suspended in its unwind.
            (0..5).for_each(|_| yield_now());
            sleep(HOUR);
        });
        let panics = spawn(move || {
            let mut waits = Some(waits);
            let _cancel = OnDrop(move || {
                (0..10).for_each(|_| yield_now());
                let waits = waits.take().unwrap();
                waits.cancel();
                assert!(waits.join().unwrap_err().is_cancelled());
            });
            panic!("waits for the other");
        });
        assert!(panics.join().unwrap_err().is_panic());
    });
}

// ---- scopes inside of destructors ----

/// Runs `in_drop` in a destructor, because of a panic and because of a cancellation.
fn in_destructors(in_drop: fn()) {
    run(move || {
        let panics = spawn(move || {
            let _drop = OnDrop(in_drop);
            panic!("unwinds");
        });
        assert!(panics.join().unwrap_err().is_panic());
        let cancelled = spawn(move || {
            let _drop = OnDrop(in_drop);
            sleep(HOUR);
        });
        yield_now();
        cancelled.cancel();
        assert!(cancelled.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_time_out_in_a_destructor_fires() {
    in_destructors(|| assert!(timeout(MOMENT, || sleep(HOUR)).is_err()));
    in_destructors(|| assert!(shield(|| timeout(MOMENT, || sleep(HOUR))).is_err()));
    in_destructors(|| assert_eq!(timeout(HOUR, || 7), Ok(7)));
    in_destructors(|| {
        let nested = timeout(HOUR, || timeout(MOMENT, || sleep(HOUR)).is_err());
        assert_eq!(nested, Ok(true));
    });
}

#[test]
fn a_token_in_a_destructor_cancels() {
    in_destructors(|| {
        let token = CancellationToken::new();
        let other = token.clone();
        spawn(move || other.cancel());
        assert!(token.run_until_cancelled(|| sleep(HOUR)).is_none());
    });
}

#[test]
fn a_scope_in_a_destructor_has_its_body_cancelled() {
    in_destructors(|| {
        let result = catch_unwind(|| {
            scope(|s| {
                s.spawn(|| panic!("of a child"));
                sleep(HOUR);
            });
        });
        assert!(result.is_err());
    });
}

#[test]
fn a_panic_inside_of_a_time_out_in_a_destructor_is_caught_there() {
    in_destructors(|| {
        let result = catch_unwind(|| {
            timeout(MOMENT, || {
                // Waits in a destructor, when the time is over already: that must not raise.
                let _wait = OnDrop(|| sleep(MOMENT * 2));
                panic!("inside");
            })
        });
        assert!(result.is_err());
    });
}

#[test]
fn locks_and_the_cancellation_itself_are_as_before_after_a_time_out_in_a_destructor() {
    run(|| {
        let mutex = Arc::new(sync::Mutex::new(()));
        let theirs = Arc::clone(&mutex);
        let cancelled = spawn(move || {
            let _guard = theirs.lock().unwrap();
            let _drop = OnDrop(|| assert!(timeout(MOMENT, || sleep(HOUR)).is_err()));
            sleep(HOUR);
        });
        yield_now();
        cancelled.cancel();
        assert!(cancelled.join().unwrap_err().is_cancelled());
        assert!(!mutex.is_poisoned(), "a cancellation is no panic");
        let theirs = Arc::clone(&mutex);
        let panics = spawn(move || {
            let _guard = theirs.lock().unwrap();
            let _drop = OnDrop(|| assert!(timeout(MOMENT, || sleep(HOUR)).is_err()));
            panic!("poisons");
        });
        assert!(panics.join().unwrap_err().is_panic());
        assert!(mutex.is_poisoned());
    });
}

#[test]
fn a_plain_thread_that_panics_runs_coroutines_in_a_destructor() {
    watch(|| {
        let result = catch_unwind(|| {
            let _drop = OnDrop(|| {
                assert_eq!(plainsong::run(|| spawn(|| 7).join().unwrap()), 7);
                assert!(timeout(MOMENT, || sleep(HOUR)).is_err());
                assert_eq!(scope(|s| s.spawn(|| 7).join().unwrap()), 7);
                let mut end = plainsong::run(|| {
                    let (ours, theirs) = plainsong::net::UnixStream::pair().unwrap();
                    spawn(move || std::io::Write::write_all(&mut &theirs, b"x"));
                    let mut byte = [0];
                    std::io::Read::read_exact(&mut &ours, &mut byte).unwrap();
                    byte
                });
                assert_eq!(std::mem::take(&mut end[0]), b'x');
            });
            panic!("of a plain thread");
        });
        assert!(result.is_err());
    });
}

// ---- payloads of others ----

#[test]
fn a_cancellation_of_another_coroutine_is_just_a_panic() {
    run(|| {
        // The payload of a coroutine that was cancelled, carried out of it.
        let payload = Rc::new(RefCell::new(None));
        let theirs = Rc::clone(&payload);
        let cancelled = spawn(move || {
            let caught = catch_unwind(|| sleep(HOUR)).unwrap_err();
            *theirs.borrow_mut() = Some(caught);
        });
        yield_now();
        cancelled.cancel();
        let _ = cancelled.join();
        let foreign = payload.borrow_mut().take().unwrap();
        let child = spawn(move || resume_unwind(foreign));
        assert!(child.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_pool_outlives_a_cancellation_of_another_coroutine() {
    run(|| {
        let payload = Arc::new(sync::Mutex::new(None));
        let theirs = Arc::clone(&payload);
        let cancelled = spawn(move || {
            let caught = catch_unwind(|| sleep(HOUR)).unwrap_err();
            *theirs.lock().unwrap() = Some(caught);
        });
        yield_now();
        cancelled.cancel();
        let _ = cancelled.join();
        let foreign = payload.lock().unwrap().take().unwrap();
        let pool = plainsong::pool::Pool::coroutines(1).unwrap();
        let raised = pool.submit(move || resume_unwind(foreign));
        let raised: &plainsong::sync::Promise<()> = &raised;
        assert!(raised.wait().is_err());
        assert_eq!(pool.submit(|| 7).wait().ok(), Some(&7));
    });
}

// ---- generators ----

#[test]
fn a_generator_is_closed_while_its_body_unwinds() {
    use plainsong::generator::Generator;
    // In a process of its own, the library has not seen the first panic.
    alone(a_generator_is_closed_while_its_body_unwinds, || {
        let result = catch_unwind(|| {
            let _drop = OnDrop(|| {
                let mut generator = Generator::<u32>::new(|out| {
                    let _yields = OnDrop(|| out.yield_(1));
                    panic!("of a body");
                });
                let _ = catch_unwind(AssertUnwindSafe(|| generator.next()));
                drop(generator);
            });
            panic!("the caller unwinds");
        });
        assert!(result.is_err());
    });
}

#[test]
fn a_generator_that_overflows_names_its_coroutine_and_its_setting() {
    fn deep(n: u64) -> u64 {
        let block = std::hint::black_box([n; 64]);
        if n == 0 { 0 } else { deep(n - 1) + block[(n % 64) as usize] }
    }
    let output = dying(a_generator_that_overflows_names_its_coroutine_and_its_setting, || {
        let _ = plainsong::run(|| {
            plainsong::Builder::new()
                .name("resumes")
                .spawn(|| {
                    let mut generator = plainsong::generator::Generator::<u64>::new(|out| {
                        out.yield_(deep(1 << 40))
                    });
                    generator.next()
                })
                .unwrap()
                .join()
        });
    });
    let Some(output) = output else { return };
    for part in ["a generator has overflowed", "'resumes'", "Generator::with_stack_size"] {
        assert!(output.contains(part), "no {part:?} in {output}");
    }
}

// ---- sizes ----

#[repr(align(4096))]
struct Page([u8; 4096]);

/// Spawns a closure that captures and returns `value` from every door.
fn through_every_door<T: Clone + Send + PartialEq + std::fmt::Debug + 'static>(value: T) {
    let own = || value.clone();
    let (a, b, c, d) = (own(), own(), own(), own());
    assert_eq!(spawn(move || a).join().unwrap(), value);
    assert_eq!(plainsong::Builder::new().spawn(move || b).unwrap().join().unwrap(), value);
    assert_eq!(plainsong::thread::spawn(move || c).join().unwrap(), value);
    assert_eq!(plainsong::spawn_anywhere(move || d).join().unwrap(), value);
    let (a, b) = (own(), own());
    assert_eq!(scope(|s| s.spawn(move || a).join().unwrap()), value);
    assert_eq!(plainsong::Handle::current().spawn(move || b).join().unwrap(), value);
    let (a, b) = (own(), own());
    assert_eq!(timeout(HOUR, move || a), Ok(own()));
    assert_eq!(plainsong::blocking(move || b), value);
    assert_eq!(plainsong::task::gather([own(), own()].map(|v| move || v)), [own(), own()]);
    assert_eq!(plainsong::task::race([own(), own()].map(|v| move || v)), value);
    let (sender, receiver) = sync::channel::bounded(1);
    let a = own();
    plainsong::time::after(Duration::ZERO, move || sender.send(a).unwrap());
    assert_eq!(receiver.recv().unwrap(), value);
    let (a, b) = (own(), own());
    let mut generator = plainsong::generator::Generator::new(move |out| out.yield_(a.clone()));
    assert_eq!(generator.next(), Some(b));
    let (sender, receiver) = sync::channel::bounded(0);
    let a = own();
    spawn(move || sender.send(a).unwrap());
    plainsong::select! { recv(receiver) -> item => assert_eq!(item.unwrap(), value) };
}

#[test]
fn closures_and_results_of_any_size_and_alignment() {
    // The test itself has many copies on its stack.
    let big = std::thread::Builder::new().stack_size(256 << 20).spawn(|| {
        let runtime = plainsong::Runtime::builder().stack_size(128 << 20).build().unwrap();
        runtime.run(|| {
            through_every_door(());
            through_every_door(7u8);
            through_every_door([1u8; 1023]);
            through_every_door([1u8; 1025]);
            through_every_door([1u8; 2048]);
            through_every_door([7u64; 1024]);
            through_every_door([7u8; 1 << 16]);
        });
    });
    big.unwrap().join().unwrap();
}

#[test]
fn a_megabyte_is_captured_on_the_default_stack() {
    let runtime = plainsong::Runtime::default();
    let handle = runtime.handle();
    let big = std::thread::Builder::new().stack_size(64 << 20).spawn(move || {
        let value = [7u8; 1 << 20];
        (handle.spawn(move || value[9]), handle.spawn(move || value))
    });
    let (one, all) = big.unwrap().join().unwrap();
    runtime.run(|| assert_eq!(one.join().unwrap(), 7));
    let all =
        std::thread::Builder::new().stack_size(64 << 20).spawn(move || all.join().unwrap()[9]);
    assert_eq!(all.unwrap().join().unwrap(), 7);
}

#[test]
fn closures_of_a_large_alignment() {
    // AddressSanitizer surrounds each of the many copies with as much as the alignment: 256 KiB
    // were just too few.
    watch(|| {
        let runtime = plainsong::Runtime::builder().stack_size(1 << 20).build().unwrap();
        runtime.run(|| {
            for _ in 0..3 {
                let page = Page([7; 4096]);
                let child = spawn(move || {
                    assert_eq!((&raw const page).addr() % 4096, 0);
                    page.0[9]
                });
                assert_eq!(child.join().unwrap(), 7);
            }
        });
    });
}

// ---- every waker may do anything ----

#[test]
fn wakers_that_panic_leave_no_other_waiter_asleep() {
    struct Panics(AtomicBool);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
            panic!("of a waker");
        }
    }
    run(|| {
        let (sender, receiver) = sync::channel::bounded::<u32>(0);
        let panics = Arc::new(Panics(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&panics));
        let first = receiver.clone();
        let mut future = Box::pin((&first).into_future());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let others: Vec<_> = (0..3)
            .map(|_| {
                let receiver = receiver.clone();
                spawn(move || receiver.recv())
            })
            .collect();
        yield_now();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(sender)));
        for other in others {
            assert!(other.join().unwrap().is_err());
        }
        assert!(panics.0.load(Ordering::SeqCst));
    });
}

// ---- processes and threads that begin or end at a bad time ----

/// Uses sockets, timers and the blocking pool.
fn a_whole_run() {
    plainsong::run(|| {
        let listener = plainsong::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = spawn(move || plainsong::net::TcpStream::connect(address).unwrap());
        listener.accept().unwrap();
        client.join().unwrap();
        sleep(Duration::from_millis(1));
        assert_eq!(plainsong::blocking(|| 7), 7);
    });
}

#[test]
fn a_fork_after_a_run_runs_in_both_processes() {
    alone(a_fork_after_a_run_runs_in_both_processes, || {
        a_whole_run();
        assert!(crate::sys::fork(|| (0..3).for_each(|_| a_whole_run())));
        (0..3).for_each(|_| a_whole_run());
    });
}

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn a_fork_in_the_code_of_a_host_runs_in_both_processes() {
    alone(a_fork_in_the_code_of_a_host_runs_in_both_processes, || {
        let host = |_guest: plainsong::host::Guest<'_>| assert!(crate::sys::fork(a_whole_run));
        plainsong::host::run(&plainsong::Runtime::default(), host, || sleep(MOMENT));
        a_whole_run();
    });
}

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn the_code_of_a_host_may_not_wait_after_a_waker_of_its_own_has_panicked() {
    use plainsong::host::Next;
    struct Waker(bool);
    impl Wake for Waker {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Waker {
        fn drop(&mut self) {
            assert!(!self.0, "scripted");
        }
    }
    watch(|| {
        let refused = AtomicBool::new(false);
        let host = |mut guest: plainsong::host::Guest<'_>| {
            let mut slice = |waker: &std::task::Waker| {
                let next = guest.run_for(Duration::from_micros(100), waker);
                while guest.poll_io() {}
                next
            };
            // The guest keeps the first waker, and drops it when it gets the next one.
            let [panics, well] = [true, false].map(|panics| Arc::new(Waker(panics)).into());
            while !matches!(slice(&panics), Next::Wait(_)) {}
            drop(panics);
            loop {
                match catch_unwind(AssertUnwindSafe(|| slice(&well))) {
                    Ok(Next::Over) => return,
                    Ok(_) => {}
                    Err(_) => {
                        let waits = catch_unwind(|| sleep(MOMENT));
                        refused.store(waits.is_err(), Ordering::Relaxed);
                    }
                }
            }
        };
        plainsong::host::run(&plainsong::Runtime::default(), host, || {
            (0..5).for_each(|_| sleep(MOMENT));
        });
        assert!(refused.into_inner());
    });
}

/// The loop had decided to wait by then.
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn a_hosts_waker_whose_clone_makes_a_coroutine_ready_loses_no_wake() {
    use plainsong::host::Next;
    thread_local! {
        static MAIN: RefCell<Option<plainsong::thread::Thread>> = const { RefCell::new(None) };
    }
    fn unpark() {
        MAIN.with_borrow(|main| main.iter().for_each(plainsong::thread::Thread::unpark));
    }
    watch(|| {
        let host = |mut guest: plainsong::host::Guest<'_>| {
            let mut slice = |waker: &std::task::Waker| guest.run_for(HOUR, waker);
            assert!(matches!(slice(std::task::Waker::noop()), Next::Wait(_)));
            let waker = crate::sys::waker_that_clones_with(&(unpark as fn()));
            assert_eq!(slice(&waker), Next::Over);
        };
        plainsong::host::run(&plainsong::Runtime::default(), host, || {
            MAIN.set(Some(plainsong::thread::current()));
            plainsong::thread::park();
        });
    });
}

/// It did, in the middle of `park_timeout`: an unpark ended the clock's own wait, and two
/// coroutines held one lock.
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn the_clock_of_a_host_may_not_wait() {
    use plainsong::host::Next;
    static LOCK: plainsong::sync::Mutex<()> = plainsong::sync::Mutex::new(());
    static IS_REFUSED: AtomicBool = AtomicBool::new(false);
    thread_local! {
        static WAITS: Cell<bool> = const { Cell::new(false) };
    }
    fn clock() -> std::time::Instant {
        if WAITS.replace(false) {
            let refused = catch_unwind(|| drop(LOCK.lock())).is_err();
            IS_REFUSED.store(refused, Ordering::Relaxed);
            panic!("scripted");
        }
        std::time::Instant::now()
    }
    watch(|| {
        let host = |mut guest: plainsong::host::Guest<'_>| {
            guest.set_clock(clock);
            while guest.run_for(MOMENT, std::task::Waker::noop()) != Next::Over {}
        };
        plainsong::host::run(&plainsong::Runtime::default(), host, || {
            let held = LOCK.lock();
            let child = plainsong::spawn(|| {
                WAITS.set(true);
                plainsong::thread::park_timeout(HOUR);
            });
            plainsong::yield_now();
            child.thread().unpark();
            child.join().unwrap();
            drop(held);
        });
        assert!(IS_REFUSED.load(Ordering::Relaxed));
    });
}

#[test]
fn when_the_scheduler_has_gone_calls_fail_that_may() {
    use plainsong::generator::Generator;
    use plainsong::{Builder, Handle};
    struct Late(RefCell<Option<(Handle, Generator<u32>, plainsong::time::Timer)>>);
    impl Drop for Late {
        fn drop(&mut self) {
            let (handle, mut generator, timer) = self.0.take().unwrap();
            assert!(Handle::try_current().is_none());
            assert!(handle.spawn_with(Builder::new(), || ()).is_err());
            assert!(Builder::new().spawn(|| ()).is_err());
            assert!(Builder::new().spawn_anywhere(|| ()).is_err());
            assert!(plainsong::pool::Pool::coroutines(1).is_err());
            assert!(Generator::<u32>::with_stack_size(1 << 16, |_| ()).is_err());
            assert!(!timer.cancel());
            // Its body cannot yield: the generator would be suspended for good.
            assert!(catch_unwind(AssertUnwindSafe(|| generator.next())).is_err());
            LATE_IS_OVER.store(true, Ordering::Relaxed);
        }
    }
    thread_local! {
        static LATE: Late = const { Late(RefCell::new(None)) };
    }
    static LATE_IS_OVER: AtomicBool = AtomicBool::new(false);
    let thread = std::thread::spawn(|| {
        LATE.with(|_| ());
        let kept = plainsong::run(|| {
            let timer = plainsong::time::after(HOUR, || ());
            (Handle::current(), Generator::new(|out| out.yield_(1)), timer)
        });
        LATE.with(|late| late.0.replace(Some(kept)));
    });
    thread.join().unwrap();
    assert!(LATE_IS_OVER.load(Ordering::Relaxed));
}

/// Its first wake forks. In the child, nothing can run where the loop of the parent's run stands.
struct Forks(AtomicBool);

impl Wake for Forks {
    fn wake(self: Arc<Self>) {
        let refused = || {
            let panic = crate::util::panic_of(|| plainsong::run(|| ()));
            assert!(panic.contains("runs on this thread already"), "{panic}");
        };
        assert!(crate::sys::fork(refused));
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_fork_in_a_waker_that_the_loop_calls_runs_nothing() {
    alone(a_fork_in_a_waker_that_the_loop_calls_runs_nothing, || {
        plainsong::run(|| {
            let forks = Arc::new(Forks(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&forks));
            let (ours, theirs) = plainsong::net::UnixStream::pair().unwrap();
            // It counts as readable until a try has found nothing.
            plainsong::block_on(ours.readable()).unwrap();
            ours.try_read(&mut [0]).unwrap_err();
            let mut readable = pin!(ours.readable());
            assert!(readable.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            std::io::Write::write_all(&mut &theirs, b"x").unwrap();
            crate::util::until(|| forks.0.load(Ordering::SeqCst));
        });
    });
}

#[test]
fn a_runtime_of_two_workers_in_a_late_destructor_of_a_thread_local_ends() {
    thread_local! {
        static LATE: AtExit = const { RefCell::new(Vec::new()) };
    }
    fn runs_on_two() {
        plainsong::Runtime::builder().workers(2).build().unwrap().run(|| ());
    }
    // std ends the process, as for each panic of such a destructor; it must not hang.
    dying(a_runtime_of_two_workers_in_a_late_destructor_of_a_thread_local_ends, || {
        let thread = std::thread::spawn(|| {
            // Made before the library's own, so dropped after them.
            LATE.with_borrow_mut(|list| list.push(OnDrop(runs_on_two as fn())));
            plainsong::run(|| ());
        });
        let _ = thread.join();
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_thread_gives_back_the_stacks_of_deep_calls_when_its_run_ends() {
    fn deep(n: usize) -> usize {
        let page = std::hint::black_box([n; 512]);
        if n == 0 { 0 } else { deep(n - 1) + page[n % 512] }
    }
    alone(a_thread_gives_back_the_stacks_of_deep_calls_when_its_run_ends, || {
        plainsong::run(|| ());
        let before = crate::util::resident();
        plainsong::run(|| {
            let all: Vec<_> = (0..1500).map(|_| spawn(|| deep(20))).collect();
            all.into_iter().for_each(|one| drop(one.join()));
        });
        let kept = crate::util::resident() - before;
        assert!(kept < 60_000, "{kept} KiB are left");
    });
}
