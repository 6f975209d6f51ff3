//! Coroutines that use a client written for tokio, and tokio tasks that wait for coroutines.
//!
//! tokio runs on a thread of its own. A coroutine spawns a future there and waits for its handle,
//! while the other coroutines go on.
//!
//! ```text
//! cargo run --release --example async_bridge
//! ```

#[path = "../args/mod.rs"]
mod args;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;

use plainsong::net::TcpListener;
use plainsong::sync::channel::{Receiver, bounded};
use plainsong::sync::oneshot;
use plainsong::task::gather;
use plainsong::{block_on, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{self, Handle};

fn main() -> io::Result<()> {
    args::none();
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let tokio = runtime.handle().clone();
    // It runs until the sender is dropped.
    let (stop, stopped) = oneshot::channel::<()>();
    let helper = thread::spawn(move || runtime.block_on(stopped));

    let answers = plainsong::run(move || -> io::Result<Vec<String>> {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let address = server.local_addr()?;
        spawn(move || server.serve(shout));

        // A tokio task that receives from coroutines.
        let (words, receiver) = bounded(1);
        let counted = tokio.spawn(count(receiver));
        let ask = |word: &'static str| {
            let (tokio, words) = (tokio.clone(), words.clone());
            move || {
                words.send(word).expect("the task receives until all senders are dropped");
                ask(&tokio, address, word)
            }
        };
        let answers = gather(["one", "two", "three"].map(ask)).into_iter().collect();
        drop(words);
        println!("tokio has counted {} words", block_on(counted).expect("it does not panic"));
        answers
    })?;
    for answer in answers {
        println!("{answer}");
    }
    drop(stop);
    let _ = helper.join().expect("tokio does not panic");
    Ok(())
}

/// Asks with tokio's sockets. This parks only the coroutine that calls it.
fn ask(tokio: &Handle, server: SocketAddr, word: &'static str) -> io::Result<String> {
    let client = async move {
        let mut conn = tokio::net::TcpStream::connect(server).await?;
        conn.write_all(word.as_bytes()).await?;
        conn.shutdown().await?;
        let mut answer = String::new();
        conn.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    block_on(tokio.spawn(client)).expect("the client does not panic")
}

/// Receives from coroutines, in a tokio task.
async fn count(words: Receiver<&'static str>) -> usize {
    let mut count = 0;
    while (&words).await.is_ok() {
        count += 1;
    }
    count
}

/// Serves a connection, in a coroutine.
fn shout(mut conn: plainsong::net::TcpStream) -> io::Result<()> {
    let mut word = String::new();
    conn.read_to_string(&mut word)?;
    conn.write_all(word.to_uppercase().as_bytes())
}
