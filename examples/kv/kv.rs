//! A key-value server as one writes it in a course on systems programming: std alone, a thread for
//! each connection, the data behind a lock, and a log from which it starts again.
//!
//! Its Cargo.toml has one line more than a course would give it, and that one makes each thread a
//! coroutine: `std = { package = "plainsong-std", … }`. This file is the same without it.
//!
//! ```text
//! cargo run --release --example kv [ADDR [LOG]]
//! nc 127.0.0.1 4915
//! set colour green
//! get colour
//! remove colour
//! count
//! ```

#[path = "../args/mod.rs"]
mod args;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::thread;

const USAGE: &str = "[ADDR [LOG]]";
/// Changes that wait to be written. More of them wait for room.
const LOG_BACKLOG: usize = 1000;

/// The data, and the way to the thread that writes the log.
struct Store {
    map: RwLock<HashMap<String, String>>,
    // A change and its line enter in the same order.
    log: Mutex<Option<mpsc::SyncSender<String>>>,
}

fn main() -> io::Result<()> {
    let arguments = args::all(USAGE);
    let (address, log) = match &arguments[..] {
        [] => ("127.0.0.1:4915", None),
        [address] => (&**address, None),
        [address, log] => (&**address, Some(&**log)),
        _ => args::refuse(USAGE),
    };
    let store = Arc::new(Store::open(log)?);
    let listener = TcpListener::bind(address)?;
    // The server works also without a reader of its output.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let store = store.clone();
        match stream {
            Ok(stream) => drop(thread::spawn(move || serve(&stream, &store))),
            Err(error) => eprintln!("a connection failed: {error}"),
        }
    }
    Ok(())
}

/// Answers each line of a client.
fn serve(stream: &TcpStream, store: &Store) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream;
    for line in BufReader::new(stream).lines() {
        let answer = store.answer(&line?);
        output.write_all((answer + "\n").as_bytes())?;
    }
    Ok(())
}

impl Store {
    /// Reads the log, if there is one, and goes on writing it.
    fn open(path: Option<&str>) -> io::Result<Self> {
        let mut map = HashMap::new();
        let Some(path) = path else {
            return Ok(Self { map: RwLock::new(map), log: Mutex::new(None) });
        };
        let cannot = |error| io::Error::other(format!("cannot use the log {path}: {error}"));
        let file = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = file.map_err(cannot)?;
        for line in BufReader::new(&file).lines() {
            apply(&mut map, &line.map_err(cannot)?);
        }
        let (sender, lines) = mpsc::sync_channel(LOG_BACKLOG);
        thread::spawn(move || write_log(file, &lines));
        Ok(Self { map: RwLock::new(map), log: Mutex::new(Some(sender)) })
    }

    fn answer(&self, line: &str) -> String {
        let words: Vec<_> = line.splitn(3, ' ').collect();
        match words[..] {
            ["get", key] => match self.map.read().unwrap().get(key) {
                Some(value) => value.clone(),
                None => format!("no {key}"),
            },
            ["count"] => self.map.read().unwrap().len().to_string(),
            ["set", _, _] | ["remove", _] => self.change(line),
            _ => "use: set KEY VALUE | get KEY | remove KEY | count".to_owned(),
        }
    }

    fn change(&self, line: &str) -> String {
        let log = self.log.lock().unwrap();
        let changed = apply(&mut self.map.write().unwrap(), line);
        match &*log {
            Some(log) if log.send(line.to_owned()).is_err() => "not written to the log".to_owned(),
            _ if changed => "ok".to_owned(),
            _ => "nothing to remove".to_owned(),
        }
    }
}

/// Makes the change that a line asks for. Returns whether there was something to change.
fn apply(map: &mut HashMap<String, String>, line: &str) -> bool {
    let words: Vec<_> = line.splitn(3, ' ').collect();
    match words[..] {
        ["set", key, value] => {
            map.insert(key.to_owned(), value.to_owned());
            true
        }
        ["remove", key] => map.remove(key).is_some(),
        _ => false,
    }
}

/// Writes changes until there will be no more.
fn write_log(mut file: File, lines: &mpsc::Receiver<String>) -> io::Result<()> {
    for line in lines {
        if let Err(error) = file.write_all((line + "\n").as_bytes()) {
            eprintln!("cannot write to the log: {error}");
            return Err(error);
        }
    }
    Ok(())
}
