//! `code`: compares the servers as text, and by their allocations.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::process::Helper;
use crate::saved;
use crate::servers::Style;
use crate::terminal::{self, Table};

/// The name of the saved results.
pub const NAME: &str = "code";

/// How long it may take to count one server's allocations.
const PATIENCE: Duration = Duration::from_secs(60);

/// The counts for one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// The style.
    pub style: Style,
    /// Lines that are neither blank nor a comment.
    pub lines: usize,
    /// Functions and blocks that are `async`.
    pub coloured: usize,
    /// Uses of `.await`.
    pub awaits: usize,
    /// Its allocations; none for Go, which has an allocator of its own.
    pub allocations: Option<Allocations>,
}

/// A server's allocations.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Allocations {
    /// Allocations for each connection.
    pub per_connection: f64,
    /// Bytes for each connection.
    pub bytes_per_connection: f64,
    /// Allocations for each request.
    pub per_request: f64,
}

/// Counts, and prints a table. `save` says whether to save the results as those of a quick run.
///
/// # Errors
///
/// When the program that counts allocations cannot be built, or a server fails in it.
pub fn run(save: Option<bool>) -> Result<()> {
    build_counter()?;
    let bar = terminal::progress(Style::ECHO.len());
    let mut all = Vec::with_capacity(Style::ECHO.len());
    for style in Style::ECHO {
        bar.set_message(format!("allocations of {style}"));
        all.push(count(style)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    terminal::heading("the servers as text")?;
    table(&all).print()?;
    save.map_or(Ok(()), |quick| saved::save(NAME, quick, all))
}

/// A row for each style.
pub fn table(all: &[Counted]) -> Table {
    let mut table = Table::new(&[
        "",
        "lines",
        "async",
        ".await",
        "asks of a handler",
        "allocations/connection",
        "bytes/connection",
        "allocations/request",
    ]);
    for counted in all {
        let of = |part: fn(&Allocations) -> f64| counted.allocations.as_ref().map(part);
        table.row([
            counted.style.label().to_owned(),
            counted.lines.to_string(),
            counted.coloured.to_string(),
            counted.awaits.to_string(),
            counted.style.asks().to_owned(),
            terminal::number(of(|a| a.per_connection), 1),
            terminal::number(of(|a| a.bytes_per_connection), 0),
            terminal::number(of(|a| a.per_request), 2),
        ]);
    }
    table
}

fn count(style: Style) -> Result<Counted> {
    let code: Vec<&str> = style.source().lines().map(str::trim).filter(is_code).collect();
    let coloured = |line: &&str| {
        line.contains("async fn") || line.contains("async {") || line.contains("async move")
    };
    Ok(Counted {
        style,
        lines: code.len(),
        coloured: code.iter().copied().filter(coloured).count(),
        awaits: code.iter().map(|line| line.matches(".await").count()).sum(),
        allocations: if style == Style::Go { None } else { Some(allocations(style)?) },
    })
}

fn is_code(line: &&str) -> bool {
    !line.is_empty() && !line.starts_with("//")
}

/// The program that counts allocations. It is separate because counting slows down every
/// allocation, which the other measurements must not see.
const COUNTER: &str = "compare-allocs";

/// `cargo run` builds only the program that it runs, so this builds the other one. Its dependencies
/// are built already.
fn build_counter() -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "compare", "--bin", COUNTER]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).status();
    let status = status.context("cannot run cargo to build the counter of allocations")?;
    ensure!(status.success(), "the counter of allocations does not build");
    Ok(())
}

fn allocations(style: Style) -> Result<Allocations> {
    let program = std::env::current_exe()?.with_file_name(COUNTER);
    let name = style.to_possible_value().context("every style has a name")?;
    let mut command = Command::new(program);
    command.arg(name.get_name());
    Helper::start(COUNTER, command)?.answer(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_code() {
        assert!(is_code(&"let a = 1; // one"));
        assert!(!is_code(&"") && !is_code(&"/// one") && !is_code(&"//! one"));
    }
}
