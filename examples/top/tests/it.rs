//! A server that opts in, and its viewers.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use plainsong::inspect::serve;
use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("plainsong-top-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("inspect.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The example server, until this is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(socket: &Path) -> Self {
        // Cargo builds examples before tests, beside the folder of the tests.
        let program = env::current_exe().unwrap();
        let program = program.parent().unwrap().with_file_name("examples").join("top_server");
        let mut child = Command::new(program).arg(socket).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").expect("an address").trim().to_owned();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn echo(mut stream: &TcpStream) {
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
}

fn top(socket: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_top");
    Command::new(program).arg(socket).args(arguments).output().unwrap()
}

fn report(socket: &Path) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    stream.read_to_string(&mut line)?;
    assert!(line.ends_with('\n'), "{} bytes", line.len());
    Ok(serde_json::from_str(&line)?)
}

fn refusal(path: &Path) -> io::Error {
    serve(path).expect_err("the path is taken")
}

#[test]
fn a_screen_shows_a_server_under_load() {
    let folder = Folder::new("load");
    let server = Server::start(&folder.socket());
    let clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    clients.iter().for_each(echo);
    let (over, ends) = mpsc::channel::<()>();
    let busy = server.connect();
    let load = thread::spawn(move || {
        while ends.try_recv() == Err(mpsc::TryRecvError::Empty) {
            echo(&busy);
        }
    });
    let shown = top(&folder.socket(), &["--once", "--order", "name"]);
    drop(over);
    load.join().unwrap();
    let screen = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success(), "{screen}");
    let has = |words: &[&str]| {
        assert!(
            screen.lines().any(|line| words.iter().all(|word| line.contains(word))),
            "{words:?} in\n{screen}"
        );
    };
    has(&["top_server, process", &server.child.id().to_string()]);
    has(&["coroutines", "26 (", " parked)"]);
    has(&["parked for", "read descriptor", "1 lock Mutex", "1 recv channel"]);
    has(&["a second", " turns, "]);
    has(&["times", "a turn takes up to", "workers sleep"]);
    has(&["26 coroutines by: name"]);
    has(&["job queue", "parked", "recv, channel created at examples/top/server.rs:"]);
    has(&["report", "parked", "lock Mutex at examples/top/server.rs:"]);
    has(&["listener", "accept tcp 127.0.0.1:"]);
    // It computes for some milliseconds in each turn.
    has(&["statistics", " ms "]);
    // The first one by name, with the program's frames.
    has(&["#3 'job queue'"]);
    has(&["0  top_server::", "server.rs:"]);
}

#[test]
fn a_picture_has_the_words_of_the_screen() {
    let folder = Folder::new("picture");
    let _server = Server::start(&folder.socket());
    let file = folder.0.join("top.svg");
    let shown = top(&folder.socket(), &["--svg", file.to_str().unwrap()]);
    assert!(shown.status.success() && shown.stdout.is_empty());
    let picture = fs::read_to_string(file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("listener"), "{picture}");
}

#[test]
fn the_end_of_a_server_is_said_and_the_next_one_can_serve_there() {
    let folder = Folder::new("end");
    let said = |what: &str| {
        let shown = top(&folder.socket(), &["--once"]);
        let error = String::from_utf8(shown.stderr).unwrap();
        assert!(!shown.status.success() && error.contains(what), "{error}");
    };
    said("nothing serves on ");
    let mut server = Server::start(&folder.socket());
    server.end();
    // Its file is there still.
    said("has ended");
    let _next = Server::start(&folder.socket());
    assert!(top(&folder.socket(), &["--once"]).status.success());
}

#[test]
fn viewers_that_go_away_or_are_slow_hurt_nobody() {
    let folder = Folder::new("slow");
    let server = Server::start(&folder.socket());
    // A report of these does not fit into the buffer of a socket.
    let clients: Vec<_> = (0..500).map(|_| server.connect()).collect();
    clients.iter().for_each(echo);
    for _ in 0..5 {
        let mut viewer = UnixStream::connect(folder.socket()).unwrap();
        viewer.read_exact(&mut [0; 10]).unwrap();
    }
    let mut slow = UnixStream::connect(folder.socket()).unwrap();
    slow.read_exact(&mut [0; 10]).unwrap();
    clients.iter().for_each(echo);
    let report = report(&folder.socket()).unwrap();
    let workers = report["dump"]["workers"].as_array().unwrap();
    let listed = workers.iter().map(|worker| worker["coroutines"].as_array().unwrap().len());
    assert_eq!(listed.sum::<usize>(), 505);
    // The slow one has been given up.
    let mut rest = Vec::new();
    let end = slow.read_to_end(&mut rest);
    assert!(end.is_err() || rest.last() != Some(&b'\n'));
}

