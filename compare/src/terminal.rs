//! Output for people: a progress bar, tables, notes.

use std::io::Write;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::stats::Spread;

/// A bar of `steps` steps; hidden where standard error is not a terminal. It shows the time that
/// has passed and not the time left, because steps take milliseconds or minutes.
pub fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    let template = "{bar:30} {pos} of {len} done in {elapsed}  now {msg}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

/// Prints a heading.
///
/// # Errors
///
/// When standard output is closed.
pub fn heading(text: &str) -> Result<()> {
    note(&format!("\n## {text}\n"))
}

/// Prints a line.
///
/// # Errors
///
/// When standard output is closed.
pub fn note(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// A table whose first column is text and whose other columns are numbers, printed as Markdown.
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&str]) -> Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().enumerate().map(|(at, text)| cell(at, text)));
        Table(table)
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().enumerate().map(|(at, text)| cell(at, &text)));
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        self.0.to_string()
    }

    /// Prints it.
    ///
    /// # Errors
    ///
    /// When standard output is closed.
    pub fn print(&self) -> Result<()> {
        note(&format!("{}\n", self.markdown()))
    }
}

fn cell(column: usize, text: &str) -> Cell {
    let alignment = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
    Cell::new(text).set_alignment(alignment)
}

/// A number with this many digits after the point; a dash for none.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// The quartiles of a ratio; a dash for none.
pub fn quartiles(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |s| format!("{:.3}–{:.3}", s.lower, s.upper))
}
