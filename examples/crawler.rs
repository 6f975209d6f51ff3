//! Fetches web pages over plain HTTP, all at once: the whole takes as long as the slowest page.
//!
//! Without arguments it crawls a small site of its own, whose pages take 0.2 s each.
//!
//! ```text
//! cargo run --release --example crawler [URL...]
//! cargo run --release --example crawler http://example.com/ http://www.rust-lang.org/
//! ```

#![allow(clippy::print_stdout)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use plainsong::net::{TcpListener, TcpStream};
use plainsong::thread;

fn main() -> io::Result<()> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    plainsong::run(|| {
        let urls = if urls.is_empty() { own_site()? } else { urls };
        let start = Instant::now();
        let fetches: Vec<_> = urls
            .into_iter()
            .map(|url| thread::spawn(move || (fetch(&url), start.elapsed(), url)))
            .collect();

        let count = fetches.len();
        for fetch in fetches {
            let (page, took, url) = fetch.join().expect("a fetch panicked");
            match page {
                Ok(Page { status, size }) => println!("{status} {size:>8} B {took:>6.2?} {url}"),
                Err(error) => println!("failed: {url}: {error}"),
            }
        }
        println!("{count} pages in {:.2?}", start.elapsed());
        Ok(())
    })
}

struct Page {
    status: String,
    size: u64,
}

fn fetch(url: &str) -> io::Result<Page> {
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("write http://HOST[:PORT]/PATH"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let conn = match host.contains(':') {
        true => TcpStream::connect(host)?,
        false => TcpStream::connect((host, 80))?,
    };
    conn.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    (&conn).write_all(request.as_bytes())?;

    let mut reply = BufReader::new(conn);
    let head = read_head(&mut reply)?;
    let status = head[0].split(' ').nth(1).ok_or_else(|| invalid("this is no HTTP reply"))?.to_owned();
    let header = |name: &str| {
        let mut fields = head[1..].iter().filter_map(|line| line.split_once(':'));
        fields.find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1.trim())
    };
    let size = if header("Transfer-Encoding").is_some_and(|coding| coding == "chunked") {
        skip_chunks(&mut reply)?
    } else if let Some(length) = header("Content-Length") {
        skip(&mut reply, length.parse().map_err(|_| invalid("a Content-Length is no number"))?)?
    } else {
        io::copy(&mut reply, &mut io::sink())?
    };
    Ok(Page { status, size })
}
