//! Dumps: how they are taken, and their data.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::Frame;
#[cfg(feature = "backtrace")]
use super::frames::Backtraces;
use crate::engine::context;
use crate::engine::facts::{Facts, Frames, Names, Parked, State as Does};
use crate::engine::id::Id;
use crate::engine::order::sort_by_key;
use crate::engine::rows::Rows;
use crate::engine::signals;
use crate::engine::subject::Held;
use crate::engine::survey::Survey;
use crate::engine::workers::{Question, Workers};

/// How long a worker has time to come to its next turn, before it is interrupted.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long it has in all.
const LIMIT: Duration = Duration::from_millis(500);
/// Between two looks at whether a worker has answered.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The version of the data's shape: it is changed when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// All coroutines of the process at one moment. Made by [`dump`].
///
/// It prints itself for people. Coroutines are indented below the ones that have spawned them, and
/// many alike are shown as one.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Dump {
    /// The version of this shape: 1. Fields may be added to a version.
    pub version: u32,
    /// The process id.
    pub process: u32,
    /// The workers of all runs that are under way.
    pub workers: Vec<Worker>,
}

/// One worker of one run.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Worker {
    /// The number of the run, in this process.
    pub run: u64,
    /// The number of the worker, in its run.
    pub worker: usize,
    /// How the worker has answered.
    pub answer: Answer,
    /// Coroutines of this worker that are not listed, about.
    pub unlisted: usize,
    /// Coroutines that have not started, and may start on any worker.
    pub pending: usize,
    /// The coroutines, in no particular order.
    pub coroutines: Coroutines,
}

/// The coroutines of a worker.
///
/// They are kept in a compact form, in which those that are alike take about twenty bytes each. A
/// [`Coroutine`] is made of it whenever one is looked at.
#[derive(Clone)]
pub struct Coroutines {
    pub(super) rows: Rows,
    backtraces: HashMap<Frames, Arc<[Frame]>>,
    names: Arc<Names>,
}

/// How a worker has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Answer {
    /// Between two turns, or in the turn of the coroutine that takes the dump.
    InTurn,
    /// In the middle of a turn: it was interrupted, because it did not come to its next turn in
    /// time. The coroutine that runs there computes, or blocks the thread. Deadlines are not known.
    Interrupted,
    /// Not at all, not even when it was interrupted.
    Silent,
}

/// One coroutine.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Coroutine {
    /// Its id.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::id"))]
    pub id: Id,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// The coroutine that has spawned it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::optional_id"))]
    pub parent: Option<Id>,
    /// Where it was spawned.
    pub spawned: Place,
    /// Its state.
    pub state: State,
    /// Its wait, if it is parked.
    pub waits_for: Option<WaitsFor>,
    /// Whether it was spawned in a scope: its parent waits for its end.
    pub scoped: bool,
    /// Whether it has been cancelled, and not ended yet.
    pub cancelled: bool,
    /// Why it was cancelled, if the request has said so.
    pub reason: Option<String>,
    /// How many time-outs and other scopes of cancellation it is in.
    pub scopes: usize,
    /// How long until the first of its time-outs.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "deadline_ms", serialize_with = "json::optional_millis")
    )]
    pub deadline: Option<Duration>,
    /// Its stack.
    pub stack: Stack,
    /// Its frames, the innermost first, those of this library among them. Empty without the feature
    /// `backtrace`, and for a coroutine that has not begun.
    pub backtrace: Arc<[Frame]>,
}

/// The state of a coroutine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum State {
    /// It is in its turn.
    Running,
    /// It waits for its turn.
    Ready,
    /// It waits for its first turn.
    New,
    /// It waits for something else.
    Parked,
}

/// A wait of a coroutine.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WaitsFor {
    /// All of it in words: `recv, channel created at src/main.rs:31:9, 0 of 16`.
    pub text: String,
    /// How long it has waited. Beside a host such as tokio, a worker that was interrupted counts up
    /// to the time at which it last read the host's clock.
    #[cfg_attr(feature = "serde", serde(rename = "waited_ms", serialize_with = "json::millis"))]
    pub waited: Duration,
    /// How long until the wait is over by itself.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "left_ms", serialize_with = "json::optional_millis")
    )]
    pub left: Option<Duration>,
    /// Where the wait was called, for locks, channels and the like.
    pub at: Option<Place>,
    /// Where the object that is waited for was created.
    pub created: Option<Place>,
    /// The holder of the lock.
    pub holder: Option<Holder>,
    /// The coroutine whose end is waited for.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::optional_id"))]
    pub joins: Option<Id>,
    /// The descriptor.
    pub descriptor: Option<u32>,
}

