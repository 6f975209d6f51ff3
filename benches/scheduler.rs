//! What the scheduler costs, beside bare switches of corosensei over the same kind of stacks.
//!
//! ```text
//! cargo bench                # a minute
//! cargo bench -- spawn       # one of them
//! ```
//!
//! Both sides of a pair are measured in one run, and their ratio is printed below them. Machines differ
//! and are noisy: the ratio is what to look at.

#![allow(unsafe_code, clippy::print_stdout)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::ptr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use criterion::Criterion;
use plainsong::{run, spawn, yield_now};

// The wheel is private: here it is built once more, by itself.
#[allow(dead_code)]
#[path = "../src/engine/timer.rs"]
mod timer;
use timer::Timers;

/// As the library's own: the default size, and a guard page.
const STRIDE: usize = 256 * 1024 + 4096;
const COLOURS: usize = 32;
/// Rounds before the clock runs: they touch the stacks.
const WARM_UP: u64 = 20;

/// A stack in a mapping that is never given back.
struct BareStack {
    top: StackPointer,
    limit: StackPointer,
}

impl BareStack {
    /// Maps `count` stacks, laid out and coloured as the library does it, but without guards.
    fn reserve(count: usize) -> Vec<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), count * STRIDE, access, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: the mapping is ours. A page that is touched must not become 2 MiB.
        unsafe { libc::madvise(base, count * STRIDE, libc::MADV_NOHUGEPAGE) };
        let pointer = |address| NonZeroUsize::new(address).expect("a mapping is not at zero");
        let stack = |index| {
            let limit = base.addr() + index * STRIDE;
            let top = limit + STRIDE - index % COLOURS * 64;
            Self { top: pointer(top), limit: pointer(limit) }
        };
        (0..count).map(stack).collect()
    }
}

// SAFETY: both ends lie in a mapping that is never given back, on cache lines, and far
// enough apart. There is no guard page: what runs here uses a page or two.
unsafe impl Stack for BareStack {
    fn base(&self) -> StackPointer {
        self.top
    }

    fn limit(&self) -> StackPointer {
        self.limit
    }
}

/// Measures two ways to do the same and prints their ratio.
fn pair(
    criterion: &mut Criterion,
    (name, operations): (&str, usize),
    ours: impl FnMut(u64) -> Duration,
    (other, theirs): (&str, impl FnMut(u64) -> Duration),
) {
    let mut group = criterion.benchmark_group(name);
    let medians = RefCell::new(Vec::<f64>::new());
    let mut measure = |name: &str, routine: &mut dyn FnMut(u64) -> Duration| {
        let samples = RefCell::new(Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let time = routine(iterations);
                let each = time.as_secs_f64() * 1e9 / iterations as f64 / operations as f64;
                samples.borrow_mut().push(each);
                time
            });
        });
        let mut samples = samples.into_inner();
        samples.sort_by(f64::total_cmp);
        // One sample is `--test`, which only tries whether it runs.
        if samples.len() > 1 {
            medians.borrow_mut().push(samples[samples.len() / 2]);
        }
    };
    let (mut ours, mut theirs) = (ours, theirs);
    measure("plainsong", &mut ours);
    measure(other, &mut theirs);
    group.finish();
    // A filter on the command line may have left one of them out.
    if let [ours, theirs] = medians.into_inner()[..] {
        let ratio = ours / theirs;
        println!("{name}: plainsong {ours:.1} ns, {other} {theirs:.1} ns, ratio {ratio:.2}\n");
    }
}

/// Takes a turn from where a coroutine is: `DEEP` or not.
///
/// In a loop of the coroutine's own body, into which the switch is inlined, the processor knows where each
/// switch leads. One call deep, as in a program that is made of functions, it predicts wrongly where that
/// call returns to, whoever makes the switch.
#[inline(always)]
fn take<const DEEP: bool>(turn: impl Fn()) {
    #[inline(never)]
    fn call(turn: impl Fn()) {
        turn();
        // Else the call might become a jump, and nothing would return.
        black_box(());
    }
    if DEEP { call(turn) } else { turn() }
}

/// Times `rounds` rounds in which each of `count` coroutines has one turn; the timer is one of them.
fn rounds_of_ours<const DEEP: bool>(count: usize, rounds: u64) -> Duration {
    run(|| {
        let stop = Rc::new(Cell::new(false));
        for _ in 1..count {
            let stop = Rc::clone(&stop);
            spawn(move || {
                while !stop.get() {
                    take::<DEEP>(yield_now);
                }
            });
        }
        let mut start = Instant::now();
        // One loop for both, or the switch would be inlined into neither.
        for round in 0..WARM_UP + rounds {
            if round == WARM_UP {
                start = Instant::now();
            }
            take::<DEEP>(yield_now);
        }
        let time = start.elapsed();
        stop.set(true);
        time
    })
}

type Bare = Coroutine<(), (), (), BareStack>;

/// Coroutines that do nothing but suspend, each a turn into its life.
fn bare<const DEEP: bool>(count: usize) -> Vec<Bare> {
    let start = |stack| {
        let mut coroutine = Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| {
            loop {
                take::<DEEP>(|| yielder.suspend(()));
            }
        });
        coroutine.resume(());
        coroutine
    };
    BareStack::reserve(count).into_iter().map(start).collect()
}

