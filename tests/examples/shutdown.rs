//! The servers that stop on a signal: `graceful_shutdown`, `activated` and `unix_echo`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::{Client, Folder, PATIENCE, Program, error_of, lines_of, path_of};

/// Sends a signal to a program.
fn signal(program: &Program, name: &str) {
    let id = program.child.id().to_string();
    let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
    assert!(status.success());
}

#[test]
fn servers_of_lines_do_not_buffer_an_endless_one() {
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
fn graceful_shutdown_answers_all_that_are_connected() {
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
        for mut client in [served, idle, halfway] {
            assert!(client.is_closed());
        }
        let output = server.output();
        assert_eq!(output, ["stopped"]);
        assert!(TcpStream::connect(&address).is_err());
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
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
}

#[test]
fn unix_echo_removes_its_name_and_takes_over_that_of_a_dead_server() {
    let folder = Folder::new("unix-echo");
    let path = folder.0.join("socket");
    let name = path.to_str().unwrap();

    // A killed server leaves its file behind, and the next one listens all the same.
    for _ in 0..2 {
        let server = Program::start("unix_echo", &[name]);
        assert_eq!(server.address(), name);
        echoes_on(&path);
        server.stop();
        assert!(path.exists());
    }

    // A running server is not disturbed.
    let server = Program::start("unix_echo", &[name]);
    server.address();
    let error = error_of("unix_echo", name);
    assert!(error.contains("socket") && error.contains("in use"), "{error}");
    echoes_on(&path);

    // SIGTERM ends it and removes its file, also while a client is connected.
    let mut idle = UnixStream::connect(&path).unwrap();
    idle.write_all(b"x").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    signal(&server, "TERM");
    assert_eq!(server.output(), [""; 0]);
    assert!(!path.exists());
    assert_eq!(idle.read_to_end(&mut Vec::new()).unwrap(), 0);

    // Nor is a server that does not accept for a while.
    let busy = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&busy, 0).unwrap();
    let waits = UnixStream::connect(&path).unwrap();
    let error = error_of("unix_echo", name);
    assert!(error.contains("in use"), "{error}");
    drop((busy, waits));
    std::fs::remove_file(&path).unwrap();

    // Another kind of file is left as it is, and the message does not advise to remove it.
    std::fs::write(&path, "precious").unwrap();
    let error = error_of("unix_echo", name);
    assert!(error.contains(name) && error.contains("not a socket"), "{error}");
    assert!(!error.contains("remove"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    error_of("unix_echo", name);
    drop(listener);
}

/// Starts a server as an init system would: with a listener at descriptor 3.
fn activated(listener: &TcpListener, names: &str) -> Program {
    Program::spawn(&mut activated_on(listener, names))
}

fn activated_on(listener: &TcpListener, names: &str) -> Command {
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3<&0 </dev/null"#;
    let listener = OwnedFd::from(listener.try_clone().unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(path_of("activated"));
    command.env("LISTEN_FDNAMES", names).stdin(listener);
    command
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
fn activated_is_replaced_under_load_and_no_client_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    // Waits for more exchanges, with any server.
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
            // A client in the middle of a line when its server has to stop.
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
        // And with no server for a while.
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
fn activated_opens_a_listener_if_it_inherits_none() {
    let (server, address) = Program::serve("activated");
    exchange(&address, 1).unwrap();
    signal(&server, "INT");
    assert_eq!(server.output(), ["stopped"]);
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn a_second_signal_ends_a_server_at_once() {
    for name in ["graceful_shutdown", "activated"] {
        let (mut server, address) = Program::serve(name);
        // A client that the server would wait for.
        let mut client = Client::connect(&address);
        client.send("one\r\ntwo");
        assert_eq!(client.line(), "one");
        signal(&server, "INT");
        let since = Instant::now();
        while TcpStream::connect(&address).is_ok() {
            assert!(since.elapsed() < PATIENCE, "{name} still accepts");
            thread::yield_now();
        }
        signal(&server, "INT");
        assert_eq!(server.child.wait().unwrap().signal(), Some(2), "{name}");
    }
}

/// Starts a server and reads its output up to where it says its address.
fn start_and_read_one_line(name: &str, address: &str) -> (Program, String) {
    let mut command = Command::new(path_of(name));
    command.arg(address).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
    let stderr = lines_of(child.stderr.take().unwrap());
    (Program { child, stdout: lines_of(io::empty()), stderr }, address)
}

#[test]
fn servers_stop_also_without_a_reader_of_their_output() {
    let folder = Folder::new("unread");
    let path = folder.0.join("socket");
    for name in ["TERM", "INT"] {
        for server in ["graceful_shutdown", "activated"] {
            let (server, address) = start_and_read_one_line(server, "127.0.0.1:0");
            exchange(&address, 1).unwrap();
            signal(&server, name);
            assert_eq!(server.output(), [""; 0]);
            assert!(TcpStream::connect(&address).is_err());
        }
        let (server, _) = start_and_read_one_line("unix_echo", path.to_str().unwrap());
        echoes_on(&path);
        signal(&server, name);
        assert_eq!(server.output(), [""; 0]);
        assert!(!path.exists());
    }
}

#[test]
fn a_server_serves_also_when_its_output_never_had_a_reader() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, unread) = io::pipe().unwrap();
    let mut command = activated_on(&listener, "");
    let mut child = command.stdout(unread).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = lines_of(child.stderr.take().unwrap());
    let server = Program { child, stdout: lines_of(io::empty()), stderr };
    exchange(&address, 1).unwrap();
    signal(&server, "TERM");
    assert_eq!(server.output(), [""; 0]);
}
