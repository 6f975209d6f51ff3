//! Coroutines that nothing can wake any more.
//!
//! The rule: begin with all coroutines that are parked without a time limit, in a wait that only
//! another party can end, and that is of a kind as below. Take those out for which such a party may
//! be left, until no more is to be taken out. The rest can only be woken from among itself, so none
//! of it ever wakes, unless it is cancelled.
//!
//! ```text
//! waits for                          is taken out if
//! a channel, or several (`select!`)  a reference to one of them is not on the stacks of the rest
//! the end of a coroutine             that one is not of the rest
//! the end of a scope                 one of its coroutines is not of the rest
//! a lock                             its holder lives, and is not of the rest
//! ```
//!
//! Why this is right for a channel: a party outside of the rest that could act on it would need a
//! handle, or a reference that leads to one. Handles are pointers to the channel's memory, and all
//! memory is searched for such. A handle on a stack of the rest can be reached from outside only by
//! a coroutine that borrows from that stack, so a coroutine of whose scope one lives does not count
//! as one of the rest here. (Handles are not counted: where a program is optimised, two of them may
//! be one word.)
//!
//! Why it is only probable for a lock: a guard may have been given to another coroutine.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

#[cfg(not(feature = "backtrace"))]
use super::dump::Backtraces;
use super::dump::{Answer, Answered, Dump, ask_everyone, names_in};
#[cfg(feature = "backtrace")]
use super::frames::Backtraces;
#[cfg(target_os = "linux")]
use super::memory::{self, Part};
use crate::engine::facts::{Facts, Index, Parked, State};
use crate::engine::id::Id;
use crate::engine::order::sort_by_key;
use crate::engine::processor::stack_top;
use crate::engine::subject::{Held, Object};
use crate::engine::survey::{StackMemory, Survey};
use crate::engine::workers::Workers;

/// Coroutines that nothing can wake any more. Made by [`leaks`].
///
/// It prints itself for people, as a [`Dump`] does.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Leaks {
    /// The version of this shape: 1. Fields may be added to a version.
    pub version: u32,
    /// Those that are leaked.
    pub leaked: Dump,
    /// Those that are leaked, unless a guard of a lock has been given to a coroutine that did not
    /// acquire it.
    pub probably: Dump,
    /// Others that are parked without a time limit, and of which it cannot be decided.
    pub undecided: usize,
    /// Whether the memory was searched. If not, waits for channels are undecided.
    pub searched: bool,
}

/// Finds the coroutines that nothing can wake any more, as Go's goroutine leak profile does.
///
/// These are coroutines that wait for a channel to which no other part of the program has a handle,
/// for a lock that is never released, or for a coroutine that never ends, while the rest of the
/// program goes on. Only a cancellation ends such a wait. A wait with a time limit is no leak.
///
/// To find the handles, the memory of the process is searched for pointers to the channels that are
/// waited for. That takes the calling thread about a second for each gigabyte, and is only possible
/// on Linux. The workers only answer a question as for a [`dump`](super::dump()). In a coroutine,
/// call it in [`blocking`](crate::blocking()), so that the others of its thread go on.
///
/// It is not always able to decide:
///
/// - A handle that is not on a stack (but in a `Box`, a `Vec`, an `Arc`, a `static`) counts as one
///   that may be used, even if only leaked coroutines can reach it. So does a copy that a moved
///   handle has left behind in memory that is free or not overwritten. Such leaks are not found.
/// - Of other objects (semaphores, condition variables, barriers, events, queues, tokens, `park`),
///   nothing is known of who may have a reference. Neither is of wakers and of plain threads.
/// - Of a worker that is busy or stuck, the coroutines are left out. If it does not answer at all,
///   or coroutines of [`spawn_anywhere`](crate::spawn_anywhere()) have not started yet, nothing is
///   searched, and [`searched`](Leaks::searched) is `false`.
///
/// A coroutine that is not leaked is never among the [`leaked`](Leaks::leaked) ones, unless a
/// handle is moved at the moment of the search, and again at that of the second search that checks
/// it, or the program hides its pointers.
///
/// ```
/// use plainsong::inspect;
/// use plainsong::sync::Mutex;
///
/// plainsong::run(|| {
///     plainsong::spawn(|| {
///         let count = Mutex::new(0);
///         let _first = count.lock().unwrap();
///         let _second = count.lock().unwrap(); // never acquired
///     });
///     plainsong::yield_now();
///     assert_eq!(inspect::leaks().probably.coroutines().count(), 1);
/// });
/// ```
#[inline(never)]
pub fn leaks() -> Leaks {
    // The frames of calls below this one may have stale pointers.
    leaks_below(stack_top().addr())
}

