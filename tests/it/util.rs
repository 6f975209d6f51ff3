//! What the tests share.

use std::any::type_name;
use std::cell::Cell;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::net;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use plainsong::net::TcpStream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::sys;

/// When a test counts as hanging: far above what any takes on a slow and busy machine.
const HANG: Duration = Duration::from_secs(40);
const CHILD: &str = "PLAINSONG_TEST_CHILD";

/// Runs `body` on a thread of its own, and fails where it hangs.
#[track_caller]
pub(crate) fn watch<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = body();
        // Nobody listens any more if this took too long.
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

/// Runs `body` as a coroutine and on a plain thread: what blocks must work in both.
#[track_caller]
pub(crate) fn both(body: fn()) {
    run(body);
    watch(body);
}

/// Runs `test`, which calls this, in a process of its own, where only `body` runs. There it can count
/// what the process has, change its limits, and end it.
#[track_caller]
pub(crate) fn alone<F: Copy>(test: F, body: impl FnOnce()) {
    if let Some(output) = child(test, body) {
        assert!(output.status.success(), "{}", describe(&output));
    }
}

/// Like [`alone`], for a body that ends its process: returns what it wrote, and `None` in the child.
#[track_caller]
pub(crate) fn dying<F: Copy>(test: F, body: impl FnOnce()) -> Option<String> {
    let output = child(test, body)?;
    assert!(!output.status.success(), "was to end its process. {}", describe(&output));
    Some(describe(&output))
}

fn child<F: Copy>(_test: F, body: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        sys::end_in(50);
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
        body();
        return None;
    }
    let (_, name) = type_name::<F>().split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(ran, "no test is called {name}");
    Some(output)
}

fn describe(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Descriptors that this process has open.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Mappings of this process.
pub(crate) fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Resident memory of this process, in KiB. Without the pages of its files: those come and go by
/// themselves.
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

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

/// Closes a connection so that the other side sees a reset.
pub(crate) fn reset(stream: net::TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Blocks this whole thread until a descriptor is readable.
pub(crate) fn until_readable(fd: impl AsFd) {
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
}

/// Lets others run until `done`.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        plainsong::yield_now();
    }
}

/// Lets others run until this coroutine waits for something.
#[track_caller]
pub(crate) fn until_parked<T>(handle: &plainsong::JoinHandle<T>) {
    until(|| {
        assert!(!handle.is_finished(), "was to wait, and has ended");
        format!("{handle:?}").contains("waits for")
    });
}

/// The message of the panic that `f` must end in.
#[track_caller]
pub(crate) fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let payload = match panic::catch_unwind(AssertUnwindSafe(f)) {
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

/// A number below `below`. (xorshift64)
pub(crate) fn below(random: &Cell<u64>, below: usize) -> usize {
    let mut x = random.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    random.set(x);
    (x >> 33) as usize % below
}

/// Calls a function when dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
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
        // What is left is in a folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lets this process open descriptors up to this number, not included.
pub(crate) fn limit_descriptors(soft: u64) {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum }).unwrap();
}
