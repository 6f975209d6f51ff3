//! postgres, a client that runs tokio inside and waits in tokio's way. No other std helps it: its
//! calls are made on threads, by `blocking`.

use std::plainsong::blocking;
use std::thread;

use postgres::{Client, NoTls};
use trial::{Outcome, expect, peer};

fn main() {
    let url = format!("postgres://postgres@{}/postgres", peer("POSTGRES"));
    trial::run("postgres", move || {
        trial::measure("postgres, by `blocking`", || {
            let threads: Vec<_> = (0..50)
                .map(|_| {
                    let url = url.clone();
                    thread::spawn(move || blocking(|| operation(&url)))
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a panic")?)
        })
    });
}

fn operation(url: &str) -> Outcome {
    let mut client = Client::connect(url, NoTls)?;
    client.execute("SELECT pg_sleep(0.1)", &[])?;
    let row = client.query_one("SELECT $1 + 1", &[&41])?;
    expect(row.get(0), 42)
}
