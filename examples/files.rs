//! Counts the lines of many files, a few at a time: each call that would block does so on a thread of
//! the pool, and the coroutines read like a program that does one file after the other.
//!
//! ```text
//! cargo run --release --example files [PATH...]
//! ```

use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use plainsong::sync::Semaphore;
use plainsong::task::gather;
use plainsong::{blocking, fs};

/// How many are in memory at a time.
const FILES_MAX: usize = 8;

fn main() -> io::Result<()> {
    let mut roots: Vec<_> = std::env::args().skip(1).map(PathBuf::from).collect();
    if roots.is_empty() {
        roots.push("src".into());
    }
    plainsong::run(|| {
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

        let mut total = (0, 0);
        for (path, count) in paths.iter().zip(counts) {
            match count {
                Ok((lines, bytes)) => {
                    println!("{lines:8} {bytes:10} {}", path.display());
                    total = (total.0 + lines, total.1 + bytes);
                }
                Err(error) => eprintln!("{}: {error}", path.display()),
            }
        }
        println!("{:8} {:10} in {} files", total.0, total.1, paths.len());
        Ok(())
    })
}

/// The files at and below `path`. What is no file (a pipe, a device) might have no end.
fn find(path: PathBuf, kind: FileType, found: &mut Vec<PathBuf>) {
    if kind.is_file() {
        found.push(path);
    } else if kind.is_dir()
        && let Err(error) = find_in(&path, found)
    {
        eprintln!("cannot look into {}: {error}", path.display());
    }
}

fn find_in(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // That of a link itself, which may lead back up.
        find(entry.path(), entry.file_type()?, found);
    }
    Ok(())
}

fn count(path: &Path) -> io::Result<(usize, usize)> {
    let text = fs::read(path)?;
    // A large file takes a while to look through. The call borrows it.
    let lines = blocking(|| text.iter().filter(|byte| **byte == b'\n').count());
    Ok((lines, text.len()))
}
