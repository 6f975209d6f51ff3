//! A server to look at with `top`: echo on TCP, and coroutines in various states beside it.
//!
//! `cargo run -p top --example top_server -- SOCKET [ADDR]`, and then `cargo run -p top -- SOCKET`
//! in another terminal. `nc` on the address that it prints puts load on it.

use std::env;
use std::hint::black_box;
use std::io::{self, Write};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use plainsong::inspect;
use plainsong::net::{TcpListener, TcpStream};
use plainsong::sync::{Mutex, channel};
use plainsong::time::sleep;
use plainsong::{Builder, Runtime};

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let Some(socket) = arguments.next() else {
        return Err(io::Error::other("usage: top_server SOCKET [ADDR]"));
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    // This is all that `top` needs. The other two lines give it times of turns.
    let _serving = inspect::serve(&socket)?;
    inspect::measure_times(true);
    inspect::recorder().start(100_000);
    let workers = available_parallelism()?.get().min(2);
    Runtime::builder().workers(workers).build()?.run(|| serve(&address))
}

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    Builder::new().name("statistics").spawn(statistics)?;
    // Nothing is ever sent.
    let (_jobs, queue) = channel::bounded::<u32>(16);
    Builder::new().name("job queue").spawn(move || queue.recv())?;
    let database = Mutex::new(());
    plainsong::scope(|s| {
        let connection = database.lock();
        Builder::new().name("report").spawn_scoped(s, || drop(database.lock()))?;
        Builder::new().name("listener").spawn_scoped(s, || listener.serve(echo))?.join().ok();
        drop(connection);
        Ok(())
    })
}

fn statistics() {
    loop {
        computes(Duration::from_millis(3));
        pause();
    }
}

fn pause() {
    sleep(Duration::from_millis(50));
}

fn computes(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        black_box(0);
    }
}

fn echo(conn: TcpStream) -> io::Result<()> {
    io::copy(&mut &conn, &mut &conn).map(drop)
}