/// The holder of a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Holder {
    /// A plain thread.
    Thread,
    /// A coroutine.
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::id"))]
    Coroutine(Id),
    /// As many readers.
    Readers(usize),
}

/// A place in the source.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(pub(super) &'static Location<'static>);

/// The stack of a coroutine, in bytes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stack {
    /// As much as is in use now. Not known of a coroutine that runs, or that waits in the body of a
    /// generator or on a [grown](crate::stack::grow) stack.
    pub used: Option<usize>,
    /// As much as was ever used, in whole pages: by this coroutine, or by one that had the stack
    /// before.
    pub most: usize,
    /// The size.
    pub size: usize,
}

impl Place {
    /// The file.
    pub fn file(self) -> &'static str {
        self.0.file()
    }

    /// The line, from 1.
    pub fn line(self) -> u32 {
        self.0.line()
    }

    /// The column, from 1.
    pub fn column(self) -> u32 {
        self.0.column()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lists all coroutines of the process: see the [module](super).
///
/// It can be called anywhere: in a coroutine, on a plain thread, in a panic hook, while a run
/// begins or ends. It parks no coroutine, but blocks the calling thread until all workers have
/// answered, for half a second at most. (A worker that is busy or stuck answers after a twentieth
/// of a second.)
pub fn dump() -> Dump {
    timed_dump().0
}

/// A dump, and for how long it has asked the workers. The rest is the work of this thread.
pub(super) fn timed_dump() -> (Dump, Duration) {
    let began = Instant::now();
    let mut backtraces = Backtraces::new();
    let taken = ask_everyone(&|room| backtraces.survey(room));
    let asked = began.elapsed();
    let names = names_in(&taken);
    (Dump::of(taken, names, &mut backtraces), asked)
}

/// Asks all workers of the process, with surveys that `survey` makes.
pub(super) fn ask_everyone(survey: &dyn Fn(usize) -> Survey) -> Vec<(Arc<Workers>, Answered)> {
    let runs = Workers::all().into_iter();
    let answers = |workers: Arc<Workers>| {
        let answers = ask_all(&workers, survey);
        answers.into_iter().map(move |answer| (Arc::clone(&workers), answer))
    };
    runs.flat_map(answers).collect()
}

/// The names of all coroutines that have one.
pub(super) fn names() -> HashMap<Id, Arc<str>> {
    let runs = Workers::all();
    let surveys = runs.iter().flat_map(|workers| ask_all(workers, &Survey::with_capacity));
    let mut names = HashMap::new();
    for answer in surveys {
        let all = answer.survey.coroutines.iter();
        names.extend(all.filter_map(|facts| Some((facts.id, facts.name?))));
    }
    names
}

/// Without the feature, there are none.
#[cfg(not(feature = "backtrace"))]
pub(super) struct Backtraces(Arc<[Frame]>);

#[cfg(not(feature = "backtrace"))]
impl Backtraces {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn survey(&self, room: usize) -> Survey {
        Survey::with_capacity(room)
    }

    pub(super) fn of(&mut self, _: &[usize]) -> Arc<[Frame]> {
        Arc::clone(&self.0)
    }
}

/// A worker's answer.
pub(super) struct Answered {
    pub(super) number: usize,
    pub(super) how: Answer,
    pub(super) survey: Survey,
}

/// The right to ask workers. One thread has it at a time, and gives it back when this is dropped.
///
/// The threads have it in the order of their calls, so a thread that asks again and again keeps the
/// others waiting for no longer than its own turn.
pub(super) fn asking() -> impl Sized {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static ENDED: AtomicU64 = AtomicU64::new(0);
    struct Turn(u64);
    impl Turn {
        fn has_come(&self) -> bool {
            ENDED.load(Ordering::Acquire) == self.0
        }
    }
    impl Drop for Turn {
        fn drop(&mut self) {
            // Only an unwind out of the wait below gets here before the turn has come.
            while !self.has_come() {
                thread::sleep(PAUSE_MAX);
            }
            ENDED.store(self.0 + 1, Ordering::Release);
        }
    }
    let turn = Turn(CALLS.fetch_add(1, Ordering::Relaxed));
    while !turn.has_come() {
        // A worker that waits to ask must answer the others.
        pause(PAUSE_MAX);
    }
    turn
}

/// Asks all workers of a run. `survey` makes a survey with room for so many coroutines.
pub(super) fn ask_all(workers: &Workers, survey: &dyn Fn(usize) -> Survey) -> Vec<Answered> {
    let _asking = asking();
    let running: Vec<usize> =
        (0..workers.len()).filter(|&number| workers.thread(number).is_some()).collect();
    let mut answers = Vec::new();
    let mut others = Vec::new();
    for number in running {
        match own(workers, number, survey) {
            Some(survey) => answers.push(Answered { number, how: Answer::InTurn, survey }),
            None => {
                // In a signal handler, the answer cannot grow.
                let (load, _) = workers.load(number);
                others.push((number, Question::new(survey(load + load / 4 + 64))));
            }
        }
    }
    wait_for(workers, &others);
    for (number, question) in others {
        let (survey, answered) = question.into_answer();
        let how = match (answered, survey.interrupted) {
            (false, _) => Answer::Silent,
            (true, None) => Answer::InTurn,
            (true, Some(_)) => Answer::Interrupted,
        };
        // A worker that has ended meanwhile has nothing to say.
        if how != Answer::Silent || workers.thread(number).is_some() {
            answers.push(Answered { number, how, survey });
        }
    }
    sort_by_key(&mut answers, |answer| answer.number as u64);
    answers
}

/// The survey of this thread, if it is that worker.
fn own(workers: &Workers, number: usize, survey: &dyn Fn(usize) -> Survey) -> Option<Survey> {
    let here = context::try_with(|scheduler| {
        let ours = scheduler
            .with_worker(|worker| worker.workers.id() == workers.id() && worker.number == number);
        ours.then(|| scheduler.survey(survey(0)))
    });
    here.flatten()
}

/// Asks these workers, and waits until they have answered, or will not.
fn wait_for(workers: &Workers, questions: &[(usize, Question)]) {
    let ask = |(number, question)| Some((number, workers.ask(number, question)?));
    let mut asked: Vec<_> =
        questions.iter().filter_map(|(number, question)| ask((*number, question))).collect();
    let (start, mut interrupted, mut length) = (Instant::now(), false, PAUSE_MIN);
    loop {
        asked.retain(|(number, it)| !it.is_answered() && workers.thread(*number).is_some());
        let waited = start.elapsed();
        if asked.is_empty() || waited > LIMIT {
            return;
        }
        if waited > PATIENCE && !interrupted {
            interrupted = true;
            let threads = asked.iter().filter_map(|(number, _)| workers.thread(*number));
            threads.for_each(|thread| _ = signals::interrupt(thread));
        }
        pause(length);
        length = (length * 2).min(PAUSE_MAX);
    }
}

/// Blocks the thread for a moment. If it is a worker, it may have been asked itself.
fn pause(length: Duration) {
    context::try_with(|scheduler| scheduler.answer());
    thread::sleep(length);
}

impl Answered {
    fn worker(self, workers: &Workers, names: Arc<Names>, backtraces: &mut Backtraces) -> Worker {
        let Self { number, how, mut survey } = self;
        let (load, pending) = workers.load(number);
        let lost = if how == Answer::Silent || survey.unreadable { load } else { survey.missed };
        survey.coroutines.shrink();
        let mut known = HashMap::new();
        for facts in survey.coroutines.iter() {
            let found = || backtraces.of(survey.frames_of(&facts));
            known.entry(facts.frames).or_insert_with(found);
        }
        Worker {
            run: workers.id().number(),
            worker: number,
            answer: how,
            unlisted: lost,
            pending,
            coroutines: Coroutines { rows: survey.coroutines, backtraces: known, names },
        }
    }
}

impl Coroutines {
    /// The coroutines, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Coroutine> {
        self.rows.iter().map(|facts| self.coroutine(&facts))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn coroutine(&self, facts: &Facts) -> Coroutine {
        Coroutine::new(facts, &self.names, Arc::clone(self.backtrace(facts)))
    }

    /// Coroutines of a dump have the same one if they are at the same place.
    pub(super) fn backtrace(&self, facts: &Facts) -> &Arc<[Frame]> {
        &self.backtraces[&facts.frames]
    }

    /// Leaves of the backtraces what `f` makes of them.
    #[cfg(feature = "top")]
    pub(super) fn map_backtraces(&mut self, f: impl Fn(&[Frame]) -> Arc<[Frame]>) {
        self.backtraces.values_mut().for_each(|backtrace| *backtrace = f(backtrace));
    }
}

impl<'a> IntoIterator for &'a Coroutines {
    type Item = Coroutine;
    type IntoIter = Box<dyn Iterator<Item = Coroutine> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl fmt::Debug for Coroutines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl State {
    pub(super) fn of(facts: &Facts) -> Self {
        match facts.state {
            Does::Running => Self::Running,
            Does::Ready { started: true } => Self::Ready,
            Does::Ready { started: false } => Self::New,
            Does::Parked(_) => Self::Parked,
        }
    }
}

impl Coroutine {
    pub(super) fn new(facts: &Facts, names: &Names, backtrace: Arc<[Frame]>) -> Self {
        Self {
            id: facts.id,
            name: facts.name.clone(),
            parent: facts.parent,
            spawned: Place(facts.spawned),
            state: State::of(facts),
            waits_for: facts.parked().map(|parked| WaitsFor::new(parked, names)),
            scoped: facts.scoped,
            cancelled: facts.cancelled,
            reason: facts.reason.as_ref().map(ToString::to_string),
            scopes: facts.scopes,
            deadline: facts.deadline,
            stack: Stack { used: facts.stack.used, most: facts.stack.most, size: facts.stack.size },
            backtrace,
        }
    }
}

impl WaitsFor {
    fn new(parked: &Parked, names: &Names) -> Self {
        let subject = parked.subject.as_ref();
        Self {
            text: parked.describe(names),
            waited: parked.since,
            left: parked.left,
            at: parked.waited_at().map(Place),
            created: subject.map(|it| Place(it.created)),
            holder: subject.and_then(|it| match it.holder {
                Held::Unknown => None,
                Held::Thread => Some(Holder::Thread),
                Held::Coroutine(id) => Some(Holder::Coroutine(id)),
                Held::Readers(count, _) => Some(Holder::Readers(count)),
            }),
            joins: parked.joins().and_then(|id| names.id(id)),
            descriptor: parked.endpoint.map(|_| parked.why.detail()),
        }
    }
}

/// The names in all of these answers.
pub(super) fn names_in(taken: &[(Arc<Workers>, Answered)]) -> Arc<Names> {
    let all = || taken.iter().flat_map(|(_, answer)| answer.survey.coroutines.iter());
    Arc::new(Names::new(all))
}

impl Dump {
    /// The coroutines of these answers.
    pub(super) fn of(
        taken: Vec<(Arc<Workers>, Answered)>,
        names: Arc<Names>,
        backtraces: &mut Backtraces,
    ) -> Self {
        let workers = taken.into_iter();
        let workers =
            workers.map(|(workers, it)| it.worker(&workers, Arc::clone(&names), backtraces));
        Self { version: VERSION, process: process::id(), workers: workers.collect() }
    }

    /// Those of its coroutines that are `wanted`.
    pub(super) fn only(mut self, wanted: impl Fn(&Facts) -> bool) -> Self {
        self.workers.iter_mut().for_each(|worker| worker.coroutines.rows.retain(&wanted));
        self
    }

    /// The coroutines that have been parked for longer than `time`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// plainsong::run(|| {
    ///     plainsong::spawn(|| plainsong::time::sleep(Duration::from_secs(60)));
    ///     plainsong::time::sleep(Duration::from_millis(20));
    ///     let dump = plainsong::inspect::dump();
    ///     assert_eq!(dump.parked_longer_than(Duration::from_millis(10)).coroutines().count(), 1);
    /// });
    /// ```
    #[must_use]
    pub fn parked_longer_than(self, time: Duration) -> Self {
        self.only(|facts| facts.parked().is_some_and(|parked| parked.since > time))
    }

    /// The coroutines of all workers.
    pub fn coroutines(&self) -> impl Iterator<Item = Coroutine> {
        self.workers.iter().flat_map(|worker| worker.coroutines.iter())
    }
}

/// The form of ids, times and places.
#[cfg(feature = "serde")]
pub(super) mod json {
    use serde::ser::{SerializeSeq, SerializeStruct, Serializer};

    use super::{Coroutines, Duration, Id, Place};

    pub(super) fn id<S: Serializer>(id: &Id, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(id.get())
    }

    pub(super) fn optional_id<S: Serializer>(id: &Option<Id>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.serialize_some(&id.get()),
            None => to.serialize_none(),
        }
    }

    pub(in super::super) fn millis<S: Serializer>(
        time: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_millis().try_into().unwrap_or(u64::MAX))
    }

    pub(super) fn optional_millis<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => millis(time, to),
            None => to.serialize_none(),
        }
    }

    impl serde::Serialize for Coroutines {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let mut all = to.serialize_seq(Some(self.len()))?;
            self.iter().try_for_each(|one| all.serialize_element(&one))?;
            all.end()
        }
    }

    impl serde::Serialize for Place {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let mut place = to.serialize_struct("Place", 3)?;
            place.serialize_field("file", self.file())?;
            place.serialize_field("line", &self.line())?;
            place.serialize_field("column", &self.column())?;
            place.end()
        }
    }
}