#[inline(never)]
fn leaks_below(top: usize) -> Leaks {
    let with_stacks = |mut survey: Survey| {
        survey.stacks = Some(StackMemory::default());
        survey
    };
    let first = ask_everyone(&|room| with_stacks(Survey::with_capacity(room)));
    let first = Look::new(&first, top);
    let mut backtraces = Backtraces::new();
    let mut taken = ask_everyone(&|room| with_stacks(backtraces.survey(room)));
    // A handle may have been moved while it was looked for.
    let second = if first.probably.0.is_empty() { first.clone() } else { Look::new(&taken, top) };
    let leaked = |id: &Id| first.leaked.contains(id) && second.leaked.contains(id);
    let probably =
        |id: &Id| first.probably.contains(id) && second.probably.contains(id) && !leaked(id);
    let names = names_in(&taken);
    // The other backtraces need not be found.
    let either = |facts: &Facts| leaked(&facts.id) || probably(&facts.id);
    taken.iter_mut().for_each(|(_, answer)| answer.survey.coroutines.retain(either));
    let both = Dump::of(taken, names, &mut backtraces);
    let (leaked, probably) =
        (both.clone().only(|facts| leaked(&facts.id)), both.only(|facts| probably(&facts.id)));
    Leaks {
        version: leaked.version,
        leaked,
        probably,
        undecided: second.undecided,
        searched: first.searched && second.searched,
    }
}

/// A set in ascending order.
#[derive(Clone)]
struct Sorted<T>(Vec<T>);

impl<T: Ord> Sorted<T> {
    /// The order is that of the keys.
    fn new(mut items: Vec<T>, key: impl Fn(&T) -> u64) -> Self {
        sort_by_key(&mut items, key);
        items.dedup();
        Self(items)
    }

    fn position(&self, item: &T) -> Option<usize> {
        self.0.binary_search(item).ok()
    }

    fn contains(&self, item: &T) -> bool {
        self.position(item).is_some()
    }
}

/// The result of one look.
#[derive(Clone)]
struct Look {
    leaked: Sorted<Id>,
    // With those that are leaked for certain.
    probably: Sorted<Id>,
    undecided: usize,
    searched: bool,
}

/// The event that ends a wait.
enum Need {
    /// One of these objects is used.
    Objects(Vec<usize>),
    /// This coroutine ends.
    End(usize),
    /// All coroutines of a scope of the waiting one end.
    Scope,
    /// The lock is released. Its holder, if that lives; and for readers, its identity.
    Lock { holder: Option<usize>, read: Option<usize> },
}

/// The references to an object that were found.
#[derive(Clone, Default)]
struct Found {
    // On the stacks of these coroutines.
    owners: Vec<usize>,
    elsewhere: bool,
}

/// All coroutines of the process.
struct All {
    facts: Vec<Facts>,
    // Whether it is known which of its waits has a time limit: not if its worker was interrupted.
    limits_known: Vec<bool>,
    numbers: Index,
    // Whether nothing else exists: no worker that has not answered, no coroutine that is pending.
    complete: bool,
}

type Taken = [(Arc<Workers>, Answered)];

impl Look {
    fn new(taken: &Taken, top: usize) -> Self {
        let all = All::new(taken);
        let mut objects = Vec::new();
        all.facts.iter().for_each(|facts| objects.append(&mut shared(facts)));
        let objects = Sorted::new(objects, |object| object.to_words()[0]);
        let need = |(facts, known): (&Facts, &bool)| all.need(facts, &objects).filter(|_| *known);
        let needs: Vec<_> = all.facts.iter().zip(&all.limits_known).map(need).collect();
        let parked = |facts: &&Facts| waits(facts).is_some();
        let waiting = all.facts.iter().filter(parked).count();
        let mut found = vec![Found::default(); objects.0.len()];
        let searched = all.complete && search(&all, taken, &objects.0, &mut found, top).is_some();
        if !searched {
            found.iter_mut().for_each(|it| it.elsewhere = true);
        }
        let ids = |rest: Vec<bool>| {
            let rest = all.facts.iter().zip(rest).filter(|(_, stuck)| *stuck);
            Sorted::new(rest.map(|(facts, _)| facts.id).collect(), |id| id.get())
        };
        let probably = ids(all.rest(&needs, &found, true));
        let leaked = ids(all.rest(&needs, &found, false));
        // A channel of which a handle is in use is decided, as far as can be.
        let decided = needs.iter().flatten().filter(|need| searched || !need.is_for_object());
        Self { undecided: waiting - decided.count(), leaked, probably, searched }
    }
}