fn yields<const DEEP: bool>(criterion: &mut Criterion, place: &str) {
    for count in [10, 1_000, 10_000] {
        let mut coroutines = bare::<DEEP>(count);
        let theirs = |rounds| {
            let start = Instant::now();
            for _ in 0..rounds {
                for coroutine in &mut coroutines {
                    assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
                }
            }
            start.elapsed()
        };
        let name = format!("yield_now {place}, {count} coroutines");
        pair(
            criterion,
            (&name, count),
            |rounds| rounds_of_ours::<DEEP>(count, rounds),
            ("corosensei", theirs),
        );
    }
}

fn spawns(criterion: &mut Criterion) {
    let ours = |iterations| {
        run(|| {
            let start = Instant::now();
            for n in 0..iterations {
                spawn(move || black_box(n)).join().expect("it does not panic");
            }
            start.elapsed()
        })
    };
    let mut stack = BareStack::reserve(1).pop();
    let theirs = |iterations| {
        let start = Instant::now();
        for n in 0..iterations {
            let body = move |_: &Yielder<(), ()>, ()| black_box(n);
            let Some(free) = stack.take() else { unreachable!("it is put back below") };
            let mut coroutine = Coroutine::with_stack(free, body);
            black_box(coroutine.resume(()));
            stack = Some(coroutine.into_stack());
        }
        start.elapsed()
    };
    pair(criterion, ("spawn and join", 1), ours, ("corosensei, one stack", theirs));
}

const SLEEPERS: u64 = 1_000_000;
/// The sleepers' times lie within a second, and the loop looks at the clock this often.
const STEP: u64 = 50_000;

/// A million times in no order: a permutation of the microseconds of a second.
fn deadlines() -> impl Iterator<Item = u64> {
    (0..SLEEPERS).map(|n| n * 611_953 % SLEEPERS * 1000)
}

/// Times one part of what `f` does, the one between the instants that it returns.
fn sum(iterations: u64, f: impl Fn() -> (Instant, Instant)) -> Duration {
    (0..iterations).map(|_| f()).map(|(start, end)| end - start).sum()
}

fn wheel() -> (Timers<u64>, Vec<timer::TimerKey>) {
    let mut timers = Timers::new();
    let keys = deadlines().map(|deadline| timers.add(deadline, deadline)).collect();
    (timers, keys)
}

/// In order of time and arrival, as the wheel is.
fn tree() -> BTreeMap<(u64, u64), u64> {
    deadlines().zip(0..).map(|(deadline, serial)| ((deadline, serial), deadline)).collect()
}

fn sleepers(criterion: &mut Criterion) {
    let name = |what| format!("a million sleepers, {what}");
    let million = SLEEPERS as usize;
    pair(
        criterion,
        (&name("add"), million),
        |iterations| {
            sum(iterations, || {
                let start = Instant::now();
                black_box(wheel());
                (start, Instant::now())
            })
        },
        ("BTreeMap", |iterations| {
            sum(iterations, || {
                let mut tree = BTreeMap::new();
                let start = Instant::now();
                for (deadline, serial) in deadlines().zip(0..) {
                    tree.insert((deadline, serial), deadline);
                }
                let end = Instant::now();
                assert_eq!(tree.len(), million);
                (start, end)
            })
        }),
    );
    pair(
        criterion,
        (&name("fire"), million),
        |iterations| {
            sum(iterations, || {
                let (mut timers, _) = wheel();
                let (mut due, mut fired) = (Vec::new(), 0);
                let start = Instant::now();
                for now in (STEP..).step_by(STEP as usize) {
                    timers.expire(now, &mut due);
                    fired += due.drain(..).len();
                    if timers.next().is_none() {
                        break;
                    }
                }
                let end = Instant::now();
                assert_eq!(fired, million);
                (start, end)
            })
        },
        ("BTreeMap", |iterations| {
            sum(iterations, || {
                let mut tree = tree();
                let mut fired = 0;
                let start = Instant::now();
                for now in (STEP..).step_by(STEP as usize) {
                    while let Some(first) = tree.first_entry()
                        && first.key().0 <= now
                    {
                        black_box(first.remove());
                        fired += 1;
                    }
                    if tree.is_empty() {
                        break;
                    }
                }
                let end = Instant::now();
                assert_eq!(fired, million);
                (start, end)
            })
        }),
    );
    pair(
        criterion,
        (&name("cancel"), million),
        |iterations| {
            sum(iterations, || {
                let (mut timers, keys) = wheel();
                let start = Instant::now();
                for key in keys {
                    black_box(timers.cancel(key));
                }
                (start, Instant::now())
            })
        },
        ("BTreeMap", |iterations| {
            sum(iterations, || {
                let mut tree = tree();
                let start = Instant::now();
                for key in deadlines().zip(0..) {
                    black_box(tree.remove(&key));
                }
                (start, Instant::now())
            })
        }),
    );
}

fn main() {
    let criterion = || {
        Criterion::default()
            .sample_size(20)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args()
    };
    yields::<false>(&mut criterion(), "in a loop");
    yields::<true>(&mut criterion(), "one call deep");
    spawns(&mut criterion());
    sleepers(&mut criterion().sample_size(10));
    Criterion::default().configure_from_args().final_summary();
}
