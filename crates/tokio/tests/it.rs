//! tokio and coroutines on one thread, from outside.

use std::cell::{Cell, RefCell};
use std::env;
use std::fs::File;
use std::future::{Future, pending, poll_fn, ready};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use plainsong_tokio::{block_on, run, run_on};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

/// Runs `body` on a thread of its own, and fails if it hangs.
#[track_caller]
fn watch<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = body();
        let _ = done.send(());
        result
    });
    let hang = Err(std::sync::mpsc::RecvTimeoutError::Timeout);
    assert!(ended.recv_timeout(Duration::from_secs(60)) != hang, "hangs");
    thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

#[track_caller]
fn hosted<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    watch(|| run(body).unwrap())
}

fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
        },
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn coroutines_and_tasks_share_a_thread() {
    hosted(|| {
        let here = std::thread::current().id();
        let local = Rc::new(Cell::new(0));
        let theirs = local.clone();
        let task = spawn_local(async move {
            theirs.set(1);
            // A task spawns a coroutine and awaits it.
            let there = plainsong::spawn(|| std::thread::current().id()).await.unwrap();
            assert_eq!(std::thread::current().id(), there);
            there
        });
        assert_eq!(block_on(task).unwrap(), here);
        assert_eq!(local.get(), 1);
        // A task that may move is on this thread too, as there is no other.
        let anywhere = tokio::spawn(async { std::thread::current().id() });
        assert_eq!(block_on(anywhere).unwrap(), here);
    });
}

#[test]
fn timers_and_sockets_of_both_work_side_by_side() {
    hosted(|| {
        let listener = block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                });
            }
        });
        plainsong::scope(|s| {
            for n in 0..50u64 {
                s.spawn(move || {
                    let text = [n as u8; 100];
                    // Through our own socket.
                    use std::io::{Read, Write};
                    let mut stream = plainsong::net::TcpStream::connect(address).unwrap();
                    stream.write_all(&text).unwrap();
                    plainsong::time::sleep(Duration::from_micros(n * 100));
                    let mut back = [0; 100];
                    stream.read_exact(&mut back).unwrap();
                    assert_eq!(back, text);
                    // And through tokio's.
                    block_on(async {
                        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                        stream.write_all(&text).await.unwrap();
                        tokio::time::sleep(Duration::from_micros(n * 100)).await;
                        stream.read_exact(&mut back).await.unwrap();
                    });
                    assert_eq!(back, text);
                });
            }
        });
    });
}

#[test]
fn channels_lead_from_tasks_to_coroutines_and_back() {
    hosted(|| {
        let (to_task, mut from_coroutine) = mpsc::channel(1);
        let (to_coroutine, from_task) = plainsong::sync::channel::bounded(1);
        let task = spawn_local(async move {
            while let Some(number) = from_coroutine.recv().await {
                to_coroutine.try_send(number + 1).unwrap();
            }
        });
        for number in 0..10_000 {
            block_on(to_task.send(number)).unwrap();
            assert_eq!(from_task.recv(), Ok(number + 1));
        }
        drop(to_task);
        block_on(task).unwrap();
    });
}

