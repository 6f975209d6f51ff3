//! Counts the lines of many files, all at once: each call that would block does so on a thread of
//! the pool, and the coroutines read like a program that does one file after the other.
//!
//! ```text
//! cargo run --release --example files [PATH...]
//! ```

use std::io;
use std::path::{Path, PathBuf};

use plainsong::task::gather;
use plainsong::{blocking, fs};

fn main() -> io::Result<()> {
    let mut roots: Vec<_> = std::env::args().skip(1).map(PathBuf::from).collect();
    if roots.is_empty() {
        roots.push("src".into());
    }
    plainsong::run(|| {
        let mut paths = Vec::new();
        for root in roots {
            find(root, &mut paths)?;
        }
        paths.sort();
        let counts = gather(paths.iter().map(|path| move || count(path)));

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

/// The files at and below `path`.
fn find(path: PathBuf, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let metadata = fs::metadata(&path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot look at {}: {error}", path.display()))
    })?;
    if metadata.is_dir() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            // A link may lead back up.
            if !entry.file_type()?.is_symlink() {
                find(entry.path(), found)?;
            }
        }
    } else {
        found.push(path);
    }
    Ok(())
}

fn count(path: &Path) -> io::Result<(usize, usize)> {
    let text = fs::read(path)?;
    // A large file takes a while to look through. The call borrows it.
    let lines = blocking(|| text.iter().filter(|byte| **byte == b'\n').count());
    Ok((lines, text.len()))
}
