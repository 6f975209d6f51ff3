//! Facts about coroutines, as plain data, and how the reports put them into words.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::id::Id;
use super::scopes::CancelReason;
use super::subject::{Alternative, Held, Subject};
use super::task::Wait;

/// The frames of a coroutine in the survey's list: the first, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Frames(pub(super) u32, pub(super) u32);

/// One coroutine at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) id: Id,
    pub(crate) parent: Option<Id>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) spawned: &'static Location<'static>,
    pub(crate) state: State,
    /// Its code borrows from its parent, which waits for its end.
    pub(crate) scoped: bool,
    /// A cancellation is pending, or the coroutine unwinds from one.
    pub(crate) cancelled: bool,
    /// Why it was cancelled, if the request has said so.
    pub(crate) reason: Option<CancelReason>,
    /// How many time-outs and other cancel scopes are open.
    pub(crate) scopes: usize,
    /// How long until the first of these scopes is cancelled.
    pub(crate) deadline: Option<Duration>,
    pub(crate) stack: StackUse,
    pub(crate) frames: Frames,
}

/// The state of a coroutine.
#[derive(Clone, Debug)]
// Nearly all are parked.
#[expect(clippy::large_enum_variant)]
pub(crate) enum State {
    /// It is in its turn.
    Running,
    /// It waits for its turn.
    Ready {
        started: bool,
    },
    Parked(Parked),
}

impl Facts {
    /// Whether it is in its turn.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Its wait.
    pub(crate) fn parked(&self) -> Option<&Parked> {
        match &self.state {
            State::Parked(parked) => Some(parked),
            _ => None,
        }
    }
}

/// The reason of a wait for the end of a scope.
pub(crate) const SCOPE_ENDS: &str = "the coroutines of its scope to end";

/// A wait.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub(crate) why: Wait,
    pub(crate) subject: Option<Subject>,
    /// The objects of a wait for several, if the memory of stacks is wanted, too.
    pub(crate) alternatives: Box<[Alternative]>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) since: Duration,
    /// How long until the wait times out.
    pub(crate) left: Option<Duration>,
}

/// Bytes of a stack.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct StackUse {
    /// The address of the top. 0 if the stack is not known.
    pub(crate) top: usize,
    /// Not known of a coroutine that runs, or waits on the stack of a generator.
    pub(crate) used: Option<usize>,
    /// As much as was ever used, by this coroutine or by one that had the stack before, in pages.
    pub(crate) most: usize,
    pub(crate) size: usize,
}

/// The names of coroutines that others wait for.
#[derive(Debug)]
pub(crate) struct Names {
    all: Vec<(Id, Option<Arc<str>>)>,
    // By their short ids.
    index: Index,
}

/// Places in a list, by a number. (One type for all, as each map takes the compiler a while.)
pub(crate) type Index = HashMap<u32, usize>;

impl Names {
    /// The names of those among `all` that others of them wait for.
    pub(crate) fn new<I: Iterator<Item = Facts>>(all: impl Fn() -> I) -> Self {
        let awaited = all().filter_map(|it| it.parked()?.waits_for());
        let mut index: Index = awaited.map(|id| (id, usize::MAX)).collect();
        let mut names = Vec::with_capacity(index.len());
        for facts in all() {
            if let Some(place) = index.get_mut(&facts.id.short()) {
                *place = names.len();
                names.push((facts.id, facts.name));
            }
        }
        Self { all: names, index }
    }

    fn get(&self, short: u32) -> Option<&(Id, Option<Arc<str>>)> {
        self.all.get(*self.index.get(&short)?)
    }

    /// The id of which this is the short form, if the coroutine is known.
    pub(crate) fn id(&self, short: u32) -> Option<Id> {
        self.get(short).map(|(id, _)| *id)
    }

    /// A coroutine, by its short id: `coroutine #7 'conn 7'`.
    fn coroutine(&self, id: u32) -> String {
        match self.get(id) {
            Some((id, Some(name))) => format!("coroutine {id} '{name}'"),
            Some((id, None)) => format!("coroutine {id}"),
            None => format!("coroutine #{id}, which is not among these"),
        }
    }
}

impl Parked {
    /// Whether it waits for a lock.
    fn is_for_lock(&self) -> bool {
        self.subject.is_some_and(|subject| subject.holder != Held::Unknown)
    }

    /// The short id of the coroutine whose end it waits for.
    pub(crate) fn joins(&self) -> Option<u32> {
        self.why.text().contains("coroutine #{}").then(|| self.why.detail())
    }

    /// Whether it waits for the end of all coroutines of a scope.
    pub(crate) fn awaits_scope(&self) -> bool {
        self.why.text() == SCOPE_ENDS
    }

    /// The coroutine that must act to end the wait, as far as that is known.
    fn waits_for(&self) -> Option<u32> {
        match self.subject.map(|subject| subject.holder) {
            Some(Held::Coroutine(id) | Held::Readers(_, Some(id))) => Some(id.short()),
            _ => self.joins(),
        }
    }