impl Need {
    fn is_for_object(&self) -> bool {
        matches!(self, Self::Objects(_))
    }
}

/// The wait of a coroutine, if another party must end it, and nothing else will.
fn waits(facts: &Facts) -> Option<&Parked> {
    match &facts.state {
        State::Parked(parked) => {
            let limited = parked.left.is_some() || facts.deadline.is_some() || facts.cancelled;
            (!limited && !parked.why.is_outside()).then_some(parked)
        }
        _ => None,
    }
}

/// The channels that a coroutine waits for, if that is all.
fn shared(facts: &Facts) -> Vec<Object> {
    let Some(parked) = waits(facts) else { return Vec::new() };
    let one = parked.subject.and_then(|subject| subject.shared);
    let several: Option<Vec<_>> = parked.alternatives.iter().map(|one| one.shared).collect();
    several.unwrap_or_default().into_iter().chain(one).collect()
}

impl All {
    fn new(taken: &Taken) -> Self {
        let mut facts = Vec::new();
        let mut limits_known = Vec::new();
        let mut complete = true;
        for (workers, Answered { number, how, survey }) in taken {
            let (_, pending) = workers.load(*number);
            complete &= *how != Answer::Silent && !survey.unreadable;
            complete &= survey.missed + pending == 0;
            facts.extend(survey.coroutines.iter());
            limits_known.resize(facts.len(), *how == Answer::InTurn);
        }
        let numbers = facts.iter().enumerate().map(|(at, it)| (it.id.short(), at)).collect();
        Self { facts, limits_known, numbers, complete }
    }

    /// The event that ends the wait of a coroutine. `None` if it may end by itself, or
    /// nothing is known.
    fn need(&self, facts: &Facts, known: &Sorted<Object>) -> Option<Need> {
        let parked = waits(facts)?;
        // Its handles may be on another stack.
        facts.stack.used?;
        if let Some(target) = parked.joins() {
            return Some(Need::End(*self.numbers.get(&target)?));
        }
        if parked.awaits_scope() {
            return Some(Need::Scope);
        }
        let holder = parked.subject.map_or(Held::Unknown, |subject| subject.holder);
        if let Held::Coroutine(id) | Held::Readers(_, Some(id)) = holder {
            let holder = self.numbers.get(&id.short()).copied();
            let read = parked.subject.filter(|_| parked.why.verb() == "read");
            let read = read.map(|subject| subject.identity);
            // A holder that is not listed may be one that did not answer.
            return (holder.is_some() || self.complete).then_some(Need::Lock { holder, read });
        }
        let numbers = shared(facts).into_iter().map(|object| known.position(&object));
        let numbers: Vec<usize> = numbers.collect::<Option<_>>()?;
        (!numbers.is_empty()).then_some(Need::Objects(numbers))
    }

    /// The coroutines that remain by the rule. Without `locks`, those that wait for one do not.
    fn rest(&self, needs: &[Option<Need>], found: &[Found], locks: bool) -> Vec<bool> {
        let counts = |need: &Need| locks || !matches!(need, Need::Lock { .. });
        let mut rest: Vec<bool> =
            needs.iter().map(|need| need.as_ref().is_some_and(counts)).collect();
        loop {
            let lent = self.lent(&rest);
            let scopes = self.scopes(&rest);
            let busy = self.busy_locks(&rest);
            let before = rest.clone();
            for (at, need) in needs.iter().enumerate().filter(|(at, _)| before[*at]) {
                rest[at] = match need {
                    Some(Need::Objects(objects)) => objects.iter().all(|object| {
                        let Found { owners, elsewhere } = &found[*object];
                        !elsewhere && owners.iter().all(|owner| rest[*owner] && !lent[*owner])
                    }),
                    Some(Need::End(target)) => rest[*target],
                    Some(Need::Scope) => scopes.get(&self.facts[at].id) == Some(&true),
                    Some(Need::Lock { holder, read }) => {
                        holder.is_none_or(|holder| rest[holder])
                            && read.is_none_or(|lock| !busy.contains(&lock))
                    }
                    None => false,
                };
            }
            if rest == before {
                return rest;
            }
        }
    }

