//! The runtime in the background, in a process that has no descriptors for it.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use plainsong_std::sync::Arc;
use plainsong_std::thread;

const NAME: &str = "a_runtime_in_the_background_that_cannot_start_is_an_error_and_is_tried_again";

#[test]
fn a_runtime_in_the_background_that_cannot_start_is_an_error_and_is_tried_again() {
    if std::env::var_os("FEW_DESCRIPTORS").is_some() {
        return starved();
    }
    let script = r#"ulimit -n 1024 && exec "$0" --exact "$1" --nocapture"#;
    let test = std::env::current_exe().unwrap();
    let mut child = Command::new("timeout");
    child.args(["60", "sh", "-c", script]).arg(test).arg(NAME).env("FEW_DESCRIPTORS", "1");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn starved() {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    let ran = Arc::new(AtomicBool::new(false));
    let theirs = ran.clone();
    let first = thread::Builder::new().spawn(move || theirs.store(true, Ordering::Relaxed));
    let error = first.expect_err("there is no descriptor for a runtime");
    assert!(error.to_string().contains("Too many open files"), "{error}");
    drop(files);
    assert_eq!(thread::spawn(|| 2).join().unwrap(), 2);
    assert!(!ran.load(Ordering::Relaxed));
}
