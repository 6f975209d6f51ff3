//! Dumps and metrics on a Unix socket, for viewers.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{self, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use super::dump::{Dump, json, timed_dump};
use super::metrics::{Metrics, metrics};
use super::recorder::recorder;
use super::text::of_the_program;
use crate::engine::error::explained;
use crate::engine::facts::Facts;
use crate::engine::fd::flock;
use crate::engine::recorder::{What, events_since};
use crate::engine::shared::start_thread;
use crate::engine::ticks::{self, Scale};

/// The version of the data's shape: it is changed when a field changes its meaning or goes.
const VERSION: u32 = 1;
/// How many coroutines are listed. With backtraces, so many take a megabyte of JSON.
const LISTED_MAX: usize = 1_000;
/// The time whose turns are summed up.
const WINDOW: Duration = Duration::from_secs(1);
/// How long a viewer has time to take its report.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a report: many times as long as the workers were asked, so that viewers hold
/// them up for a twentieth of the time at most, however often they ask. And as long as the report
/// has taken in all, which uses a processor.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_FACTOR: u32 = 19;
/// How much is written at a time. The time-out is that of one such write.
const CHUNK: usize = 64 * 1024;
/// How often the lock of the folder is tried, a millisecond apart.
const LOCK_TRIES: u32 = 1000;
/// Viewers in the kernel's queue.
const BACKLOG: i32 = 16;

/// A socket that is served. Made by [`serve`].
///
/// When it is dropped, the socket closes and its file is removed. A process that ends without
/// dropping it leaves the file, which the next [`serve`] replaces.
#[derive(Debug)]
#[must_use = "the socket closes when this is dropped"]
pub struct Serving {
    path: PathBuf,
    /// Device and inode of the file, which another program may have replaced.
    file: (u64, u64),
    /// Its other end is with the thread, which ends when this closes.
    _stop: UnixStream,
}

/// Serves what is seen inside of this process to viewers, on a Unix socket of this path: to the
/// example `top`, or to `nc -U PATH`. (Feature `top`.)
///
/// Each connection gets one line of JSON, with the [`dump`](super::dump) and the
/// [`metrics`](super::metrics), and is closed. `docs/debugging.md` has its shape. The feature
/// `backtrace` adds backtraces (of the program's own frames), the flight
/// [`recorder`](super::recorder) adds the turns of each coroutine, and
/// [`measure_times`](super::measure_times) adds durations.
///
/// A thread of its own does this, so it works while all workers are busy or stuck, and needs no
/// runtime. Viewers are answered one after another, and a slow one is given up after five seconds.
/// The thread then rests, so that viewers hold up the workers for a twentieth of the time at most.
/// A report lists a thousand coroutines at most: those that are not parked, and then those that
/// have been parked for the longest time.
///
/// The file has mode 0600: only the user of this process (and root) can connect. Not all systems
/// heed the mode of a socket, so put it into a folder that only this user can enter. A report has
/// names, places in the source, addresses of peers and frames, and no contents of memory.
///
/// # Errors
///
/// [`AddrInUse`](io::ErrorKind::AddrInUse) when a program serves there, or the path is that of
/// another file. [`InvalidInput`](io::ErrorKind::InvalidInput) for a path that is too long for a
/// socket. Those of the system, naming the path. Fails also when the process cannot have another
/// thread.
///
/// ```
/// use std::io::Read;
/// use std::os::unix::net::UnixStream;
/// use plainsong::inspect;
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("plainsong-doc-{}.sock", std::process::id()));
/// let _serving = inspect::serve(&path)?;
/// // What a viewer does:
/// let mut report = String::new();
/// UnixStream::connect(&path)?.read_to_string(&mut report)?;
/// assert!(report.starts_with("{\"version\":1,"));
/// # Ok(())
/// # }
/// ```
pub fn serve(path: impl AsRef<Path>) -> io::Result<Serving> {
    let path = path.as_ref();
    let path =
        path::absolute(path).map_err(|error| explain(path, error.kind(), &error.to_string()))?;
    let (ours, theirs) = UnixStream::pair()?;
    let (listener, serving) =
        listen(&path, ours).map_err(|error| explain(&path, error.kind(), &error.to_string()))?;
    start_thread("inspect-socket", Box::new(move || answer_viewers(&listener, &theirs)))?;
    Ok(serving)
}

impl Drop for Serving {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // There is nobody to tell, and the next `serve` replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn explain(path: &Path, kind: io::ErrorKind, why: &str) -> io::Error {
    explained(kind, format!("cannot serve on {}: {why}", path.display()))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn listen(path: &Path, stop: UnixStream) -> io::Result<(UnixListener, Serving)> {
    let refuse = |why| explained(io::ErrorKind::InvalidInput, why);
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(refuse("the path has a zero byte, where the system would cut it off"));
    }
    let address = SockAddr::unix(path)
        .map_err(|_| refuse("the path is too long for a socket, choose another"))?;
    let _locked = lock_folder(path);
    if is_taken(path, &address)? {
        let text = "a program serves there: end it, or choose another path for each of them";
        return Err(explained(io::ErrorKind::AddrInUse, text));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    let serving = Serving { path: path.to_owned(), file: identity(path)?, _stop: stop };
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok((listener, serving))
}

/// Keeps others that begin to serve in the same folder waiting until the drop. Without it, the
/// socket of one that does not listen yet would look like that of a program that has ended.
///
/// They hold the lock for a moment. If somebody holds it for longer, it has another purpose, and
/// this goes on without it, as where a folder cannot be locked.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    for _ in 0..LOCK_TRIES {
        let Err(error) = flock(folder.as_fd(), libc::LOCK_EX | libc::LOCK_NB) else {
            return Some(folder);
        };
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
            _ => return None,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Whether a program serves there. Removes the socket of one that has ended.
fn is_taken(path: &Path, address: &SockAddr) -> io::Result<bool> {
    let Ok(file) = fs::symlink_metadata(path) else { return Ok(false) };
    if !file.file_type().is_socket() {
        let text = "a file is there that is no socket: remove it, or choose another path";
        return Err(explained(io::ErrorKind::AddrInUse, text));
    }
    // `connect` would wait while the queue of the other program is full.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let Err(error) = socket.connect(address) else { return Ok(true) };
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINPROGRESS) => Ok(true),
        Some(libc::ECONNREFUSED) => fs::remove_file(path).map(|()| false),
        _ => Err(error),
    }
}

