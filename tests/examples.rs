//! Runs the examples as a user would: each in a process of its own, driven through sockets of std's.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

#[path = "examples/httpd.rs"]
mod httpd;

/// How long anything may take before the test gives it up.
const PATIENCE: Duration = Duration::from_secs(30);

/// An example that runs; it is killed when this is dropped.
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

    /// Kills a server, which must have printed nothing since it listened.
    fn stop(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has ended by itself");
        self.child.kill().unwrap();
        assert_eq!(rest_of(&self.stdout), [""; 0]);
        assert_eq!(rest_of(&self.stderr), [""; 0]);
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

/// What is printed until the program ends.
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

    /// Whether the server has closed the connection, in order or with a reset.
    fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
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
fn time_server_tells_every_client_the_time_each_second() {
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

/// Enters an empty chat with three guests.
fn three_guests(address: &str) -> [Client; 3] {
    let mut ann = Client::connect(address);
    assert_eq!(ann.line(), "*** you are guest 1; others here: 0");
    let mut bob = Client::connect(address);
    assert_eq!(bob.line(), "*** you are guest 2; others here: 1");
    assert_eq!(ann.line(), "*** guest 2 joined");
    let mut cid = Client::connect(address);
    assert_eq!(cid.line(), "*** you are guest 3; others here: 2");
    assert_eq!(ann.line(), "*** guest 3 joined");
    assert_eq!(bob.line(), "*** guest 3 joined");
    [ann, bob, cid]
}

#[test]
fn chat_passes_each_line_to_all_others() {
    let (server, address) = Program::serve("chat");
    let [mut ann, mut bob, mut cid] = three_guests(&address);

    ann.send("hello\n");
    assert_eq!(bob.line(), "guest 1: hello");
    assert_eq!(cid.line(), "guest 1: hello");

    // As telnet sends it, in two pieces; and blank lines, which are nothing to pass on.
    bob.send("good ");
    bob.send("day\r\n\r\n\n");
    // This is also the next that Ann reads: her own line has not come back.
    assert_eq!(ann.line(), "guest 2: good day");
    assert_eq!(cid.line(), "guest 2: good day");

    // Escape sequences stay out of the others' terminals.
    cid.send("\x1b[2Jclear\x07\n");
    assert_eq!(ann.line(), "guest 3: [2Jclear");
    assert_eq!(bob.line(), "guest 3: [2Jclear");

    // A last line without an end, and then the end.
    cid.send("bye");
    cid.end();
    for guest in [&mut ann, &mut bob] {
        assert_eq!(guest.line(), "guest 3: bye");
        assert_eq!(guest.line(), "*** guest 3 left");
    }
    assert!(cid.is_closed());

    drop(bob);
    assert_eq!(ann.line(), "*** guest 2 left");
    let mut dan = Client::connect(&address);
    assert_eq!(dan.line(), "*** you are guest 4; others here: 1");
    assert_eq!(ann.line(), "*** guest 4 joined");
    server.stop();
}

#[test]
fn chat_passes_on_a_long_line_in_pieces() {
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, _cid] = three_guests(&address);
    ann.send(&"x".repeat(2500));
    ann.send("\nnext\n");
    for len in [1000, 1000, 500] {
        assert_eq!(bob.line(), format!("guest 1: {}", "x".repeat(len)));
    }
    assert_eq!(bob.line(), "guest 1: next");
    server.stop();
}

#[test]
fn chat_loses_nothing_of_a_burst_to_guests_who_read() {
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, mut cid] = three_guests(&address);
    // More lines than wait for a guest, and fewer bytes than the sockets' buffers hold.
    ann.send(&(0..1000).map(|n| format!("{n}\n")).collect::<String>());
    for guest in [&mut bob, &mut cid] {
        (0..1000).for_each(|n| assert_eq!(guest.line(), format!("guest 1: {n}")));
    }
    server.stop();
}

