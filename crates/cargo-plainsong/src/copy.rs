//! The copy of one crate.

use std::fs;
use std::path::{Component, Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::Result;
use crate::manifest;

/// Where the copies use plainsong-std from.
pub(crate) enum Std {
    Path(PathBuf),
    Version(String),
    Git { url: String, revision: String },
}

/// Makes `thread_local!` one value for each coroutine, as the crate takes a coroutine for a thread.
/// The macro in the prelude is std's own, so the root of the crate has to name this one.
const THREAD_LOCAL: &str = "
// Added by `cargo plainsong vendor`: each coroutine has its own values.
#[macro_use(thread_local)]
extern crate std as plainsong_std_macros;
";

/// The folder of the crates that a copy has for itself.
const COMPANIONS: &str = "plainsong-companions";

/// Copies the crate in `from` to `to`, with `std` as its `std`.
pub(crate) fn make(from: &Path, to: &Path, std: &Std) -> Result<()> {
    copy(from, to, std)?;
    change_manifest(to, |manifest| {
        // So that its own tests can be run in its folder.
        manifest.entry("workspace").or_insert_with(table);
        Ok(())
    })
}

/// Gives the copy in `to` a copy of a crate for itself. `from` has the crate.
pub(crate) fn add_companion(from: &Path, name: &str, to: &Path, std: &Std) -> Result<()> {
    copy(from, &to.join(COMPANIONS).join(name), std)?;
    change_manifest(to, |manifest| {
        let dependency = manifest.get_mut("dependencies").and_then(|all| all.get_mut(name));
        let dependency = dependency.and_then(Item::as_table_like_mut);
        let dependency = dependency.ok_or_else(|| strange(&to.join("Cargo.toml")))?;
        dependency.insert("path", value(format!("{COMPANIONS}/{name}")));
        Ok(())
    })
}

fn change_manifest(
    folder: &Path,
    change: impl FnOnce(&mut DocumentMut) -> Result<()>,
) -> Result<()> {
    let path = folder.join("Cargo.toml");
    let mut manifest = manifest::read(&path)?;
    change(&mut manifest)?;
    manifest::write(&path, &manifest)
}

fn copy(from: &Path, to: &Path, std: &Std) -> Result<()> {
    folder(from, to)?;
    let path = to.join("Cargo.toml");
    let mut manifest = manifest::read(&path)?;
    let has_socket2 = manifest::depends_on(&manifest, "socket2");
    let dependencies = manifest.as_table_mut().entry("dependencies").or_insert_with(table);
    let dependencies = dependencies.as_table_like_mut().ok_or_else(|| strange(&path))?;
    if dependencies.contains_key("std") {
        return Err(format!(
            "{} has a dependency that is called `std` already: the crate cannot have another `std`",
            path.display()
        ));
    }
    let mut dependency = Table::new();
    dependency.insert("package", value("plainsong-std"));
    if has_socket2 {
        // The crate may make a socket there, and convert it to one of std's.
        dependency.insert("features", value(Array::from_iter(["socket2"])));
    }
    match std {
        Std::Path(std) => {
            dependency.insert("path", value(relative(to, std).to_string_lossy().as_ref()));
        }
        Std::Version(version) => {
            dependency.insert("version", value(version));
        }
        Std::Git { url, revision } => {
            dependency.insert("git", value(url));
            dependency.insert("rev", value(revision));
        }
    }
    dependencies.insert("std", Item::Table(dependency));
    // Cargo shows the warnings of a crate that is not from a registry.
    let mut lints = Table::new();
    lints.insert("rust", Item::Table(Table::from_iter([("warnings", value("allow"))])));
    manifest.insert("lints", Item::Table(lints));
    let root = manifest.get("lib").and_then(|lib| lib.get("path")).and_then(Item::as_str);
    let root = to.join(root.unwrap_or("src/lib.rs"));
    manifest::write(&path, &manifest)?;
    if root.is_file() && mentions(&to.join("src"), "thread_local!")? {
        let source = fs::read_to_string(&root).map_err(|error| failed("read", &root, error))?;
        fs::write(&root, source + THREAD_LOCAL).map_err(|error| failed("write", &root, error))?;
    }
    Ok(())
}

fn table() -> Item {
    Item::Table(Table::new())
}

fn strange(path: &Path) -> String {
    format!("{} is not written as a manifest is", path.display())
}

/// An error of the file system, in words.
pub(crate) fn failed(what: &str, path: &Path, error: std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

fn folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(|error| failed("create", to, error))?;
    let entries = fs::read_dir(from).map_err(|error| failed("read", from, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| failed("read", from, error))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            folder(&from, &to)?;
        } else if entry.file_name() != ".cargo-ok" {
            fs::copy(&from, &to).map_err(|error| failed("copy to", &to, error))?;
        }
    }
    Ok(())
}

/// Whether a Rust file in the folder has this text.
fn mentions(folder: &Path, text: &str) -> Result<bool> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(false) };
    for entry in entries {
        let path = entry.map_err(|error| failed("read", folder, error))?.path();
        let found = if path.is_dir() {
            mentions(&path, text)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path).is_ok_and(|source| source.contains(text))
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The path that leads from one folder to another. Both are absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(to[common..].iter().copied()).collect()
}

#[test]
fn a_path_leads_from_one_folder_to_another() {
    let lead = |from, to| relative(Path::new(from), Path::new(to));
    assert_eq!(lead("/a/b/c", "/a/d"), Path::new("../../d"));
    assert_eq!(lead("/a", "/a/b/c"), Path::new("b/c"));
    assert_eq!(lead("/a/b", "/c"), Path::new("../../c"));
}
