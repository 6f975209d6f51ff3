//! The cost of the scheduler, beside bare switches of corosensei over the same kind of stacks, and
//! of its timers, beside a tree.
//!
//! ```text
//! cargo bench                # a minute
//! cargo bench -- spawn       # one of them
//! ```
//!
//! Both sides of a pair are measured in one run, and their ratio is printed below them. Machines
//! differ and are noisy, so look at the ratio.

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
use plainsong::time::{Timer, after};
use plainsong::{run, spawn, yield_now};

/// As in the library: the default size, and a guard page.
const STRIDE: usize = 256 * 1024 + 4096;
const COLOURS: usize = 32;
/// Rounds before the measured ones. They touch the stacks.
const WARM_UP: u64 = 20;

/// A stack in a mapping that is never unmapped.
struct BareStack {
    top: StackPointer,
    limit: StackPointer,
}

impl BareStack {
    /// Maps `count` stacks with the layout and the colours of the library, but without guards.
    fn reserve(count: usize) -> Vec<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), count * STRIDE, access, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // A page that is touched must not become 2 MiB.
        // SAFETY: the mapping is ours.
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

// SAFETY: both ends lie in a mapping that is never unmapped, on cache lines, and far enough apart.
// There is no guard page: the coroutines here use a page or two.
unsafe impl Stack for BareStack {
    fn base(&self) -> StackPointer {
        self.top
    }

    fn limit(&self) -> StackPointer {
        self.limit
    }
}

/// Measures two ways to do the same thing, and prints their ratio.
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
        // `--test` takes one sample, and only checks that it runs.
        if samples.len() > 1 {
            medians.borrow_mut().push(samples[samples.len() / 2]);
        }
    };
    let (mut ours, mut theirs) = (ours, theirs);
    measure("plainsong", &mut ours);
    measure(other, &mut theirs);
    group.finish();
    // A filter on the command line may have skipped one of them.
    if let [ours, theirs] = medians.into_inner()[..] {
        let ratio = ours / theirs;
        println!("{name}: plainsong {ours:.1} ns, {other} {theirs:.1} ns, ratio {ratio:.2}\n");
    }
}

/// Takes a turn in the coroutine's own body or, if `DEEP`, in a function that it calls.
///
/// The switch is inlined into a loop of the body, and the processor then knows where each switch
/// leads. In a called function, as in a program made of functions, it mispredicts the return of
/// that function after every switch, in any kind of coroutine.
#[inline(always)]
fn take<const DEEP: bool>(turn: impl Fn()) {
    #[inline(never)]
    fn call(turn: impl Fn()) {
        turn();
        // Without this the call might become a jump, and nothing would return.
        black_box(());
    }
    if DEEP { call(turn) } else { turn() }
}

/// Times `rounds` rounds in which each of `count` coroutines has one turn. This coroutine is one of
/// them.
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
        // One loop for warm-up and measurement: in two, the switch would be inlined into neither.
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

/// Coroutines that only suspend, and have done so once.
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

const CALLS: u64 = 1_000_000;

/// A minute and a permutation of the microseconds of a second: a million delays in no order.
fn delays() -> impl Iterator<Item = Duration> {
    (0..CALLS).map(|n| Duration::from_secs(60) + Duration::from_micros(n * 611_953 % CALLS))
}

/// Times one part of what `f` does, the one between the instants that it returns.
fn sum(iterations: u64, f: impl Fn() -> (Instant, Instant)) -> Duration {
    (0..iterations).map(|_| f()).map(|(start, end)| end - start).sum()
}

fn calls() -> Vec<Timer> {
    delays().map(|delay| after(delay, || ())).collect()
}

/// Times in order, and for equal ones the order of arrival.
fn tree(now: Instant) -> BTreeMap<(Instant, u64), Box<dyn FnOnce()>> {
    let call = |(delay, serial)| ((now + delay, serial), Box::new(|| ()) as Box<dyn FnOnce()>);
    delays().zip(0..).map(call).collect()
}

/// Calls for later. `compare -- timers` measures what sleepers and timers that fire cost.
fn calls_for_later(criterion: &mut Criterion) {
    let name = |what| format!("a million calls for later, {what}");
    let million = CALLS as usize;
    let ours_add = |iterations| {
        sum(iterations, || {
            run(|| {
                let start = Instant::now();
                black_box(calls());
                (start, Instant::now())
            })
        })
    };
    let theirs_add = |iterations| {
        sum(iterations, || {
            let start = Instant::now();
            let mut tree = BTreeMap::new();
            for (delay, serial) in delays().zip(0..) {
                let call: Box<dyn FnOnce()> = Box::new(|| ());
                tree.insert((start + delay, serial), call);
            }
            let end = Instant::now();
            assert_eq!(tree.len(), million);
            (start, end)
        })
    };
    pair(criterion, (&name("add"), million), ours_add, ("BTreeMap", theirs_add));
    let ours_cancel = |iterations| {
        sum(iterations, || {
            run(|| {
                let calls = calls();
                let start = Instant::now();
                for call in calls {
                    black_box(call.cancel());
                }
                (start, Instant::now())
            })
        })
    };
    let theirs_cancel = |iterations| {
        sum(iterations, || {
            let now = Instant::now();
            let mut tree = tree(now);
            let start = Instant::now();
            for (delay, serial) in delays().zip(0..) {
                black_box(tree.remove(&(now + delay, serial)));
            }
            (start, Instant::now())
        })
    };
    pair(criterion, (&name("cancel"), million), ours_cancel, ("BTreeMap", theirs_cancel));
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
    calls_for_later(&mut criterion().sample_size(10));
    Criterion::default().configure_from_args().final_summary();
}
