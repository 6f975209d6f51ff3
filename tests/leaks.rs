//! Leaked coroutines, and others that must not be accused; and the blocking bugs of GoBench's GoKer
//! set, which Go's tests of its leak profile use, in the shape that they have here.

use std::any::type_name;
use std::collections::BTreeSet;
use std::hint;
use std::mem::forget;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::inspect::{Dump, Leaks, dump, leaks};
use plainsong::sync::channel::{Receiver, Sender, after, bounded, unbounded};
use plainsong::sync::{Condvar, Mutex, RwLock, WaitGroup};
use plainsong::time::{sleep, timeout};
use plainsong::{Builder, JoinHandle, Runtime, blocking, run, scope, select, spawn, yield_now};

/// Why a case is not found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    /// A send fails when the last receiver has been dropped, where Go's waits for ever.
    SendFails,
    /// A receive fails when the last sender has been dropped, where Go's waits for ever.
    ReceiveFails,
    /// A receiver of a timer gets its tick: the timer cannot be stopped.
    TimerFires,
    /// Any party with a reference to the condition variable could notify it.
    Condvar,
}

/// The outcome of a case.
enum Outcome {
    /// These coroutines are found.
    Found(&'static [&'static str]),
    /// These are parked for ever, and not found.
    Undecidable(&'static [&'static str], Reason),
    /// There is no such leak.
    Ends(Reason),
}

use Outcome::{Ends, Found, Undecidable};
use Reason::{ReceiveFails, SendFails, TimerFires};

fn go(name: &str, body: impl FnOnce() + 'static) {
    named(name, body);
}

fn named(name: &str, body: impl FnOnce() + 'static) -> JoinHandle<()> {
    Builder::new().name(name).spawn(body).unwrap()
}

fn mutex() -> (Arc<Mutex<()>>, Arc<Mutex<()>>) {
    let mutex = Arc::new(Mutex::new(()));
    (Arc::clone(&mutex), mutex)
}

fn rwlock() -> (Arc<RwLock<()>>, Arc<RwLock<()>>) {
    let lock = Arc::new(RwLock::new(()));
    (Arc::clone(&lock), lock)
}

/// Lets all other coroutines run until they park.
fn settle() {
    (0..20).for_each(|_| yield_now());
}

/// Two coroutines take two locks in different orders.
fn ab_ba() {
    let ((a, b), (c, d)) = (mutex(), mutex());
    go("G2", move || {
        let _first = a.lock().unwrap();
        yield_now();
        let _second = c.lock().unwrap();
    });
    let _first = d.lock().unwrap();
    yield_now();
    let _second = b.lock().unwrap();
}

/// One coroutine takes a lock twice.
fn double_lock() {
    let lock = Mutex::new(());
    let _first = lock.lock().unwrap();
    let _second = lock.lock().unwrap();
}

/// A path on which a lock is not released.
fn missing_unlock() {
    let lock = Mutex::new(());
    forget(lock.lock().unwrap());
    let _second = lock.lock().unwrap();
}

/// A reader reads again, behind a writer that has come meanwhile.
fn read_write_read() {
    let (ours, theirs) = rwlock();
    go("G2", move || drop(theirs.write().unwrap()));
    let _first = ours.read().unwrap();
    yield_now();
    let _second = ours.read().unwrap();
}

/// A sender whose receiver has returned early.
fn abandoned_sender() {
    let (results, result) = bounded(0);
    go("G2", move || _ = results.send(()));
    drop(result);
}

/// A receiver whose context is never cancelled.
fn abandoned_receiver() {
    let (cancel, context) = bounded::<()>(0);
    go("G2", move || _ = context.recv());
    drop(cancel);
}

/// The holder of a lock sends to a coroutine that wants the lock.
fn sends_with_lock() {
    let (ours, theirs) = mutex();
    let (sender, receiver) = bounded(0);
    go("G2", move || {
        let _guard = theirs.lock().unwrap();
        sender.send(()).unwrap();
    });
    yield_now();
    let _guard = ours.lock().unwrap();
    receiver.recv().unwrap();
}