#[test]
fn chat_tells_a_guest_that_did_not_read_how_many_lines_it_lost() {
    const LINES: usize = 100_000;
    // As many as wait for a guest at most: who reads after each window loses nothing.
    const WINDOW: usize = 200;

    let (server, address) = Program::serve("chat");
    let [mut ann, mut bob, mut cid] = three_guests(&address);

    // Some 50 MB in all, far more than the sockets' buffers take for Cid, who does not read.
    let padding = "x".repeat(500);
    for first in (0..LINES).step_by(WINDOW) {
        let window: String = (first..first + WINDOW).map(|n| format!("{n} {padding}\n")).collect();
        ann.send(&window);
        for n in first..first + WINDOW {
            assert_eq!(bob.line(), format!("guest 1: {n} {padding}"));
        }
    }

    // Each line is there, in its place, or in the count of those lost in its place.
    let (mut n, mut lost) = (0, 0);
    while n < LINES {
        let line = cid.line();
        if let Some(count) = line.strip_prefix("*** ").and_then(|l| l.strip_suffix(" lines lost")) {
            let count: usize = count.parse().unwrap();
            assert!(count > 0);
            lost += count;
            n += count;
        } else {
            assert_eq!(line, format!("guest 1: {n} {padding}"));
            n += 1;
        }
    }
    assert_eq!(n, LINES);
    assert!(lost > LINES / 2, "only {lost} lines were lost: the others waited, or much is kept");

    // It is a guest like the others again.
    bob.send("welcome back\n");
    assert_eq!(cid.line(), "guest 2: welcome back");
    assert_eq!(ann.line(), "guest 2: welcome back");
    cid.send("thanks\n");
    assert_eq!(bob.line(), "guest 3: thanks");
    server.stop();
}

#[test]
fn chat_lets_guests_go_that_have_much_unread() {
    let (server, address) = Program::serve("chat");
    let [mut ann, mut bob, cid] = three_guests(&address);
    bob.send(&format!("{}\n", "x".repeat(900)).repeat(20_000));
    drop(cid);
    assert_eq!(bob.line(), "*** guest 3 left");
    ann.end();
    assert_eq!(bob.line(), "*** guest 1 left");
    // What the system has taken already still comes, and then the end.
    io::copy(&mut ann.0, &mut io::sink()).unwrap();
    server.stop();
}

#[test]
fn clients_take_one_second_together() {
    let (server, address) = Program::serve("echo");
    let start = Instant::now();
    let output = Program::start("clients", &[&address]).output();
    let took = start.elapsed();

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

    // What the example is there to show: the three wait at the same time.
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(2500), "{took:?}");
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
        // Nobody may listen on port 80.
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
        "failed: https://127.0.0.1/: only http://",
        "failed: http://127.0.0.1:port/: ",
        "9 pages in ",
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

/// Runs an example that must fail, and returns what it says.
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
    // A port that nobody listens on, and that no other test is given meanwhile.
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
    let output = Program::start("scope", &["127.0.0.1:1", "nonsense", "nonsense"]).output();
    assert_eq!(output.len(), 4, "{output:#?}");
    assert!(output[3].starts_with("3 answers in "), "{output:#?}");
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
fn philosophers_that_keep_none_are_told_of_their_deadlock() {
    let (code, stdout, stderr) = Program::start("dining_philosophers", &["wrong"]).finish();
    assert_eq!((code, stdout), (Some(101), vec![]));
    let report = stderr.join("\n");
    assert!(report.contains("deadlock"), "{report}");
    for name in ["Socrates", "Hypatia", "Kant", "Arendt", "Confucius"] {
        let about = report.lines().find(|line| line.contains(&format!("'{name}'")));
        assert!(about.is_some_and(|line| line.contains("a lock")), "{report}");
    }
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

/// Sends a signal to a program.
fn signal(program: &Program, name: &str) {
    let id = program.child.id().to_string();
    let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
    assert!(status.success());
}

#[test]
fn servers_of_lines_hold_no_endless_one_in_memory() {
    for name in ["graceful_shutdown", "activated"] {
        let (server, address) = Program::serve(name);
        let mut client = Client::connect(&address);
        let endless = "x".repeat(8192);
        client.send(&endless);
        assert_eq!(client.receive(endless.len()), endless.as_bytes());
        server.stop();
    }
}

#[test]
fn graceful_shutdown_serves_all_who_are_connected() {
    for name in ["TERM", "INT"] {
        let (server, address) = Program::serve("graceful_shutdown");
        let mut served = Client::connect(&address);
        served.send("before\r\n");
        assert_eq!(served.line(), "before");
        let mut idle = Client::connect(&address);
        idle.send("idle\r\n");
        assert_eq!(idle.line(), "idle");
        // Half a request has come when the signal does.
        let mut halfway = Client::connect(&address);
        halfway.send("one\r\ntw");
        assert_eq!(halfway.line(), "one");
        // These have sent their requests, and may not have been accepted yet.
        let late: Vec<Client> = (0..50)
            .map(|n| {
                let client = Client::connect(&address);
                client.send(&format!("request {n}\r\nand another\r\n"));
                client.end();
                client
            })
            .collect();
        signal(&server, name);
        let line = server.stdout.recv_timeout(PATIENCE).unwrap();
        assert!(line.starts_with("stopping"), "{line}");
        halfway.send("o\r\n");
        assert_eq!(halfway.line(), "two");
        halfway.end();
        for (n, mut client) in late.into_iter().enumerate() {
            assert_eq!(client.line(), format!("request {n}"));
            assert_eq!(client.line(), "and another");
            assert!(client.is_closed());
        }
        assert!(served.is_closed() && idle.is_closed() && halfway.is_closed());
        let output = server.output();
        assert_eq!(output, ["stopped"]);
        assert!(TcpStream::connect(&address).is_err());
    }
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
    // One that is not there any more when the answer comes costs the others nothing.
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
        // What is left is in a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn echoes_on(path: &Path) {
    let mut clients = [(); 3].map(|()| UnixStream::connect(path).unwrap());
    for text in ["plain", "song"] {
        for client in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(text.as_bytes()).unwrap();
        }
        for client in &mut clients {
            let mut echo = vec![0; text.len()];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(echo, text.as_bytes());
        }
    }
    for mut client in clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn unix_echo_takes_its_name_along_and_takes_over_what_a_dead_one_left() {
    let folder = Folder::new("unix-echo");
    let path = folder.0.join("socket");
    let name = path.to_str().unwrap();

    // Killed, it leaves its file behind, and the next one is not kept from listening.
    for _ in 0..2 {
        let server = Program::start("unix_echo", &[name]);
        assert_eq!(server.address(), name);
        echoes_on(&path);
        server.stop();
        assert!(path.exists());
    }

    // One that runs is not disturbed.
    let server = Program::start("unix_echo", &[name]);
    server.address();
    let error = error_of("unix_echo", name);
    assert!(error.contains("socket") && error.contains("in use"), "{error}");
    echoes_on(&path);

    // Told to go, it goes with its file, also while somebody is connected.
    let mut idle = UnixStream::connect(&path).unwrap();
    signal(&server, "TERM");
    assert_eq!(server.output(), [""; 0]);
    assert!(!path.exists());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);

    // Nor is one that accepts nobody for a while.
    let busy = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&busy, 0).unwrap();
    let waits = UnixStream::connect(&path).unwrap();
    let error = error_of("unix_echo", name);
    assert!(error.contains("in use"), "{error}");
    drop((busy, waits));
    std::fs::remove_file(&path).unwrap();

    // Another kind of file is left as it is.
    std::fs::write(&path, "precious").unwrap();
    error_of("unix_echo", name);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    error_of("unix_echo", name);
    drop(listener);
}

