//! A terminal view of a running program with plainsong, which has called `inspect::serve`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::{DefaultTerminal, Terminal};

use report::{Report, explain, fetch};
use view::{Order, View};

mod report;
mod svg;
mod view;

/// The screen of `--once` and `--svg`.
const COLUMNS: u16 = 132;
const ROWS: u16 = 40;

/// Shows the coroutines of a running program
///
/// The program opts in by `plainsong::inspect::serve(SOCKET)`, with the feature `top`. Backtraces
/// need the feature `backtrace`, times need `inspect::measure_times(true)`, and the turns of each
/// coroutine need `inspect::recorder().start(100_000)`.
#[derive(Parser)]
struct Arguments {
    /// The path that the program has given to `inspect::serve`
    socket: PathBuf,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    every: f64,
    /// Which coroutines come first; keys change it later
    #[arg(long, value_enum, default_value_t)]
    order: Order,
    /// Print one screen as text, and end
    #[arg(long)]
    once: bool,
    /// Write one screen as a picture, and end
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number from 0.1 to 3600".to_owned())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to report a closed standard error.
            let _ = writeln!(io::stderr(), "top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let Arguments { socket, every, order, once, svg } = arguments;
    let mut view = View::ordered(order);
    let every = Duration::from_secs_f64(every);
    if once || svg.is_some() {
        return one_screen(&mut view, &socket, every, once, svg.as_deref());
    }
    if !io::stdout().is_terminal() {
        return Err(io::Error::other("this is no terminal: use --once for one screen as text"));
    }
    let reports = watch(socket, every);
    ratatui::run(|terminal| interact(terminal, &mut view, &reports))
}

/// Takes two reports, because rates need two.
fn one_screen(
    view: &mut View,
    socket: &Path,
    every: Duration,
    text: bool,
    svg: Option<&Path>,
) -> io::Result<()> {
    for at in 0..2 {
        if at > 0 {
            thread::sleep(every);
        }
        let report = fetch(socket);
        view.update(report.map_err(|error| io::Error::other(explain(socket, &error)))?);
    }
    let mut terminal = Terminal::new(TestBackend::new(COLUMNS, ROWS)).map_err(io::Error::other)?;
    terminal.draw(|frame| view.draw(frame)).map_err(io::Error::other)?;
    let buffer = terminal.backend().buffer();
    if let Some(file) = svg {
        std::fs::write(file, svg::picture(buffer))?;
    }
    if text {
        let mut out = io::stdout().lock();
        for row in buffer.content().chunks(usize::from(COLUMNS)) {
            let row: String = row.iter().map(|cell| cell.symbol()).collect();
            writeln!(out, "{}", row.trim_end())?;
        }
    }
    Ok(())
}

/// A thread that fetches reports, because that can take time, and the keys must work meanwhile.
fn watch(socket: PathBuf, every: Duration) -> Receiver<Result<Report, String>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        loop {
            let began = Instant::now();
            let report = fetch(&socket).map_err(|error| explain(&socket, &error));
            if sender.send(report).is_err() {
                return;
            }
            thread::sleep(every.saturating_sub(began.elapsed()));
        }
    });
    receiver
}

fn interact(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    reports: &Receiver<Result<Report, String>>,
) -> io::Result<()> {
    loop {
        while let Ok(report) = reports.try_recv() {
            match report {
                Ok(report) => view.update(report),
                Err(error) => view.trouble(error),
            }
        }
        terminal.draw(|frame| view.draw(frame))?;
        if event::poll(Duration::from_millis(100))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && view.key(key).is_break()
        {
            return Ok(());
        }
    }
}
