//! Which of the marker traits each public type has, and that no public type is left out.
//!
//! A row that changes is a change of the public interface. A type that loses a trait breaks the
//! programs that need it; a type that gains one cannot lose it again, and may be unsound.

#![cfg(feature = "signal")]

use std::any::type_name;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::rc::Rc;

// The feature `macros` has a `test` of its own.
use std::prelude::v1::test;

use plainsong::*;

/// A type that is neither `Send` nor `Sync`. `Cell<i32>` is only the former.
type Local = Rc<i32>;

/// Public types without a row. The first cannot be named. The other needs the feature `top`, and is
/// looked at where that is tested.
const NAMELESS: &[&str] = &["plainsong::io::copy::PooledBuf", "plainsong::inspect::serve::Serving"];

trait Unknown {
    const IS: bool = false;
}

impl<T: ?Sized> Unknown for T {}

/// Whether a type that is known here implements a trait.
macro_rules! implements {
    ($type:ty, $trait:ident) => {{
        // The constant of `Known` hides the one of `Unknown` where its bound holds.
        struct Known<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code)]
        impl<T: ?Sized + $trait> Known<T> {
            const IS: bool = true;
        }
        <Known<$type>>::IS
    }};
}

/// The path of a type, what the table says, and what is true.
type Row = (&'static str, &'static str, String);

macro_rules! table {
    ($($type:ty => $($trait:ident)*;)*) => {
        fn table() -> Vec<Row> {
            vec![$((type_name::<$type>(), stringify!($($trait)*), {
                let mut traits = Vec::new();
                if implements!($type, Send) { traits.push("Send"); }
                if implements!($type, Sync) { traits.push("Sync"); }
                if implements!($type, Unpin) { traits.push("Unpin"); }
                if implements!($type, UnwindSafe) { traits.push("UnwindSafe"); }
                if implements!($type, RefUnwindSafe) { traits.push("RefUnwindSafe"); }
                traits.join(" ")
            })),*]
        }
    };
}