/// The holder of a lock receives from a coroutine that wants the lock.
fn receives_with_lock() {
    let (ours, theirs) = mutex();
    let (sender, receiver) = bounded::<()>(0);
    go("G2", move || {
        let _guard = theirs.lock().unwrap();
        receiver.recv().unwrap();
    });
    yield_now();
    let _guard = ours.lock().unwrap();
    sender.send(()).unwrap();
}

/// A wait for a signal that is never given.
fn condition() {
    let (ours, lock) = (Arc::new(Condvar::new()), Mutex::new(()));
    let _guard = ours.wait(lock.lock().unwrap()).unwrap();
}

/// The cases by their names in GoKer: the project, and the number of the bug.
const CASES: &[(&str, fn(), Outcome)] = &[
    ("cockroach10214", ab_ba, Found(&["G1", "G2"])),
    ("cockroach1055", cockroach1055, Found(&["G1", "G2", "G3"])),
    ("cockroach10790", abandoned_sender, Ends(SendFails)),
    ("cockroach13197", abandoned_receiver, Ends(ReceiveFails)),
    ("cockroach13755", abandoned_receiver, Ends(ReceiveFails)),
    ("cockroach1462", cockroach1462, Found(&["G1", "G2"])),
    ("cockroach16167", read_write_read, Found(&["G1", "G2"])),
    ("cockroach18101", abandoned_sender, Ends(SendFails)),
    ("cockroach2448", cockroach2448, Found(&["G1", "G2"])),
    ("cockroach24808", cockroach24808, Found(&["G1"])),
    ("cockroach25456", cockroach25456, Found(&["G1"])),
    ("cockroach35073", cockroach35073, Found(&["G1", "G2"])),
    ("cockroach35931", cockroach35931, Found(&["G1", "G2"])),
    ("cockroach3710", read_write_read, Found(&["G1", "G2"])),
    ("cockroach584", missing_unlock, Found(&["G1"])),
    ("cockroach6181", cockroach6181, Found(&["G2", "G3"])),
    ("cockroach7504", cockroach7504, Found(&["G1", "G2"])),
    ("cockroach9935", double_lock, Found(&["G1"])),
    ("etcd10492", double_lock, Found(&["G1"])),
    ("etcd5509", etcd5509, Found(&["G1"])),
    ("etcd6708", double_lock, Found(&["G1"])),
    ("etcd6857", etcd6857, Ends(SendFails)),
    ("etcd6873", etcd6873, Found(&["G2", "G3"])),
    ("etcd7492", sends_with_lock, Found(&["G1", "G2"])),
    ("etcd7902", etcd7902, Found(&["G1", "G2", "G3"])),
    ("grpc1275", grpc1275, Found(&["G1", "G2"])),
    ("grpc1424", abandoned_sender, Ends(SendFails)),
    ("grpc1460", receives_with_lock, Found(&["G1", "G2"])),
    ("grpc3017", grpc3017, Found(&["G1", "G2"])),
    ("grpc660", abandoned_sender, Ends(SendFails)),
    ("grpc795", missing_unlock, Found(&["G1"])),
    ("grpc862", abandoned_receiver, Ends(ReceiveFails)),
    ("hugo3251", hugo3251, Found(&["G1", "G2", "G3"])),
    ("hugo5379", double_lock, Found(&["G1"])),
    ("istio16224", sends_with_lock, Found(&["G1", "G2"])),
    ("istio17860", abandoned_sender, Ends(SendFails)),
    ("istio18454", istio18454, Ends(TimerFires)),
    ("kubernetes10182", kubernetes10182, Found(&["G1", "G3"])),
    ("kubernetes11298", kubernetes11298, Undecidable(&["G1", "G2"], Reason::Condvar)),
    ("kubernetes13135", ab_ba, Found(&["G1", "G2"])),
    ("kubernetes1321", sends_with_lock, Found(&["G1", "G2"])),
    ("kubernetes25331", abandoned_sender, Ends(SendFails)),
    ("kubernetes26980", receives_with_lock, Found(&["G1", "G2"])),
    ("kubernetes30872", ab_ba, Found(&["G1", "G2"])),
    ("kubernetes38669", kubernetes38669, Found(&["G1"])),
    ("kubernetes5316", abandoned_sender, Ends(SendFails)),
    ("kubernetes58107", kubernetes58107, Undecidable(&["G3", "G4", "G5"], Reason::Condvar)),
    ("kubernetes62464", read_write_read, Found(&["G1", "G2"])),
    ("kubernetes6632", kubernetes6632, Found(&["G1", "G2"])),
    ("kubernetes70277", kubernetes70277, Ends(ReceiveFails)),
    ("moby17176", moby17176, Found(&["G2"])),
    ("moby21233", moby21233, Found(&["G1", "G3"])),
    ("moby25384", moby25384, Found(&["G1"])),
    ("moby27782", moby27782, Undecidable(&["G2", "G3"], Reason::Condvar)),
    ("moby28462", sends_with_lock, Found(&["G1", "G2"])),
    ("moby29733", condition, Undecidable(&["G1"], Reason::Condvar)),
    ("moby30408", condition, Undecidable(&["G1"], Reason::Condvar)),
    ("moby33781", abandoned_sender, Ends(SendFails)),
    ("moby36114", double_lock, Found(&["G1"])),
    ("moby4951", ab_ba, Found(&["G1", "G2"])),
    ("moby7559", missing_unlock, Found(&["G1"])),
    ("serving2137", serving2137, Found(&["G1", "G2", "G3"])),
    ("syncthing4829", syncthing4829, Found(&["G1"])),
    ("syncthing5795", syncthing5795, Found(&["G1", "G2"])),
];

