//! The flight recorder, and its traces.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::Location;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::dump::names;
use crate::engine::id::Id;
use crate::engine::recorder::{self, By, Event, Place, Then, What};
use crate::engine::ticks::{self, Scale};

/// The flight recorder of this process. Made by [`recorder`].
#[derive(Clone, Copy, Debug)]
pub struct Recorder(());

/// The flight recorder: it keeps the last events of each worker, for a look at what led to trouble.
///
/// It is off at first. While it is on, each spawn, turn, wake, cancellation, steal and poll is
/// written to a ring in memory, which takes some 10 ns each. [`Recorder::snapshot`] makes a trace
/// of the last seconds, which <https://ui.perfetto.dev> shows.
///
/// ```
/// use std::time::Duration;
/// use plainsong::{inspect, spawn, yield_now};
///
/// inspect::recorder().start(10_000);
/// plainsong::run(|| {
///     plainsong::time::sleep(Duration::from_millis(1));
///     spawn(|| yield_now()).join().unwrap();
///     let trace = inspect::recorder().snapshot(Duration::from_secs(10));
///     assert!(trace.to_string().contains("\"spawn\""));
/// });
/// ```
pub fn recorder() -> Recorder {
    Recorder(())
}

impl Recorder {
    /// Begins to record: at least the last `events` of each worker, of 32 bytes each, and at most
    /// 16 million. A busy server has two or three for each request. A worker begins with its next
    /// sleep, or when it next looks up from a full queue.
    ///
    /// The first call blocks the thread for 10 ms, for the calibration of a clock. The memory is
    /// not given back, but used again.
    pub fn start(self, events: usize) {
        recorder::set_capacity(events.max(1));
    }

    /// Ends recording. The events stay until they are written over.
    pub fn stop(self) {
        recorder::set_capacity(0);
    }

    /// Whether it is on.
    pub fn is_on(self) -> bool {
        recorder::capacity() > 0
    }

    /// The events of all workers in this last time, as far as they are kept.
    ///
    /// It can be called wherever [`dump`](super::dump) can. It reads the events without asking the
    /// workers, so it also has those of a worker that is stuck, and the turn that holds it up. (The
    /// workers are asked for the names of their coroutines.)
    pub fn snapshot(self, last: Duration) -> Trace {
        let scale = Scale::get();
        let since = ticks::now().saturating_sub(scale.ticks(last));
        let workers = recorder::events_since(since);
        Trace { workers, names: names(), scale }
    }

