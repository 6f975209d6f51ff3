//! Echo and HTTP requests with random faults. A request without a fault must be answered, and
//! answered right, and the process must hold no more at the end than after the first tenth.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread as std_thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use plainsong::net::{Server, TcpListener, TcpStream};
use plainsong::signal::{SIGUSR1, Signals};
use plainsong::time::{sleep, timeout};
use plainsong::{CancellationToken, JoinHandle, Runtime, spawn, spawn_anywhere};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

use crate::Soak;
use crate::process::Held;
use crate::watch::{self, Scripted};
use crate::world::on_drop;

/// One request in so many has a fault.
const FAULTS: u32 = 20;
/// Descriptors beside those of the connections.
const SPARE: u64 = 64;
const MESSAGE_MAX: usize = 512;

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    answered: AtomicU64,
    faults: AtomicU64,
    panics: AtomicU64,
    signals: AtomicU64,
    /// Clients and handlers that have not ended.
    clients: AtomicU64,
    handlers: AtomicU64,
}

/// Shared by all clients.
struct Job {
    echo: SocketAddr,
    http: SocketAddr,
    requests: u64,
    counts: Arc<Counts>,
}

pub(crate) fn run(options: &Soak) {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    println!("torture: soak --seed {seed} --requests {}", options.requests);
    watch::set_seed(seed);
    limit_descriptors(u64::from(options.connections));
    let counts = Arc::new(Counts::default());
    let runtime = Runtime::builder().workers(options.workers as usize).build().expect("a runtime");
    let start = Instant::now();
    runtime.run(|| serve_and_ask(options, seed, &counts));
    let load = |count: &AtomicU64| count.load(SeqCst);
    assert_eq!(load(&counts.handlers), 0, "handlers are left behind");
    println!(
        "torture: {} requests in {:.0?}, {} answered, {} faults, {} panics, {} signals; {}; all \
         well",
        load(&counts.begun),
        start.elapsed(),
        load(&counts.answered),
        load(&counts.faults),
        load(&counts.panics),
        load(&counts.signals),
        Held::now(),
    );
}

/// Leaves room for both ends of each connection, and little more.
fn limit_descriptors(connections: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = 2 * connections + SPARE;
    let current = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum })
        .expect("a limit below the maximum may be set");
}

fn serve_and_ask(options: &Soak, seed: u64, counts: &Arc<Counts>) {
    let stop = CancellationToken::new();
    let (echo, echo_server) = start_server(&stop, counts, answer_echo);
    let (http, http_server) = start_server(&stop, counts, answer_http);
    let job = Arc::new(Job { echo, http, requests: options.requests, counts: Arc::clone(counts) });
    // Caught before the first is sent, and before the clients take all descriptors.
    let receiver = count_signals(counts);
    let mut rng = Rng::with_seed(seed);
    for _ in 0..options.connections {
        counts.clients.fetch_add(1, SeqCst);
        let (job, mut rng) = (Arc::clone(&job), rng.fork());
        spawn_anywhere(move || {
            let end = Arc::clone(&job.counts);
            let _end = on_drop(move || _ = end.clients.fetch_sub(1, SeqCst));
            while job.counts.begun.load(SeqCst) < job.requests {
                connect(&job, &mut rng);
            }
        });
    }
    let over = Arc::new(AtomicBool::new(false));
    let sender = send_signals(&over);
    let (mut before, mut seen) = (None, 0);
    while counts.clients.load(SeqCst) > 0 {
        sleep(Duration::from_millis(50));
        let begun = counts.begun.load(SeqCst);
        if begun > seen {
            watch::progressed();
            seen = begun;
        }
        if before.is_none() && begun > options.requests / 10 {
            // Tried again later if a client has taken all descriptors.
            before = Held::read().ok();
        }
    }
    over.store(true, SeqCst);
    assert!(sender.join().is_ok(), "the thread that sends signals has panicked");
    // The clients' ends are closed, so every handler ends by itself.
    let now = Held::now();
    if let Some(before) = before {
        println!("torture: after a tenth {before}");
        now.check(&before);
    }
    receiver.cancel();
    stop.cancel();
    for server in [echo_server, http_server] {
        assert!(matches!(server.join(), Ok(Ok(()))), "a server has failed");
    }
}