fn cockroach1055() {
    let (stopped, drain) = (WaitGroup::new(), WaitGroup::new());
    let (stop, should_stop) = bounded::<()>(0);
    for _ in 0..3 {
        let (stopped, drain, should_stop) = (stopped.clone(), drain.clone(), should_stop.clone());
        go("G2", move || {
            _ = should_stop.recv();
            drop((stopped, drain));
        });
    }
    drop(should_stop);
    go("G3", move || {
        // The stop should come first.
        drain.wait();
        drop(stop);
    });
    stopped.wait();
}

fn cockroach1462() {
    let group = WaitGroup::new();
    let (events, incoming) = bounded(0);
    let member = group.clone();
    go("G2", move || {
        _ = events.send(0);
        drop(member);
    });
    yield_now();
    // It should receive the events that are left.
    group.wait();
    drop(incoming);
}

fn cockroach2448() {
    let ((callbacks, called), (events, event)) = (bounded(0), bounded(0));
    let (stopper, stopped) = bounded::<()>(0);
    let theirs = stopped.clone();
    go("G2", move || {
        select! {
            send(events, ()) -> sent => sent.unwrap(),
            recv(theirs) -> _item => {}
        }
        called.recv().unwrap();
    });
    select! {
        send(callbacks, ()) -> sent => sent.unwrap(),
        recv(stopped) -> _item => {}
    }
    event.recv().unwrap();
    drop(stopper);
}

fn cockroach24808() {
    let (suggest, suggested) = bounded(1);
    suggest.send(0).unwrap();
    suggest.send(1).unwrap();
    drop(suggested);
}

fn cockroach25456() {
    let (stopper, should_quiesce) = bounded::<()>(0);
    _ = should_quiesce.recv();
    drop(stopper);
}

fn cockroach35073() {
    let (rows, row) = bounded(1);
    let group = WaitGroup::new();
    let member = group.clone();
    go("G2", move || {
        (0..3).for_each(|number| rows.send(number).unwrap());
        drop(member);
    });
    // The outbox has failed to start, and does not close its channel.
    group.wait();
    drop(row);
}

fn cockroach35931() {
    let ((left, from_left), (right, from_right)) = (bounded(1), bounded::<()>(1));
    go("G2", move || {
        from_right.recv().unwrap();
        from_left.recv().unwrap();
    });
    left.send(()).unwrap();
    // The metadata of a cancellation, to each in turn.
    left.send(()).unwrap();
    right.send(()).unwrap();
}

