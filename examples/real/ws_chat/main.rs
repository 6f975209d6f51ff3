//! A chat for browsers. The page and its WebSocket are behind the same port, and tungstenite is as
//! it is.
//!
//! A guest has two coroutines, as in the example `chat`: one reads its messages and broadcasts
//! them, the other writes to it what is broadcast. Both have a `WebSocket` over one connection.
//!
//! ```text
//! cargo run --release -p real_examples --example ws_chat [ADDR]
//! firefox http://127.0.0.1:4915/
//! ```

#[path = "../../args/mod.rs"]
mod args;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use plainsong::io::stdout;
use plainsong::net::{TcpListener, TcpStream};
use plainsong::sync::Mutex;
use plainsong::sync::broadcast::{self, Receiver, RecvError, Sender};
use plainsong::time::timeout;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const PAGE: &str = include_str!("page.html");
/// Bytes of a request, and of a message.
const REQUEST_MAX: usize = 8 * 1024;
const MESSAGE_MAX: usize = 4 * 1024;
/// When more messages than this wait for a guest, it loses the oldest.
const QUEUE_MAX: usize = 256;
/// How long a client may take for its request, and for taking what is sent to it.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    plainsong::run(|| {
        let listener = TcpListener::bind(args::address())?;
        // The server works also without a reader of its output.
        let _ = writeln!(stdout(), "listening on {}", listener.local_addr()?);
        let (room, entered) = (broadcast::channel(QUEUE_MAX).0, Cell::new(0));
        listener.serve(move |conn| {
            conn.set_nodelay(true)?;
            conn.set_write_timeout(Some(PATIENCE))?;
            let request = timeout(PATIENCE, || read_request(&conn));
            let Some(request) = request.unwrap_or(Ok(None))? else { return Ok(()) };
            match answer(&request) {
                Answer::Page(page) => (&conn).write_all(page.as_bytes()),
                Answer::Chat(switch) => {
                    (&conn).write_all(switch.as_bytes())?;
                    entered.set(entered.get() + 1);
                    chat(&room, entered.get(), &conn)
                }
            }
        })
    })
}

/// Reads a request up to its empty line. A browser sends nothing after it before it has an answer.
fn read_request(mut conn: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let n = conn.read(&mut chunk)?;
        if n == 0 || request.len() + n > REQUEST_MAX {
            return Ok(None);
        }
        request.extend_from_slice(&chunk[..n]);
    }
    Ok(Some(request))
}

enum Answer {
    Page(String),
    /// The connection is a WebSocket after this.
    Chat(String),
}

fn answer(request: &[u8]) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(request).is_ok_and(|status| status.is_complete()) {
        return page("400 Bad Request", "this is not HTTP\n");
    }
    let header = |name: &str| {
        let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map_or("", |header| std::str::from_utf8(header.value).unwrap_or_default())
    };
    match (parsed.method, parsed.path) {
        (Some("GET"), Some("/")) => page("200 OK", PAGE),
        (Some("GET"), Some("/chat")) => {
            let (version, key) = (header("Sec-WebSocket-Version"), header("Sec-WebSocket-Key"));
            if version != "13" || !header("Upgrade").eq_ignore_ascii_case("websocket") {
                return page("426 Upgrade Required", "this is a WebSocket\n");
            }
            let accept = derive_accept_key(key.as_bytes());
            Answer::Chat(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            ))
        }
        (Some("GET"), _) => page("404 Not Found", "there is no such page\n"),
        _ => page("405 Method Not Allowed", "only GET here\n"),
    }
}

fn page(status: &str, text: &str) -> Answer {
    let kind = if text.starts_with('<') { "html" } else { "plain" };
    Answer::Page(format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/{kind}; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    ))
}

/// A connection that two WebSockets share. Each writes whole frames, one at a time.
struct Shared<'a> {
    conn: &'a TcpStream,
    writing: &'a Mutex<()>,
}

impl Read for Shared<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.conn.read(bytes)
    }
}

impl Write for Shared<'_> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let _writing = self.writing.lock();
        self.conn.write_all(frames)?;
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn chat(room: &Sender<Rc<str>>, guest: u32, conn: &TcpStream) -> io::Result<()> {
    let writing = Mutex::new(());
    let socket = || {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let shared = Shared { conn, writing: &writing };
        WebSocket::from_raw_socket(shared, Role::Server, Some(config))
    };
    // A message to an empty room is lost.
    let say = |text: String| drop(room.send(text.into()));
    let others = room.receiver_count();
    let messages = room.subscribe();
    say(format!("*** guest {guest} joined; others here: {others}"));
    let outcome = plainsong::scope(|s| {
        let writer = s.spawn(|| {
            if write_messages(socket(), messages).is_err() {
                // The other half learns it in this way.
                let _ = conn.shutdown(Shutdown::Both);
            }
        });
        let outcome = read_messages(socket(), |text| say(format!("guest {guest}: {text}")));
        writer.cancel();
        outcome
    });
    say(format!("*** guest {guest} left"));
    outcome
}

fn write_messages(
    mut socket: WebSocket<Shared<'_>>,
    mut messages: Receiver<Rc<str>>,
) -> Result<(), Error> {
    loop {
        match messages.recv() {
            Ok(text) => socket.send(Message::text(&*text))?,
            Err(RecvError::Lagged(lost)) => {
                socket.send(Message::text(format!("*** {lost} messages lost")))?;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Passes on what a guest writes, until it closes. It answers pings, too.
fn read_messages(mut socket: WebSocket<Shared<'_>>, say: impl Fn(String)) -> io::Result<()> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.trim().is_empty() => {}
            Ok(Message::Text(text)) => {
                say(text.trim().to_owned());
                // A burst must not overrun the queues of guests that do read.
                plainsong::yield_now();
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(Error::Io(error)) => return Err(error),
            Err(error) => {
                let _ = socket.close(None);
                return Err(io::Error::other(error));
            }
        }
    }
}
