//! The tool on a small workspace. Its dependencies are some of plainsong itself, so that cargo has
//! them already and needs no network.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const MANIFEST: &str = r#"# A comment that stays.
[package]
name = "demo"
version = "0.1.0"
edition = "2021"

[dependencies]
crossbeam-channel = "0.5"
httparse = "1"
slab = "0.4"
"#;

fn workspace(std: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), "pub use slab::Slab;\n").unwrap();
    fs::write(folder.path().join("Cargo.toml"), format!("{MANIFEST}{std}\n[workspace]\n")).unwrap();
    folder
}

fn with_std() -> TempDir {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../std").canonicalize().unwrap();
    workspace(&format!("std = {{ package = \"plainsong-std\", path = {path:?} }}"))
}

fn cargo(folder: &Path, arguments: &[&str]) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(folder).env("CARGO_NET_OFFLINE", "true").output().unwrap()
}

/// Calls the tool as cargo does. `Err` with what it reports.
fn plainsong(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_cargo-plainsong"));
    tool.arg("plainsong").args(arguments).current_dir(folder).env("CARGO_NET_OFFLINE", "true");
    let output = tool.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn a_crate_is_copied_and_used_and_undone() {
    let folder = with_std();
    let folder = folder.path();
    assert!(cargo(folder, &["generate-lockfile"]).status.success());
    let before = ["Cargo.toml", "Cargo.lock"].map(|file| read(folder, file));

    let told = plainsong(folder, &["vendor", "httparse"]).unwrap();
    assert!(told.contains("httparse 1."), "{told}");
    let tree = cargo(folder, &["tree", "--prefix", "none"]);
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.lines().any(|line| line.contains("vendor-plainsong/httparse")), "{tree}");
    let manifest = read(folder, "Cargo.toml");
    assert!(manifest.starts_with(&before[0]), "{manifest}");
    let again = plainsong(folder, &["vendor", "httparse"]).unwrap_err();
    assert!(again.contains("not from crates.io"), "{again}");

    let told = plainsong(folder, &["undo"]).unwrap();
    assert!(told.contains("httparse"), "{told}");
    assert_eq!(["Cargo.toml", "Cargo.lock"].map(|file| read(folder, file)), before);
    assert!(!folder.join("vendor-plainsong").exists());
}

#[test]
fn the_copy_of_crossbeam_channel_has_a_copy_of_crossbeam_utils() {
    let folder = with_std();
    let folder = folder.path();
    assert!(cargo(folder, &["generate-lockfile"]).status.success());
    let before = ["Cargo.toml", "Cargo.lock"].map(|file| read(folder, file));

    plainsong(folder, &["vendor", "crossbeam-channel"]).unwrap();
    let tree = cargo(folder, &["tree", "--prefix", "none", "-i", "plainsong-std"]);
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("plainsong-companions/crossbeam-utils"), "{tree}");
    // In the folder of the copy, too, where its tests are run.
    let copies = fs::read_dir(folder.join("vendor-plainsong")).unwrap();
    for copy in copies {
        let checked =
            cargo(&copy.unwrap().path(), &["metadata", "--no-deps", "--format-version=1"]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    plainsong(folder, &["undo"]).unwrap();
    assert_eq!(["Cargo.toml", "Cargo.lock"].map(|file| read(folder, file)), before);
}

#[test]
fn a_mistake_is_an_error_that_changes_nothing() {
    let folder = with_std();
    let folder = folder.path();
    let before = read(folder, "Cargo.toml");
    for (arguments, told) in [
        (["vendor", "no-such-crate"], "add it with `cargo add no-such-crate`"),
        (["vendor", "slab@0.0.1"], "the workspace has slab 0.4"),
        (["vendor", "slab"], "plainsong-std itself needs slab"),
        (["vendor", "plainsong"], "name another crate"),
        (["vendor", "rayon-core"], "unsound"),
        (["vendor", "thread_local"], "unsound"),
        (["vendor", "parking_lot"], "the address of a thread-local"),
        (["vendor", "qcell"], "unsound"),
        (["undo", "httparse"], "there is no copy of httparse"),
    ] {
        let error = plainsong(folder, &arguments).unwrap_err();
        assert!(error.contains(told), "{arguments:?}: {error}");
        assert_eq!(read(folder, "Cargo.toml"), before, "{arguments:?}");
    }
    // Something is in the way.
    let in_the_way = folder.join("vendor-plainsong");
    fs::write(&in_the_way, "").unwrap();
    let error = plainsong(folder, &["vendor", "httparse"]).unwrap_err();
    assert!(error.contains("vendor-plainsong"), "{error}");
    assert_eq!(read(folder, "Cargo.toml"), before);
    fs::remove_file(in_the_way).unwrap();
}

#[test]
fn without_plainsong_std_it_says_how_to_add_it() {
    let folder = workspace("");
    let error = plainsong(folder.path(), &["vendor", "httparse"]).unwrap_err();
    assert!(error.contains("std = { package = \"plainsong-std\""), "{error}");
    let nowhere = tempfile::tempdir().unwrap();
    let error = plainsong(nowhere.path(), &["undo"]).unwrap_err();
    assert!(error.contains("Cargo.toml"), "{error}");
}