#[test]
fn neither_starves_the_other() {
    hosted(|| {
        let (stop, turns) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        // Always ready, until a coroutine has had many turns.
        let (stopped, theirs) = (stop.clone(), turns.clone());
        let task = spawn_local(async move {
            while !stopped.get() {
                theirs.set(theirs.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        while turns.get() < 100 {
            plainsong::yield_now();
        }
        for _ in 0..100 {
            plainsong::time::sleep(Duration::from_micros(10));
            plainsong::yield_now();
        }
        stop.set(true);
        block_on(task).unwrap();
    });
}

#[test]
fn timers_and_sockets_of_both_get_past_what_is_always_ready() {
    hosted(|| {
        let stop = Rc::new(Cell::new(false));
        let stopped = || {
            let stop = stop.clone();
            move || stop.get()
        };
        let coroutines: Vec<_> = (0..3)
            .map(|number| {
                let stopped = stopped();
                plainsong::spawn(move || {
                    while !stopped() {
                        // Also in a future, and in one of tokio's.
                        match number {
                            0 => plainsong::yield_now(),
                            1 => block_on(ready(())),
                            _ => block_on(tokio::task::yield_now()),
                        }
                    }
                })
            })
            .collect();
        let stopped = stopped();
        let task = spawn_local(async move {
            while !stopped() {
                tokio::task::yield_now().await;
            }
        });
        let theirs = spawn_local(async {
            for _ in 0..20 {
                let (mut one, mut two) = tokio::net::UnixStream::pair().unwrap();
                let reads = spawn_local(async move { two.read_u8().await.unwrap() });
                tokio::time::sleep(MOMENT).await;
                one.write_u8(7).await.unwrap();
                assert_eq!(reads.await.unwrap(), 7);
            }
        });
        for _ in 0..20 {
            use std::io::{Read, Write};
            let (mut one, mut two) = plainsong::net::UnixStream::pair().unwrap();
            let reads = plainsong::spawn(move || {
                let mut byte = [0];
                two.read_exact(&mut byte).unwrap();
                byte[0]
            });
            plainsong::time::sleep(MOMENT);
            one.write_all(&[7]).unwrap();
            assert_eq!(reads.join().unwrap(), 7);
        }
        block_on(theirs).unwrap();
        stop.set(true);
        block_on(task).unwrap();
        coroutines.into_iter().for_each(|coroutine| coroutine.join().unwrap());
    });
}

#[test]
fn a_cancelled_coroutine_drops_its_future() {
    let dropped = hosted(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let future = |dropped: &Arc<AtomicUsize>| {
            let dropped = dropped.clone();
            async move {
                let _count = OnDrop(|| _ = dropped.fetch_add(1, Ordering::Relaxed));
                tokio::time::sleep(HOUR).await;
            }
        };
        let timed = plainsong::time::timeout(MOMENT, || block_on(future(&dropped)));
        assert!(timed.is_err());
        let theirs = future(&dropped);
        let waiting = plainsong::spawn(move || block_on(theirs));
        plainsong::time::sleep(MOMENT);
        waiting.cancel();
        assert!(waiting.join().unwrap_err().is_cancelled());
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        // Also one that the end of the run finds waiting.
        let theirs = future(&dropped);
        plainsong::spawn(move || block_on(theirs));
        plainsong::yield_now();
        dropped
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn destructors_use_tokio_while_the_run_ends() {
    let order = watch(|| {
        let order = RefCell::new(Vec::new());
        run(|| {
            plainsong::scope(|s| {
                let order = &order;
                let waiting = s.spawn(move || {
                    let _end = OnDrop(|| {
                        // A destructor may wait for a future, and use tokio.
                        block_on(tokio::time::sleep(MOMENT));
                        order.borrow_mut().push("coroutine");
                    });
                    block_on(pending::<()>());
                });
                plainsong::yield_now();
                waiting.cancel();
            });
            spawn_local(pending::<()>());
        })
        .unwrap();
        order.into_inner()
    });
    assert_eq!(order, ["coroutine"]);
    // A task that is left is dropped after the last coroutine, and may spawn in its destructor. No
    // coroutine runs there, so it must not wait.
    let message = watch(|| {
        let (tell, message) = std::sync::mpsc::channel();
        run(|| {
            spawn_local(async move {
                let _end = OnDrop(|| drop(plainsong::spawn(|| ())));
                let _anywhere = OnDrop(|| drop(plainsong::spawn_anywhere(|| ())));
                let _joins = OnDrop(|| {
                    let _ = tell.send(panic_of(|| plainsong::spawn(|| ()).join()));
                });
                pending::<()>().await;
            });
            plainsong::time::sleep(MOMENT);
        })
        .unwrap();
        message.recv().unwrap()
    });
    assert!(message.contains("would stop all coroutines"), "{message}");
}

#[test]
fn a_task_that_panics_ends_alone() {
    hosted(|| {
        let task = spawn_local(async { std::panic::resume_unwind(Box::new("its own")) });
        let error = block_on(task).unwrap_err();
        assert!(error.is_panic());
        let coroutine = plainsong::spawn(|| std::panic::resume_unwind(Box::new("its own")));
        let ended: Result<(), _> = coroutine.join();
        assert!(ended.is_err());
        block_on(tokio::time::sleep(MOMENT));
    });
}

/// Gives its waker away at each poll, and is ready when `done` is set.
fn gives_wakers(wakers: Rc<RefCell<Vec<Waker>>>, done: Rc<Cell<bool>>) -> impl Future<Output = ()> {
    poll_fn(move |cx| {
        wakers.borrow_mut().push(cx.waker().clone());
        if done.get() { Poll::Ready(()) } else { Poll::Pending }
    })
}

#[test]
fn wakers_are_called_late_and_from_anywhere() {
    hosted(|| {
        let (wakers, done) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let future = gives_wakers(wakers.clone(), done.clone());
        let waiting = plainsong::spawn(move || block_on(future));
        plainsong::yield_now();
        // From another thread, without effect on the future but a poll.
        let waker = wakers.borrow()[0].clone();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        while wakers.borrow().len() < 2 {
            plainsong::time::sleep(MOMENT);
        }
        // From a destructor of a task.
        done.set(true);
        let waker = wakers.borrow()[1].clone();
        drop(spawn_local(async move {
            let _end = OnDrop(|| waker.wake_by_ref());
        }));
        waiting.join().unwrap();
        // After the end, also while another future of the same coroutine waits.
        for _ in 0..100 {
            wakers.borrow().iter().for_each(Waker::wake_by_ref);
            let waker = wakers.borrow()[0].clone();
            let thread = std::thread::spawn(move || waker.wake());
            block_on(tokio::time::sleep(Duration::from_micros(50)));
            thread.join().unwrap();
        }
    });
}

#[test]
fn wakers_outlive_their_run() {
    type Last = OnDrop<Box<dyn FnMut()>>;
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let waker = watch(|| {
        let wakers = Rc::new(RefCell::new(Vec::new()));
        let future = gives_wakers(wakers.clone(), Rc::default());
        // The end of the run finds it waiting.
        run(|| {
            plainsong::spawn(move || block_on(future));
            plainsong::yield_now();
        })
        .unwrap();
        let waker = wakers.borrow()[0].clone();
        waker.wake_by_ref();
        // The next run on the thread has coroutines of its own.
        run(|| {
            let other = plainsong::spawn(|| block_on(tokio::time::sleep(MOMENT)));
            plainsong::yield_now();
            waker.wake_by_ref();
            other.join().unwrap();
        })
        .unwrap();
        // From the destructor of a thread-local, when the thread's scheduler may be gone.
        let last = waker.clone();
        let wake: Box<dyn FnMut()> = Box::new(move || last.wake_by_ref());
        LAST.with(|slot| *slot.borrow_mut() = Some(OnDrop(wake)));
        waker
    });
    waker.wake();
}

#[test]
fn a_future_is_polled_by_two_coroutines_in_turn() {
    hosted(|| {
        let (sender, receiver) = oneshot::channel();
        let shared = Rc::new(RefCell::new(receiver));
        let first = shared.clone();
        let first = plainsong::spawn(move || {
            plainsong::time::timeout(MOMENT, || {
                block_on(poll_fn(|cx| pin!(&mut *first.borrow_mut()).poll(cx)))
            })
            .is_err()
        });
        assert!(first.join().unwrap());
        let second = plainsong::spawn(move || {
            block_on(poll_fn(|cx| pin!(&mut *shared.borrow_mut()).poll(cx)))
        });
        plainsong::yield_now();
        sender.send(7).unwrap();
        assert_eq!(second.join().unwrap(), Ok(7));
    });
}

#[test]
fn what_would_stop_the_thread_panics_and_says_why() {
    hosted(|| {
        let nested = panic_of(|| block_on(async { block_on(tokio::time::sleep(HOUR)) }));
        assert!(nested.contains("no_wait"), "{nested}");
        let parks = panic_of(|| block_on(async { plainsong::time::sleep(HOUR) }));
        assert!(parks.contains("no_wait"), "{parks}");
        let task = spawn_local(async {
            let coroutine = plainsong::spawn(|| plainsong::time::sleep(HOUR));
            panic_of(|| coroutine.join())
        });
        let message = block_on(task).unwrap();
        assert!(message.contains("would stop all coroutines"), "{message}");
        let task = spawn_local(async {
            let (one, _two) = plainsong::net::UnixStream::pair().unwrap();
            let reads = panic_of(|| (&one).read(&mut [0]));
            let waits = panic_of(|| plainsong::io::wait_readable(&one));
            [reads, waits, panic_of(|| plainsong::time::sleep(HOUR))]
        });
        for message in block_on(task).unwrap() {
            assert!(message.contains("would stop all coroutines"), "{message}");
        }
        // tokio's own refusals, which end nothing else.
        let handle = tokio::runtime::Handle::current();
        panic_of(|| handle.block_on(ready(())));
        panic_of(|| tokio::task::block_in_place(|| ()));
        panic_of(|| oneshot::channel::<()>().1.blocking_recv());
        assert_eq!(block_on(ready(7)), 7);
    });
}

#[test]
fn a_second_runtime_on_the_thread_is_refused() {
    watch(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(async { run(|| ()).unwrap_err() });
        assert!(error.to_string().contains("already"), "{error}");
        // One after the other is fine.
        run(|| block_on(tokio::time::sleep(MOMENT))).unwrap();
        run(|| block_on(tokio::time::sleep(MOMENT))).unwrap();
    });
}

#[test]
fn a_lack_of_descriptors_is_an_error_and_does_not_end_the_process() {
    const FEW: &str = "PLAINSONG_TOKIO_FEW_DESCRIPTORS";
    if env::var_os(FEW).is_none() {
        let status = Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
            .arg(env::current_exe().unwrap())
            .args(["a_lack_of_descriptors_is_an_error", "--test-threads=1"])
            .env(FEW, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    // tokio opens some for the whole process.
    run(|| ()).unwrap();
    let file = File::open("/dev/null").unwrap();
    let results: Vec<bool> = (0..20)
        .map(|free| {
            // The loop of a new thread needs some of its own.
            let new = std::thread::spawn(move || {
                std::thread::park();
                run(|| block_on(ready(7))).is_ok_and(|seven| seven == 7)
            });
            let mut held: Vec<File> = std::iter::from_fn(|| file.try_clone().ok()).collect();
            held.truncate(held.len() - free);
            new.thread().unpark();
            new.join().unwrap()
        })
        .collect();
    assert!(!results[0] && results[19] && results.is_sorted(), "{results:?}");
}

#[test]
fn each_worker_has_a_runtime_of_its_own() {
    let body = || {
        block_on(tokio::time::sleep(MOMENT));
        let here = std::thread::current().id();
        let task = spawn_local(async { std::thread::current().id() });
        assert_eq!(block_on(task).unwrap(), here);
        here
    };
    watch(move || {
        let runtime = plainsong::Runtime::builder().workers(2).build().unwrap();
        run_on(&runtime, || {
            let (started, starts) = std::sync::mpsc::channel();
            let there = plainsong::spawn_anywhere(move || {
                started.send(()).unwrap();
                body()
            });
            // Blocks this thread, so the other worker starts it.
            starts.recv().unwrap();
            let here = body();
            assert_ne!(here, there.join().unwrap());
            // A coroutine of the other worker is woken by a task of this one.
            let (sender, receiver) = oneshot::channel();
            let (started, starts) = std::sync::mpsc::channel();
            let there = plainsong::spawn_anywhere(move || {
                started.send(()).unwrap();
                (std::thread::current().id(), block_on(receiver))
            });
            starts.recv().unwrap();
            spawn_local(async move { sender.send(7).unwrap() });
            let (thread, received) = there.join().unwrap();
            assert_ne!(thread, here);
            assert_eq!(received, Ok(7));
        })
        .unwrap();
    });
}

#[test]
fn handles_spawn_into_a_run_from_tasks_and_threads() {
    hosted(|| {
        let handle = plainsong::Handle::current();
        let count = Arc::new(AtomicUsize::new(0));
        let (theirs, other) = (count.clone(), handle.clone());
        let task = spawn_local(async move {
            for _ in 0..100 {
                let count = theirs.clone();
                other.spawn(move || count.fetch_add(1, Ordering::Relaxed)).await.unwrap();
            }
        });
        let theirs = count.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..100 {
                let count = theirs.clone();
                handle.spawn(move || count.fetch_add(1, Ordering::Relaxed)).join().unwrap();
            }
        });
        block_on(task).unwrap();
        plainsong::blocking(move || thread.join().unwrap());
        assert_eq!(count.load(Ordering::Relaxed), 200);
    });
}

#[test]
fn tokios_threads_files_processes_and_signals_serve_coroutines() {
    hosted(|| {
        assert_eq!(block_on(tokio::task::spawn_blocking(|| 7)).unwrap(), 7);
        let manifest =
            block_on(tokio::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
        assert!(manifest.unwrap().contains("plainsong-tokio"));
        let output = block_on(tokio::process::Command::new("echo").arg("hello").output());
        assert_eq!(output.unwrap().stdout, b"hello\n");
    });
}

#[test]
fn ctrl_c_reaches_both() {
    use plainsong::signal::Signals;
    use signal_hook::consts::SIGINT;
    hosted(|| {
        let mut ours = Signals::new([SIGINT]).unwrap();
        let coroutine = plainsong::spawn(move || ours.wait().unwrap());
        let mut theirs = pin!(tokio::signal::ctrl_c());
        // The first poll installs the handler.
        block_on(poll_fn(|cx| {
            assert!(theirs.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }));
        signal_hook::low_level::raise(SIGINT).unwrap();
        block_on(theirs).unwrap();
        assert_eq!(coroutine.join().unwrap(), SIGINT);
    });
}

#[test]
fn a_paused_clock_holds_for_coroutines_too() {
    hosted(|| {
        tokio::time::pause();
        let began = (tokio::time::Instant::now(), plainsong::time::now());
        // While all wait, the clock jumps to the first deadline, whichever side has it.
        let order = Rc::new(RefCell::new(Vec::new()));
        let push = |name: &'static str| {
            let order = order.clone();
            move || order.borrow_mut().push(name)
        };
        let (second, third, fourth) = (push("task"), push("timeout"), push("end"));
        let task = spawn_local(async move {
            tokio::time::sleep(2 * HOUR).await;
            second();
        });
        let coroutine = plainsong::spawn(move || {
            let timed = plainsong::time::timeout(3 * HOUR, || block_on(pending::<()>()));
            assert!(timed.is_err());
            third();
        });
        plainsong::time::sleep(HOUR);
        push("sleep")();
        block_on(task).unwrap();
        coroutine.join().unwrap();
        block_on(plainsong::time::Sleep::new(HOUR));
        fourth();
        assert_eq!(*order.borrow(), ["sleep", "task", "timeout", "end"]);
        assert_eq!(began.0.elapsed().as_secs(), 4 * HOUR.as_secs());
        assert_eq!((plainsong::time::now() - began.1).as_secs(), 4 * HOUR.as_secs());
        // And it is moved by hand.
        let sleeps = plainsong::spawn(|| plainsong::time::sleep(HOUR));
        plainsong::yield_now();
        block_on(tokio::time::advance(HOUR));
        plainsong::yield_now();
        assert!(sleeps.is_finished());
        tokio::time::resume();
        plainsong::time::sleep(MOMENT);
        block_on(tokio::time::sleep(MOMENT));
    });
}

#[test]
fn a_task_wakes_by_any_means_of_both() -> io::Result<()> {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    hosted(|| {
        // An unpark, a lock, an event and a cancellation, each from a task.
        let parked = plainsong::spawn(plainsong::thread::park);
        let lock = Rc::new(plainsong::sync::Mutex::new(()));
        let guard = lock.lock();
        let theirs = lock.clone();
        let locks = plainsong::spawn(move || drop(theirs.lock()));
        let sleeps = plainsong::spawn(|| plainsong::time::sleep(HOUR));
        plainsong::yield_now();
        let thread = parked.thread().clone();
        let (done, ended) = oneshot::channel();
        let sleeper = plainsong::spawn(move || {
            let _ = plainsong::time::timeout(HOUR, || sleeps.join());
            done.send(()).unwrap();
        });
        spawn_local(async move { thread.unpark() });
        parked.join().unwrap();
        drop(guard);
        locks.join().unwrap();
        spawn_local(async move { sleeper.cancel() });
        assert!(block_on(ended).is_err());
        // A waker that is not tokio's.
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut sleep = Box::pin(plainsong::time::Sleep::new(MOMENT));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        block_on(tokio::time::sleep(20 * MOMENT));
        assert!(flag.0.load(Ordering::Relaxed));
    });
    Ok(())
}

#[test]
fn a_task_sets_timers_of_coroutines_that_wait_without_one() {
    hosted(|| {
        let (sender, receiver) = oneshot::channel();
        let (late, after) = oneshot::channel();
        spawn_local(async move {
            // The coroutines wait by now, without a timer.
            tokio::time::sleep(MOMENT).await;
            plainsong::time::Sleep::new(MOMENT).await;
            sender.send(()).unwrap();
            tokio::time::sleep(MOMENT).await;
            plainsong::time::after(MOMENT, || late.send(()).unwrap());
        });
        block_on(receiver).unwrap();
        block_on(after).unwrap();
    });
}
