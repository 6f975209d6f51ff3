//! Runs the examples as a user would: each in a process of its own, driven through std's sockets.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

#[path = "examples/chat.rs"]
mod chat;
#[path = "examples/httpd.rs"]
mod httpd;
#[path = "examples/proxy.rs"]
mod proxy;
#[path = "examples/shutdown.rs"]
mod shutdown;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// An example that runs, until this is dropped.
struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Program {
    fn start(name: &str, args: &[&str]) -> Self {
        Self::start_reading(name, args, Stdio::null())
    }

    /// Starts an example that reads from `stdin`.
    fn start_reading(name: &str, args: &[&str], stdin: Stdio) -> Self {
        Self::spawn(Command::new(path_of(name)).args(args).stdin(stdin))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = lines_of(child.stdout.take().unwrap());
        let stderr = lines_of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Starts a server on a free port, and returns it with its address.
    fn serve(name: &str) -> (Self, String) {
        let server = Self::start(name, &["127.0.0.1:0"]);
        let address = server.address();
        (server, address)
    }

    /// Waits until a server listens, and returns where.
    fn address(&self) -> String {
        let Ok(line) = self.stdout.recv_timeout(PATIENCE) else {
            panic!("does not listen: {:?}", rest_of(&self.stderr));
        };
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    /// Kills a server, which must have printed nothing since it listened, but for the failures of
    /// connections that a client has broken.
    fn stop(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended by itself");
        self.child.kill().unwrap();
        assert_eq!(rest_of(&self.stdout), [""; 0]);
        let mut errors = rest_of(&self.stderr);
        errors.retain(|line| !line.starts_with("plainsong: the connection from "));
        assert_eq!(errors, [""; 0]);
    }

    /// Waits for the program to end, and returns its exit code, its output and its errors.
    fn finish(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let (stdout, stderr) = (rest_of(&self.stdout), rest_of(&self.stderr));
        (self.child.wait().unwrap().code(), stdout, stderr)
    }

    /// The output of a program that must succeed.
    fn output(self) -> Vec<String> {
        let (code, stdout, stderr) = self.finish();
        assert_eq!((code, stderr), (Some(0), vec![]));
        stdout
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo puts examples beside the folder of the tests: `examples/` and `deps/`.
fn path_of(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path =
        profile.join("examples").join(example).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.exists(),
        "the example {example} has not been built: there is no {}. `cargo test` builds the \
         examples; `cargo test --test examples` does not: run `cargo build --examples` first",
        path.display()
    );
    path
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The lines that are printed until the program ends.
fn rest_of(lines: &Receiver<String>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("the program does not end; so far: {rest:?}"),
        }
    }
}

/// A connection to an example.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&self, text: &str) {
        self.0.get_ref().write_all(text.as_bytes()).unwrap();
    }

    /// Half-closes the connection.
    fn end(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next line, which must end in CR LF as telnet wants it.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n")
            .unwrap_or_else(|| panic!("a line without CR LF: {line:?}"))
            .to_owned()
    }

    /// Whether the peer has reset the connection.
    fn is_reset(&mut self) -> bool {
        let end = io::copy(&mut self.0, &mut io::sink());
        end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Whether the peer has closed the connection, in order or with a reset.
    fn is_closed(&mut self) -> bool {
        // `read_exact` goes on after a signal, unlike `read`.
        let end = self.0.read_exact(&mut [0]).map_err(|error| error.kind());
        matches!(end, Err(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
    }
}

fn echoes(example: &str) {
    let (server, address) = Program::serve(example);

    let idle = Client::connect(&address);
    let mut clients = [(); 3].map(|()| Client::connect(&address));
    for text in ["plain", "song\n", "\r\n\0"] {
        clients.iter().for_each(|client| client.send(text));
        for client in &mut clients {
            assert_eq!(client.receive(text.len()), text.as_bytes());
        }
    }
    for client in &mut clients {
        client.end();
        assert!(client.is_closed());
    }

    // More than the sockets' buffers hold: it must be sent back while it comes.
    let text = "All that is sent comes back. ".repeat(500_000);
    let mut client = Client::connect(&address);
    let sender = Client(BufReader::new(client.0.get_ref().try_clone().unwrap()));
    thread::scope(|scope| {
        scope.spawn(|| sender.send(&text));
        assert!(client.receive(text.len()) == text.as_bytes(), "something else came back");
    });
    client.end();
    assert!(client.is_closed());

    drop(idle);
    server.stop();
}

#[test]
fn echo_sends_back_what_it_reads() {
    echoes("echo");
}

#[test]
fn echo_by_hand_sends_back_what_it_reads() {
    echoes("echo_by_hand");
}

#[test]
fn many_cores_sends_back_what_it_reads() {
    echoes("many_cores");
}

#[test]
fn time_server_sends_every_client_the_time_each_second() {
    let (server, address) = Program::serve("time_server");
    let mut clients = [(); 3].map(|()| Client::connect(&address));
    let ticks = clients.each_mut().map(|client| [(); 3].map(|()| second_of_day(&client.line())));
    for [first, second, third] in ticks {
        // A busy machine may make a tick late, never early; midnight is a wrap.
        let (a, b) = ((second + 86_400 - first) % 86_400, (third + 86_400 - second) % 86_400);
        assert!((1..30).contains(&a) && (1..30).contains(&b), "{first} {second} {third}");
    }
    server.stop();
}

/// Reads `HH:MM:SS UTC`.
fn second_of_day(text: &str) -> u32 {
    let time = text.strip_suffix(" UTC").unwrap_or_else(|| panic!("{text:?}"));
    let fields: Vec<u32> = time.split(':').map(|field| field.parse().unwrap()).collect();
    let [hour @ 0..24, minute @ 0..60, second @ 0..60] = fields[..] else { panic!("{text:?}") };
    assert_eq!(text.len(), "HH:MM:SS UTC".len());
    (hour * 60 + minute) * 60 + second
}

#[test]
fn clients_wait_together() {
    let (server, address) = Program::serve("echo");
    let output = Program::start("clients", &[&address]).output();

    let steps = [
        "tries to connect.",
        "connects.",
        r#"sends "Hello"."#,
        r#"receives "Hello"."#,
        r#"sends "world!"."#,
        r#"receives "world!"."#,
        "disconnects.",
    ];
    for id in 0..3 {
        let client = format!("] {}Client {id} ", " ".repeat(4 * id));
        let done: Vec<_> = output.iter().filter_map(|l| Some(l.split_once(&client)?.1)).collect();
        assert_eq!(done, steps, "client {id} of {output:#?}");
    }
    assert_eq!(output.len(), 3 * steps.len(), "{output:#?}");

    // `[00.602212] `: times that do not go back.
    let stamps: Vec<&str> = output.iter().map(|line| &line[..12]).collect();
    assert!(stamps.is_sorted(), "{output:#?}");
    for stamp in stamps {
        let digits = stamp.bytes().map(|c| if c.is_ascii_digit() { '0' } else { c as char });
        assert_eq!(digits.collect::<String>(), "[00.000000] ");
    }

    // The three wait at the same time: all have sent before any is done.
    let last_sent = output.iter().rposition(|line| line.contains("sends \"Hello\""));
    let first_done = output.iter().position(|line| line.contains("disconnects"));
    assert!(last_sent < first_done, "{output:#?}");
    server.stop();
}

#[test]
fn generators_produce_consume_and_take_turns() {
    let output = Program::start("generators", &[]).output();
    let expected = [
        "fib: [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]",
        r#"grep: looks for "song""#,
        "grep: a plain song",
        "grep: and a songbird",
        "grep: done",
        "task a: 3",
        "task b: 1",
        "task c: 2",
        "task a: 2",
        "task c: 1",
        "task a: 1",
    ];
    assert_eq!(output, expected);
}

#[test]
fn crawler_without_arguments_crawls_its_own_site() {
    let output = Program::start("crawler", &[]).output();
    assert_eq!(output.len(), 11, "{output:#?}");
    for (line, page) in output.iter().zip(1..=10) {
        assert!(line.starts_with("200     3800 bytes ") && line.contains(" s  http://127.0.0.1:"));
        assert!(line.ends_with(&format!("/page/{page}")), "{output:#?}");
    }
    assert!(output[10].starts_with("10 pages in "), "{output:#?}");
    assert!(output[10].ends_with(" s, 0 failed"), "{output:#?}");
}

#[test]
fn crawler_knows_addresses_of_ipv6() {
    let listener = TcpListener::bind("[::1]:0").ok();
    let port = listener.as_ref().map_or(1, |listener| listener.local_addr().unwrap().port());
    let urls = ["http://[::1]/".to_owned(), format!("http://[::1]:{port}/")];
    let crawler = Program::start("crawler", &urls.each_ref().map(String::as_str));
    if let Some(listener) = listener {
        let (stream, _) = listener.accept().unwrap();
        let mut client = Client(BufReader::new(stream));
        while !client.line().is_empty() {}
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let output = crawler.output();
        // There may be no listener on port 80.
        assert!(!output[0].contains("socket address"), "{output:#?}");
        assert!(output[1].starts_with("200 "), "{output:#?}");
    }
}

#[test]
fn crawler_reads_what_servers_send_and_says_what_failed() {
    let replies = [
        ("sized", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more"),
        ("endless", "HTTP/1.0 404 Not Found\r\n\r\nnothing is here"),
        (
            "chunked",
            "HTTP/1.1 203 Yes\r\nTransfer-Encoding: Chunked\r\n\r\n\
             3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        ),
        ("empty", "HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n"),
        ("short", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"),
        ("nonsense", "220 mail.example ESMTP\r\n\r\n"),
        ("silent", ""),
        (
            "hinted",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("hints-only", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    let host = site.clone();
    thread::spawn(move || {
        // All requests come before any reply: the fetches do not wait for one another.
        let requests = replies.map(|_| {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut client = Client(BufReader::new(stream));
            let request = client.line();
            assert_eq!(client.line(), format!("Host: {}", &host["http://".len()..]));
            while !client.line().is_empty() {}
            (request, client)
        });
        for (request, client) in requests {
            let of_this = |page: &str| request == format!("GET /{page} HTTP/1.1");
            let reply = replies.iter().find(|(page, _)| of_this(page));
            client.send(reply.unwrap_or_else(|| panic!("{request:?}")).1);
        }
    });

    let mut urls: Vec<String> = replies.iter().map(|(page, _)| format!("{site}/{page}")).collect();
    urls.push("https://127.0.0.1/".to_owned());
    urls.push("http://127.0.0.1:port/".to_owned());
    let args: Vec<&str> = urls.iter().map(String::as_str).collect();
    let output = Program::start("crawler", &args).output();

    let expected = [
        "200        5 bytes ",
        "404       15 bytes ",
        "203       19 bytes ",
        "204        0 bytes ",
        "failed: ",
        "failed: ",
        "failed: ",
        "200        2 bytes ",
        "failed: ",
        "failed: https://127.0.0.1/: the URL must begin with http://",
        "failed: http://127.0.0.1:port/: ",
        "5 pages in ",
    ];
    assert_eq!(output.len(), expected.len(), "{output:#?}");
    for (n, (line, start)) in output.iter().zip(expected).enumerate() {
        assert!(line.starts_with(start), "line {n} of {output:#?}");
        assert!(
            urls.get(n).is_none_or(|url| line.contains(url.as_str())),
            "line {n} of {output:#?}"
        );
    }
}

#[test]
fn crawler_fails_when_all_its_pages_do() {
    let (code, stdout, stderr) =
        Program::start("crawler", &["nonsense", "http://nonsense:0x"]).finish();
    assert_eq!((code, stdout.len(), stderr), (Some(1), 3, vec![]));
    assert!(
        stdout[2].starts_with("0 pages in ") && stdout[2].ends_with(", 2 failed"),
        "{stdout:?}"
    );
}

/// Runs an example that must fail, and returns its message.
fn error_of(example: &str, address: &str) -> String {
    let (code, stdout, stderr) = Program::start(example, &[address]).finish();
    assert_eq!(code, Some(1), "{example} {address}: {stderr:?}");
    assert!(!stdout.iter().any(|line| line.contains("listening")), "{example}: {stdout:?}");
    assert_eq!(stderr.len(), 1, "{example} {address}: {stderr:?}");
    stderr.concat()
}

#[test]
fn servers_name_an_address_that_they_cannot_listen_on() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let servers = ["echo", "echo_by_hand", "time_server", "chat", "graceful_shutdown", "activated"];
    for server in servers {
        let error = error_of(server, &taken);
        assert!(error.contains(&taken) && error.contains("in use"), "{server}: {error}");
        for address in ["nonsense", "127.0.0.1", "127.0.0.1:65536", ":4915", ""] {
            let error = error_of(server, address);
            assert!(error.contains(address) && error.contains("HOST:PORT"), "{server}: {error}");
        }
    }
}

#[test]
fn clients_name_a_server_that_does_not_answer() {
    // A port without a listener, that no other test gets meanwhile.
    let error = error_of("clients", "127.0.0.1:1");
    assert!(error.contains("127.0.0.1:1:") && error.contains("refused"), "{error}");
}

#[test]
fn timeout_ends_what_takes_too_long() {
    let output = Program::start("timeout", &[]).output();
    let expected = [
        "  cleaning up after a sleep",
        "a short sleep: Ok(10)",
        "  cleaning up after a sleep",
        "a long sleep: Err(Elapsed(()))",
        "a read: the time-out has passed first",
        "  cleaning up after a sleep",
        "the inner one: Err(Elapsed(()))",
        r#"the outer one: Ok("done")"#,
    ];
    assert_eq!(output, expected);
}

#[test]
fn scope_without_arguments_asks_its_own_servers() {
    let output = Program::start("scope", &[]).output();
    assert_eq!(output.len(), 4, "{output:#?}");
    for line in &output[..3] {
        assert!(line.starts_with("127.0.0.1:") && line.ends_with(": HTTP/1.0 200 OK"), "{line}");
    }
    assert!(output[3].starts_with("3 answers in "), "{output:#?}");
}

#[test]
fn scope_asks_all_before_any_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // The same server under three names.
    let port = address.rsplit(':').next().unwrap();
    let names = [address.clone(), format!("localhost:{port}"), format!("127.0.0.1:0{port}")];
    let args: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = Program::start("scope", &args);
    let clients = [(); 3].map(|()| {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client(BufReader::new(stream));
        assert_eq!(client.line(), "GET / HTTP/1.0");
        client
    });
    for (n, client) in clients.iter().enumerate() {
        client.send(&format!("answer {n}\r\n"));
    }
    let output = program.output();
    assert_eq!(output.len(), 4, "{output:#?}");
    for n in 0..3 {
        let answers = output.iter().filter(|line| line.ends_with(&format!(": answer {n}")));
        assert_eq!(answers.count(), 1, "{output:#?}");
    }
}

#[test]
fn scope_says_what_failed() {
    let (code, output, stderr) =
        Program::start("scope", &["127.0.0.1:1", "nonsense", "nonsense"]).finish();
    assert_eq!((code, output.len(), stderr), (Some(1), 4, vec![]), "{output:#?}");
    assert!(output[3].starts_with("0 answers in "), "{output:#?}");
    assert!(output[3].ends_with(" s, 3 failed"), "{output:#?}");
    assert!(output[0].starts_with("127.0.0.1:1: failed: "), "{output:#?}");
    assert!(output[1].starts_with("nonsense: failed: "), "{output:#?}");
}

#[test]
fn race_is_won_by_the_fastest() {
    let output = Program::start("race", &[]).output();
    let ended = "a client has ended";
    assert_eq!(output, [ended, ended, ended, "the winner says: I took 20 ms"]);
}

#[test]
fn producers_wait_for_slow_consumers() {
    let output = Program::start("producer_consumer", &[]).output();
    assert_eq!(output, ["everything is done", "18 things, each consumed once"]);
}

#[test]
fn philosophers_eat_when_they_keep_an_order() {
    let mut output = Program::start("dining_philosophers", &[]).output();
    output.sort();
    let names = ["Arendt", "Confucius", "Hypatia", "Kant", "Socrates"];
    assert_eq!(output, names.map(|name| format!("{name} has eaten")));
}

#[test]
fn philosophers_without_an_order_get_a_report_of_their_deadlock() {
    let (code, stdout, stderr) = Program::start("dining_philosophers", &["wrong"]).finish();
    assert_eq!((code, stdout), (Some(101), vec![]));
    let report = stderr.join("\n");
    assert!(report.contains("deadlock"), "{report}");
    for name in ["Socrates", "Hypatia", "Kant", "Arendt", "Confucius"] {
        let about = report.lines().find(|line| line.contains(&format!("'{name}'")));
        assert!(about.is_some_and(|line| line.contains("for lock Mutex at examples/")), "{report}");
    }
    assert!(report.contains("a cycle: "), "{report}");
}

#[test]
fn pools_do_their_jobs() {
    let (code, mut stdout, stderr) = Program::start("worker_pool", &[]).finish();
    stdout.sort();
    let lines = [
        "20 pauses are over, and their results are in order",
        "the job panicked: this job is broken",
        "the primes are counted",
        "there are 2262 primes below 20000",
    ];
    assert_eq!((code, stdout), (Some(0), lines.map(str::to_owned).to_vec()));
    assert!(stderr.iter().any(|line| line.contains("this job is broken")), "{stderr:#?}");
}

#[test]
fn udp_echo_sends_each_datagram_back() {
    let (server, address) = Program::serve("udp_echo");
    let clients = [(); 3].map(|()| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(&address).unwrap();
        socket
    });
    let mut buffer = vec![0; 65536];
    for len in [5, 0, 1, 65507] {
        for (client, n) in clients.iter().zip(1..) {
            assert_eq!(client.send(&vec![n; len]).unwrap(), len);
        }
        for (client, n) in clients.iter().zip(1..) {
            assert_eq!(client.recv(&mut buffer).unwrap(), len);
            assert!(buffer[..len].iter().all(|&byte| byte == n));
        }
    }
    // A client that has left before the answer comes costs the others nothing.
    let [one, two, _three] = clients;
    one.send(b"goodbye").unwrap();
    drop(one);
    for _ in 0..2 {
        two.send(b"still here").unwrap();
        assert_eq!(two.recv(&mut buffer).unwrap(), 10);
    }
    server.stop();
}

#[test]
fn udp_echo_names_an_address_that_it_cannot_have() {
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let error = error_of("udp_echo", &taken);
    assert!(error.contains(&taken) && error.contains("in use"), "{error}");
    assert!(error_of("udp_echo", "nonsense").contains("HOST:PORT"));
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plainsong-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If this fails, the files are at least in a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn pubsub_sends_to_all_and_counts_what_the_slow_one_has_missed() {
    assert_eq!(
        Program::start("pubsub", &[]).output(),
        [
            "first: 10 read, 0 missed, the last was message 10",
            "second: 10 read, 0 missed, the last was message 10",
            "slow: 4 read, 6 missed, the last was message 10",
        ]
    );
}

#[test]
fn pipeline_passes_all_through_its_stages() {
    assert_eq!(
        Program::start("pipeline", &[]).output(),
        ["odd squares that read the same backwards: 1, 9, 121, 10201, 12321, 14641, 94249"]
    );
}

#[test]
fn async_bridge_asks_through_tokio() {
    assert_eq!(
        Program::start("async_bridge", &[]).output(),
        ["tokio has counted 3 words", "ONE", "TWO", "THREE"]
    );
}

#[test]
fn files_counts_the_lines_of_all() {
    let dir = std::env::temp_dir().join(format!("plainsong-files-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("deep/er")).unwrap();
    let names: Vec<_> = (0..200).map(|n| dir.join(format!("deep/{n:03}"))).collect();
    for (n, name) in names.iter().enumerate() {
        std::fs::write(name, "line\n".repeat(n)).unwrap();
    }
    std::fs::write(dir.join("deep/er/one"), "no end").unwrap();
    let output = Program::start("files", &[dir.to_str().unwrap()]).output();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(output.len(), 202);
    for (n, (name, line)) in names.iter().zip(&output).enumerate() {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, [&n.to_string(), &(n * 5).to_string(), name.to_str().unwrap()]);
    }
    assert!(output[200].ends_with("deep/er/one"), "{}", output[200]);
    assert_eq!(
        output[201].split_whitespace().collect::<Vec<_>>().join(" "),
        "19900 99506 in 201 files"
    );
}

#[test]
fn files_needs_no_more_memory_for_many_and_leaves_out_what_is_no_file() {
    let folder = Folder::new("files-many");
    for n in 0..40 {
        let file = std::fs::File::create(folder.0.join(format!("{n}"))).unwrap();
        file.set_len(16 << 20).unwrap();
    }
    // To read it would take for ever.
    let _name = UnixListener::bind(folder.0.join("socket")).unwrap();
    let pipe = Command::new("mkfifo").arg(folder.0.join("pipe")).status().unwrap();
    assert!(pipe.success());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 450000; exec \"$0\" \"$1\""]);
    // Without address space for each thread to allocate from.
    command.args([&path_of("files"), &folder.0]).env("MALLOC_ARENA_MAX", "1");
    let output = Program::spawn(&mut command).output();
    assert_eq!(output.len(), 41);
    assert!(output[40].ends_with("671088640 in 40 files"), "{}", output[40]);
}

#[test]
fn files_counts_what_it_can_read() {
    let folder = Folder::new("files-closed");
    let closed = folder.0.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(folder.0.join("one"), "one\n").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.0.join("link")).unwrap();
    let allow = |mode| std::fs::set_permissions(&closed, Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    let is_root = std::fs::read_dir(&closed).is_ok();
    let (code, stdout, stderr) = Program::start("files", &[folder.0.to_str().unwrap()]).finish();
    allow(0o700);
    assert_eq!((code, stdout.len()), (Some(0), 2));
    // The superuser may read anything.
    assert!(is_root || stderr.concat().contains("closed"), "{stderr:?}");
}

#[test]
fn files_says_what_it_cannot_find() {
    let (code, stdout, stderr) = Program::start("files", &["no/such/file"]).finish();
    assert_eq!((code, stdout.len()), (Some(1), 0));
    assert!(stderr.concat().contains("No such file"), "{stderr:?}");
}

#[test]
fn files_ends_quietly_when_its_output_is_no_longer_read() {
    let folder = Folder::new("files-head");
    // Lines for more than a pipe holds.
    for n in 0..2000 {
        std::fs::write(folder.0.join(format!("{n:0>100}")), "line\n").unwrap();
    }
    let mut command = Command::new(path_of("files"));
    let mut child =
        command.arg(&folder.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("       1          5 "), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn examples_refuse_surplus_arguments() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut examples: Vec<String> = ["examples", "examples/async"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("Cargo.toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        // Some are no examples, the others take as many as they are given.
        .filter(|name| {
            !["args", "async", "crawler", "files", "pages", "real", "scope", "top"]
                .contains(&name.as_str())
        })
        .collect();
    examples.sort();
    assert!(examples.len() > 20, "{examples:?}");
    for name in examples {
        let (code, stdout, stderr) = Program::start(&name, &["one", "two", "three"]).finish();
        assert_eq!(
            (code, stdout.len(), stderr.len()),
            (Some(1), 0, 1),
            "{name}: {stdout:?} {stderr:?}"
        );
        assert!(stderr[0].starts_with(&format!("usage: {name}")), "{stderr:?}");
    }
    let (code, _, stderr) = Program::start("dining_philosophers", &["right"]).finish();
    assert_eq!((code, stderr.concat().as_str()), (Some(1), "usage: dining_philosophers [wrong]"));
}
