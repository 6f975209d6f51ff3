//! Helpers that the tests share.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::net;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::{JoinHandle, Runtime, ScopedJoinHandle, spawn_anywhere};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::gettid;

use crate::sys;

/// A time that never passes in a test.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// A time that may pass in a test.
pub(crate) const MOMENT: Duration = Duration::from_millis(1);

/// A test that takes longer than this hangs. Even on a slow and busy machine and under a sanitizer,
/// none comes close.
const HANG: Duration = Duration::from_secs(120);
const CHILD: &str = "PLAINSONG_TEST_CHILD";
/// A program that runs this one, where the system cannot: an emulator.
const RUNNER: &str = "PLAINSONG_TEST_RUNNER";

// ---- where a test runs ----

/// Runs `body` on a thread of its own, and fails if it hangs.
#[track_caller]
pub(crate) fn watch<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = body();
        // The receiver is dropped if this took too long.
        let _ = done.send(());
        result
    });
    if ended.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
        panic!("hangs");
    }
    thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// Runs `body` as a coroutine, on a thread of its own.
#[track_caller]
pub(crate) fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    watch(|| plainsong::run(body))
}

/// Runs `body` as a coroutine and then on a plain thread: a blocking call must work in both.
#[track_caller]
pub(crate) fn both(body: fn()) {
    run(body);
    watch(body);
}

/// A runtime with this many workers.
pub(crate) fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

/// Runs `body` on a runtime with this many workers.
#[track_caller]
pub(crate) fn run_on<T: Send + 'static>(
    workers: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    watch(move || runtime(workers).run(body))
}

/// Starts `f` on another worker. The calling worker blocks its thread until `f` has started, so it
/// cannot start `f` itself.
pub(crate) fn on_another<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (started, starts) = mpsc::channel();
    let handle = spawn_anywhere(move || {
        started.send(()).unwrap();
        f()
    });
    starts.recv().unwrap();
    handle
}

/// Runs `test`, the test that calls this, in a process of its own, where only `body` runs. There
/// it can count what the process holds, lower its limits, and end it.
#[track_caller]
pub(crate) fn alone<F: Copy>(test: F, body: impl FnOnce()) {
    if let Some(output) = child(test, body) {
        assert!(output.status.success(), "{}", describe(&output));
    }
}

/// Like [`alone`], for a body that ends its process. Returns the process's output, and `None` in
/// the child process itself.
#[track_caller]
pub(crate) fn dying<F: Copy>(test: F, body: impl FnOnce()) -> Option<String> {
    let output = child(test, body)?;
    assert!(!output.status.success(), "the process should have failed. {}", describe(&output));
    Some(describe(&output))
}

fn child<F: Copy>(_test: F, body: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        sys::end_in(2 * HANG.as_secs() as u32);
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
        body();
        return None;
    }
    let (_, name) = type_name::<F>().split_once("::").unwrap();
    let output = this_program()
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(ran, "no test is called {name}");
    Some(output)
}

/// Starts this program once more.
pub(crate) fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let Some(runner) = std::env::var_os(RUNNER) else { return Command::new(program) };
    let mut command = Command::new(runner);
    command.arg(program);
    command
}

fn describe(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

// ---- waiting for something to happen ----

/// Yields until `done` returns true.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        plainsong::yield_now();
    }
}

/// A handle of a coroutine, of a scope or not.
pub(crate) trait Handle: Debug {
    fn has_ended(&self) -> bool;
}

impl<T> Handle for JoinHandle<T> {
    fn has_ended(&self) -> bool {
        self.is_finished()
    }
}

impl<T> Handle for ScopedJoinHandle<'_, T> {
    fn has_ended(&self) -> bool {
        self.is_finished()
    }
}

/// Yields until a coroutine waits for something.
#[track_caller]
pub(crate) fn until_parked(handle: &impl Handle) {
    until_waits_for(handle, "");
}

/// Yields until a coroutine waits for what its handle shows as `what`.
#[track_caller]
pub(crate) fn until_waits_for(handle: &impl Handle, what: &str) {
    until(|| {
        assert!(!handle.has_ended(), "ended, and should have parked");
        format!("{handle:?}").contains(&format!("waits for {what}"))
    });
}

/// Starts `body` on a plain thread, and yields until that thread sleeps in the kernel.
pub(crate) fn asleep<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(gettid()).unwrap();
        body()
    });
    until_asleep(told.recv().unwrap());
    thread
}

/// Calls `then` on another thread as soon as the calling thread sleeps in the kernel. Call this
/// right before a wait that blocks the whole thread.
pub(crate) fn once_asleep<T: Send + 'static>(
    then: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let caller = gettid();
    thread::spawn(move || {
        until_asleep(caller);
        then()
    })
}

/// Yields until a thread of this process sleeps in the kernel.
pub(crate) fn until_asleep(thread: Pid) {
    until(|| is_asleep(thread));
}

