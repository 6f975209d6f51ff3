//! A telnet chat: what one guest writes, all the others read.
//!
//! A guest has two coroutines. One reads its lines, and the other writes to it what the others
//! said. Between them is a queue of limited length: a guest that stops reading loses lines, and
//! nobody else waits for it.
//!
//! ```text
//! cargo run --release --example chat [ADDR]
//! telnet 127.0.0.1 4915
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::rc::Rc;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::thread::{self, Thread};

/// A line of more bytes is passed on in pieces.
const LINE_MAX: u64 = 1000;

/// When more lines than this wait for a guest, the oldest are dropped.
const QUEUE_MAX: usize = 256;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let listener = TcpListener::bind(address)?;
        println!("listening on {}", listener.local_addr()?);
        let room = Room::default();
        listener.serve(move |conn| attend(&room, conn))
    })
}

fn attend(room: &Room, conn: TcpStream) -> io::Result<()> {
    let queue = Rc::<RefCell<Queue>>::default();
    let (theirs, write_half) = (Rc::clone(&queue), conn.try_clone()?);
    let writer = thread::spawn(move || write_lines(write_half, &theirs)).thread().clone();

    let guest = room.enter(Guest { queue, writer });
    let result = read_lines(room, guest, conn);
    room.leave(guest);
    result
}

/// Passes on what a guest writes, until it hangs up.
fn read_lines(room: &Room, guest: u32, conn: TcpStream) -> io::Result<()> {
    let mut conn = BufReader::new(conn);
    let mut bytes = Vec::new();
    while conn.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)? > 0 {
        // Control characters would play with the others' terminals; the line's end goes too.
        let mut line = String::from_utf8_lossy(&bytes).into_owned();
        line.retain(|c| !c.is_control());
        if !line.is_empty() {
            room.tell_others(guest, &format!("guest {guest}: {line}"));
            // Lets the writers write, lest a burst of lines overrun the queue of one who does read.
            thread::yield_now();
        }
        bytes.clear();
    }
    Ok(())
}

/// Writes what the others say, until the guest has left or its connection breaks.
fn write_lines(mut conn: TcpStream, queue: &RefCell<Queue>) -> io::Result<()> {
    while !queue.borrow().closed {
        let text = queue.borrow_mut().take();
        if text.is_empty() {
            thread::park();
        } else {
            conn.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Room {
    guests: RefCell<BTreeMap<u32, Guest>>,
    entered: Cell<u32>,
}

impl Room {
    fn enter(&self, guest: Guest) -> u32 {
        let number = self.entered.get() + 1;
        self.entered.set(number);
        let others = self.guests.borrow().len();
        guest.tell(format!("*** you are guest {number}; others here: {others}\r\n").into());
        self.guests.borrow_mut().insert(number, guest);
        self.tell_others(number, &format!("*** guest {number} joined"));
        number
    }

    fn leave(&self, number: u32) {
        if let Some(guest) = self.guests.borrow_mut().remove(&number) {
            guest.queue.borrow_mut().closed = true;
            guest.writer.unpark();
        }
        self.tell_others(number, &format!("*** guest {number} left"));
    }

    fn tell_others(&self, number: u32, line: &str) {
        let line = Rc::<str>::from(format!("{line}\r\n"));
        for (_, guest) in self.guests.borrow().iter().filter(|(other, _)| **other != number) {
            guest.tell(Rc::clone(&line));
        }
    }
}

struct Guest {
    queue: Rc<RefCell<Queue>>,
    writer: Thread,
}

impl Guest {
    fn tell(&self, line: Rc<str>) {
        self.queue.borrow_mut().put(line);
        self.writer.unpark();
    }
}

/// The lines that wait for a guest, and how many were dropped before them.
#[derive(Default)]
struct Queue {
    lines: VecDeque<Rc<str>>,
    lost: usize,
    closed: bool,
}

impl Queue {
    fn put(&mut self, line: Rc<str>) {
        if self.lines.len() == QUEUE_MAX {
            self.lines.pop_front();
            self.lost += 1;
        }
        self.lines.push_back(line);
    }

    /// All that waits, as one text.
    fn take(&mut self) -> String {
        let lost = match mem::take(&mut self.lost) {
            0 => String::new(),
            lost => format!("*** {lost} lines lost\r\n"),
        };
        self.lines.drain(..).fold(lost, |text, line| text + &line)
    }
}