fn cockroach6181() {
    let (one, two) = rwlock();
    go("G2", move || {
        let _first = one.read().unwrap();
        yield_now();
        let _second = one.read().unwrap();
    });
    go("G3", move || drop(two.write().unwrap()));
}

fn cockroach7504() {
    let ((lease, lease2), (state, _)) = (mutex(), mutex());
    let (names, names2) = mutex();
    go("G2", move || {
        let _state = state.lock().unwrap();
        let _lease = lease2.lock().unwrap();
        yield_now();
        let _names = names2.lock().unwrap();
    });
    let _names = names.lock().unwrap();
    yield_now();
    let _lease = lease.lock().unwrap();
}

fn etcd5509() {
    let client = RwLock::new(());
    // The path of a failure.
    forget(client.read().unwrap());
    drop(client.write().unwrap());
}

fn etcd6857() {
    let ((status, statuses), (stop, stops)) = (bounded(0), bounded(0));
    go("run", move || {
        select! {
            recv(statuses) -> _item => {}
            recv(stops) -> _item => {}
        }
    });
    stop.send(()).unwrap();
    assert!(status.send(()).is_err());
}

fn etcd6873() {
    let (ours, theirs) = mutex();
    let ((updates, updated), (done, is_done)) = (bounded(0), bounded::<()>(0));
    go("G2", move || {
        while updated.recv().is_ok() {
            (0..3).for_each(|_| yield_now());
            drop(ours.lock().unwrap());
        }
        drop(done);
    });
    updates.send(()).unwrap();
    go("G3", move || {
        let _guard = theirs.lock().unwrap();
        drop(updates);
        _ = is_done.recv();
    });
}

fn etcd7902() {
    let (ours, theirs) = mutex();
    let (next, nexts) = bounded::<()>(0);
    let group = WaitGroup::new();
    let (leader, follower) = (group.clone(), group.clone());
    go("G3", move || {
        let _guard = theirs.lock().unwrap();
        _ = nexts.recv();
        drop(follower);
    });
    go("G2", move || {
        yield_now();
        let _guard = ours.lock().unwrap();
        drop((next, leader));
    });
    group.wait();
}

fn grpc1275() {
    let ((buffer, buffered), (done, is_done)) = (unbounded::<()>(), bounded::<()>(0));
    go("G2", move || {
        _ = buffered.recv();
        drop(done);
    });
    _ = is_done.recv();
    drop(buffer);
}

fn grpc3017() {
    let cache = Arc::new(Mutex::new(0));
    let (done, is_done) = bounded::<()>(0);
    go("G2", move || {
        for _ in 0..2 {
            let mut entries = cache.lock().unwrap();
            *entries += 1;
            // The path on which the timer could not be stopped.
            forget(entries);
        }
        drop(done);
    });
    _ = is_done.recv();
}

fn hugo3251() {
    let group = WaitGroup::new();
    let ((all, all2), (url, url2)) = (rwlock(), mutex());
    let (one, two) = (group.clone(), group.clone());
    go("G2", move || {
        let guard = url.lock().unwrap();
        yield_now();
        let _all = all.read().unwrap();
        drop((guard, one));
    });
    go("G3", move || {
        let _all = all2.write().unwrap();
        let _url = url2.lock().unwrap();
        drop(two);
    });
    group.wait();
}

fn istio18454() {
    let timer = after(Duration::ZERO);
    timer.recv().unwrap();
}

fn kubernetes10182() {
    let (ours, theirs) = mutex();
    let (statuses, status) = bounded(0);
    let second = (statuses.clone(), Arc::clone(&theirs));
    go("G2", move || {
        let _guard = theirs.lock().unwrap();
        statuses.send(()).unwrap();
    });
    status.recv().unwrap();
    go("G3", move || {
        let _guard = second.1.lock().unwrap();
        second.0.send(()).unwrap();
    });
    yield_now();
    drop(ours.lock().unwrap());
    status.recv().unwrap();
}