/// Whether the kernel says that a thread of this process sleeps.
pub(crate) fn is_asleep(thread: Pid) -> bool {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    let stat = fs::read_to_string(path).expect("the thread has ended, and should have slept");
    // The state follows the name, which is in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Yields until all other threads of this process sleep in the kernel.
pub(crate) fn until_others_sleep() {
    let id = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        Pid::from_raw(name.to_str()?.parse().ok()?)
    };
    let caller = gettid();
    until(|| {
        let threads = fs::read_dir("/proc/self/task").unwrap().filter_map(id);
        threads.filter(|thread| *thread != caller).all(is_asleep)
    });
}

/// Makes a wait and what ends it, and has the wait begin first: in a coroutine, and on a plain
/// thread.
pub(crate) fn both_wait<W, E>(make: fn() -> (W, E))
where
    W: FnOnce() + Send + 'static,
    E: FnOnce() + Send + 'static,
{
    run(move || {
        let (wait, end) = make();
        let waiting = plainsong::spawn(wait);
        until_parked(&waiting);
        // On a thread of its own: this one is needed by the coroutine.
        let ending = thread::spawn(end);
        waiting.join().unwrap();
        ending.join().unwrap();
    });
    watch(move || {
        let (wait, end) = make();
        let waiting = asleep(wait);
        end();
        waiting.join().unwrap();
    });
}

/// Blocks this whole thread until a descriptor is readable.
pub(crate) fn until_readable(fd: impl AsFd) {
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
}

// ---- what this process holds, and its limits ----

/// Open descriptors of this process.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Mappings of this process.
pub(crate) fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// A figure in KiB of this process's status.
pub(crate) fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Resident memory of this process, in KiB, without file pages: the kernel loads and drops those
/// as it likes.
pub(crate) fn resident() -> usize {
    status("RssAnon")
}

/// Address space of this process, in bytes.
pub(crate) fn address_space() -> u64 {
    status("VmSize") as u64 * 1024
}

fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

/// Lets this process open descriptors below this number.
pub(crate) fn limit_descriptors(below: u64) {
    limit(Resource::Nofile, Some(below));
}

/// Limits the address space of this process, in bytes.
pub(crate) fn limit_memory(bytes: Option<u64>) {
    limit(Resource::As, bytes);
}

// ---- sockets and files ----

/// A connection: this library's end, and std's.
pub(crate) fn pair() -> (TcpStream, net::TcpStream) {
    let (ours, theirs) = std_pair();
    (TcpStream::from(ours), theirs)
}

/// A connection of std's.
pub(crate) fn std_pair() -> (net::TcpStream, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (ours, theirs)
}

/// A listener, and its address.
pub(crate) fn listen() -> (TcpListener, net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener that accepts nothing and whose queue is full, its address, and the clients that
/// fill the queue: a further connection is not answered.
pub(crate) fn full_listener() -> (OwnedFd, net::SocketAddr, Vec<OwnedFd>) {
    let socket = || rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let listener = socket();
    rustix::net::bind(&listener, &net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
    let clients = (0..8).map(|_| {
        let client = socket();
        rustix::io::ioctl_fionbio(&client, true).unwrap();
        let _ = rustix::net::connect(&client, &address);
        client
    });
    let clients = clients.collect();
    (listener, address, clients)
}

/// Closes a connection so that the other side sees a reset.
pub(crate) fn reset(stream: net::TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A new folder, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plainsong-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the system's own clean-up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---- panics and errors ----

/// The message of the panic in which `f` must end.
#[track_caller]
pub(crate) fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("did not panic"),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// The kind of the error that `result` must be.
#[track_caller]
pub(crate) fn kind<T: Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

// ---- random numbers, drops, handles ----

/// A state for [`below`] that depends on the seed.
pub(crate) fn seeded(seed: u64) -> Cell<u64> {
    Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

/// A pseudo-random number below `bound`. (xorshift64)
pub(crate) fn below(random: &Cell<u64>, bound: usize) -> usize {
    let mut x = random.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    random.set(x);
    (x >> 33) as usize % bound
}

/// Calls a function when dropped.
/// Calls `f`, a blocking call of std, until no signal interrupts it: a dump of another test
/// interrupts all threads, and a socket with a time-out is not restarted.
pub(crate) fn uninterrupted<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match f() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(crate) fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}

pub(crate) fn load(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

/// A guard that adds one to the counter when dropped.
pub(crate) fn count_drop(counter: &Arc<AtomicUsize>) -> OnDrop<impl FnMut() + Send + 'static> {
    let counter = counter.clone();
    OnDrop(move || _ = counter.fetch_add(1, Ordering::SeqCst))
}

/// Spawns a coroutine that runs `body` with its own handle. The handle is in the returned slot
/// before `body` begins and after it has ended.
pub(crate) fn spawn_with_handle(
    body: impl FnOnce(&JoinHandle<()>) + 'static,
) -> Rc<RefCell<Option<JoinHandle<()>>>> {
    let slot = Rc::new(RefCell::new(None::<JoinHandle<()>>));
    let theirs = Rc::clone(&slot);
    let handle = plainsong::spawn(move || {
        let handle = theirs.borrow_mut().take().unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| body(&handle)));
        *theirs.borrow_mut() = Some(handle);
        result.unwrap_or_else(|payload| panic::resume_unwind(payload));
    });
    *slot.borrow_mut() = Some(handle);
    slot
}
