//! Manifests and lock files.

use std::fs;
use std::path::Path;

use toml_edit::{DocumentMut, InlineTable, Item, Table, Value, value};

use crate::Result;
use crate::copy::failed;

/// The source of crates.io in a lock file.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn read(path: &Path) -> Result<DocumentMut> {
    let text = fs::read_to_string(path).map_err(|error| failed("read", path, error))?;
    text.parse().map_err(|error| format!("cannot read {}: {error}", path.display()))
}

pub(crate) fn write(path: &Path, document: &DocumentMut) -> Result<()> {
    fs::write(path, document.to_string()).map_err(|error| failed("write", path, error))
}

/// Whether the package depends on a crate, on some system or in its tests.
pub(crate) fn depends_on(manifest: &DocumentMut, name: &str) -> bool {
    let targets = manifest.get("target").and_then(Item::as_table_like);
    let targets = targets.into_iter().flat_map(|targets| targets.iter().map(|(_, target)| target));
    let mut all = targets.chain([manifest.as_item()]);
    all.any(|one| {
        ["dependencies", "dev-dependencies"]
            .iter()
            .filter_map(|kind| one.get(kind)?.as_table_like())
            .any(|crates| crates.contains_key(name))
    })
}

/// Adds a crate to `[patch.crates-io]`.
pub(crate) fn add_patch(manifest: &mut DocumentMut, name: &str, version: &str, path: &str) {
    let mut outer = Table::new();
    outer.set_implicit(true);
    let patch = manifest.entry("patch").or_insert(Item::Table(outer));
    let patch = &mut patch["crates-io"];
    if patch.is_none() {
        *patch = Item::Table(Table::new());
    }
    let mut entry = InlineTable::new();
    let mut key = name.to_owned();
    if patch.get(name).is_some() {
        // Another version of it has the name.
        key = format!("{name}-{}", version.replace(['.', '+'], "-"));
        entry.insert("package", name.into());
    }
    entry.insert("path", path.into());
    patch[&key] = value(Value::InlineTable(entry));
}

/// A crate that is replaced by a copy.
pub(crate) struct Patch {
    pub(crate) key: String,
    pub(crate) name: String,
    /// Where the copy is, from the root of the workspace.
    pub(crate) path: String,
}

/// The crates of `[patch.crates-io]` whose copies are in `folder`.
pub(crate) fn patches(manifest: &DocumentMut, folder: &str) -> Vec<Patch> {
    let table = manifest.get("patch").and_then(|patch| patch.get("crates-io"));
    let entries = table.and_then(Item::as_table_like).into_iter().flat_map(|table| table.iter());
    let ours = entries.filter_map(|(key, entry)| {
        let path = entry.get("path")?.as_str()?.to_owned();
        path.strip_prefix(folder)?.strip_prefix('/')?;
        let name = entry.get("package").and_then(Item::as_str).unwrap_or(key).to_owned();
        Some(Patch { key: key.to_owned(), name, path })
    });
    ours.collect()
}

/// Takes a crate off `[patch.crates-io]`, and the section if it is empty then.
pub(crate) fn remove_patch(manifest: &mut DocumentMut, key: &str) {
    let Some(patch) = manifest.get_mut("patch").and_then(Item::as_table_like_mut) else { return };
    let Some(crates) = patch.get_mut("crates-io").and_then(Item::as_table_like_mut) else { return };
    crates.remove(key);
    if crates.is_empty() {
        patch.remove("crates-io");
        if patch.is_empty() {
            manifest.remove("patch");
        }
    }
}

fn packages(lock: &mut DocumentMut) -> impl Iterator<Item = &mut Table> {
    let packages = lock.get_mut("package").and_then(Item::as_array_of_tables_mut);
    packages.into_iter().flat_map(|packages| packages.iter_mut())
}

fn is(package: &Table, name: &str, version: &str) -> bool {
    let has = |key: &str, wanted| package.get(key).and_then(Item::as_str) == Some(wanted);
    has("name", name) && has("version", version)
}

/// The checksum of a crate of crates.io, from the lock file.
pub(crate) fn checksum(lock: &mut DocumentMut, name: &str, version: &str) -> Option<String> {
    let mut packages = packages(lock).filter(|package| is(package, name, version));
    let package = packages.find(|package| package.contains_key("checksum"))?;
    package.get("checksum")?.as_str().map(str::to_owned)
}

/// Has the lock file name the crate of crates.io again in place of a copy. Otherwise cargo would
/// take the newest version.
pub(crate) fn lock_again(lock: &mut DocumentMut, name: &str, version: &str, checksum: &str) {
    let copies = packages(lock).filter(|package| is(package, name, version));
    for package in copies.filter(|package| !package.contains_key("source")) {
        package.insert("source", value(CRATES_IO));
        package.insert("checksum", value(checksum));
    }
}

#[test]
fn a_dependency_is_found_in_each_of_its_places() {
    for place in ["dependencies", "target.'cfg(unix)'.dependencies", "dev-dependencies"] {
        let manifest = format!("[{place}.socket2]\nversion = '0.6'\n").parse().unwrap();
        assert!(depends_on(&manifest, "socket2"), "{place}");
        assert!(!depends_on(&manifest, "socket"), "{place}");
    }
}
