//! Traits over the runtimes, so that each benchmark is written twice and not once for each runtime:
//! for runtimes where a wait is an ordinary call, and for those where it is `.await`.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// A runtime where a wait is an ordinary call.
pub(super) trait Stackful: 'static {
    type Task<T: Send + 'static>;

    /// Runs `body` in a task of a new runtime on one thread.
    fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<T>;
    fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static)
    -> Result<Self::Task<T>>;
    fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T>;
    /// Whether there is a safe way to cancel a task.
    const CANCELS: bool;
    /// Cancels a task, if there is a safe way.
    fn cancel<T: Send + 'static>(task: &Self::Task<T>);
    fn yield_now();
    fn sleep(duration: Duration);
    /// Waits like a sleeper, but without a timer, to be cancelled. Where tasks cannot be cancelled,
    /// waits for [`Stackful::unpark`].
    fn sleep_without_timer() {
        Self::park();
    }
    /// Waits, without a timer, for [`Stackful::unpark`].
    fn park();
    fn unpark<T: Send + 'static>(task: &Self::Task<T>);
}

/// A runtime where a wait is `.await`.
pub(super) trait Async: 'static {
    type Task<T: Send + 'static>;

    /// Runs `body` in a new runtime on one thread.
    fn run<T>(body: impl Future<Output = T>) -> Result<T>;
    fn spawn<T: Send + 'static>(body: impl Future<Output = T> + Send + 'static) -> Self::Task<T>;
    async fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T>;
    fn cancel<T: Send + 'static>(task: Self::Task<T>);
    fn detach<T: Send + 'static>(task: Self::Task<T>);
    fn yield_now() -> impl Future<Output = ()> + Send;
    fn sleep(duration: Duration) -> impl Future + Send;
}

pub(super) struct Plainsong;

impl Stackful for Plainsong {
    type Task<T: Send + 'static> = plainsong::JoinHandle<T>;

    fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        Ok(plainsong::run(body))
    }

    fn spawn<T: Send + 'static>(
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self::Task<T>> {
        Ok(plainsong::spawn(body))
    }

    fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T> {
        task.join().map_err(|error| anyhow!("{error}"))
    }

    const CANCELS: bool = true;

    fn cancel<T: Send + 'static>(task: &Self::Task<T>) {
        task.cancel();
    }

    #[inline]
    fn yield_now() {
        plainsong::yield_now();
    }

    fn sleep(duration: Duration) {
        plainsong::time::sleep(duration);
    }

    fn sleep_without_timer() {
        // The clock cannot represent that time.
        plainsong::time::sleep(Duration::MAX);
    }

    fn park() {
        plainsong::thread::park();
    }

    fn unpark<T: Send + 'static>(task: &Self::Task<T>) {
        task.thread().unpark();
    }
}

pub(super) struct May;

impl Stackful for May {
    type Task<T: Send + 'static> = may::coroutine::JoinHandle<T>;

    /// The body is a coroutine too. Otherwise each of its waits would block and wake a thread.
    fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        may::config().set_workers(1);
        May::join(may::go!(body))
    }

    fn spawn<T: Send + 'static>(
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self::Task<T>> {
        Ok(may::go!(body))
    }

    fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T> {
        task.join().map_err(|_| anyhow!("a coroutine panicked"))
    }

    /// It can, but the function is unsafe.
    const CANCELS: bool = false;

    fn cancel<T: Send + 'static>(_: &Self::Task<T>) {}

    #[inline]
    fn yield_now() {
        may::coroutine::yield_now();
    }

    fn sleep(duration: Duration) {
        may::coroutine::sleep(duration);
    }

    fn park() {
        may::coroutine::park();
    }

    fn unpark<T: Send + 'static>(task: &Self::Task<T>) {
        task.coroutine().unpark();
    }
}

pub(super) struct Threads;

impl Stackful for Threads {
    type Task<T: Send + 'static> = thread::JoinHandle<T>;

    fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        Ok(body())
    }

    fn spawn<T: Send + 'static>(
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self::Task<T>> {
        thread::Builder::new().spawn(body).context("no more threads")
    }

    fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T> {
        task.join().map_err(|_| anyhow!("a thread panicked"))
    }

    const CANCELS: bool = false;

    fn cancel<T: Send + 'static>(_: &Self::Task<T>) {}

    #[inline]
    fn yield_now() {
        thread::yield_now();
    }

    fn sleep(duration: Duration) {
        thread::sleep(duration);
    }

    fn park() {
        thread::park();
    }

    fn unpark<T: Send + 'static>(task: &Self::Task<T>) {
        task.thread().unpark();
    }
}

pub(super) struct Tokio;

impl Async for Tokio {
    type Task<T: Send + 'static> = tokio::task::JoinHandle<T>;

    fn run<T>(body: impl Future<Output = T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(body))
    }

    fn spawn<T: Send + 'static>(body: impl Future<Output = T> + Send + 'static) -> Self::Task<T> {
        tokio::spawn(body)
    }

    async fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T> {
        Ok(task.await?)
    }

    fn cancel<T: Send + 'static>(task: Self::Task<T>) {
        task.abort();
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        drop(task);
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future + Send {
        tokio::time::sleep(duration)
    }
}

/// smol's executor on this thread alone. `smol::spawn` would run the tasks on another thread, and
/// every wake-up would cross threads.
static SMOL: smol::Executor<'static> = smol::Executor::new();

pub(super) struct Smol;

impl Async for Smol {
    type Task<T: Send + 'static> = smol::Task<T>;

    fn run<T>(body: impl Future<Output = T>) -> Result<T> {
        Ok(smol::block_on(SMOL.run(body)))
    }

    fn spawn<T: Send + 'static>(body: impl Future<Output = T> + Send + 'static) -> Self::Task<T> {
        SMOL.spawn(body)
    }

    async fn join<T: Send + 'static>(task: Self::Task<T>) -> Result<T> {
        Ok(task.await)
    }

    fn cancel<T: Send + 'static>(task: Self::Task<T>) {
        drop(task);
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        task.detach();
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future + Send {
        smol::Timer::after(duration)
    }
}
