//! An echo server on a Unix socket. It removes its name from the file system when it stops, and it
//! takes over the name of a server that was killed before it could do so.
//!
//! Ctrl-C or SIGTERM stops it.
//!
//! ```text
//! cargo run --release --example unix_echo [PATH]
//! nc -U /tmp/plainsong.sock
//! ```

mod args;

use std::io::{self, Error, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use plainsong::io::stdout;
use plainsong::net::{UnixListener, UnixStream};
use plainsong::signal::{SIGINT, SIGTERM, cancel_on};
use plainsong::time::timeout;

fn main() -> io::Result<()> {
    let path = args::optional("[PATH]").map(PathBuf::from);
    let path = path.unwrap_or_else(|| env::temp_dir().join("plainsong.sock"));
    plainsong::run(|| {
        let stop = cancel_on(&[SIGINT, SIGTERM])?;
        let listener = listen(&path)?;
        // The server works also without a reader of its output.
        let _ = writeln!(stdout(), "listening on {}", path.display());
        let served =
            stop.run_until_cancelled(|| listener.serve(|conn| io::copy(&mut &conn, &mut &conn)));
        fs::remove_file(&path)?;
        served.unwrap_or(Ok(()))
    })
}

/// Listens under this name, also if a server that has ended left its socket there.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path);
    if !listener.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
        return listener;
    }
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let text = format!("cannot listen on {}: this file is not a socket", path.display());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    if !is_stale(path) {
        return listener;
    }
    fs::remove_file(path)?;
    UnixListener::bind(path)
}

/// Whether no server listens on this socket. A server with a full queue is only busy.
fn is_stale(socket: &Path) -> bool {
    let connected = timeout(Duration::from_secs(1), || UnixStream::connect(socket));
    let refused = |error: Error| error.kind() == ErrorKind::ConnectionRefused;
    connected.is_ok_and(|connected| connected.is_err_and(refused))
}
