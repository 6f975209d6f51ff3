//! A dump as text for people.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::dump::{Answer, Coroutine, Dump, Place, State, Worker};
use super::frame::Frame;
use crate::engine::facts::{Facts, Time};
use crate::engine::id::Id;
use crate::engine::order::sort_by_key;
use crate::engine::scopes::CancelReason;

/// As many coroutines that are alike are shown as one.
const MANY: usize = 3;
/// As many frames of a backtrace are shown.
const FRAMES_MAX: usize = 16;
/// As many characters of a function's name are shown: some have the types of all their generics.
const NAME_MAX: usize = 120;
/// Deeper coroutines are not indented any further.
const INDENT_MAX: usize = 16;

/// Coroutines that are shown as one have all of this in common.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    state: State,
    spawned: Place,
    waits: Option<(&'static str, Option<Place>, Option<Place>)>,
    scoped: bool,
    cancelled: bool,
    reason: Option<CancelReason>,
    backtrace: *const Frame,
}

/// A coroutine of a run.
struct One<'a> {
    // Its parent, if that is alive.
    parent: Option<Id>,
    id: Id,
    worker: &'a Worker,
    place: usize,
}

impl One<'_> {
    fn facts(&self) -> Facts {
        self.worker.coroutines.rows.get(self.place)
    }

    fn kind(&self) -> Kind {
        let facts = self.facts();
        Kind {
            state: State::of(&facts),
            spawned: Place(facts.spawned),
            waits: facts.parked().map(|parked| {
                let created = parked.subject.map(|subject| Place(subject.created));
                (parked.why.text(), created, parked.waited_at().map(Place))
            }),
            scoped: facts.scoped,
            cancelled: facts.cancelled,
            backtrace: self.worker.coroutines.backtrace(&facts).as_ptr(),
            reason: facts.reason,
        }
    }
}

/// The coroutines of a run, by their parents and ids.
struct Tree<'a> {
    all: Vec<One<'a>>,
    // Whether there are several workers.
    several: bool,
}

impl<'a> Tree<'a> {
    fn new(workers: &[&'a Worker]) -> Self {
        let count = workers.iter().map(|worker| worker.coroutines.len()).sum();
        let mut all = Vec::with_capacity(count);
        for &worker in workers {
            all.extend(worker.coroutines.rows.places().map(|(place, facts)| {
                let Facts { id, parent, .. } = facts;
                One { parent, id, worker, place }
            }));
        }
        let parents = all.iter().filter_map(|one| Some((one.parent?, false)));
        let mut parents: HashMap<Id, bool> = parents.collect();
        for one in &all {
            parents.entry(one.id).and_modify(|alive| *alive = true);
        }
        for one in &mut all {
            one.parent = one.parent.filter(|parent| parents[parent]);
        }
        sort_by_key(&mut all, |one| one.id.get());
        sort_by_key(&mut all, |one| one.parent.map_or(0, Id::get));
        Self { all, several: workers.len() > 1 }
    }

    fn children(&self, parent: Option<Id>) -> &[One<'a>] {
        let rest = &self.all[self.all.partition_point(|one| one.parent < parent)..];
        &rest[..rest.partition_point(|one| one.parent == parent)]
    }

    /// The children of some coroutines, those that are alike together.
    fn groups(&self, parents: impl Iterator<Item = Option<Id>>) -> Vec<Vec<&One<'a>>> {
        let (mut groups, mut places) = (Vec::<Vec<&One<'_>>>::new(), HashMap::new());
        for one in parents.flat_map(|id| self.children(id)) {
            let place = *places.entry(one.kind()).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(one),
                None => groups.push(vec![one]),
            }
        }
        let few = |group: &Vec<_>| group.len() < MANY;
        let split = |group: Vec<_>| match few(&group) {
            true => group.into_iter().map(|one| vec![one]).collect(),
            false => vec![group],
        };
        groups.into_iter().flat_map(split).collect()
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_as(f, "coroutine")
    }
}

