//! `SURFACE.md` names each item of the modules that this crate replaces in part. So an item that a
//! new std brings, which would block the thread unnoticed, fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A section of `SURFACE.md`: a module, and the names of its items.
struct Module {
    name: String,
    ours: BTreeSet<String>,
    std: BTreeSet<String>,
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of a list, without the reasons in parentheses.
fn names(list: &str) -> BTreeSet<String> {
    let mut text = list.to_owned();
    while let (Some(start), Some(end)) = (text.find('('), text.find(')')) {
        text.replace_range(start..=end, "");
    }
    let names = text.split(',').map(|name| name.split_whitespace().collect::<String>());
    names.filter(|name| !name.is_empty() && name != "none").collect()
}

fn table() -> Vec<Module> {
    let text = read(&root().join("SURFACE.md"));
    let module = |section: &str| {
        let (name, lists) = section.split_once("\n\n").unwrap();
        let (ours, std) = lists.split_once("\n- std's:").unwrap();
        let ours = ours.strip_prefix("- ours:").unwrap();
        Module { name: name.to_owned(), ours: names(ours), std: names(std) }
    };
    text.split("\n## ").skip(1).map(module).collect()
}

/// The documentation of std, if it is installed.
fn documentation() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let root = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    Some(root.join("share/doc/rust/html/std")).filter(|folder| folder.exists())
}

/// The stable items on the page of a module.
fn items(page: &str) -> BTreeSet<String> {
    let entries = page.split("<dt>").skip(1).map(|entry| entry.split("</dt>").next().unwrap());
    let stable = entries.filter(|entry| !entry.contains("stab unstable"));
    let name = |entry: &str| {
        // `<a class="struct" href="…" title="struct std::sync::Arc">Arc</a>`
        let title = entry.split("title=\"").nth(1)?.split('"').next()?;
        Some(title.rsplit([':', ' ']).next()?.to_owned())
    };
    stable.filter_map(name).collect()
}

#[test]
fn the_table_names_all_stable_items_of_std() {
    let Some(documentation) = documentation() else {
        return;
    };
    let mut wrong = Vec::new();
    for Module { name, ours, std } in table() {
        let page = documentation.join(name.replace("::", "/")).join("index.html");
        let items = items(&read(&page));
        assert!(items.len() > 1, "{}: is not written as expected", page.display());
        let listed: BTreeSet<_> = ours.union(&std).cloned().collect();
        wrong.extend(items.difference(&listed).map(|item| format!("std::{name}::{item} is new")));
        // std's pages do not list the preludes of `os`.
        let gone = listed.difference(&items).filter(|item| *item != "prelude");
        wrong.extend(gone.map(|item| format!("std::{name}::{item} is not there")));
    }
    assert!(wrong.is_empty(), "\n{}\nSay in SURFACE.md what becomes of each.", wrong.join("\n"));
}

/// The names that a module defines or imports from plainsong. `source` is its body without
/// indentation.
fn defined(source: &str) -> BTreeSet<String> {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let items = format!("\n{source}");
    let items = items.split("\npub ").skip(1).map(|item| item.split(';').next().unwrap());
    let names = items.flat_map(|item| match item.strip_prefix("use ") {
        Some(path) if path.starts_with("::std::") => Vec::new(),
        Some(path) => words(path),
        None => words(item).into_iter().skip(1).take(1).collect(),
    });
    names.collect()
}

/// The source of a module: a file, or what is inside of `pub mod name { … }`.
fn source(module: &str) -> String {
    let mut parts = module.split("::");
    let first = parts.next().unwrap();
    let file = [format!("src/{first}.rs"), format!("src/{first}/mod.rs")];
    let file = file.iter().map(|file| root().join(file)).find(|file| file.exists());
    let mut source = file.map_or_else(String::new, |file| read(&file));
    for part in parts {
        let Some((_, body)) = source.split_once(&format!("\npub mod {part} {{\n")) else {
            return String::new();
        };
        source = body.split("\n}").next().unwrap().replace("\n    ", "\n").trim_start().to_owned();
    }
    source
}

#[test]
fn the_crate_has_what_the_table_calls_ours() {
    let mut wrong = Vec::new();
    for Module { name, ours, std } in table() {
        let defined = defined(&source(&name));
        wrong.extend(ours.difference(&defined).map(|item| format!("{name}::{item} is std's")));
        wrong.extend(std.intersection(&defined).map(|item| format!("{name}::{item} is ours")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
