//! A survey of this thread's coroutines.

use std::ptr;
use std::time::Duration;

use super::super::current;
use super::super::endpoint::Endpoint;
use super::super::facts::{Facts, Frames, Parked, StackUse, State};
use super::super::numbers::Numbers;
use super::super::processor::Registers;
use super::super::stack;
use super::super::survey::{Survey, Wanted};
use super::super::task::{Flag, Task};
use super::core::Scheduler;

impl Scheduler {
    /// Looks at all coroutines of this thread. Called in the loop, or by the running coroutine.
    pub(crate) fn survey(&self, mut survey: Survey) -> Survey {
        self.fill(&mut survey);
        survey
    }

    /// Answers the question of another thread, if there is one. Called as [`survey`](Self::survey).
    #[cold]
    #[inline(never)]
    pub(crate) fn answer(&self) {
        self.with_worker(|worker| {
            worker.workers.answer(worker.number, |survey| self.fill(survey));
        });
    }

    /// [`answer`](Self::answer), in a signal handler. Returns whether there was a question.
    pub(crate) fn answer_interrupted(&self, registers: Option<Registers>) -> bool {
        let Ok(worker) = self.worker.try_borrow() else { return false };
        worker.as_ref().is_some_and(|worker| {
            worker.workers.answer(worker.number, |survey| {
                survey.interrupted = Some(registers);
                self.fill(survey);
            })
        })
    }

    #[cold]
    fn fill(&self, survey: &mut Survey) {
        if let Some(numbers) = &mut survey.numbers {
            survey.unreadable = !self.count(numbers);
            return;
        }
        let now = self.clock.nanos_for_report();
        survey.turn = self.turns_left.get();
        let wanted = survey.wanted;
        let mut add = |task: &Task| survey.add(|survey| self.facts(task, now, survey));
        let readable = match wanted {
            Wanted::All => self.tasks.try_for_each(add),
            Wanted::Running => {
                current::with(|task| task.into_iter().for_each(add));
                true
            }
            Wanted::Referring(to) => self.tasks.try_for_each(|task| {
                if is_running(task) || task.parked.get() && refers(task, to) {
                    add(task);
                }
            }),
        };
        survey.unreadable = !readable;
        if let Some(known) = survey.stacks.as_mut().filter(|_| survey.interrupted.is_none()) {
            stack::for_each_arena(|memory, _, _| known.arenas.push(memory));
            for pool in [&self.stacks, &self.grown, &self.lent] {
                pool.for_each_free(|stack| known.free.push(stack));
            }
        }
    }

    /// Writes down what was counted, and counts what there is. Returns whether all of it could be
    /// read at this moment.
    fn count(&self, numbers: &mut Numbers) -> bool {
        let readable = self.tasks.try_for_each(|task| {
            numbers.counts.live += 1;
            if task.parked.get() {
                numbers.add_parked(task.waiting());
            } else if !is_running(task) {
                numbers.counts.ready += 1;
            }
        });
        let (timers, stacks) = (self.alarms.try_len(), self.stacks.try_count());
        stack::for_each_arena(|memory, used, count| {
            numbers.counts.stacks += count as u64;
            numbers.counts.stack_bytes_reserved += memory.len() as u64;
            numbers.add_stacks(memory.start..memory.start + used);
        });
        let counts = &mut numbers.counts;
        self.observer.count(counts);
        counts.turns = self.turns();
        counts.timers = timers.unwrap_or(0) as u64;
        (counts.free_stacks, counts.stacks_trimmed) =
            stacks.map_or((0, 0), |(free, trimmed)| (free as u64, trimmed));
        counts.free_stacks += u64::from(self.refused.is_full());
        readable && timers.is_some() && stacks.is_some()
    }

    fn facts(&self, task: &Task, now: u64, survey: &mut Survey) -> Facts {
        // An interrupted thread may be about to change its timers.
        let timers = survey.interrupted.is_none();
        let left = |at: u64| Duration::from_nanos(at.saturating_sub(now));
        let running = is_running(task);
        let state = if running {
            State::Running
        } else if task.parked.get() {
            let why = task.waiting();
            let timer = task.timer.get().filter(|_| timers);
            let timer = timer.and_then(|key| self.alarms.time_of(key));
            State::Parked(Parked {
                why,
                subject: task.subject(),
                alternatives: if timers && survey.stacks.is_some() {
                    task.alternatives()
                } else {
                    Box::default()
                },
                endpoint: (why.kind() == "descriptor").then(|| Endpoint::of(why.detail())),
                since: Duration::from_millis(task.waited(now / 1_000_000)),
                left: timer.map(left),
            })
        } else {
            State::Ready { started: task.coroutine.has_started() }
        };
        let (scopes, deadline) = if timers { task.scopes.deadlines() } else { (0, None) };
        let deadline = deadline.map(|at| self.clock.nanos_at(at));
        let main = task.flags.has(Flag::Main);
        let target = if timers { task.scopes.target() } else { None };
        Facts {
            id: task.id,
            parent: task.parent,
            name: task.name().cloned(),
            spawned: task.spawned,
            state,
            scoped: task.flags.has(Flag::Borrows) && !main,
            cancelled: target.is_some() || task.flags.has(Flag::Raised),
            reason: target.and_then(|level| task.scopes.reason(level)),
            scopes,
            deadline: deadline.map(left),
            stack: stack_use(task),
            frames: frames(task, running, survey),
        }
    }
}

fn is_running(task: &Task) -> bool {
    current::with(|running| running.is_some_and(|it| ptr::eq(it, task)))
}

/// Whether a suspended coroutine has an address on its stack.
fn refers(task: &Task, to: usize) -> bool {
    /// The switch pushes registers.
    const PUSHED: usize = 64;
    /// The writers of std's `RwLock` wait for its second word.
    const WORD: usize = 4;
    let Some(bounds) = task.coroutine.bounds() else { return false };
    let Some(top) = task.coroutine.suspended_at(bounds) else { return false };
    let words = (top - PUSHED..).step_by(size_of::<usize>());
    words.map_while(|at| bounds.read(at)).any(|word| word == to || word.wrapping_add(WORD) == to)
}

fn stack_use(task: &Task) -> StackUse {
    let Some(bounds) = task.coroutine.bounds() else { return StackUse::default() };
    StackUse {
        top: bounds.top(),
        used: task.coroutine.suspended_at(bounds).map(|at| bounds.depth(at)),
        most: bounds.resident(),
        size: bounds.size(),
    }
}

/// Finds the frames of a coroutine.
fn frames(task: &Task, running: bool, survey: &mut Survey) -> Frames {
    let registers = match survey.interrupted {
        _ if survey.walker.is_none() => None,
        Some(registers) if running => registers,
        None if running => Some(Registers::here()),
        _ => task.coroutine.registers(),
    };
    let Some(registers) = registers else { return Frames::default() };
    let Some(mut bounds) = stack::bounds_of(registers.stack) else { return Frames::default() };
    survey.walk(registers, &mut |address| {
        // A generator's stack is followed by that of the coroutine that resumes it.
        bounds.read(address).or_else(|| {
            bounds = stack::bounds_of(address)?;
            bounds.read(address)
        })
    })
}