/// Starts a proxy for a server of ours, and returns it with its address.
fn proxy_to(target: &TcpListener) -> (Program, String) {
    let target = target.local_addr().unwrap().to_string();
    let proxy = Program::start("proxy", &["127.0.0.1:0", &target]);
    let address = proxy.address();
    (proxy, address)
}

#[test]
fn proxy_passes_both_directions_on_and_each_end_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, address) = proxy_to(&listener);
    let mut client = Client::connect(&address);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut server = Client(BufReader::new(stream));

    client.send("ping");
    assert_eq!(server.receive(4), b"ping");
    server.send("pong");
    assert_eq!(client.receive(4), b"pong");
    // The client has said everything, and still reads.
    client.end();
    assert!(server.is_closed());
    let text = "A long answer to a question that is over. ".repeat(200_000);
    thread::scope(|scope| {
        scope.spawn(|| server.send(&text));
        assert!(client.receive(text.len()) == text.as_bytes());
    });
    server.end();
    assert!(client.is_closed());

    // The same with the server as the first to end.
    let mut client = Client::connect(&address);
    let (stream, _) = listener.accept().unwrap();
    let mut server = Client(BufReader::new(stream));
    server.end();
    assert!(client.is_closed());
    client.send("late");
    assert_eq!(server.receive(4), b"late");
    client.end();
    assert!(server.is_closed());
    proxy.stop();
}

#[test]
fn proxy_ends_both_sides_when_one_breaks_and_serves_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, address) = proxy_to(&listener);
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    };
    let bystander = Client::connect(&address);
    let mut its_server = accept();

    // A side that goes with unread data is a reset for the other.
    let client = Client::connect(&address);
    let mut server = accept();
    server.send("never read");
    client.send("x");
    assert_eq!(server.receive(1), b"x");
    client.0.get_ref().peek(&mut [0]).unwrap();
    drop(client);
    assert!(server.is_closed());
    // A server that has gone is an end for the client.
    let mut client = Client::connect(&address);
    drop(accept());
    assert!(client.is_closed());
    drop(client);

    bystander.send("well");
    assert_eq!(its_server.receive(4), b"well");
    drop(listener);
    let mut refused = Client::connect(&address);
    assert!(refused.is_closed());
    proxy.stop();
}