// ---- servers ----

fn start_server(
    stop: &CancellationToken,
    counts: &Arc<Counts>,
    answer: fn(&TcpStream, &Counts) -> io::Result<()>,
) -> (SocketAddr, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (stop, counts) = (stop.clone(), Arc::clone(counts));
    let server = spawn_anywhere(move || {
        let server = Server::new(listener).stop_with(&stop).on_error(|_, _| {}).on_pause(|_| {});
        server.serve(move |conn| {
            counts.handlers.fetch_add(1, SeqCst);
            let _end = on_drop(|| _ = counts.handlers.fetch_sub(1, SeqCst));
            answer(&conn, &counts)
        })
    });
    (address, server)
}

fn answer_echo(conn: &TcpStream, _: &Counts) -> io::Result<()> {
    io::copy(&mut &*conn, &mut &*conn).map(drop)
}

fn answer_http(conn: &TcpStream, counts: &Counts) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut input = BufReader::new(conn);
    while let Some((path, length)) = read_head(&mut input)? {
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        if path == "/panic" {
            counts.panics.fetch_add(1, SeqCst);
            panic_any(Scripted);
        }
        write_message(conn, "HTTP/1.1 200 OK", &body)?;
    }
    Ok(())
}

/// Reads the lines before a body. Returns the second word of the first line, and the length of the
/// body; `None` at the end of the stream.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<(String, usize)>> {
    let (mut first, mut line, mut length) = (String::new(), String::new(), None);
    if input.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        input.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", number)) => length = number.parse().ok(),
            Some(_) => {}
            None => break,
        }
    }
    let word = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = length.filter(|length| *length <= MESSAGE_MAX).ok_or(ErrorKind::InvalidData)?;
    Ok(Some((word, length)))
}

fn write_message(mut conn: &TcpStream, first: &str, body: &[u8]) -> io::Result<()> {
    let mut message = format!("{first}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    message.extend_from_slice(body);
    conn.write_all(&message)
}

// ---- clients ----

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Reset,
    HalfClose,
    Slow,
    TimeOut,
    Cancel,
    Panic,
    Garbage,
    Descriptors,
}

const ALL_FAULTS: [Fault; 8] = [
    Fault::Reset,
    Fault::HalfClose,
    Fault::Slow,
    Fault::TimeOut,
    Fault::Cancel,
    Fault::Panic,
    Fault::Garbage,
    Fault::Descriptors,
];

/// A connection of several requests, which ends with a fault, or without one.
fn connect(job: &Job, rng: &mut Rng) {
    let is_http = rng.bool();
    let conn = match TcpStream::connect(if is_http { job.http } else { job.echo }) {
        Ok(conn) => conn,
        // Another client has taken all descriptors, and gives them back soon.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return sleep(MOMENT),
        Err(error) => panic!("cannot connect: {error}"),
    };
    let mut input = BufReader::new(&conn);
    for _ in 0..rng.u32(1..200) {
        if job.counts.begun.fetch_add(1, SeqCst) >= job.requests {
            return;
        }
        let message: Vec<u8> = (0..rng.usize(1..MESSAGE_MAX)).map(|_| rng.u8(..)).collect();
        if rng.u32(..FAULTS) == 0 {
            job.counts.faults.fetch_add(1, SeqCst);
            let fault = ALL_FAULTS[rng.usize(..ALL_FAULTS.len())];
            if !go_wrong(&conn, fault, is_http, &message, rng) {
                return;
            }
        }
        // The peer may answer late, if it lacks a descriptor, but it answers.
        if let Err(error) = ask(&conn, &mut input, is_http, &message) {
            panic!("a request without a fault has failed: {error}");
        }
        job.counts.answered.fetch_add(1, SeqCst);
    }
}