table! {
    AccessError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    Builder => Send Sync Unpin UnwindSafe RefUnwindSafe;
    CancellationToken => Send Sync Unpin UnwindSafe RefUnwindSafe;
    Handle => Send Sync Unpin UnwindSafe RefUnwindSafe;
    Id => Send Sync Unpin UnwindSafe RefUnwindSafe;
    JoinError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    JoinFuture<i32> => Send Sync Unpin;
    JoinFuture<Local> => Unpin;
    JoinHandle<i32> => Send Sync Unpin;
    JoinHandle<Cell<i32>> => Send Sync Unpin;
    JoinHandle<Local> => Unpin;
    LocalKey<Local> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    Runtime => Send Sync Unpin UnwindSafe RefUnwindSafe;
    RuntimeBuilder => Send Sync Unpin UnwindSafe RefUnwindSafe;
    Scope<'static, 'static> => Send Sync Unpin RefUnwindSafe;
    ScopedJoinHandle<'static, i32> => Send Sync Unpin;
    ScopedJoinHandle<'static, Local> => Unpin;
    fs::DirBuilder => Send Sync Unpin UnwindSafe RefUnwindSafe;
    fs::DirEntry => Send Sync Unpin UnwindSafe RefUnwindSafe;
    fs::File => Send Sync Unpin UnwindSafe RefUnwindSafe;
    fs::OpenOptions => Send Sync Unpin UnwindSafe RefUnwindSafe;
    fs::ReadDir => Send Sync Unpin UnwindSafe RefUnwindSafe;
    fs::TryLockError => Send Sync Unpin;
    generator::Generator<i32> => Unpin;
    generator::Yielder<i32> => Unpin;
    host::Guest<'static> => Unpin;
    host::Next => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::DuplexStream => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Answer => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::BlockingPool => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Cause => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Coroutine => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Coroutines => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Counts => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Dump => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Frame => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Histogram => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Holder => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Leaks => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Metrics => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Place => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Prometheus<'static> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Recorder => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Stack => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Stall => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::State => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Trace => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::WaitsFor => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::WorkerMetrics => Send Sync Unpin UnwindSafe RefUnwindSafe;
    inspect::Worker => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::Interest => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::LineReader<&'static [u8]> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::PipeReader => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::PipeWriter => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::Pollable<std::net::UdpSocket> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::Stderr => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::StderrLock<'static> => Sync Unpin UnwindSafe RefUnwindSafe;
    io::Stdin => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::StdinLock<'static> => Sync Unpin UnwindSafe RefUnwindSafe;
    io::Stdout => Send Sync Unpin UnwindSafe RefUnwindSafe;
    io::StdoutLock<'static> => Sync Unpin UnwindSafe RefUnwindSafe;
    net::Incoming<'static> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::Server => Send Sync Unpin;
    net::ServerCounters => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::TcpListener => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::TcpStream => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::UdpSocket => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::UnixDatagram => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::UnixListener => Send Sync Unpin UnwindSafe RefUnwindSafe;
    net::UnixStream => Send Sync Unpin UnwindSafe RefUnwindSafe;
    pool::Map<i32> => Send Sync Unpin;
    pool::Map<Local> => Unpin;
    pool::MapError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    pool::Pool => Send Sync Unpin UnwindSafe RefUnwindSafe;
    process::Child => Send Sync Unpin UnwindSafe RefUnwindSafe;
    process::ChildStderr => Send Sync Unpin UnwindSafe RefUnwindSafe;
    process::ChildStdin => Send Sync Unpin UnwindSafe RefUnwindSafe;
    process::ChildStdout => Send Sync Unpin UnwindSafe RefUnwindSafe;
    process::Command => Send Sync Unpin;
    signal::Signals => Send Sync Unpin;
    sync::AcquireError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Barrier => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::BarrierWaitResult => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Condvar => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Event => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::GetError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::LazyLock<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::LazyLock<Cell<i32>> => Send Unpin UnwindSafe;
    sync::LazyLock<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::Mutex<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Mutex<Cell<i32>> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Mutex<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::MutexGuard<'static, i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::MutexGuard<'static, Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    sync::Once => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::OnceLock<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::OnceLock<Cell<i32>> => Send Unpin UnwindSafe;
    sync::OnceLock<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedMutexGuard<i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedMutexGuard<Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedRwLockReadGuard<i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedRwLockReadGuard<Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedRwLockWriteGuard<i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedRwLockWriteGuard<Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    sync::OwnedSemaphorePermit => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Promise<i32> => Send Sync Unpin;
    sync::Promise<Cell<i32>> => Unpin;
    sync::Promise<Local> => Unpin;
    sync::PromiseError => Send Sync Unpin;
    sync::PutError<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Queue<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Queue<Cell<i32>> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::Queue<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::ReentrantMutex<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::ReentrantMutex<Cell<i32>> => Send Sync Unpin UnwindSafe;
    sync::ReentrantMutex<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::ReentrantMutexGuard<'static, i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::ReentrantMutexGuard<'static, Cell<i32>> => Unpin;
    sync::RwLock<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::RwLock<Cell<i32>> => Send Unpin UnwindSafe RefUnwindSafe;
    sync::RwLock<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::RwLockReadGuard<'static, i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::RwLockReadGuard<'static, Cell<i32>> => Unpin;
    sync::RwLockWriteGuard<'static, i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::RwLockWriteGuard<'static, Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    sync::Semaphore => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::SemaphorePermit<'static> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::TryAcquireError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::TryGetError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::TryPutError<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::WaitGroup => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::WaitTimeoutResult => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::Receiver<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::Receiver<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::RecvError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::Sender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::WeakSender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::Sender<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::broadcast::TryRecvError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::IntoIter<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Iter<'static, i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Receiver<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Receiver<Cell<i32>> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Receiver<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::channel::RecvError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::RecvFuture<'static, i32> => Send Sync Unpin;
    sync::channel::RecvTimeoutError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::SendError<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::SendTimeoutError<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Sender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Sender<Cell<i32>> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::Sender<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::channel::TryIter<'static, i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::TryRecvError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::channel::TrySendError<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::mpsc::Receiver<i32> => Send Unpin UnwindSafe RefUnwindSafe;
    sync::mpsc::Receiver<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::mpsc::Sender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::mpsc::Sender<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::mpsc::SyncSender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::oneshot::Receiver<i32> => Send Sync Unpin;
    sync::oneshot::Receiver<Local> => Unpin;
    sync::oneshot::Sender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::oneshot::Sender<Local> => Unpin UnwindSafe RefUnwindSafe;
    sync::select::Accepting<'static, net::TcpListener> => Send Unpin;
    sync::select::Descriptor<'static> => Unpin;
    sync::select::ReadyTimeoutError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::select::Select<'static> => Unpin;
    sync::select::SelectTimeoutError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::select::SelectedOperation<'static> => Unpin;
    sync::select::TryReadyError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::select::TrySelectError => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::watch::Receiver<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::watch::Receiver<Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    sync::watch::Ref<'static, i32> => Sync Unpin UnwindSafe RefUnwindSafe;
    sync::watch::Sender<i32> => Send Sync Unpin UnwindSafe RefUnwindSafe;
    sync::watch::Sender<Cell<i32>> => Unpin UnwindSafe RefUnwindSafe;
    task::AsCompleted<i32> => Send Sync Unpin;
    task::AsCompleted<Local> => Unpin;
    thread::Builder => Send Sync Unpin UnwindSafe RefUnwindSafe;
    thread::JoinHandle<i32> => Send Sync Unpin;
    thread::JoinHandle<Local> => Unpin;
    thread::Thread => Send Sync Unpin UnwindSafe RefUnwindSafe;
    thread::ThreadId => Send Sync Unpin UnwindSafe RefUnwindSafe;
    time::Elapsed => Send Sync Unpin UnwindSafe RefUnwindSafe;
    time::Interval => Send Sync Unpin UnwindSafe RefUnwindSafe;
    time::Sleep => Send Sync Unpin UnwindSafe RefUnwindSafe;
    time::MissedTickBehavior => Send Sync Unpin UnwindSafe RefUnwindSafe;
    time::Timer => Unpin UnwindSafe RefUnwindSafe;
}