/// Answers viewers, until the other end of `stop` closes.
fn answer_viewers(listener: &UnixListener, stop: &UnixStream) {
    let began = Instant::now();
    loop {
        let mut both = [PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        // If it fails, the pause comes at once.
        let _ = poll(&mut both, None);
        let mut pause = PAUSE_MIN;
        if let Ok((viewer, _)) = listener.accept() {
            let start = Instant::now();
            let (report, asked) = Report::new(began.elapsed());
            let line = report.to_line();
            pause = pause.max(asked * PAUSE_FACTOR).max(start.elapsed());
            // A viewer that has gone or is slow is no trouble of this program.
            let _ = line.and_then(|line| send(&viewer, &line));
        }
        let pause = Timespec::try_from(pause).unwrap_or_default();
        let mut stop = [PollFd::new(stop, PollFlags::IN)];
        if poll(&mut stop, Some(&pause)).is_ok_and(|closed| closed > 0) {
            return;
        }
    }
}

fn send(mut viewer: &UnixStream, line: &[u8]) -> io::Result<()> {
    // Some systems pass the listener's mode on.
    viewer.set_nonblocking(false)?;
    let deadline = Instant::now() + PATIENCE;
    let mut rest = line;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        viewer.set_write_timeout(Some(left))?;
        match viewer.write(&rest[..rest.len().min(CHUNK)]) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The answer to a viewer.
#[derive(serde::Serialize)]
struct Report {
    version: u32,
    program: Option<String>,
    #[serde(rename = "uptime_ms", serialize_with = "json::millis")]
    uptime: Duration,
    dump: Dump,
    metrics: Metrics,
    /// The turns of the last second by coroutine, of those that are listed. None while the flight
    /// recorder is off.
    turns: Option<Vec<Turns>>,
}

#[derive(Default, serde::Serialize)]
struct Turns {
    coroutine: u64,
    count: u64,
    total_ns: u64,
    longest_ns: u64,
}

impl Report {
    /// A report, and for how long it has asked the workers.
    fn new(uptime: Duration) -> (Self, Duration) {
        let program = std::env::current_exe().ok();
        let program = program.and_then(|it| Some(it.file_name()?.to_string_lossy().into_owned()));
        let (mut dump, asked) = timed_dump();
        shorten(&mut dump);
        let turns = recorder().is_on().then(|| turns(&dump));
        let began = Instant::now();
        let metrics = metrics();
        let asked = asked + began.elapsed();
        (Self { version: VERSION, program, uptime, dump, metrics, turns }, asked)
    }

    fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Leaves those that are not parked, and then those that have been parked for the longest time, and
/// of their backtraces the frames of the program.
fn shorten(dump: &mut Dump) {
    let rank = |facts: &Facts| {
        let waited = facts.parked().map(|parked| parked.since);
        (waited.is_some(), Reverse(waited), facts.id.get())
    };
    let all = dump.workers.iter().flat_map(|worker| worker.coroutines.rows.iter());
    let mut ranks: Vec<_> = all.map(|facts| rank(&facts)).collect();
    let limit = (ranks.len() > LISTED_MAX).then(|| *ranks.select_nth_unstable(LISTED_MAX).1);
    for worker in &mut dump.workers {
        let all = worker.coroutines.len();
        worker.coroutines.rows.retain(|facts| limit.is_none_or(|limit| rank(facts) < limit));
        worker.unlisted += all - worker.coroutines.len();
        worker.coroutines.map_backtraces(|all| of_the_program(all).cloned().collect());
    }
}

/// Sums up the turns of the listed coroutines.
fn turns(dump: &Dump) -> Vec<Turns> {
    let listed = dump.coroutines().map(|one| {
        let coroutine = one.id.get();
        (coroutine, Turns { coroutine, ..Turns::default() })
    });
    let mut turns: HashMap<u64, Turns> = listed.collect();
    let scale = Scale::get();
    let since = ticks::now().saturating_sub(scale.ticks(WINDOW));
    for event in events_since(since).into_iter().flat_map(|(_, events)| events) {
        let What::Turn { id, took, .. } = event.what else { continue };
        if let Some(turns) = turns.get_mut(&id.get()) {
            let took = scale.nanos(took);
            turns.count += 1;
            turns.total_ns += took;
            turns.longest_ns = turns.longest_ns.max(took);
        }
    }
    turns.into_values().filter(|turns| turns.count > 0).collect()
}