#[test]
fn proxy_says_what_is_wrong_with_its_arguments() {
    for args in [&[][..], &["127.0.0.1:0"], &["127.0.0.1:0", "a", "b"]] {
        let (code, stdout, stderr) = Program::start("proxy", args).finish();
        assert_eq!((code, stdout), (Some(1), vec![]));
        assert!(stderr.concat().contains("usage: proxy LISTEN TARGET"), "{stderr:?}");
    }
    let (code, _, stderr) = Program::start("proxy", &["nonsense", "127.0.0.1:1"]).finish();
    assert!(code == Some(1) && stderr.concat().contains("HOST:PORT"), "{stderr:?}");
}

/// Starts a server as an init system would: with a listener at descriptor 3.
fn activated(listener: &TcpListener, names: &str) -> Program {
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3<&0 </dev/null"#;
    let listener = OwnedFd::from(listener.try_clone().unwrap());
    Program::spawn(
        Command::new("sh")
            .args(["-c", script])
            .arg(path_of("activated"))
            .env("LISTEN_FDNAMES", names)
            .stdin(listener),
    )
}

/// Sends a line, gets it back, and sees the end.
fn exchange(address: &str, n: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let line = format!("line {n}\n");
    stream.write_all(line.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut echo = String::new();
    stream.read_to_string(&mut echo)?;
    if echo == line { Ok(()) } else { Err(io::Error::other(format!("{echo:?} for {line:?}"))) }
}

#[test]
fn activated_is_replaced_under_load_and_nobody_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    // More exchanges from now on, by whichever server.
    let more = |count| {
        let (before, since) = (done.load(Ordering::SeqCst), Instant::now());
        while done.load(Ordering::SeqCst) < before + count {
            assert!(since.elapsed() < PATIENCE, "no server serves");
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        let clients = [(); 4].map(|()| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    exchange(&address, done.load(Ordering::SeqCst))?;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                io::Result::Ok(())
            })
        });
        // Clients that come before any server are in the listener's queue.
        let mut old = activated(&listener, "");
        assert_eq!(old.address(), address);
        for round in 0..10 {
            more(50);
            // One that is in the middle of something when its server is told to go.
            let mut halfway = Client::connect(&address);
            halfway.send("half ");
            let new = activated(&listener, if round % 2 == 0 { "echo" } else { "other" });
            assert_eq!(new.address(), address);
            more(50);
            signal(&old, "TERM");
            halfway.send("a line\n");
            let mut line = String::new();
            halfway.0.read_line(&mut line).unwrap();
            assert_eq!(line, "half a line\n");
            drop(halfway);
            assert_eq!(old.output(), ["stopped"]);
            old = new;
        }
        // And with nobody to accept for a while.
        signal(&old, "TERM");
        assert_eq!(old.output(), ["stopped"]);
        old = activated(&listener, "");
        assert_eq!(old.address(), address);
        more(50);
        over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().unwrap().unwrap();
        }
        signal(&old, "TERM");
        assert_eq!(old.output(), ["stopped"]);
    });
}

#[test]
fn activated_opens_a_listener_of_its_own_if_it_is_given_none() {
    let (server, address) = Program::serve("activated");
    exchange(&address, 1).unwrap();
    signal(&server, "INT");
    assert_eq!(server.output(), ["stopped"]);
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn pubsub_tells_all_and_says_what_the_slow_one_has_missed() {
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
fn files_counts_what_it_may_read() {
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
fn stdin_chat_client_sends_and_prints_at_once() {
    let (server, address) = Program::serve("chat");
    let enter = || {
        let (reader, writer) = io::pipe().unwrap();
        (Program::start_reading("stdin_chat_client", &[&address], reader.into()), writer)
    };
    let heard = |client: &Program| client.stdout.recv_timeout(PATIENCE).unwrap();
    let (first, mut first_types) = enter();
    assert_eq!(heard(&first), "*** you are guest 1; others here: 0");
    let (second, mut second_types) = enter();
    assert_eq!(heard(&second), "*** you are guest 2; others here: 1");
    assert_eq!(heard(&first), "*** guest 2 joined");
    for n in 0..10 {
        // While each waits for its keyboard, it prints what comes.
        writeln!(first_types, "hello {n}").unwrap();
        assert_eq!(heard(&second), format!("guest 1: hello {n}"));
        writeln!(second_types, "answer {n}").unwrap();
        assert_eq!(heard(&first), format!("guest 2: answer {n}"));
    }
    drop(first_types);
    assert_eq!(first.output(), [""; 0]);
    assert_eq!(heard(&second), "*** guest 1 left");
    // A server that goes ends the client, which still waits for its keyboard.
    server.stop();
    assert_eq!(second.output(), [""; 0]);
    drop(second_types);
}