fn kubernetes11298() {
    let shared = Arc::new((Mutex::new(false), Condvar::new()));
    let theirs = Arc::clone(&shared);
    let (done, is_done) = bounded::<()>(0);
    go("G2", move || {
        let (lock, changed) = &*theirs;
        // The signal came before.
        drop(changed.wait(lock.lock().unwrap()));
        drop(done);
    });
    shared.1.notify_one();
    drop(shared);
    _ = is_done.recv();
}

fn kubernetes38669() {
    let (_sender, receiver) = bounded::<()>(10);
    for () in receiver {}
}

fn kubernetes58107() {
    let (lock, lock2) = rwlock();
    let lock3 = Arc::clone(&lock);
    go("G3", move || {
        let _guard = lock.read().unwrap();
        condition();
    });
    go("G5", move || drop(lock2.write().unwrap()));
    go("G4", move || drop(lock3.read().unwrap()));
}

fn kubernetes6632() {
    let (ours, theirs) = mutex();
    let ((resets, reset), (closer, closed)) = (bounded(1), bounded(0));
    go("G2", move || {
        let _guard = theirs.lock().unwrap();
        (0..2).for_each(|_| resets.send(()).unwrap());
    });
    go("helper", move || closer.send(()).unwrap());
    closed.recv().unwrap();
    drop(ours.lock().unwrap());
    drop(reset);
}

fn kubernetes70277() {
    let ((ticks, tick), (done, is_done)) = (bounded::<()>(0), bounded::<()>(0));
    go("G2", move || {
        select! {
            send(ticks, ()) -> sent => _ = sent,
            recv(is_done) -> _item => {}
        }
    });
    tick.recv().unwrap();
    drop(done);
}

fn moby17176() {
    let (ours, theirs) = mutex();
    go("G2", move || {
        yield_now();
        drop(theirs.lock().unwrap());
    });
    forget(ours.lock().unwrap());
}

fn moby21233() {
    let ((progress, progresses), (running, is_running)) = (bounded(0), bounded::<()>(0));
    let writer = progress.clone();
    go("G2", move || writer.send(1).unwrap());
    go("G3", move || {
        let all: u32 = progresses.iter().sum();
        drop(running);
        assert_eq!(all, 1);
    });
    _ = is_running.recv();
    drop(progress);
}

fn moby25384() {
    let group = WaitGroup::new();
    // Both are members from the start, and each is waited for.
    let (first, second) = (group.clone(), group.clone());
    let waiter = group.clone();
    drop(group);
    go("plugin", move || drop(first));
    waiter.wait();
    go("plugin", move || drop(second));
}

fn moby27782() {
    let (events, event) = bounded(0);
    go("G2", move || {
        condition();
        drop(event);
    });
    go("G3", move || _ = events.send(()));
}

fn serving2137() {
    let ((ours, theirs), (active, done)) = (mutex(), bounded(1));
    let ((accept1, accepted1), (accept2, accepted2)) = (bounded(1), bounded(1));
    let breaker = (active.clone(), done.clone());
    let lock = ours.lock().unwrap();
    go("G2", move || {
        active.send(()).unwrap();
        drop(theirs.lock().unwrap());
        done.recv().unwrap();
        accept1.send(()).unwrap();
    });
    yield_now();
    go("G3", move || {
        let (active, done) = breaker;
        active.send(()).unwrap();
        done.recv().unwrap();
        accept2.send(()).unwrap();
    });
    accepted2.recv().unwrap();
    drop(lock);
    accepted1.recv().unwrap();
}

fn syncthing4829() {
    let addresses = RwLock::new(());
    let _first = addresses.write().unwrap();
    let _second = addresses.read().unwrap();
}

fn syncthing5795() {
    let ((inbox, messages), (stopped, has_stopped)): ((_, Receiver<()>), (Sender<()>, _)) =
        (bounded(0), bounded(0));
    let ours: Receiver<()> = has_stopped.clone();
    go("G2", move || {
        messages.recv().unwrap();
        // It closes the connection, which waits for the end of this loop.
        _ = ours.recv();
        drop(stopped);
    });
    inbox.send(()).unwrap();
    _ = has_stopped.recv();
}

