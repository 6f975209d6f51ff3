//! Counts the lines of many files, a few at a time. A call that would block runs on a thread of the
//! pool, and the coroutines read like a program that counts one file after the other.
//!
//! ```text
//! cargo run --release --example files [PATH...]
//! ```

use std::fs::FileType;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use plainsong::io::{stderr, stdout};
use plainsong::sync::Semaphore;
use plainsong::task::gather;
use plainsong::{blocking, fs};

/// How many files are in memory at a time.
const FILES_MAX: usize = 8;

fn main() -> io::Result<()> {
    let mut roots: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if roots.is_empty() {
        roots.push("src".into());
    }
    match plainsong::run(|| count_all(roots)) {
        // The reader of a pipe, such as `head -1`, has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn count_all(roots: Vec<PathBuf>) -> io::Result<()> {
    let mut paths = Vec::new();
    for root in roots {
        let metadata = fs::metadata(&root).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot look at {}: {error}", root.display()))
        })?;
        find(root, metadata.file_type(), &mut paths);
    }
    paths.sort();
    let room = &Semaphore::new(FILES_MAX);
    let counts = gather(paths.iter().map(|path| {
        move || {
            let _permit = room.acquire();
            count(path)
        }
    }));

    let (mut lines, mut bytes) = (0, 0);
    for (path, count) in paths.iter().zip(counts) {
        match count {
            Ok((n, size)) => {
                writeln!(stdout(), "{n:8} {size:10} {}", path.display())?;
                (lines, bytes) = (lines + n, bytes + size);
            }
            Err(error) => complain(path, &error),
        }
    }
    writeln!(stdout(), "{lines:8} {bytes:10} in {} files", paths.len())
}

/// The files at and below `path`. Anything else, such as a pipe or a device, might have no end.
fn find(path: PathBuf, kind: FileType, found: &mut Vec<PathBuf>) {
    if kind.is_file() {
        found.push(path);
    } else if kind.is_dir() {
        if let Err(error) = find_in(&path, found) {
            complain(&path, &error);
        }
    }
}

fn find_in(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The type of a link itself: it may lead back up.
        find(entry.path(), entry.file_type()?, found);
    }
    Ok(())
}

fn count(path: &Path) -> io::Result<(usize, usize)> {
    let text = fs::read(path)?;
    // Counting in a large file takes a while. The call borrows the text.
    let lines = blocking(|| text.iter().filter(|byte| **byte == b'\n').count());
    Ok((lines, text.len()))
}

/// A complaint that cannot be printed changes nothing about the count.
fn complain(path: &Path, error: &io::Error) {
    let _ = writeln!(stderr(), "{}: {error}", path.display());
}