#[test]
fn each_type_has_the_traits_of_its_row() {
    let wrong: Vec<String> = table()
        .into_iter()
        .filter(|(_, expected, actual)| expected != actual)
        .map(|(name, expected, actual)| format!("{name} => {actual}; (expected {expected})"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_public_type_has_a_row() {
    let without_arguments = |name: &'static str| name.split('<').next().unwrap();
    let rows: BTreeSet<_> = table().into_iter().map(|(name, ..)| without_arguments(name)).collect();
    let mut types = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    public_types(&source, "plainsong", &mut types);
    let missing: Vec<_> = types
        .iter()
        .map(String::as_str)
        .filter(|name| !rows.contains(name) && !NAMELESS.contains(name))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:#?}");
    assert!(types.len() > 100, "only {} types found", types.len());
}

/// Adds the paths of the types in a folder that are `pub`. The lint `unreachable_pub` ensures that
/// these are public.
fn public_types(folder: &Path, module: &str, types: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let inner = match name {
            "mod" | "lib" => module.to_owned(),
            _ => format!("{module}::{name}"),
        };
        if path.is_dir() {
            public_types(&path, &inner, types);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut in_macro = false;
        for line in text.lines() {
            let words = line.trim_start();
            let rest = ["pub struct ", "pub enum ", "pub union "];
            let rest = rest.iter().find_map(|start| words.strip_prefix(start));
            let name = rest.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
            types.extend(
                name.filter(|name| !name.is_empty()).map(|name| format!("{inner}::{name}")),
            );
            // A type whose name is an argument of a macro of this file.
            in_macro = line.ends_with("! {") && !line.starts_with(' ') || in_macro && line != "}";
            if in_macro && text.contains("pub struct $") && !words.starts_with("//") {
                let names = words.split(", ").filter(|name| {
                    name.starts_with(|c: char| c.is_uppercase())
                        && name.contains(char::is_lowercase)
                });
                types.extend(names.map(|name| format!("{inner}::{name}")));
            }
        }
    }
}
