//! Steps at sockets, pipes, files, generators and processes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::io::{duplex, pipe};
use plainsong::net::{Server, TcpListener, TcpStream, UdpSocket, UnixStream};
use plainsong::time::{interval, sleep, timeout};
use plainsong::{CancellationToken, fs, spawn};

use crate::script::{Actor, Step};
use crate::world::World;

/// Serves echo until the token is cancelled.
pub(crate) fn serve(world: &Arc<World>) -> CancellationToken {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    assert!(world.server.set(address).is_ok());
    let stop = CancellationToken::new();
    let server = Server::new(listener)
        .stop_with(&stop)
        .grace(Duration::from_millis(10))
        .on_error(|_, _| {})
        .on_pause(|_| {});
    spawn(move || server.serve(|conn| io::copy(&mut &conn, &mut &conn)));
    stop
}

const STEPS: [Step; 9] = [
    ("echo", echo),
    ("echo", echo),
    ("unix", unix),
    ("through_pipe", through_pipe),
    ("through_memory", through_memory),
    ("datagrams", datagrams),
    ("file", file),
    ("ticks", ticks),
    ("generator", generator),
];

pub(crate) fn any(me: &Actor) {
    let (name, step) = STEPS[me.below(STEPS.len())];
    let _doing = me.doing(name);
    step(me);
}

/// Bytes that can be told apart.
fn bytes(me: &Actor) -> Vec<u8> {
    let length = if me.below(8) == 0 { me.below(200_000) } else { me.below(2000) };
    let first = me.below(256);
    (0..length).map(|at| (first + at * 7) as u8).collect()
}

/// Sends and reads the echo in pieces, and may break off in the middle.
fn echo(me: &Actor) {
    let Some(address) = me.world.server.get() else { return };
    // The server may have been stopped.
    let Ok(conn) = TcpStream::connect(address) else { return };
    let data = bytes(me);
    let broken = me.below(4);
    let mut answer = Vec::new();
    let mut exchange = || -> io::Result<()> {
        plainsong::scope(|s| {
            let writer = s.spawn(|| {
                let end = if broken == 0 { data.len() / 2 } else { data.len() };
                (&conn).write_all(&data[..end])?;
                match broken {
                    0 => conn.set_linger(Some(Duration::ZERO)),
                    _ => conn.shutdown(Shutdown::Write),
                }
            });
            if broken == 0 {
                return Ok(());
            }
            (&conn).read_to_end(&mut answer)?;
            writer.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
        })
    };
    let whole = if broken == 1 { timeout(me.pause(), exchange).ok() } else { Some(exchange()) };
    if broken > 1 && matches!(whole, Some(Ok(()))) {
        // Without a grace that has ended, all of it comes back; and never anything else.
        assert!(data.starts_with(&answer), "another echo");
    }
}

/// One end writes in a coroutine of its own and ends; all that was written is read.
fn transfer(me: &Actor, mut from: impl Read, mut to: impl Write + Send + 'static) {
    let data = bytes(me);
    let sent = data.clone();
    let (limit, whole) = (me.pause(), me.below(4) > 0);
    let writer = spawn(move || match whole {
        true => to.write_all(&sent).is_ok(),
        false => timeout(limit, || to.write_all(&sent)).is_ok_and(|result| result.is_ok()),
    });
    let mut seen = Vec::new();
    if me.below(4) == 0 {
        _ = timeout(me.pause(), || from.read_to_end(&mut seen));
        drop(from);
        assert!(data.starts_with(&seen), "other bytes");
        return;
    }
    let read = from.read_to_end(&mut seen);
    // A read that failed leaves the writer waiting for room.
    drop(from);
    assert!(data.starts_with(&seen), "other bytes");
    if writer.join().is_ok_and(|wrote| wrote) && read.is_ok() {
        assert_eq!(data.len(), seen.len(), "bytes were lost");
    }
}

fn unix(me: &Actor) {
    // No descriptor may be left.
    if let Ok((one, two)) = UnixStream::pair() {
        transfer(me, one, two);
    }
}

fn through_pipe(me: &Actor) {
    if let Ok((reader, writer)) = pipe() {
        transfer(me, reader, writer);
    }
}

fn through_memory(me: &Actor) {
    let (one, two) = duplex(1 + me.below(300));
    transfer(me, one, two);
}

fn datagrams(_: &Actor) {
    let exchange = || -> io::Result<()> {
        let (one, two) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        one.send_to(b"torture", two.local_addr()?)?;
        let mut buffer = [0; 32];
        two.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (length, from) = two.recv_from(&mut buffer)?;
        // A socket of another process may send to any port.
        if from == one.local_addr()? {
            assert_eq!(&buffer[..length], b"torture");
        }
        Ok(())
    };
    _ = exchange();
}

fn file(me: &Actor) {
    let name = format!("torture-{}-{}", std::process::id(), me.world.number());
    let path = std::env::temp_dir().join(name);
    let remove = path.clone();
    // std's: a destructor that waits would be cancelled.
    let _remove = crate::world::on_drop(move || _ = std::fs::remove_file(&remove));
    let data = bytes(me);
    let exchange = || -> io::Result<bool> {
        fs::write(&path, &data)?;
        Ok(fs::read(&path)? == data)
    };
    if me.below(3) == 0 {
        _ = timeout(me.pause(), exchange);
    } else if let Ok(same) = exchange() {
        assert!(same, "a file has other bytes");
    }
}

fn ticks(me: &Actor) {
    let mut ticks = interval(Duration::from_micros(1 + me.below(50) as u64));
    let mut last = ticks.tick();
    for _ in 0..me.below(5) {
        let tick = ticks.tick();
        assert!(tick >= last, "a tick before the last one");
        last = tick;
    }
}

/// A generator whose body waits, and that may be dropped before its end.
fn generator(me: &Actor) {
    let (count, pause, restless) = (me.below(20), me.pause(), me.restless());
    let mut numbers = Generator::new(move |out| {
        let _restless = restless;
        for number in 0..count {
            if number % 4 == 3 {
                sleep(pause);
            }
            out.yield_(number);
        }
    });
    if me.below(2) == 0 {
        let same = numbers.by_ref().eq(0..count);
        assert!(same || me.swallowed.get(), "a generator yields other numbers");
    } else {
        _ = timeout(me.pause(), || numbers.by_ref().take(5).count());
    }
}