    /// Writes a [`snapshot`](Self::snapshot) to a new file in the directory for temporary files,
    /// and returns its path. Only the user of this process may read the file.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn save(self, last: Duration) -> io::Result<PathBuf> {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let trace = self.snapshot(last);
        loop {
            let number = FILES.fetch_add(1, Ordering::Relaxed);
            let name = format!("plainsong-{}-{number}.trace.json", process::id());
            let path = std::env::temp_dir().join(name);
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    let mut file = io::BufWriter::new(file);
                    write!(file, "{trace}")?;
                    return file.flush().map(|()| path);
                }
                // Of an earlier process with this number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Events of all workers. Made by [`Recorder::snapshot`].
///
/// It prints itself as JSON in the trace event format of Chrome, which Perfetto reads as well. Each
/// worker is a thread there, and each turn of a coroutine a slice, which says how it ended. Arrows
/// lead from a wake, or a spawn, to the turn that it has caused.
pub struct Trace {
    workers: Vec<(Place, Vec<Event>)>,
    names: HashMap<Id, Arc<str>>,
    scale: &'static Scale,
}

impl Trace {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.workers.iter().map(|(_, events)| events.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A coroutine, by its name if that is known.
    fn name(&self, id: Id) -> String {
        match self.names.get(&id) {
            Some(name) => format!("{id} {name}"),
            None => id.to_string(),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.workers.iter().flat_map(|(_, events)| events);
        let origin = all.map(|event| event.at).min().unwrap_or(0);
        let mut out = Writer { trace: self, origin, first: true, flows: 0, f };
        out.f.write_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        let workers = self.workers.iter().filter(|(_, events)| !events.is_empty());
        for (place, events) in workers {
            out.worker(*place, events)?;
        }
        out.f.write_str("\n]}\n")
    }
}

/// Writes the events of a trace.
struct Writer<'a, 'f> {
    trace: &'a Trace,
    // The earliest time.
    origin: u64,
    first: bool,
    // How many arrows there are.
    flows: u64,
    f: &'a mut fmt::Formatter<'f>,
}

/// A coroutine was woken or spawned, and has had no turn since.
struct Cause {
    at: u64,
    name: &'static str,
}

impl Writer<'_, '_> {
    fn worker(&mut self, place: Place, events: &[Event]) -> fmt::Result {
        let thread = place.run * 1024 + place.worker as u64;
        let Place { run, worker } = place;
        let name = Quoted(&format!("run {run}, worker {worker}")).to_string();
        self.event("M", "thread_name", thread, None, &format!(",\"args\":{{\"name\":{name}}}"))?;
        let mut causes = HashMap::new();
        for Event { at, what } in events {
            let at = *at;
            match *what {
                What::Turn { id, took, then } => {
                    if let Some(cause) = causes.remove(&id) {
                        self.arrow(thread, &cause, at)?;
                    }
                    self.turn(thread, at, id, took, then)?;
                }
                What::Spawned { id, spawned, parent } => {
                    causes.insert(id, Cause { at, name: "spawn" });
                    let parent = parent.map_or(String::new(), |id| self.trace.name(id));
                    self.point(
                        thread,
                        at,
                        "spawn",
                        &[
                            ("coroutine", &self.trace.name(id)),
                            ("at", &spawned.to_string()),
                            ("by", &parent),
                        ],
                    )?;
                }
                What::Woken { id, by } => {
                    causes.insert(id, Cause { at, name: "wake" });
                    let by = match by {
                        By::Coroutine(id) => self.trace.name(id),
                        By::Loop => "an event of the kernel".into(),
                        By::Thread => "another thread".into(),
                        By::Timer => "a timer".into(),
                        By::Cancellation => "a cancellation".into(),
                    };
                    let woken = self.trace.name(id);
                    self.point(thread, at, "wake", &[("coroutine", &woken), ("by", &by)])?;
                }
                What::Cancelled { id, by } => {
                    let by = by.map_or(String::new(), |id| self.trace.name(id));
                    let cancelled = self.trace.name(id);
                    self.point(thread, at, "cancel", &[("coroutine", &cancelled), ("by", &by)])?;
                }
                What::Polled { events, took } => {
                    let args = format!(",\"args\":{{\"events\":{events}}}");
                    self.event("X", "poll", thread, Some((at, Some(took))), &args)?;
                }
                What::Stolen => self.point(thread, at, "steal", &[])?,
            }
        }
        Ok(())
    }

    /// An event of a type of the format.
    fn event(
        &mut self,
        kind: &str,
        name: &str,
        thread: u64,
        time: Option<(u64, Option<u64>)>,
        rest: &str,
    ) -> fmt::Result {
        self.f.write_str(if self.first { "\n" } else { ",\n" })?;
        self.first = false;
        let process = process::id();
        let name = Quoted(name);
        write!(self.f, "{{\"ph\":\"{kind}\",\"name\":{name},\"pid\":{process},\"tid\":{thread}")?;
        let micros = |ticks| self.trace.scale.nanos(ticks) as f64 / 1000.0;
        if let Some((at, took)) = time {
            write!(self.f, ",\"ts\":{:.3}", micros(at.saturating_sub(self.origin)))?;
            if let Some(took) = took {
                write!(self.f, ",\"dur\":{:.3}", micros(took))?;
            }
        }
        write!(self.f, "{rest}}}")
    }

    fn turn(&mut self, thread: u64, at: u64, id: Id, took: u64, then: Then) -> fmt::Result {
        let spawned: Option<&Location<'_>> = match then {
            Then::Ended(spawned) => Some(spawned),
            _ => None,
        };
        let then = match then {
            Then::Runs => "still runs".to_owned(),
            Then::Yielded => "yields".to_owned(),
            Then::Parked(wait) => format!("waits for {wait}"),
            Then::Ended(_) => "ends".to_owned(),
        };
        let mut args = format!(",\"cat\":\"turn\",\"args\":{{\"then\":{}", Quoted(&then));
        if let Some(spawned) = spawned {
            write!(args, ",\"spawned\":{}", Quoted(&spawned.to_string()))?;
        }
        args.push('}');
        self.event("X", &self.trace.name(id), thread, Some((at, Some(took))), &args)
    }

    /// A point in time, with what is known of it.
    fn point(
        &mut self,
        thread: u64,
        at: u64,
        name: &str,
        known: &[(&str, &String)],
    ) -> fmt::Result {
        let known = known.iter().filter(|(_, value)| !value.is_empty());
        let args: Vec<_> = known.map(|(key, it)| format!("\"{key}\":{}", Quoted(it))).collect();
        let rest = format!(",\"s\":\"t\",\"args\":{{{}}}", args.join(","));
        self.event("i", name, thread, Some((at, None)), &rest)
    }

    /// An arrow from a cause to the turn that begins at `to`.
    fn arrow(&mut self, thread: u64, cause: &Cause, to: u64) -> fmt::Result {
        self.flows += 1;
        let rest = format!(",\"cat\":\"cause\",\"id\":{}", self.flows);
        self.event("s", cause.name, thread, Some((cause.at, None)), &rest)?;
        let rest = format!("{rest},\"bp\":\"e\"");
        self.event("f", cause.name, thread, Some((to, None)), &rest)
    }
}

/// A string of JSON.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
