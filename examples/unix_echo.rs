//! An echo server on a Unix socket, which takes its name in the file system along when it goes, and
//! is not kept from it by one that was killed before it could.
//!
//! ```text
//! cargo run --release --example unix_echo [PATH]
//! nc -U /tmp/plainsong.sock
//! ```

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use plainsong::CancellationToken;
use plainsong::net::{UnixListener, UnixStream};
use plainsong::signal::{SIGINT, SIGTERM, Signals};
use plainsong::time::timeout;

fn main() -> io::Result<()> {
    let path = env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| env::temp_dir().join("plainsong.sock"));
    plainsong::run(|| {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let listener = listen(&path)?;
        println!("listening on {}", path.display());
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        plainsong::spawn(move || {
            let signal = signals.wait();
            stopper.cancel();
            signal
        });
        let served =
            stop.run_until_cancelled(|| listener.serve(|conn| io::copy(&mut &conn, &mut &conn)));
        fs::remove_file(&path)?;
        served.unwrap_or(Ok(()))
    })
}

/// Listens under this name, even if a server that has ended has left it behind.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

/// Whether this is the name of a socket that nobody listens on. (To connect to any other file
/// is refused too.)
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    // One that accepts nobody for a while is busy, and not gone.
    let connected = timeout(Duration::from_secs(1), || UnixStream::connect(path));
    is_socket && connected.is_ok_and(|connected| connected.is_err_and(refused))
}