impl Dump {
    /// Writes it as a list of this `kind`.
    pub(super) fn write_as(&self, f: &mut fmt::Formatter<'_>, kind: &'static str) -> fmt::Result {
        let count = self.coroutines().count();
        writeln!(f, "plainsong: {} in process {}", Count(count, kind), self.process)?;
        for run in self.workers.chunk_by(|one, other| one.run == other.run) {
            let workers: Vec<&Worker> = run.iter().collect();
            for worker in &workers {
                write_worker(f, worker)?;
            }
            write_tree(f, &Tree::new(&workers))?;
        }
        Ok(())
    }
}

fn write_worker(f: &mut fmt::Formatter<'_>, worker: &Worker) -> fmt::Result {
    let Worker { run, worker: number, answer, .. } = worker;
    write!(f, "run {run}, worker {number}: {}", Count(worker.coroutines.len(), "coroutine"))?;
    if worker.unlisted > 0 {
        write!(f, " and about {} that could not be listed", worker.unlisted)?;
    }
    if worker.pending > 0 {
        write!(f, ", {} more have not started on any worker", worker.pending)?;
    }
    match answer {
        Answer::InTurn => {}
        Answer::Interrupted => {
            let running = worker.coroutines.iter().find(|one| one.state == State::Running);
            match running {
                Some(one) => write!(f, "; it is held up by coroutine {}", Named(&one))?,
                None => f.write_str("; it is held up outside of any coroutine")?,
            }
            f.write_str(", which computes or blocks the thread")?;
        }
        Answer::Silent => f.write_str("; it does not answer")?,
    }
    writeln!(f)
}

