//! Fetches web pages over plain HTTP, all at once: together they take as long as the slowest page.
//!
//! Without arguments it fetches the ten pages of a site of its own, which take 0.2 s each.
//!
//! ```text
//! cargo run --release --example crawler [URL...]
//! cargo run --release --example crawler http://example.com/ http://example.org/
//! ```

mod pages;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::thread;
use plainsong::time::timeout;

/// How long a server may take to accept a connection, and for each piece of its reply.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<ExitCode> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    plainsong::run(|| {
        let urls = if urls.is_empty() { own_site()? } else { urls };
        pages::print_all(urls, fetch)
    })
}

/// Returns the status and the number of bytes of the page.
fn fetch(url: &str) -> io::Result<(String, u64)> {
    let rest =
        url.strip_prefix("http://").ok_or_else(|| invalid("the URL must begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // An IPv6 address has colons too, but in brackets.
    let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let server = if has_port { host.to_owned() } else { format!("{host}:80") };
    let conn = timeout(PATIENCE, || TcpStream::connect(server))??;
    conn.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    (&conn).write_all(request.as_bytes())?;

    let mut reply = BufReader::new(conn);
    loop {
        let status_line = read_line(&mut reply)?;
        let status: String = match status_line.split_once(' ') {
            Some((version, status)) if version.starts_with("HTTP/1.") => {
                status.chars().take(3).collect()
            }
            _ => return Err(invalid("the reply is not HTTP")),
        };
        if !status.starts_with('1') {
            return Ok((status, read_body(&mut reply)?));
        }
        // An interim response, such as 103 Early Hints: the reply is still to come.
        while !read_line(&mut reply)?.is_empty() {}
    }
}

/// Reads the headers and the body that they announce, and returns the length of the body.
fn read_body(reply: &mut impl BufRead) -> io::Result<u64> {
    let (mut length, mut chunked) = (None, false);
    loop {
        let line = read_line(reply)?.to_ascii_lowercase();
        match line.split_once(':') {
            _ if line.is_empty() => break,
            Some(("content-length", n)) => length = Some(number(n, 10)?),
            Some(("transfer-encoding", coding)) => chunked = coding.trim() == "chunked",
            _ => {}
        }
    }
    if !chunked {
        return skip(reply, length);
    }
    let mut size = 0;
    loop {
        let head = read_line(reply)?;
        match number(head.split(';').next().unwrap_or(""), 16)? {
            0 => return Ok(size),
            chunk => size += skip(reply, Some(chunk))?,
        }
        read_line(reply)?;
    }
}

/// Reads `length` bytes, or up to the end.
fn skip(reply: &mut impl BufRead, length: Option<u64>) -> io::Result<u64> {
    let size = io::copy(&mut reply.take(length.unwrap_or(u64::MAX)), &mut io::sink())?;
    match length {
        Some(length) if size < length => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(size),
    }
}

fn read_line(reply: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reply.take(8192).read_line(&mut line)?;
    if line.ends_with('\n') {
        Ok(line.trim_end().to_owned())
    } else {
        Err(invalid("the reply ends, or has a very long line, where its headers should be"))
    }
}

fn number(text: &str, radix: u32) -> io::Result<u64> {
    u64::from_str_radix(text.trim(), radix).map_err(|_| invalid("a length is not a number"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Starts a web server in this runtime, and returns the URLs of its pages.
fn own_site() -> io::Result<Vec<String>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.serve(serve_page));
    Ok((1..=10).map(|page| format!("http://{address}/page/{page}")).collect())
}

fn serve_page(conn: TcpStream) -> io::Result<()> {
    let mut request = BufReader::new(&conn);
    while !read_line(&mut request)?.is_empty() {}
    thread::sleep(Duration::from_millis(200));
    let page = "All the pages of this site are alike.\n".repeat(100);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
    (&conn).write_all((head + &page).as_bytes())
}
