//! Pages that are fetched all at once, and a line about each.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use plainsong::io::stdout;

/// Fetches all pages, each in a coroutine of its own, and prints their status and size. Fails if no
/// page has come.
pub(crate) fn print_all<S, N, E>(
    urls: Vec<String>,
    fetch: impl Fn(&str) -> Result<(S, N), E> + Clone + 'static,
) -> io::Result<ExitCode>
where
    S: Display + 'static,
    N: Display + 'static,
    E: Display + 'static,
{
    let start = Instant::now();
    let fetches: Vec<_> = urls
        .into_iter()
        .map(|url| {
            let fetch = fetch.clone();
            plainsong::spawn(move || (fetch(&url), start.elapsed(), url))
        })
        .collect();
    let (mut pages, mut failed) = (0, 0);
    for fetch in fetches {
        let (page, took, url) = fetch.join().expect("a fetch panicked");
        let took = took.as_secs_f64();
        match page {
            Ok((status, size)) => {
                pages += 1;
                writeln!(stdout(), "{status} {size:>8} bytes {took:>6.3} s  {url}")?;
            }
            Err(error) => {
                failed += 1;
                writeln!(stdout(), "failed: {url}: {error}")?;
            }
        }
    }
    let took = start.elapsed().as_secs_f64();
    writeln!(stdout(), "{pages} pages in {took:.3} s, {failed} failed")?;
    Ok(if pages > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