    /// Where the wait was called. Not known if a function of std called it, as an adaptor of an
    /// iterator.
    pub(crate) fn waited_at(&self) -> Option<&'static Location<'static>> {
        let at = self.subject?.waited_at;
        let std = at.file().starts_with("/rustc/") || at.file().contains("/rustlib/src/rust/");
        (!std).then_some(at)
    }

    /// The wait in words.
    pub(crate) fn describe(&self, names: &Names) -> String {
        let why = self.why;
        let mut text = match (&self.endpoint, &self.subject) {
            (Some(endpoint), _) => endpoint.describe(why.verb(), why.detail()),
            (None, Some(subject)) => describe(subject, why, names),
            (None, None) => match why.text().split_once("coroutine #{}") {
                Some((before, after)) => {
                    format!("{before}{}{after}", names.coroutine(why.detail()))
                }
                None if why.verb() == "sleep" => "sleep".into(),
                None => why.to_string(),
            },
        };
        if let Some(left) = self.left {
            _ = write!(text, ", {} left", Time(left));
        }
        text
    }
}

fn describe(subject: &Subject, why: Wait, names: &Names) -> String {
    let (verb, kind, created) = (why.verb(), why.kind(), subject.created);
    let mut text = match subject.holder {
        Held::Unknown => format!("{verb}, {kind} created at {created}"),
        _ => format!("{verb} {kind} at {created}"),
    };
    let _ = match subject.holder {
        Held::Unknown => Ok(()),
        Held::Thread => write!(text, " held by a plain thread"),
        Held::Coroutine(id) => write!(text, " held by {}", names.coroutine(id.short())),
        Held::Readers(1, None) => write!(text, " held by a reader"),
        Held::Readers(count, None) => write!(text, " held by {count} readers"),
        Held::Readers(count, Some(id)) => {
            let last = names.coroutine(id.short());
            write!(text, " held by {count} readers, the last of them {last}")
        }
    };
    let _ = match subject.count {
        None => Ok(()),
        Some(count) => match count.of {
            Some(of) => write!(text, ", {} of {of}", count.len),
            None => write!(text, ", {} in it", count.len),
        },
    };
    text
}

/// A duration for people: `3.2 s`, `41 ms`.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 if self.0.as_millis() == 0 => f.write_str("less than 1 ms"),
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..100 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            100..7200 => write!(f, "{} min", self.0.as_secs() / 60),
            _ => write!(f, "{} h", self.0.as_secs() / 3600),
        }
    }
}

/// The report of a deadlock: a line for each coroutine, and the cycle if locks are in one.
pub(crate) fn report(all: &[Facts]) -> String {
    let names = Names::new(|| all.iter().cloned());
    let mut text = String::new();
    for facts in all {
        let name = facts.name.as_deref().unwrap_or("<unnamed>");
        let _ = write!(text, "\n  {} '{name}' ", facts.id);
        let _ = match &facts.state {
            State::Parked(parked) => {
                let (since, what) = (Time(parked.since), parked.describe(&names));
                write!(text, "has waited for {since} for {what}").and_then(|()| {
                    parked.waited_at().map_or(Ok(()), |at| write!(text, ", at {at}"))
                })
            }
            _ => write!(text, "is ready"),
        };
        if let Some(reason) = &facts.reason {
            let _ = write!(text, "; cancelled: {reason}");
        }
        let _ = write!(text, "; spawned at {}", facts.spawned);
    }
    for cycle in lock_cycles(all) {
        text += "\n  a cycle: ";
        for (facts, parked) in &cycle {
            let (id, what) = (names.coroutine(facts.id.short()), parked.describe(&names));
            let _ = write!(text, "{id} waits for {what}; ");
        }
        text += "and so on";
    }
    text
}

/// The circles of coroutines that wait for each other, in which a lock takes part.
fn lock_cycles(all: &[Facts]) -> Vec<Vec<(&Facts, &Parked)>> {
    let index: Index = all.iter().enumerate().map(|(at, it)| (it.id.short(), at)).collect();
    let parked = |id| all.get(*index.get(&id)?).and_then(|it| Some((it, it.parked()?)));
    let mut seen = Index::new();
    let mut cycles = Vec::new();
    for (round, facts) in all.iter().enumerate() {
        let (mut at, mut path) = (facts.id.short(), Vec::new());
        while let Some((facts, wait)) = parked(at) {
            if let Some(before) = seen.insert(at, round) {
                if before == round {
                    let start = path
                        .iter()
                        .position(|(facts, _): &(&Facts, &Parked)| facts.id.short() == at);
                    let cycle = path.split_off(start.unwrap_or(0));
                    if cycle.iter().any(|(_, wait)| wait.is_for_lock()) {
                        cycles.push(cycle);
                    }
                }
                break;
            }
            path.push((facts, wait));
            let Some(next) = wait.waits_for() else { break };
            at = next;
        }
    }
    cycles
}