    /// The coroutines from whose stacks another coroutine, which is not one of the `rest`, borrows.
    fn lent(&self, rest: &[bool]) -> Vec<bool> {
        let mut lent = vec![false; rest.len()];
        for (at, facts) in self.facts.iter().enumerate().filter(|(at, _)| !rest[*at]) {
            let (mut facts, mut child) = (facts, at);
            while let Some(parent) = facts.parent.filter(|_| facts.scoped) {
                match self.numbers.get(&parent.short()) {
                    Some(parent) if !lent[*parent] && *parent != child => child = *parent,
                    _ => break,
                }
                lent[child] = true;
                facts = &self.facts[child];
            }
        }
        lent
    }

    /// For each parent of a scope, whether all of its coroutines are of the `rest`.
    fn scopes(&self, rest: &[bool]) -> HashMap<Id, bool> {
        let mut scopes = HashMap::new();
        for (facts, stuck) in self.facts.iter().zip(rest).filter(|(facts, _)| facts.scoped) {
            if let Some(parent) = facts.parent {
                *scopes.entry(parent).or_insert(true) &= stuck;
            }
        }
        scopes
    }

    /// The locks for which a coroutine waits that is not one of the `rest`: if it gives up, readers
    /// behind it may get in.
    fn busy_locks(&self, rest: &[bool]) -> Sorted<usize> {
        let others = self.facts.iter().zip(rest).filter(|(_, stuck)| !**stuck);
        let lock = |facts: &Facts| match &facts.state {
            State::Parked(parked) => parked.subject.map(|subject| subject.identity),
            _ => None,
        };
        Sorted::new(others.filter_map(|(facts, _)| lock(facts)).collect(), |lock| *lock as u64)
    }
}

/// Finds the references to the objects. `None` if that is not possible.
#[cfg(target_os = "linux")]
fn search(
    all: &All,
    taken: &Taken,
    objects: &[Object],
    found: &mut [Found],
    top: usize,
) -> Option<()> {
    if objects.is_empty() {
        return Some(());
    }
    let parts = parts(all, taken, top);
    let mut add = |reference: memory::Reference| {
        let found = &mut found[reference.object];
        match reference.owner {
            None => found.elsewhere = true,
            Some(owner) if found.owners.last() == Some(&owner) => {}
            Some(owner) => found.owners.push(owner),
        }
    };
    memory::search(objects, parts, &mut add).ok()
}

#[cfg(not(target_os = "linux"))]
fn search(_: &All, _: &Taken, objects: &[Object], _: &mut [Found], _: usize) -> Option<()> {
    objects.is_empty().then_some(())
}

/// The parts of memory that do not count like the rest.
#[cfg(target_os = "linux")]
fn parts(all: &All, taken: &Taken, top: usize) -> Vec<Part> {
    /// The switch pushes registers.
    const PUSHED: usize = 64;
    let mut parts = Vec::new();
    let mut add = |memory: std::ops::Range<usize>, owner| {
        if !memory.is_empty() {
            parts.push(Part { memory, owner });
        }
    };
    for (at, facts) in all.facts.iter().enumerate() {
        let stack = &facts.stack;
        let bottom = stack.top.next_multiple_of(rustix::param::page_size()) - stack.size;
        let from = match stack.used {
            Some(used) => stack.top - used - PUSHED,
            None if (bottom..stack.top).contains(&top) => top,
            None => bottom,
        };
        add(bottom..from, None);
        add(from..stack.top, Some(at));
        if let State::Parked(parked) = &facts.state {
            parked.alternatives.iter().for_each(|arm| add(arm.memory.clone(), Some(at)));
        }
    }
    let known = taken.iter().filter_map(|(_, answer)| answer.survey.stacks.as_ref());
    known.clone().flat_map(|it| &it.free).for_each(|stack| add(stack.clone(), None));
    // The frames that a thread has left are on its stack, too. (Some are on those of coroutines.)
    let threads = taken.iter().filter_map(|(workers, answer)| workers.thread(answer.number));
    let mut pointers: Vec<usize> = threads.filter_map(memory::stack_pointer).collect();
    pointers.push(top);
    let pointers = Sorted::new(pointers, |pointer| *pointer as u64).0;
    let in_arena = |pointer: &usize| {
        known.clone().flat_map(|it| &it.arenas).any(|arena| arena.contains(pointer))
    };
    parts.extend(pointers.into_iter().filter(|it| !in_arena(it)).filter_map(memory::unused_stack));
    parts
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.leaked.write_as(f, "leaked coroutine")?;
        if self.probably.coroutines().next().is_some() {
            self.probably.write_as(f, "probably leaked coroutine")?;
        }
        if !self.searched {
            f.write_str("The memory was not searched, so waits for channels are left out.\n")?;
        }
        Ok(())
    }
}
