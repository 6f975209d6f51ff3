//! Bodies of generators that yield where the library has called code of users. They go on in
//! another coroutine, or when the scheduler of their thread has been dropped.

use std::cell::RefCell;
use std::future::Future;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use plainsong::generator::{Generator, Yielder};
use plainsong::io::Interest;
use plainsong::net::UnixStream;
use plainsong::time::{Sleep, sleep};
use plainsong::{Builder, Runtime, block_on, thread};
use scoped_tls::scoped_thread_local;

use crate::util::{MOMENT, alone, run, watch};

scoped_thread_local! {
    // Leads code that borrows nothing to the body around it.
    static OUT: Yielder<u32>
}

/// Yields from the body around the caller. Returns whether that was allowed.
fn yields() -> bool {
    catch_unwind(|| OUT.with(|out| out.yield_(1))).is_ok()
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

/// Resumes what `suspended` returns, in a run, when the scheduler of its thread has been dropped.
fn goes_on_without_a_scheduler(suspended: fn() -> Generator<u32>) {
    struct Keep(RefCell<Option<Generator<u32>>>);
    impl Drop for Keep {
        fn drop(&mut self) {
            let mut generator = self.0.take().unwrap();
            assert_eq!(generator.next(), None);
        }
    }
    thread_local! {
        static KEEP: Keep = const { Keep(RefCell::new(None)) };
    }
    let thread = std::thread::spawn(move || {
        // Before the library's own thread-local, so that it is dropped after that.
        KEEP.with(|_| ());
        plainsong::run(|| {
            let mut generator = suspended();
            assert_eq!(generator.next(), Some(1));
            KEEP.with(|keep| *keep.0.borrow_mut() = Some(generator));
        });
    });
    thread.join().unwrap();
}

/// AddressSanitizer and valgrind see the use after free that this was.
#[test]
fn the_closure_of_a_try_io() {
    goes_on_without_a_scheduler(|| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        block_on(ours.writable()).unwrap();
        Generator::new(move |out| {
            let _ = ours.try_io(Interest::WRITABLE, || {
                out.yield_(1);
                Err::<(), _>(ErrorKind::WouldBlock.into())
            });
        })
    });
}

/// The reactor was borrowed while the waker of the poll before was dropped.
#[test]
fn the_waker_of_a_poll_that_is_replaced() {
    goes_on_without_a_scheduler(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        block_on(ours.readable()).unwrap();
        assert_eq!(ours.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        generator(move || {
            let mut readable = pin!(ours.readable());
            let first = Waker::from(Arc::new(YieldsInDrop));
            assert!(readable.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
            drop(first);
            assert!(readable.poll(&mut Context::from_waker(Waker::noop())).is_ready());
            drop(theirs);
        })
    });
}

#[test]
fn a_closure_that_is_refused_a_stack() {
    goes_on_without_a_scheduler(|| {
        generator(|| {
            let local = YieldsInDrop;
            let error = Builder::new().stack_size(1).spawn(move || drop(local)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        })
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