/// Writes the coroutines of a run, each below its parent.
fn write_tree(f: &mut fmt::Formatter<'_>, tree: &Tree<'_>) -> fmt::Result {
    // Not a recursion: it may be deep, and this may run on the stack of a coroutine.
    let mut left: Vec<(usize, Vec<&One<'_>>)> = Vec::new();
    let push = |left: &mut Vec<_>, depth, groups: Vec<_>| {
        left.extend(groups.into_iter().rev().map(|group| (depth, group)));
    };
    push(&mut left, 0, tree.groups([None].into_iter()));
    while let Some((depth, group)) = left.pop() {
        write_group(f, tree, depth, &group)?;
        push(&mut left, depth + 1, tree.groups(group.iter().map(|one| Some(one.id))));
    }
    Ok(())
}

/// Writes coroutines that are alike.
fn write_group(
    f: &mut fmt::Formatter<'_>,
    tree: &Tree<'_>,
    depth: usize,
    group: &[&One<'_>],
) -> fmt::Result {
    let waited = |one: &One<'_>| one.facts().parked().map(|parked| parked.since);
    let Some(one) = group.iter().max_by_key(|one| waited(one)) else { return Ok(()) };
    let longest = &one.worker.coroutines.coroutine(&one.facts());
    let indent = "    ".repeat(depth.min(INDENT_MAX));
    write!(f, "{indent}")?;
    match group.len() {
        1 => write!(f, "{}", Named(longest))?,
        many => write!(f, "{} alike", Count(many, "coroutine"))?,
    }
    if longest.scoped {
        f.write_str(" in a scope")?;
    }
    if tree.several && group.len() == 1 {
        write!(f, " on worker {}", one.worker.worker)?;
    }
    writeln!(f, ", spawned at {}", longest.spawned)?;
    if group.len() > 1 {
        write!(f, "{indent}  of which {}", Named(longest))?;
    } else {
        write!(f, "{indent} ")?;
    }
    write_state(f, longest)?;
    writeln!(f)?;
    write_stack(f, &indent, group)?;
    write_backtrace(f, &indent, &longest.backtrace)
}

pub(super) fn write_state(f: &mut fmt::Formatter<'_>, coroutine: &Coroutine) -> fmt::Result {
    match (coroutine.state, &coroutine.waits_for) {
        (_, Some(waits)) => {
            write!(f, " waits for {}: {}", Time(waits.waited), waits.text)?;
            if let Some(at) = waits.at {
                write!(f, ", at {at}")?;
            }
        }
        (State::Running, _) => f.write_str(" runs")?,
        (State::New, _) => f.write_str(" has not begun")?,
        _ => f.write_str(" is ready")?,
    }
    if coroutine.cancelled {
        f.write_str("; cancelled")?;
        if let Some(reason) = &coroutine.reason {
            write!(f, ": {reason}")?;
        }
    }
    match coroutine.deadline {
        Some(Duration::ZERO) => f.write_str("; its time-out has passed"),
        Some(deadline) => write!(f, "; times out in {}", Time(deadline)),
        None => Ok(()),
    }
}

fn write_stack(f: &mut fmt::Formatter<'_>, indent: &str, group: &[&One<'_>]) -> fmt::Result {
    let (mut used, mut most, mut size) = (None, 0, 0);
    for stack in group.iter().map(|one| one.facts().stack) {
        (used, most, size) = (used.max(stack.used), most.max(stack.most), size.max(stack.size));
    }
    write!(f, "{indent}  stack: ")?;
    if let Some(used) = used {
        write!(f, "{} used now, ", Bytes(used))?;
    }
    writeln!(f, "{} at most, of {}", Bytes(most), Bytes(size))
}

/// Writes the frames of the program. Those of this library and of std are only counted.
pub(super) fn write_backtrace(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    frames: &[Frame],
) -> fmt::Result {
    let (mut shown, mut folded) = (0, 0);
    for frame in without_base(frames) {
        if is_library(frame) || shown == FRAMES_MAX {
            folded += 1;
            continue;
        }
        shown += 1;
        match &frame.function {
            Some(function) => write!(f, "{indent}    at {function:.NAME_MAX$}")?,
            None => {
                let object = frame.object.as_deref().unwrap_or("?");
                write!(f, "{indent}    at {object}+{:#x}", frame.offset)?;
            }
        }
        match (&frame.file, frame.line) {
            (Some(file), Some(line)) => writeln!(f, ", {file}:{line}")?,
            _ => writeln!(f)?,
        }
    }
    match folded {
        0 => Ok(()),
        _ => writeln!(f, "{indent}    and {} of the library", Count(folded, "frame")),
    }
}

/// The frames of the program.
#[cfg(feature = "top")]
pub(super) fn of_the_program(frames: &[Frame]) -> impl Iterator<Item = &Frame> {
    without_base(frames).iter().filter(|frame| !is_library(frame))
}

/// The code that corosensei begins a stack with has no symbol.
fn without_base(frames: &[Frame]) -> &[Frame] {
    match frames {
        [rest @ .., last] if last.function.is_none() && !rest.is_empty() => rest,
        all => all,
    }
}

/// Whether a frame is of this library, of corosensei, or of Rust's own libraries.
fn is_library(frame: &Frame) -> bool {
    // Where debug information has only lines, the names of inlined functions have no paths.
    const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
    let by_file = frame.file.as_deref().is_some_and(|file| {
        let others = ["/rustlib/src/rust/library/", "/rustc/", "/corosensei-"];
        file.starts_with(OURS) || others.iter().any(|part| file.contains(part))
    });
    let by_name = frame.function.as_deref().is_some_and(|function| {
        let path = function.trim_start_matches(['<', '&', '*', '(']);
        let libraries = ["plainsong", "corosensei", "core", "std", "alloc"];
        let names = ["stack_init_trampoline", "__rust_try", "rust_begin_unwind", "_Unwind"];
        path.split_once("::").is_some_and(|(first, _)| libraries.contains(&first))
            || names.iter().any(|prefix| path.starts_with(prefix))
    });
    by_file || by_name
}

/// `#7 'conn 7'`
pub(super) struct Named<'a>(pub(super) &'a Coroutine);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.id)?;
        match &self.0.name {
            Some(name) => write!(f, " '{}'", name.escape_debug()),
            None => Ok(()),
        }
    }
}

/// `1 coroutine`, `1000 coroutines`
struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1024 => write!(f, "{bytes} bytes"),
            bytes if bytes % 1024 == 0 || bytes > 100 * 1024 => write!(f, "{} KiB", bytes / 1024),
            bytes => write!(f, "{:.1} KiB", bytes as f64 / 1024.0),
        }
    }
}
