//! A dump as text for people.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::dump::{Answer, Coroutine, Dump, Place, State, Worker};
use super::frame::Frame;
use crate::engine::facts::Time;
use crate::engine::id::Id;

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
struct Kind<'a> {
    state: State,
    spawned: Place,
    waits: Option<(&'a str, Option<Place>, Option<Place>)>,
    scoped: bool,
    cancelled: bool,
    reason: Option<&'a str>,
    backtrace: &'a [Frame],
}

impl<'a> Kind<'a> {
    fn of(coroutine: &'a Coroutine) -> Self {
        let waits = coroutine.waits_for.as_ref();
        Self {
            state: coroutine.state,
            spawned: coroutine.spawned,
            waits: waits.map(|waits| (waits.kind, waits.created, waits.at)),
            scoped: coroutine.scoped,
            cancelled: coroutine.cancelled,
            reason: coroutine.reason.as_deref(),
            backtrace: &coroutine.backtrace,
        }
    }
}

/// The coroutines of a run, by their parents.
struct Tree<'a> {
    children: HashMap<Option<Id>, Vec<&'a Coroutine>>,
    // Where each coroutine is, if there are several workers.
    workers: HashMap<Id, usize>,
}

impl<'a> Tree<'a> {
    fn new(workers: &[&'a Worker]) -> Self {
        let all = || workers.iter().flat_map(|worker| &worker.coroutines);
        let places = workers.iter().flat_map(|worker| {
            worker.coroutines.iter().map(|coroutine| (coroutine.id, worker.worker))
        });
        let alive: HashMap<Id, usize> = places.collect();
        let mut children: HashMap<_, Vec<&Coroutine>> = HashMap::new();
        for coroutine in all() {
            let parent = coroutine.parent.filter(|parent| alive.contains_key(parent));
            children.entry(parent).or_default().push(coroutine);
        }
        children.values_mut().for_each(|siblings| siblings.sort_by_key(|one| one.id));
        Self { children, workers: if workers.len() > 1 { alive } else { HashMap::new() } }
    }

    /// The children of some coroutines, those that are alike together.
    fn groups(&mut self, parents: impl Iterator<Item = Option<Id>>) -> Vec<Vec<&'a Coroutine>> {
        let (mut groups, mut places) = (Vec::<Vec<&Coroutine>>::new(), HashMap::new());
        for coroutine in parents.flat_map(|id| self.children.remove(&id).unwrap_or_default()) {
            let place = *places.entry(Kind::of(coroutine)).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(coroutine),
                None => groups.push(vec![coroutine]),
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
            write_tree(f, Tree::new(&workers))?;
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
                Some(one) => write!(f, "; it is held up by coroutine {}", Named(one))?,
                None => f.write_str("; it is held up outside of any coroutine")?,
            }
            f.write_str(", which computes or blocks the thread")?;
        }
        Answer::Silent => f.write_str("; it does not answer")?,
    }
    writeln!(f)
}

/// Writes the coroutines of a run, each below its parent.
fn write_tree(f: &mut fmt::Formatter<'_>, mut tree: Tree<'_>) -> fmt::Result {
    // Not a recursion: it may be deep, and this may run on the stack of a coroutine.
    let mut left: Vec<(usize, Vec<&Coroutine>)> = Vec::new();
    let push = |left: &mut Vec<_>, depth, groups: Vec<_>| {
        left.extend(groups.into_iter().rev().map(|group| (depth, group)));
    };
    push(&mut left, 0, tree.groups([None].into_iter()));
    while let Some((depth, group)) = left.pop() {
        write_group(f, &tree, depth, &group)?;
        push(&mut left, depth + 1, tree.groups(group.iter().map(|one| Some(one.id))));
    }
    Ok(())
}

/// Writes coroutines that are alike.
fn write_group(
    f: &mut fmt::Formatter<'_>,
    tree: &Tree<'_>,
    depth: usize,
    group: &[&Coroutine],
) -> fmt::Result {
    let waited = |one: &Coroutine| one.waits_for.as_ref().map(|waits| waits.waited);
    let Some(longest) = group.iter().max_by_key(|one| waited(one)) else { return Ok(()) };
    let indent = "    ".repeat(depth.min(INDENT_MAX));
    write!(f, "{indent}")?;
    match group.len() {
        1 => write!(f, "{}", Named(longest))?,
        many => write!(f, "{} alike", Count(many, "coroutine"))?,
    }
    if longest.scoped {
        f.write_str(" in a scope")?;
    }
    if let Some(worker) = tree.workers.get(&longest.id).filter(|_| group.len() == 1) {
        write!(f, " on worker {worker}")?;
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

fn write_stack(f: &mut fmt::Formatter<'_>, indent: &str, group: &[&Coroutine]) -> fmt::Result {
    let most = group.iter().map(|one| one.stack.most).max().unwrap_or(0);
    let used = group.iter().map(|one| one.stack.used).max().flatten();
    let size = group.iter().map(|one| one.stack.size).max().unwrap_or(0);
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