const MOMENT: Duration = Duration::from_millis(1);

fn ask(
    conn: &TcpStream,
    input: &mut BufReader<&TcpStream>,
    is_http: bool,
    message: &[u8],
) -> io::Result<()> {
    let mut answer = vec![0; message.len()];
    if is_http {
        write_message(conn, "POST /echo HTTP/1.1", message)?;
        let head = read_head(input)?.ok_or(ErrorKind::UnexpectedEof)?;
        assert_eq!(head, ("200".to_owned(), message.len()), "another reply");
    } else {
        (&*conn).write_all(message)?;
    }
    input.read_exact(&mut answer)?;
    assert!(answer == message, "another answer");
    Ok(())
}

/// Returns whether the connection is still good.
fn go_wrong(
    mut conn: &TcpStream,
    fault: Fault,
    is_http: bool,
    message: &[u8],
    rng: &mut Rng,
) -> bool {
    let request = |conn, path: &str| match is_http {
        true => write_message(conn, &format!("POST {path} HTTP/1.1"), message),
        false => (&*conn).write_all(message),
    };
    let part = &message[..rng.usize(..message.len())];
    // After these, errors are what the client has asked for.
    match fault {
        Fault::Reset => {
            _ = conn.write_all(part);
            _ = conn.set_linger(Some(Duration::ZERO));
        }
        Fault::HalfClose => {
            _ = request(conn, "/echo");
            _ = conn.shutdown(Shutdown::Write);
            let mut rest = Vec::new();
            assert!(conn.read_to_end(&mut rest).is_ok(), "a half-closed connection was reset");
            assert!(rest.ends_with(message), "a half-closed connection was not answered");
        }
        Fault::Slow => {
            for byte in part.iter().take(8) {
                _ = conn.write_all(&[*byte]);
                sleep(Duration::from_micros(rng.u64(..200)));
            }
        }
        Fault::TimeOut => {
            _ = request(conn, "/echo");
            _ = timeout(Duration::from_micros(rng.u64(..100)), || {
                io::copy(&mut conn, &mut io::sink())
            });
        }
        Fault::Cancel => {
            let Ok(other) = conn.try_clone() else { return true };
            let reader = spawn(move || io::copy(&mut &other, &mut io::sink()));
            _ = request(conn, "/echo");
            reader.cancel();
            // Cancelled, unless the connection has failed before.
            _ = reader.join();
        }
        Fault::Panic => {
            _ = request(conn, "/panic");
            _ = conn.shutdown(Shutdown::Write);
            _ = io::copy(&mut conn, &mut io::sink());
        }
        Fault::Garbage => {
            _ = conn.write_all(b"\r\n");
            _ = conn.write_all(part);
        }
        Fault::Descriptors => {
            let null = || File::open("/dev/null");
            let taken: Vec<_> = std::iter::from_fn(|| null().ok()).collect();
            sleep(MOMENT);
            drop(taken);
            return true;
        }
    }
    false
}

// ---- signals ----

fn send_signals(over: &Arc<AtomicBool>) -> std_thread::JoinHandle<()> {
    let over = Arc::clone(over);
    std_thread::spawn(move || {
        while !over.load(SeqCst) {
            std_thread::sleep(MOMENT);
            kill_process(getpid(), Signal::USR1).expect("a process may signal itself");
        }
    })
}

fn count_signals(counts: &Arc<Counts>) -> JoinHandle<io::Result<()>> {
    let mut signals = Signals::new([SIGUSR1]).expect("descriptors for signals");
    let counts = Arc::clone(counts);
    spawn(move || {
        loop {
            signals.wait()?;
            counts.signals.fetch_add(1, SeqCst);
        }
    })
}
