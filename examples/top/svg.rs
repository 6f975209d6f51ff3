//! A screen as a picture.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

const WIDTH: u16 = 8;
const HEIGHT: u16 = 17;
const MARGIN: u16 = 12;

/// Draws each run of cells with one style as a text.
pub(crate) fn picture(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let (width, height) = (columns * WIDTH + 2 * MARGIN, rows * HEIGHT + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" \
         font-size=\"13.29\" xml:space=\"preserve\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1c1e26\"/>\n"
    );
    for (row, cells) in buffer.content().chunks(usize::from(columns)).enumerate() {
        let y = MARGIN + row as u16 * HEIGHT;
        let mut x = MARGIN;
        for run in cells.chunk_by(|a, b| colours(a) == colours(b)) {
            add(&mut svg, x, y, run);
            x += run.len() as u16 * WIDTH;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn add(svg: &mut String, x: u16, y: u16, run: &[Cell]) {
    let (text, ground, bold) = colours(&run[0]);
    let width = run.len() as u16 * WIDTH;
    if let Some(ground) = ground {
        _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{ground}\"/>"
        );
    }
    let words: String = run.iter().map(Cell::symbol).collect();
    if words.trim().is_empty() {
        return;
    }
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let bold = if bold { " font-weight=\"bold\"" } else { "" };
    let y = y + 13;
    _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" textLength=\"{width}\" fill=\"{text}\"{bold}>{words}</text>"
    );
}

/// The colours of the text and of its ground, and whether it is bold.
fn colours(cell: &Cell) -> (&'static str, Option<&'static str>, bool) {
    let text = colour(cell.fg).unwrap_or("#d5d8df");
    let bold = cell.modifier.contains(Modifier::BOLD);
    if cell.modifier.contains(Modifier::REVERSED) {
        return ("#1c1e26", Some(text), bold);
    }
    (text, colour(cell.bg), bold)
}

fn colour(colour: Color) -> Option<&'static str> {
    match colour {
        Color::Red => Some("#e95678"),
        Color::Green => Some("#29d398"),
        Color::Yellow => Some("#fab795"),
        Color::Cyan => Some("#59e3e3"),
        Color::DarkGray => Some("#7c8090"),
        _ => None,
    }
}
