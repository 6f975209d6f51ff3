//! Programs that must not compile: about `Send` and `Sync`, escapes from scopes, variance, sealed
//! traits, the borrows of `select!`, and the messages for easy mistakes.
//!
//! Each file in `tests/compile_fail/` is one program. A line that must be refused ends with
//! `//~ CODE` or `//~ CODE: text`: the compiler must report an error of that code on that line,
//! which says that text. `-` is an error without a code, such as a lint. No other line may be
//! refused. Only our own messages are compared: the compiler's words differ between its versions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A place in a file: its line.
type Line = usize;

/// An error that a line must have, or that the compiler has reported.
#[derive(Debug)]
struct Error {
    code: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library, as cargo has compiled it for this test, and the folder of its dependencies.
fn library() -> (PathBuf, PathBuf) {
    let executable = std::env::current_exe().unwrap();
    let deps = executable.parent().unwrap();
    let profile = deps.parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(root()).args([
        "build",
        "--package=plainsong",
        "--message-format=json",
        "--target-dir",
    ]);
    build.arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let ours = messages.lines().find(|message| message.contains(r#""name":"plainsong""#));
    let metadata = ours.and_then(|message| {
        message.split('"').find(|text| text.ends_with(".rmeta") || text.ends_with(".rlib"))
    });
    (metadata.expect("cargo names what it has built").into(), deps.to_owned())
}

/// The errors that a program must have.
fn expected(program: &str) -> BTreeMap<Line, Error> {
    let mut errors = BTreeMap::new();
    for (line, text) in (1..).zip(program.lines()) {
        if let Some((_, wanted)) = text.split_once("//~ ") {
            let (code, text) = wanted.split_once(": ").unwrap_or((wanted, ""));
            errors.insert(line, Error { code: code.into(), text: text.into() });
        }
    }
    errors
}

/// The errors that the compiler has reported.
fn reported(output: &str) -> Vec<(Line, Error)> {
    let mut errors = Vec::new();
    for text in output.split("\n\n").filter(|text| text.starts_with("error")) {
        let place = text.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
        // The summary at the end has no place.
        let Some(place) = place else { continue };
        let line = place.split(':').nth(1).unwrap().parse().unwrap();
        let code = text.strip_prefix("error[").and_then(|text| text.split(']').next());
        errors.push((line, Error { code: code.unwrap_or("-").into(), text: text.into() }));
    }
    errors
}

/// Compiles a program, and compares. Returns how many errors it must have.
fn check(name: &str, library: &Path, deps: &Path, wrong: &mut Vec<String>) -> usize {
    let path = root().join("compile_fail").join(name);
    let program = fs::read_to_string(&path).unwrap();
    let output = Command::new(std::env::var("RUSTC").unwrap_or("rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never"])
        .args(["-Adead_code", "-Aunused", "-Dunused_must_use", "-o", "/dev/null"])
        .arg("--extern")
        .arg(format!("plainsong={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg(&path)
        .output()
        .unwrap();
    let output = String::from_utf8(output.stderr).unwrap();
    let (expected, reported) = (expected(&program), reported(&output));
    let is = |wanted: &Error, error: &Error| {
        wanted.code == error.code && error.text.contains(&wanted.text)
    };
    for (line, wanted) in &expected {
        if !reported.iter().any(|(at, error)| at == line && is(wanted, error)) {
            wrong.push(format!("{name}:{line}: not reported: {} {:?}", wanted.code, wanted.text));
        }
    }
    for (line, error) in &reported {
        if !expected.contains_key(line) {
            wrong.push(format!("{name}:{line}: reported, and not expected: {}", error.text));
        }
    }
    expected.len()
}

#[test]
fn what_must_not_compile_does_not_and_says_why() {
    let (library, deps) = library();
    let mut names: Vec<_> = fs::read_dir(root().join("compile_fail"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut wrong = Vec::new();
    let count: usize = names.iter().map(|name| check(name, &library, &deps, &mut wrong)).sum();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(count >= 60, "only {count} errors: has a file gone?");
}