fn names(leaks: &Leaks) -> BTreeSet<String> {
    let all = leaks.leaked.coroutines().chain(leaks.probably.coroutines());
    all.filter_map(|one| Some(one.name?.to_string())).collect()
}

/// The test's own process: runs a case, and prints what was found and what is left.
fn run_alone(case: &str) {
    let (_, body, _) = CASES.iter().find(|(name, ..)| *name == case).unwrap();
    run(move || {
        go("G1", *body);
        settle();
        let leaks = leaks();
        assert!(leaks.searched);
        let left = dump();
        let left = left.coroutines().filter_map(|one| one.name);
        let left: BTreeSet<_> = left.filter(|name| **name != *"main").collect();
        println!("case: {:?} of {left:?}", names(&leaks));
    });
}

/// The outcome in a process of its own. Each `round` has other addresses.
fn outcome_of(case: &str, round: usize) -> String {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["the_blocking_bugs_of_goker", "--exact", "--nocapture"]);
    let output = program.env(CASE, case).env(ROUND, round.to_string()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("case: "));
    line.unwrap_or_else(|| panic!("{case}: {text}")).1.to_owned()
}

const CASE: &str = "PLAINSONG_TEST_CASE";
const ROUND: &str = "PLAINSONG_TEST_ROUND";
/// So often, a case must accuse none that is innocent.
const ROUNDS: usize = 3;
/// And so often, it may find nothing: a number that looks like an address may hide a leak.
const PATIENCE: usize = 30;

#[test]
fn the_blocking_bugs_of_goker() {
    if let Ok(case) = std::env::var(CASE) {
        let round: usize = std::env::var(ROUND).unwrap().parse().unwrap();
        (0..round).for_each(|_| use_other_addresses());
        return run_alone(&case);
    }
    for (case, _, outcome) in CASES {
        let set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<_>>();
        let (found, parked, reason) = match outcome {
            Found(names) => (set(names), set(names), None),
            Undecidable(names, reason) => (set(&[]), set(names), Some(reason)),
            Ends(reason) => (set(&[]), set(&[]), Some(reason)),
        };
        let expected = format!("{found:?} of {parked:?}");
        let mut outcomes = Vec::new();
        while outcomes.len() < ROUNDS || outcomes.len() < PATIENCE && !outcomes.contains(&expected)
        {
            outcomes.push(outcome_of(case, outcomes.len()));
        }
        assert!(outcomes.contains(&expected), "{case}: {outcomes:?}, not {expected}, {reason:?}");
        let none = format!("{:?} of", set(&[]));
        let more = outcomes.iter().filter(|it| **it != expected && !it.starts_with(&none));
        assert_eq!(more.count(), 0, "{case}: {outcomes:?}, not {expected}");
    }
}

// ---- what is found ----

const HOUR: Duration = Duration::from_secs(3600);

/// Runs `test`, the test that calls this, in a process of its own: other tests have used the memory
/// that it would get, and a search sees what they have left there.
fn alone<F: Copy>(_test: F, body: impl FnOnce()) {
    const CHILD: &str = "PLAINSONG_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let (_, name) = type_name::<F>().split_once("::").unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    let output = program.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("running 1 test"), "{output:?}");
}

/// Spawns a coroutine that waits for an item, or for the end of the channel.
fn waiter(items: Receiver<u32>) {
    go("waiter", move || _ = items.recv());
}

/// Fails if a coroutine is accused when the waiters of a channel wait while `hold` has the sender.
#[track_caller]
fn waits_while(hold: impl FnOnce(Sender<u32>)) {
    let (sender, receiver) = bounded(1);
    waiter(receiver.clone());
    waiter(receiver);
    hold(sender);
    settle();
    let leaks = leaks();
    assert!(leaks.searched);
    assert_eq!(names(&leaks), BTreeSet::new(), "{leaks}");
    assert!(leaks.leaked.workers.iter().all(|worker| worker.coroutines.is_empty()));
}

