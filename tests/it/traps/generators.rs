//! Bodies of generators that yield where the library has called code of users. They go on in
//! another coroutine, or when the scheduler of their thread has been dropped.

use std::cell::{Cell, RefCell};
use std::future::{Future, IntoFuture};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use plainsong::generator::{Generator, Yielder};
use plainsong::io::Interest;
use plainsong::net::{Server, UnixListener, UnixStream};
use plainsong::sync::channel::unbounded;
use plainsong::time::{Sleep, sleep, timeout};
use plainsong::{
    Builder, CancellationToken, Runtime, block_on, no_unwind, spawn, thread, yield_now,
};
use scoped_tls::scoped_thread_local;

use crate::util::{
    Folder, HOUR, MOMENT, OnDrop, alone, descriptors, limit_descriptors, run, until, watch,
};

scoped_thread_local! {
    // Leads code that borrows nothing to the body around it.
    static OUT: Yielder<u32>
}

/// Yields from the body around the caller. Returns whether that was allowed.
fn yields() -> bool {
    catch_unwind(|| OUT.with(|out| out.yield_(1))).is_ok()
}

/// A waker that notes whether it cannot yield.
struct IsRefused(&'static AtomicBool);

impl Wake for IsRefused {
    fn wake(self: Arc<Self>) {
        self.0.store(!yields(), Ordering::Relaxed);
    }
}

/// A generator whose body is `body`, with [`yields`].
fn generator(body: impl FnOnce() + 'static) -> Generator<u32> {
    Generator::new(|out| OUT.set(out, body))
}

struct YieldsInDrop;

impl Drop for YieldsInDrop {
    fn drop(&mut self) {
        assert!(yields());
    }
}

impl Wake for YieldsInDrop {
    fn wake(self: Arc<Self>) {}
}

/// The closure of a `try_io` was called while the reactor was borrowed, which is gone by then.
#[test]
fn a_generator_is_left_behind_at_the_end_of_its_thread() {
    struct Keep(RefCell<Vec<Generator<u32>>>);
    impl Drop for Keep {
        fn drop(&mut self) {
            for mut generator in self.0.take() {
                assert!(catch_unwind(AssertUnwindSafe(|| generator.next())).is_err());
                assert!(!generator.is_done());
            }
        }
    }
    thread_local! {
        static KEEP: Keep = const { Keep(RefCell::new(Vec::new())) };
        static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    }
    let in_a_try_io = || {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        block_on(ours.writable()).unwrap();
        Generator::new(move |out| {
            let _ = ours.try_io(Interest::WRITABLE, || {
                out.yield_(1);
                Err::<(), _>(ErrorKind::WouldBlock.into())
            });
        })
    };
    let in_a_borrow = || {
        Generator::new(|out| {
            TEXT.with_borrow_mut(|text| {
                text.push_str("is dropped before the generator");
                out.yield_(1);
                text.push('!');
            });
        })
    };
    let thread = std::thread::spawn(move || {
        // Before the library's own thread-local, so that it is dropped after that.
        KEEP.with(|_| ());
        plainsong::run(|| {
            for mut generator in [in_a_try_io(), in_a_borrow()] {
                assert_eq!(generator.next(), Some(1));
                KEEP.with(|keep| keep.0.borrow_mut().push(generator));
            }
        });
    });
    thread.join().unwrap();
}

#[test]
fn a_body_that_has_not_begun_is_dropped_at_the_end_of_its_thread() {
    struct Keep(Cell<Option<Generator<u32>>>);
    thread_local! {
        static KEEP: Keep = const { Keep(Cell::new(None)) };
    }
    let value = Arc::new(());
    let theirs = Arc::clone(&value);
    let thread = std::thread::spawn(move || {
        KEEP.with(|_| ());
        let generator = Generator::new(move |_| drop(theirs));
        KEEP.with(|keep| keep.0.set(Some(generator)));
    });
    thread.join().unwrap();
    assert_eq!(Arc::strong_count(&value), 1);
}

/// The scheduler was borrowed while the waker of the poll before was dropped, and where there is no
/// stack.
#[test]
fn bodies_that_go_on_in_another_run() {
    let in_the_drop_of_a_waker = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        block_on(ours.readable()).unwrap();
        assert_eq!(ours.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        generator(move || {
            let mut readable = pin!(ours.readable());
            let first = Waker::from(Arc::new(YieldsInDrop));
            assert!(readable.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
            drop((first, theirs));
            let mut context = Context::from_waker(Waker::noop());
            while readable.as_mut().poll(&mut context).is_pending() {
                yield_now();
            }
        })
    };
    let where_there_is_no_stack = || {
        generator(|| {
            let local = YieldsInDrop;
            let error = Builder::new().stack_size(1).spawn(move || drop(local)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        })
    };
    watch(move || {
        let mut all = plainsong::run(|| {
            let mut all = [in_the_drop_of_a_waker(), where_there_is_no_stack()];
            assert!(all.iter_mut().all(|generator| generator.next() == Some(1)));
            all
        });
        plainsong::run(move || {
            assert!(all.iter_mut().all(|generator| generator.next().is_none()));
        });
    });
}

#[test]
fn a_hook_cannot_suspend_a_generator() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    watch(|| {
        let hook = |_| {
            if OUT.is_set() {
                assert!(!yields());
                REFUSED.fetch_add(1, Ordering::Relaxed);
            }
        };
        let runtime = Runtime::builder().on_suspend(hook).on_resume(hook).build().unwrap();
        runtime.run(|| {
            let mut generator = generator(|| sleep(MOMENT));
            assert_eq!(generator.next(), None);
        });
        assert_eq!(REFUSED.load(Ordering::Relaxed), 2);
    });
}

/// The whole loop would be suspended with it.
#[test]
fn a_waker_in_the_loop_cannot_suspend_a_generator_that_runs_the_loop() {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    struct YieldsInWake(thread::Thread);
    impl Wake for YieldsInWake {
        fn wake(self: Arc<Self>) {
            REFUSED.store(!yields(), Ordering::Relaxed);
            self.0.unpark();
        }
    }
    watch(|| {
        let body = || {
            plainsong::run(|| {
                let mut timer = pin!(Sleep::new(MOMENT));
                let waker = Waker::from(Arc::new(YieldsInWake(plainsong::current())));
                let mut context = Context::from_waker(&waker);
                while timer.as_mut().poll(&mut context).is_pending() {
                    thread::park();
                }
            });
        };
        assert_eq!(generator(body).next(), None);
        assert!(REFUSED.load(Ordering::Relaxed));
    });
}

/// The destructors of the thread's thread-locals run on the stack of the body.
#[test]
fn an_exit_cannot_suspend_the_generator_that_calls_it() {
    struct YieldsAtExit;
    impl Drop for YieldsAtExit {
        fn drop(&mut self) {
            assert!(!yields());
        }
    }
    thread_local! {
        static LATE: YieldsAtExit = const { YieldsAtExit };
    }
    alone(an_exit_cannot_suspend_the_generator_that_calls_it, || {
        // Before the library's own thread-local, so that it is dropped after that.
        LATE.with(|_| ());
        plainsong::run(|| {
            let mut generator = generator(|| std::process::exit(0));
            generator.next();
            eprintln!("the exit has been suspended");
            std::process::abort();
        });
    });
}

/// The run had ended for the check, and went on with the scheduler afterwards.
#[test]
fn a_waker_at_the_end_of_a_run_cannot_suspend_a_generator_that_began_it() {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    watch(|| {
        let body = || {
            let _left = plainsong::run(|| {
                let mut timer = Box::pin(Sleep::new(HOUR));
                let waker = Waker::from(Arc::new(IsRefused(&REFUSED)));
                assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                timer
            });
        };
        assert_eq!(generator(body).next(), None);
        assert!(REFUSED.load(Ordering::Relaxed));
    });
}

/// The coroutine that is given up was borrowed meanwhile.
#[test]
fn a_coroutine_that_is_given_up_cannot_suspend_a_generator() {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    run(|| {
        let went_on = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&went_on);
        let handle = spawn(move || {
            let mut generator = generator(|| sleep(HOUR));
            no_unwind(|| generator.next());
            theirs.set(true);
        });
        yield_now();
        handle.cancel();
        let mut end = pin!(handle.into_future());
        let waker = Waker::from(Arc::new(IsRefused(&REFUSED)));
        let mut context = Context::from_waker(&waker);
        while !REFUSED.load(Ordering::Relaxed) {
            assert!(end.as_mut().poll(&mut context).is_pending());
            yield_now();
        }
        assert!(end.as_mut().poll(&mut context).is_ready());
        assert!(!went_on.get());
    });
}

/// They had left their queue, and their wakes came after the waker.
#[test]
fn waiters_behind_a_waker_that_yields_are_woken() {
    struct YieldsInWake;
    impl Wake for YieldsInWake {
        fn wake(self: Arc<Self>) {
            assert!(yields());
        }
    }
    run(|| {
        let (sender, receiver) = unbounded::<u32>();
        let other = receiver.clone();
        let mut item = pin!((&receiver).into_future());
        let waker = Waker::from(Arc::new(YieldsInWake));
        assert!(item.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let waits = spawn(move || other.recv().is_err());
        yield_now();
        let mut generator = generator(move || drop(sender));
        assert_eq!(generator.next(), Some(1));
        assert!(waits.join().unwrap());
        assert_eq!(generator.next(), None);
    });
}

#[test]
fn a_value_whose_yield_is_refused_is_dropped() {
    run(|| {
        let value = Rc::new(());
        let theirs = Rc::clone(&value);
        let mut generator = Generator::new(move |out| {
            let yields = || plainsong::shield(|| out.yield_(theirs));
            assert!(catch_unwind(AssertUnwindSafe(yields)).is_err());
            out.receive();
        });
        assert_eq!(generator.next(), None);
        assert_eq!(Rc::strong_count(&value), 1);
    });
}

/// A body that sleeps in its time-out. A destructor yields in the unwind.
fn yields_in_an_unwind_by_time() -> Generator<u32> {
    Generator::new(|out| {
        let slept = timeout(MOMENT, || {
            let _yields = OnDrop(|| out.yield_(1));
            sleep(HOUR);
        });
        out.yield_(if slept.is_err() { 2 } else { 3 });
    })
}

/// A panic that the library resumes. A destructor yields in the unwind.
fn yields_in_the_unwind_of_a_panic_from_elsewhere() -> Generator<u32> {
    Generator::new(|out| {
        out.yield_(2);
        let _yields = OnDrop(|| out.yield_(1));
        plainsong::blocking(|| panic!("scripted"));
    })
}

/// A body that waits while another coroutine panics.
fn waits_while_another_panics() -> Generator<u32> {
    Generator::new(|out| {
        assert!(spawn(|| panic!("scripted")).join().unwrap_err().is_panic());
        out.yield_(2);
    })
}

/// The unwind of the body was not known from that of its caller: the process was aborted, or the
/// body was suspended in mid-unwind, or what it yielded was dropped.
#[test]
fn a_caller_that_unwinds_gets_what_the_body_yields_outside_of_its_own_unwind() {
    let generators = [
        yields_in_an_unwind_by_time,
        yields_in_the_unwind_of_a_panic_from_elsewhere,
        waits_while_another_panics,
    ];
    for generator in generators {
        run(move || {
            let items = Rc::new(RefCell::new(Vec::new()));
            let theirs = Rc::clone(&items);
            let child = spawn(move || {
                let _collects = OnDrop(|| {
                    let collect = || theirs.borrow_mut().extend(generator());
                    let _ = catch_unwind(AssertUnwindSafe(collect));
                });
                panic!("scripted");
            });
            assert!(child.join().unwrap_err().is_panic());
            assert_eq!(*items.borrow(), [2]);
            assert!(!std::thread::panicking());
        });
    }
}

/// Its caller had caught a panic beside a coroutine that unwinds, and counted as unwinding too.
#[test]
fn a_body_that_is_cancelled_is_not_suspended_in_its_unwind() {
    run(|| {
        let release = Rc::new(Cell::new(false));
        let released = Rc::clone(&release);
        let other = spawn(move || {
            let _waits = OnDrop(|| until(|| released.get()));
            panic!("scripted");
        });
        until(std::thread::panicking);
        let child = spawn(|| {
            catch_unwind(|| panic!("scripted")).unwrap_err();
            let mut generator = Generator::<u32>::new(|out| {
                let _yields = OnDrop(|| out.yield_(1));
                sleep(HOUR);
            });
            generator.next();
        });
        (0..3).for_each(|_| yield_now());
        release.set(true);
        assert!(other.join().unwrap_err().is_panic());
        child.cancel();
        assert!(child.join().unwrap_err().is_cancelled());
    });
}

/// The flag that lets an `unpark` end the wait was cleared in a task that was gone.
#[test]
fn a_panic_hook_that_yields_out_of_a_refused_park() {
    alone(a_panic_hook_that_yields_out_of_a_refused_park, || {
        run(|| {
            std::panic::set_hook(Box::new(|_| assert!(!OUT.is_set() || yields())));
            // Beside it, the unwind of the body is not known.
            let other = spawn(|| {
                let _waits = OnDrop(thread::park);
                sleep(HOUR);
            });
            yield_now();
            other.cancel();
            until(std::thread::panicking);
            let kept = Rc::new(RefCell::new(None));
            let theirs = Rc::clone(&kept);
            let first = spawn(move || {
                let mut generator = generator(|| assert!(catch_unwind(thread::park).is_err()));
                let item = plainsong::no_wait(|| generator.next());
                theirs.replace(Some(generator));
                item
            });
            assert_eq!(first.join().unwrap(), Some(1));
            let second = spawn(move || kept.take().unwrap().next());
            assert_eq!(second.join().unwrap(), None);
            other.thread().unpark();
            assert!(other.join().unwrap_err().is_cancelled());
        });
    });
}

/// Outside of coroutines nothing kept the frame of the guard from being suspended.
#[test]
fn on_a_plain_thread_a_body_cannot_yield_in_a_shield_or_no_wait() {
    let mut generator = generator(|| {
        assert!(!plainsong::no_wait(yields) && !plainsong::shield(yields) && !no_unwind(yields));
        assert!(yields());
    });
    assert_eq!(generator.next(), Some(1));
    assert_eq!(generator.next(), None);
}

/// The frame that restores the running coroutine went on in another one.
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn the_clock_of_a_host_cannot_yield() {
    use plainsong::host::{Guest, Next, run};
    static IS_REFUSED: AtomicBool = AtomicBool::new(false);
    fn clock() -> std::time::Instant {
        if OUT.is_set() {
            IS_REFUSED.store(!yields(), Ordering::Relaxed);
        }
        std::time::Instant::now()
    }
    watch(|| {
        let host = |mut guest: Guest<'_>| {
            guest.set_clock(clock);
            assert_eq!(generator(|| _ = plainsong::time::now()).next(), None);
            while guest.run_for(MOMENT, Waker::noop()) != Next::Over {}
        };
        run(&Runtime::default(), host, || ());
        assert!(IS_REFUSED.load(Ordering::Relaxed));
    });
}

/// While it drains, its callbacks ran outside of a scope. Its end waits, wherever the body goes on.
#[test]
fn the_callback_of_a_server_that_is_stopped_cannot_yield() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    alone(the_callback_of_a_server_that_is_stopped_cannot_yield, || {
        run(|| {
            let folder = Folder::new();
            let path = folder.join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let _client = UnixStream::connect(&path).unwrap();
            let rest = Arc::new(std::sync::Mutex::new(Vec::new()));
            let opened = Arc::clone(&rest);
            let mut generator = generator(move || {
                let stop = CancellationToken::new();
                stop.cancel();
                let server = Server::new(listener).stop_with(&stop).on_pause(move |_| {
                    REFUSED.fetch_add(usize::from(!yields()), Ordering::Relaxed);
                    opened.lock().unwrap().clear();
                });
                server.serve(|_conn: UnixStream| ()).unwrap();
            });
            limit_descriptors(descriptors() as u64 + 4);
            let files = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok());
            rest.lock().unwrap().extend(files);
            assert_eq!(generator.next(), None);
            assert_eq!(REFUSED.load(Ordering::Relaxed), 2, "at the pause, and at its end");
        });
    });
}

/// It never let others run: the body seems to unwind until the other coroutine has ended.
#[test]
fn a_body_that_catches_panics_beside_an_unwind_lets_others_run() {
    run(|| {
        let other = spawn(|| {
            let _yields = OnDrop(|| (0..3).for_each(|_| yield_now()));
            panic!("scripted");
        });
        until(std::thread::panicking);
        let mut generator = Generator::<u32>::new(|out| {
            loop {
                catch_unwind(|| panic!("scripted")).unwrap_err();
                out.yield_(1);
            }
        });
        assert_eq!(generator.next(), Some(1));
        assert!(other.join().unwrap_err().is_panic());
    });
}