#[test]
fn very_many_coroutines_are_not_all_listed() {
    let folder = Folder::new("many");
    let _serving = serve(folder.socket()).unwrap();
    plainsong::run(|| {
        for _ in 0..2_000 {
            plainsong::spawn(|| plainsong::time::sleep(PATIENCE));
        }
        plainsong::yield_now();
        let mut line = String::new();
        let mut stream = plainsong::net::UnixStream::connect(folder.socket()).unwrap();
        stream.read_to_string(&mut line).unwrap();
        let report: Value = serde_json::from_str(&line).unwrap();
        // There may be runs of other tests.
        let workers = report["dump"]["workers"].as_array().unwrap().iter();
        let listed_and_not = workers.map(|worker| {
            let listed = worker["coroutines"].as_array().unwrap().len() as u64;
            (listed, worker["unlisted"].as_u64().unwrap())
        });
        let (listed, unlisted) = listed_and_not.max().unwrap();
        assert!((100..=1_000).contains(&listed), "{listed}");
        assert_eq!(listed + unlisted, 2_001);
    });
}

#[test]
fn a_worker_that_is_stuck_is_shown() {
    let folder = Folder::new("stuck");
    let _serving = serve(folder.socket()).unwrap();
    let (over, ends) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let stuck = thread::spawn(move || {
        plainsong::run(|| {
            begun.send(()).unwrap();
            // This blocks the worker.
            let _ = ends.recv();
        });
    });
    begins.recv().unwrap();
    let report = report(&folder.socket()).unwrap();
    assert!(report.to_string().contains(r#""answer":"interrupted""#), "{report}");
    drop(over);
    stuck.join().unwrap();
}

#[test]
fn only_the_user_may_connect_and_the_file_goes_with_the_value() {
    let folder = Folder::new("mode");
    let serving = serve(folder.socket()).unwrap();
    let mode = fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(report(&folder.socket()).unwrap()["version"], 1);
    drop(serving);
    assert!(!folder.socket().exists());
}

#[test]
fn the_file_of_another_stays() {
    let folder = Folder::new("another");
    let serving = serve(folder.socket()).unwrap();
    fs::remove_file(folder.socket()).unwrap();
    let _another = serve(folder.socket()).unwrap();
    drop(serving);
    assert_eq!(report(&folder.socket()).unwrap()["version"], 1);
}

#[test]
fn a_path_that_is_taken_is_refused_and_the_socket_of_the_dead_is_replaced() {
    let folder = Folder::new("taken");
    drop(UnixListener::bind(folder.socket()).unwrap());
    let _serving = serve(folder.socket()).unwrap();
    let error = refusal(&folder.socket());
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("a program serves there: end it"), "{error}");
    let file = folder.0.join("file");
    fs::write(&file, "precious").unwrap();
    let error = refusal(&file);
    assert!(error.to_string().contains("is no socket: remove it"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let error = refusal(&folder.0.join("long".repeat(40)));
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let error = refusal(&folder.0.join("no folder").join("socket"));
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("no folder"), "{error}");
    // The system would cut it off there.
    let error = refusal(&folder.0.join("cut\0off"));
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(!folder.0.join("cut").exists());
    let error = refusal(Path::new(""));
    assert!(error.to_string().contains("cannot serve on"), "{error}");
}

#[test]
fn a_socket_that_is_served_may_be_kept_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    anywhere::<plainsong::inspect::Serving>();
}

#[test]
fn of_several_that_begin_at_once_one_serves() {
    let folder = Folder::new("race");
    for _ in 0..300 {
        // The socket of a program that has ended.
        drop(UnixListener::bind(folder.socket()).unwrap());
        let start = Barrier::new(8);
        let serving: Vec<_> = thread::scope(|s| {
            let begin = || {
                start.wait();
                serve(folder.socket())
            };
            let all: Vec<_> = (0..8).map(|_| s.spawn(begin)).collect();
            all.into_iter().filter_map(|one| one.join().unwrap().ok()).collect()
        });
        assert_eq!(serving.len(), 1);
        UnixStream::connect(folder.socket()).unwrap();
    }
}
