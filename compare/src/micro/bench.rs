//! The micro-benchmarks, their peers, and how much work each does.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A runtime with tasks, or the floor for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// corosensei's coroutines without a scheduler: the floor.
    Bare,
    /// plainsong.
    Plainsong,
    /// tokio: its current-thread runtime, or its multi-thread runtime where there are several
    /// workers.
    Tokio,
    /// smol.
    Smol,
    /// `may`.
    May,
    /// Go.
    Go,
    /// Threads of the operating system, with std and crossbeam.
    Threads,
    /// plainsong on a thread that also runs tokio.
    Guest,
}

impl Peer {
    /// Its name in tables and plots.
    pub fn label(self) -> &'static str {
        match self {
            Peer::Bare => "bare corosensei (floor)",
            Peer::Plainsong => "plainsong",
            Peer::Tokio => "tokio",
            Peer::Smol => "smol",
            Peer::May => "may",
            Peer::Go => "Go",
            Peer::Threads => "threads",
            Peer::Guest => "plainsong beside tokio",
        }
    }

    /// Whether it is plainsong.
    pub fn is_ours(self) -> bool {
        matches!(self, Peer::Plainsong | Peer::Guest)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bench {
    /// Yielding through the scheduler.
    Switch,
    /// Spawning a task and joining it.
    Spawn,
    /// Names for tasks.
    Names,
    /// Passing items from task to task.
    Channel,
    /// A lock without contention.
    Lock,
    /// The memory of a sleeping task.
    Memory,
    /// Timers by the million.
    Timers,
    /// A timeout around a read that need not wait.
    Timeouts,
    /// A tree of a million tasks, on one worker and on several.
    Skynet,
    /// Passing items between tasks on two threads.
    Cross,
    /// Waiting for a future.
    BlockOn,
    /// Calls of tonic, from tasks and from coroutines.
    Tonic,
    /// How long coroutines and tasks on one thread keep each other waiting.
    Fairness,
}

/// How much work a quick run and a full run do.
struct Effort {
    /// The numbers of tasks.
    counts: [&'static [usize]; 2],
    rounds: [usize; 2],
    /// Operations in a sample.
    work: [usize; 2],
}

impl Bench {
    /// All of them, in the order of the report.
    pub const ALL: [Bench; 13] = [
        Bench::Switch,
        Bench::Spawn,
        Bench::Names,
        Bench::Channel,
        Bench::Lock,
        Bench::Memory,
        Bench::Timers,
        Bench::Timeouts,
        Bench::Skynet,
        Bench::Cross,
        Bench::BlockOn,
        Bench::Tonic,
        Bench::Fairness,
    ];

    /// Its name on the command line, and that of its saved results.
    ///
    /// # Errors
    ///
    /// None: every bench has a name.
    pub fn name(self) -> Result<String> {
        let value = self.to_possible_value().context("every bench has a name")?;
        Ok(value.get_name().to_owned())
    }

    /// The peers that take part.
    pub fn peers(self) -> &'static [Peer] {
        use Peer::{Bare, Go, Guest, May, Plainsong, Smol, Threads, Tokio};
        match self {
            Bench::Switch | Bench::Spawn => &[Bare, Plainsong, Tokio, Smol, May, Go, Threads],
            Bench::Channel | Bench::Cross => &[Plainsong, Tokio, Smol, May, Go, Threads],
            Bench::Lock | Bench::Timeouts => &[Threads, Plainsong, Tokio, Smol, May, Go],
            Bench::Memory => &[Plainsong, Tokio, Smol, May, Go, Threads],
            Bench::Timers => &[Plainsong, Tokio, Smol, May, Go],
            Bench::Skynet => &[Plainsong, Tokio, Go],
            Bench::BlockOn => &[Plainsong, Guest, Tokio],
            Bench::Tonic => &[Tokio, Guest],
            Bench::Fairness => &[Guest],
            Bench::Names => &[Plainsong],
        }
    }

    /// The peer whose first column is the reference, and the name of that ratio in the table.
    pub fn reference(self) -> Option<(Peer, &'static str)> {
        match self {
            Bench::Switch | Bench::Spawn => Some((Peer::Bare, "× floor")),
            Bench::Lock => Some((Peer::Threads, "× std")),
            Bench::Tonic => Some((Peer::Tokio, "× tokio")),
            _ => None,
        }
    }

    /// The names of the values of a sample.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Bench::Switch => &["ns/yield"],
            Bench::Spawn => &["ns/spawn+join"],
            Bench::Names => &["ns/spawn+join", "+ a shared name ns", "+ a name of its own ns"],
            Bench::Channel => &["ns/round trip", "unbounded ns/item"],
            Bench::Lock => &["ns/lock+unlock"],
            Bench::Memory => &["resident B/task", "page tables B/task"],
            Bench::Timers => &[
                "add ns",
                "fire ns",
                "cancel ns",
                "add and park ns",
                "fire and end ns",
                "cancel and end ns",
            ],
            Bench::Timeouts => &["timeout ns", "read ns", "read with timeout ns"],
            Bench::Skynet => &["ms"],
            Bench::Cross => &["ns/round trip", "unbounded ns/item"],
            Bench::BlockOn => &["ready ns", "woken ns"],
            Bench::Tonic => &["ns/call"],
            Bench::Fairness => &["coroutine waits µs", "task waits µs"],
        }
    }

    /// The title of its table.
    pub fn title(self) -> &'static str {
        match self {
            Bench::Switch => "yielding through the scheduler",
            Bench::Spawn => "spawning and joining a task that does nothing",
            Bench::Names => "spawning and joining a coroutine with a name",
            Bench::Channel => {
                "ping-pong through two rendezvous channels, and a stream through an unbounded one"
            }
            Bench::Lock => "a lock without contention",
            Bench::Memory => "the memory of a sleeping task, without that of the empty runtime",
            Bench::Timers => "timers, less the cost of the same tasks without one",
            Bench::Timeouts => "a timeout around a read of one byte that has arrived",
            Bench::Skynet => {
                "a tree of tasks, ten children each and a million leaves, that adds numbers up"
            }
            Bench::Cross => {
                "ping-pong between two threads, a core each, and a stream from one to the other"
            }
            Bench::BlockOn => {
                "waiting for a future that is ready, and for one that another task of the thread wakes"
            }
            Bench::Tonic => "a unary call of tonic over loopback, with both ends on one thread",
            Bench::Fairness => {
                "the longest wait for a turn, while tasks or coroutines are always ready"
            }
        }
    }

    /// A remark about the peers, if there is one to make.
    pub fn remark(self) -> Option<&'static str> {
        match self {
            Bench::Channel => Some(
                "Threads use crossbeam, and smol uses async-channel. tokio and smol have no rendezvous channel: \
                 theirs has room for one item. may has only unbounded channels. Go has no unbounded channel: its \
                 stream has room for 128.",
            ),
            Bench::Names => Some(
                "A shared name is that of a builder which is cloned for each spawn. A name of its own is formatted \
                 for each. The place of the spawn is kept in all three: it is a constant of the program.",
            ),
            Bench::Timeouts => Some(
                "Threads and may set the socket's own timeout once (SO_RCVTIMEO). Go sets a deadline for each \
                 read. The others wrap the read.",
            ),
            Bench::Skynet => Some("tokio uses its multi-thread runtime, also for one worker."),
            Bench::Cross => Some(
                "plainsong: two workers, with a coroutine on each. tokio and smol: two threads, with a runtime on \
                 each. may and Go: two workers, which may run both tasks on one. Go's stream has room for 128.",
            ),
            Bench::BlockOn => Some(
                "tokio awaits the future in a task. The time of one that is woken includes the turn of the task \
                 that wakes it.",
            ),
            Bench::Tonic => Some(
                "The server is a task of tokio in both. The callers are tasks of tokio's current-thread runtime, \
                 or coroutines beside it.",
            ),
            Bench::Fairness => Some(
                "Each turn of those that are always ready takes 10 µs. A coroutine waits while tasks are, and a \
                 task while coroutines are. A pause of the machine counts as a wait.",
            ),
            _ => None,
        }
    }

    /// The columns by which runtimes are compared. The other columns show how these came about.
    pub fn compared(self) -> std::ops::Range<usize> {
        match self {
            Bench::Timers => 0..3,
            Bench::Channel | Bench::BlockOn | Bench::Fairness => 0..2,
            _ => 0..1,
        }
    }

    /// Whether it needs several cores, and so is not pinned to one.
    pub fn is_parallel(self) -> bool {
        matches!(self, Bench::Skynet | Bench::Cross)
    }

    /// The meaning of the number of tasks.
    pub fn counts_what(self) -> &'static str {
        match self {
            Bench::Switch => "tasks taking turns",
            Bench::Spawn | Bench::Names => "tasks alive at a time",
            Bench::Channel => "pairs of tasks",
            Bench::Memory | Bench::Timers => "sleeping tasks",
            Bench::Lock | Bench::Timeouts | Bench::BlockOn => "tasks",
            Bench::Tonic => "callers",
            Bench::Fairness => "always ready",
            Bench::Skynet | Bench::Cross => "workers",
        }
    }

    fn effort(self) -> Effort {
        let (counts, rounds, work): ([&[usize]; 2], _, _) = match self {
            Bench::Switch => ([&[10, 1_000, 10_000]; 2], [2, 15], [300_000, 3_000_000]),
            Bench::Spawn | Bench::Names => ([&[1, 1_000]; 2], [2, 15], [50_000, 300_000]),
            Bench::Channel => ([&[1], &[1, 1_000]], [2, 15], [50_000, 300_000]),
            Bench::Lock => ([&[1]; 2], [2, 15], [1_000_000, 10_000_000]),
            // It hardly varies between rounds.
            Bench::Memory => ([&[1_000, 100_000], &[1_000, 100_000, 1_000_000]], [1, 3], [0, 0]),
            // `may` can do the smaller number too. A million takes long.
            Bench::Timers => ([&[30_000], &[30_000, 1_000_000]], [1, 3], [0, 0]),
            Bench::Timeouts => ([&[1]; 2], [2, 15], [30_000, 300_000]),
            Bench::Skynet => ([&[1, 2]; 2], [1, 15], [100_000, 1_000_000]),
            Bench::Cross => ([&[2]; 2], [2, 15], [10_000, 50_000]),
            Bench::BlockOn => ([&[1]; 2], [2, 15], [300_000, 3_000_000]),
            Bench::Tonic => ([&[1, 64]; 2], [2, 15], [2_000, 20_000]),
            // Milliseconds.
            Bench::Fairness => ([&[1, 10]; 2], [2, 15], [50, 300]),
        };
        Effort { counts, rounds, work }
    }

    pub(super) fn counts(self, quick: bool) -> &'static [usize] {
        self.effort().counts[usize::from(!quick)]
    }

    pub(super) fn rounds(self, quick: bool) -> usize {
        self.effort().rounds[usize::from(!quick)]
    }

    pub(super) fn work(self, quick: bool) -> usize {
        self.effort().work[usize::from(!quick)]
    }
}