/// Blocks of each size that were used before are not used again.
fn use_other_addresses() {
    (0..50).for_each(|size| forget(Vec::<u8>::with_capacity(size * 16)));
}

/// Overwrites copies of handles that earlier calls have left on the stack: later ones could take
/// them along in memory that they do not initialise.
#[inline(never)]
fn overwrite() {
    hint::black_box([0u8; 8192]);
}

/// Looks for leaks until these coroutines are found, which `leak` spawns, and no others ever.
///
/// A number that looks like an address may hide a leak.
fn until_found(expected: &[&str], leak: impl Fn() -> Vec<JoinHandle<()>>) -> Leaks {
    for _ in 0..PATIENCE {
        use_other_addresses();
        let handles = leak();
        settle();
        let leaks = leaks();
        let (found, expected) = (names(&leaks), expected.iter().map(ToString::to_string).collect());
        if found == expected {
            return leaks;
        }
        assert!(found.is_subset(&expected), "{leaks}");
        // Those that are left do not count in the next round.
        handles.iter().for_each(JoinHandle::cancel);
        settle();
    }
    panic!("not found: {expected:?} in {}", dump());
}

#[test]
fn a_waiter_is_not_accused_while_a_handle_is_somewhere() {
    static HELD: OnceLock<Sender<u32>> = OnceLock::new();
    alone(a_waiter_is_not_accused_while_a_handle_is_somewhere, || {
        run(|| {
            let (mut here, mut boxed) = (None, Vec::new());
            // On the stack of a coroutine that runs, and of others that will go on.
            waits_while(|sender| here = Some(sender));
            waits_while(|sender| {
                go("sleeps", move || {
                    sleep(HOUR);
                    sender.send(1).unwrap();
                });
            });
            // In memory that any code may reach.
            waits_while(|sender| boxed.push(sender));
            waits_while(|sender| _ = HELD.set(sender));
            waits_while(|sender| {
                let hub = Arc::new(std::sync::Mutex::new(sender));
                let (ours, theirs) = (Arc::clone(&hub), hub);
                go("has a share", move || drop(ours));
                go("has a share, too", move || {
                    sleep(HOUR);
                    drop(theirs);
                });
            });
            // In an item of another channel, which a coroutine will receive.
            let (requests, inbox) = unbounded();
            waits_while(|sender| requests.send(sender).unwrap());
            // In a generator.
            let mut generator = None;
            waits_while(|sender| {
                let mut suspended = Generator::new(move |out| {
                    out.yield_(1);
                    sender.send(1).unwrap();
                });
                suspended.next();
                generator = Some(suspended);
            });
            drop((here, boxed, inbox, generator));
        });
    });
}

#[test]
fn nor_while_a_coroutine_of_a_scope_can_reach_a_handle_on_the_stack_of_its_parent() {
    alone(nor_while_a_coroutine_of_a_scope_can_reach_a_handle_on_the_stack_of_its_parent, || {
        run(|| {
            let sender_leaks = |child: fn(&Sender<u32>)| {
                Builder::new()
                    .name("parent")
                    .spawn(move || {
                        let (sender, receiver) = bounded(1);
                        overwrite();
                        scope(|s| {
                            Builder::new()
                                .name("waiter")
                                .spawn_scoped(s, || receiver.recv())
                                .unwrap();
                            Builder::new()
                                .name("other")
                                .spawn_scoped(s, || child(&sender))
                                .unwrap();
                        });
                    })
                    .unwrap()
            };
            let sleeps = sender_leaks(|_| sleep(HOUR));
            settle();
            let leaks = leaks();
            assert_eq!(names(&leaks), BTreeSet::new(), "{leaks}");
            sleeps.cancel();
            // If the other one waits for ever, too, nothing is left that could send.
            let leaks = until_found(&["other", "parent", "waiter"], || {
                let waits = sender_leaks(|_| {
                    let (_sender, receiver) = bounded::<()>(1);
                    _ = receiver.recv();
                });
                settle();
                vec![waits]
            });
            assert_eq!(leaks.leaked.coroutines().count(), 3, "{leaks}");
        });
    });
}

