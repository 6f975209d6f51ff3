//! The program as it is, on plainsong-std and on std itself.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server that runs until this is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child =
            Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // The rest of its output has no reader: the pipe is closed here.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").expect("an address").trim().to_owned();
        Self { child, address }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        Client { output: stream.try_clone().unwrap(), input: BufReader::new(stream) }
    }

    /// How many threads of the operating system it has.
    fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Client {
    output: TcpStream,
    input: BufReader<TcpStream>,
}

impl Client {
    fn ask(&mut self, line: &str) -> String {
        self.output.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.input.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

/// The example, which cargo builds before its tests.
fn on_plainsong() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/kv")
}

/// The same file on std itself.
fn on_std(folder: &Path) -> PathBuf {
    let program = folder.join("kv");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kv.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc.args(["--edition", "2024", "-A", "warnings", "-o"]).arg(&program).arg(source);
    assert!(rustc.status().unwrap().success());
    program
}

fn answers(program: &Path, folder: &Path) {
    let log = folder.join("log");
    let log = log.to_str().unwrap();
    let server = Server::start(program, &["127.0.0.1:0", log]);
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!(one.ask("set colour light green"), "ok");
    assert_eq!(two.ask("get colour"), "light green");
    assert_eq!(two.ask("get size"), "no size");
    assert_eq!(two.ask("remove colour"), "ok");
    assert_eq!(one.ask("remove colour"), "nothing to remove");
    assert!(one.ask("what").starts_with("use: "));
    for n in 0..100 {
        assert_eq!(one.ask(&format!("set key-{n} {n}")), "ok");
    }
    assert_eq!(two.ask("count"), "100");
    // The log is written behind the answers, and then has a line for each change.
    while fs::read_to_string(log).unwrap().lines().count() < 103 {
        std::thread::yield_now();
    }
    drop(server);

    let server = Server::start(program, &["127.0.0.1:0", log]);
    assert_eq!(server.connect().ask("get key-99"), "99");
    assert_eq!(server.connect().ask("count"), "100");
}

#[test]
fn the_server_answers_alike_on_plainsong_and_on_std() {
    let folder = std::env::temp_dir().join(format!("plainsong-kv-{}", std::process::id()));
    for (name, program) in [("plainsong", None), ("std", Some(on_std as fn(&Path) -> PathBuf))] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let program = program.map_or_else(on_plainsong, |build| build(&folder));
        answers(&program, &folder);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn hundreds_of_connections_take_no_threads_of_the_system() {
    let server = Server::start(&on_plainsong(), &["127.0.0.1:0"]);
    let mut clients: Vec<_> = (0..400).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("set {n} {n}")), "ok");
    }
    assert_eq!(clients[0].ask("count"), "400");
    // The workers, and a few beside them.
    let workers = std::thread::available_parallelism().unwrap().get();
    assert!(server.threads() <= workers + 4, "{} threads", server.threads());
}

#[test]
fn a_mistake_is_explained() {
    let output = Command::new(on_plainsong()).arg("127.0.0.1:no-port").output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("127.0.0.1:no-port"), "{error}");
    let output = Command::new(on_plainsong()).args(["1", "2", "3"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("usage: kv [ADDR [LOG]]"), "{error}");
    let output = Command::new(on_plainsong()).args(["127.0.0.1:0", "/no/folder/log"]).output();
    let error = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(error.contains("cannot use the log /no/folder/log"), "{error}");
}
