//! A telnet chat: each guest reads what the others write.
//!
//! A guest has two coroutines. One reads its lines and broadcasts them, the other writes to it what
//! the others broadcast. A broadcast never waits: a guest that does not read loses the oldest
//! lines, and then reads how many.
//!
//! ```text
//! cargo run --release --example chat [ADDR]
//! telnet 127.0.0.1 4915
//! nc 127.0.0.1 4915
//! ```

mod args;

use std::cell::Cell;
use std::io::{self, BufReader, Read, Write};
use std::rc::Rc;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::sync::broadcast::{self, Receiver, RecvError, Sender};

/// A line of more bytes is passed on in pieces.
const LINE_MAX: usize = 1000;

/// When more lines than this wait for a guest, it loses the oldest.
const QUEUE_MAX: usize = 256;

/// A line, and the number of the guest that it is about.
type Line = (u32, Rc<str>);

fn main() -> io::Result<()> {
    plainsong::run(|| {
        let listener = TcpListener::bind(args::address())?;
        println!("listening on {}", listener.local_addr()?);
        let (room, entered) = (broadcast::channel(QUEUE_MAX).0, Cell::new(0));
        listener.serve(move |conn| {
            entered.set(entered.get() + 1);
            attend(&room, entered.get(), &conn)
        })
    })
}

fn attend(room: &Sender<Line>, guest: u32, mut conn: &TcpStream) -> io::Result<()> {
    // A message to an empty room is lost.
    let say = |line: String| drop(room.send((guest, (line + "\r\n").into())));
    let others = room.receiver_count();
    let lines = room.subscribe();
    let greeting = format!("*** you are guest {guest}; others here: {others}\r\n");
    conn.write_all(greeting.as_bytes())?;
    say(format!("*** guest {guest} joined"));
    let left = Cell::new(false);
    plainsong::scope(|s| {
        s.spawn(|| write_lines(conn, guest, lines, &left));
        let result = read_lines(conn, |line| say(format!("guest {guest}: {line}")));
        left.set(true);
        say(format!("*** guest {guest} left"));
        result
    })
}

/// Writes what the others say, until the guest has left and all that waited for it is written.
fn write_lines(
    mut conn: &TcpStream,
    guest: u32,
    mut lines: Receiver<Line>,
    left: &Cell<bool>,
) -> io::Result<()> {
    while !(left.get() && lines.is_empty()) {
        match lines.recv() {
            Ok((about, _)) if about == guest => {}
            Ok((_, line)) => conn.write_all(line.as_bytes())?,
            Err(RecvError::Lagged(lost)) => {
                conn.write_all(format!("*** {lost} lines lost\r\n").as_bytes())?;
            }
            Err(RecvError::Closed) => break,
        }
    }
    Ok(())
}

/// Passes on what a guest writes, until it has written its last line.
fn read_lines(conn: &TcpStream, say: impl Fn(String)) -> io::Result<()> {
    let pass_on = |line: &mut Vec<u8>| {
        let mut text = String::from_utf8_lossy(line).into_owned();
        text.retain(is_harmless);
        line.clear();
        if !text.is_empty() {
            say(text);
            // A burst of lines must not overrun the queues of guests that do read.
            plainsong::yield_now();
        }
    };
    let mut input = BufReader::new(conn).bytes();
    let mut line = Vec::new();
    while let Some(byte) = input.next().transpose()? {
        // The first byte of a character in UTF-8 gives its length, so that none is cut in two.
        let width = byte.leading_ones().max(1) as usize;
        if byte == b'\n' || line.len() + width > LINE_MAX {
            pass_on(&mut line);
        }
        match byte {
            b'\n' => {}
            // A command of telnet. WILL, WON'T, DO and DON'T are followed by an option.
            255 => {
                if let Some(251..=254) = input.next().transpose()? {
                    input.next().transpose()?;
                }
            }
            _ => line.push(byte),
        }
    }
    pass_on(&mut line);
    Ok(())
}

/// Whether a character plays no tricks with the others' terminals: it does not control them, and
/// neither reorders the text nor hides in it. (Persian and emoji need the two joiners.)
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        && !matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