#[test]
fn nor_while_the_parent_waits_in_a_call_that_borrows_a_handle() {
    alone(nor_while_the_parent_waits_in_a_call_that_borrows_a_handle, || {
        run(|| {
            let (release, released) = mpsc::channel::<()>();
            let (sender, receiver) = bounded(1);
            waiter(receiver);
            go("calls", move || {
                let sender = &sender;
                blocking(move || {
                    released.recv().unwrap();
                    sender.send(1).unwrap();
                });
            });
            settle();
            let leaks = leaks();
            assert_eq!(names(&leaks), BTreeSet::new(), "{leaks}");
            release.send(()).unwrap();
        });
    });
}

#[test]
fn nor_is_a_wait_with_a_time_limit_or_a_wait_for_a_lock_whose_holder_goes_on() {
    alone(nor_is_a_wait_with_a_time_limit_or_a_wait_for_a_lock_whose_holder_goes_on, || {
        run(|| {
            let (_sender, receiver) = bounded::<()>(1);
            let (ours, theirs) = (receiver.clone(), receiver);
            go("limited", move || _ = ours.recv_timeout(HOUR));
            go("in a time-out", move || _ = timeout(HOUR, || theirs.recv()));
            let (ours, theirs) = mutex();
            go("holder", move || {
                let _guard = ours.lock().unwrap();
                sleep(HOUR);
            });
            go("next", move || drop(theirs.lock()));
            let sleeper = spawn(|| sleep(HOUR));
            go("joins", move || _ = sleeper.join());
            settle();
            let leaks = leaks();
            assert_eq!(names(&leaks), BTreeSet::new(), "{leaks}");
        });
    });
}

#[test]
fn a_handle_that_cannot_be_used_any_more_does_not_count() {
    alone(a_handle_that_cannot_be_used_any_more_does_not_count, || {
        run(|| {
            let leaks = until_found(&["joins", "next", "reader"], || {
                // A reader that keeps a sender of its own channel, and a coroutine that joins it.
                let reader = named("reader", || {
                    let (_sender, receiver) = unbounded::<u32>();
                    assert_eq!(receiver.iter().count(), 0);
                });
                let joins = named("joins", move || drop(reader.join()));
                // A lock whose guard is forgotten.
                let (ours, theirs) = mutex();
                named("forgets", move || forget(ours.lock().unwrap()));
                vec![joins, named("next", move || drop(theirs.lock()))]
            });
            let of = |dump: &Dump| -> Vec<String> {
                dump.coroutines().map(|one| one.name.as_deref().unwrap().to_owned()).collect()
            };
            assert_eq!(of(&leaks.leaked), ["reader", "joins"], "{leaks}");
            assert_eq!(of(&leaks.probably), ["next"], "{leaks}");
        });
    });
}

#[test]
fn a_plain_thread_sees_the_leaks_of_all_workers_while_they_run() {
    alone(a_plain_thread_sees_the_leaks_of_all_workers_while_they_run, || {
        let stop = AtomicBool::new(false);
        let (started, starts) = mpsc::channel();
        thread::scope(|s| {
            s.spawn(|| {
                Runtime::builder().workers(2).build().unwrap().run(|| {
                    for _ in 0..4 {
                        plainsong::spawn_anywhere(|| {
                            go("leaked", || {
                                let (_sender, receiver) = bounded::<()>(1);
                                _ = receiver.recv();
                            });
                        });
                    }
                    settle();
                    started.send(()).unwrap();
                    while !stop.load(Ordering::SeqCst) {
                        sleep(Duration::from_micros(10));
                    }
                });
            });
            starts.recv().unwrap();
            // A coroutine that has just begun may hide others.
            loop {
                let leaks = leaks();
                assert!(names(&leaks).iter().all(|name| name == "leaked"), "{leaks}");
                if leaks.leaked.coroutines().count() == 4 {
                    break;
                }
            }
            stop.store(true, Ordering::SeqCst);
        });
    });
}
