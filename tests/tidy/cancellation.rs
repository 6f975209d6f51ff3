//! Operations whose documentation has a section `# Cancellation`, and the tables of the test that
//! cancels each of them.

use crate::source::{Crate, File};

/// An item with a section `# Cancellation`, such as `sync::Mutex::lock` or `time::sleep`. A name
/// that is an argument of a macro is a `*`.
pub(crate) struct Documented {
    pub(crate) place: String,
    /// Its name in the module that it is declared in, and in others that re-export it.
    pub(crate) names: Vec<String>,
}

/// The documented items of a file. A section of a module's own documentation counts as its module.
pub(crate) fn documented(all: &Crate, file: &File, text: &str) -> Vec<Documented> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let names = match line.trim() {
            // The section of the whole crate is an introduction.
            "//! # Cancellation" if file.module.is_empty() => continue,
            "//! # Cancellation" => all.public_modules(file, ""),
            "/// # Cancellation" => {
                let is_item = |line: &&str| !line.trim().starts_with(['/', '#']);
                let item = at + lines[at..].iter().position(is_item).unwrap();
                names(all, file, &lines[..=item])
            }
            _ => continue,
        };
        found.push(Documented { place: format!("src/{}:{}", file.path, at + 1), names });
    }
    found
}

/// The names of the item that begins in the last of these lines.
fn names(all: &Crate, file: &File, lines: &[&str]) -> Vec<String> {
    let (item, above) = lines.split_last().unwrap();
    let words: Vec<_> =
        item.split([' ', '(', '<', '{', ';', ':']).filter(|word| !word.is_empty()).collect();
    let kinds = ["fn", "struct", "trait", "enum", "macro_rules!"];
    let kind = words.iter().position(|word| kinds.contains(word)).unwrap_or(0);
    let own = known(words[kind + 1]);
    if words[kind] == "macro_rules!" {
        return vec![format!("plainsong::{own}!")];
    }
    // The line that opens the block around the item. A head of several lines ends in `where` and
    // `{`.
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_around = |line: &&&str| !line.is_empty() && indent(line) < indent(item);
    let mut around = above.iter().rev().filter(is_around);
    let head = around.find(|line| !["{", "where"].contains(&line.trim()));
    let head = head.map(|head| head.trim_start()).filter(|head| head.starts_with("impl"));
    let of = head.map(implemented);
    let modules = all.public_modules(file, of.as_ref().unwrap_or(&own)).into_iter();
    match of {
        Some(of) => modules.map(|module| format!("{module}::{of}::{own}")).collect(),
        None => modules.map(|module| format!("{module}::{own}")).collect(),
    }
}

/// The type that an `impl` is for.
fn implemented(head: &str) -> String {
    let head = head.strip_prefix("impl").unwrap().replace("->", "");
    // Skips the parameters of the `impl` itself.
    let mut depth = 0;
    let parameters = head.find(|c: char| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth == 0 && c != '>'
    });
    let head = &head[parameters.unwrap_or(0)..];
    let head = head.split_once(" for ").map_or(head, |(_, behind)| behind);
    let path = head.trim_start_matches([' ', '&']).split(['<', ' ', '{']).next().unwrap();
    known(path.rsplit("::").next().unwrap())
}

fn known(name: &str) -> String {
    if name.starts_with('$') { "*".to_owned() } else { name.to_owned() }
}

/// Whether a row of a table is for a documented item. The row `net::TcpStream, write` is for
/// `net::TcpStream`.
pub(crate) fn is_for(row: &str, name: &str) -> bool {
    let row = row.split_once(',').map_or(row, |(name, _)| name);
    let (row, name): (Vec<_>, Vec<_>) = (row.split("::").collect(), name.split("::").collect());
    row.len() == name.len() && row.iter().zip(&name).all(|(a, b)| a == b || *b == "*")
}

/// The name in each row of a table.
pub(crate) fn rows(text: &str, table: &str) -> Vec<String> {
    let head = format!("const {table}:");
    let lines = text.lines().skip_while(|line| !line.starts_with(&head)).skip(1);
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with("];")).collect();
    let heads = (0..lines.len()).filter(|at| lines[*at].starts_with("    ("));
    let head = |at: usize| lines[at].trim_start_matches([' ', '(']).to_owned();
    let heads = heads.map(|at| if head(at).is_empty() { head(at + 1) } else { head(at) });
    heads.map(|head| head.split('"').nth(1).unwrap_or_default().to_owned()).collect()
}

/// Operations that cannot be made to wait until they are cancelled, and the test that covers each.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[
    (
        "plainsong::blocking",
        "it::task::blocking::one_that_runs_is_waited_for_and_its_value_returned",
    ),
    ("fs", "it::fs::a_cancelled_write_has_been_made_or_not"),
    ("io::stdout", "it::io::stdio::a_writer_that_is_cancelled_has_written_some_or_nothing"),
    ("io::stderr", "it::io::stdio::a_writer_that_is_cancelled_has_written_some_or_nothing"),
];
