//! Calls that never unwind, where they have to wait and waits are forbidden: they end the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use plainsong_std::plainsong::generator::Generator;
use plainsong_std::plainsong::{Runtime, no_wait, run, time, yield_now};
use plainsong_std::sync::{Arc, Mutex, RwLock};
use plainsong_std::thread;

const HOUR: Duration = Duration::from_secs(3600);
const CASE: &str = "PLAINSONG_TEST_CASE";

/// A call that its name does not tell apart from others has a place, too.
const CASES: &[(&str, &str, fn())] = &[
    ("thread::park", "no_wait", || refused(thread::park)),
    ("thread::park", "hook", || {
        let hook = |_| unwinds(thread::park);
        Runtime::builder().on_suspend(hook).build().unwrap().run(yield_now);
    }),
    #[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
    ("thread::park", "host", || {
        let host = |_: plainsong_std::plainsong::host::Guest<'_>| unwinds(thread::park);
        plainsong_std::plainsong::host::run(&Runtime::default(), host, yield_now);
    }),
    ("thread::park_timeout", "no_wait", || refused(|| thread::park_timeout(HOUR))),
    ("thread::sleep", "no_wait", || refused(|| thread::sleep(HOUR))),
    ("Mutex::lock", "no_wait", || {
        let mutex = Arc::new(Mutex::new(()));
        let theirs = mutex.clone();
        held(move || drop((theirs.lock(), yield_now())), move || drop(mutex.lock()));
    }),
    ("RwLock::read", "no_wait", || {
        let lock = Arc::new(RwLock::new(()));
        let theirs = lock.clone();
        held(move || drop((theirs.write(), yield_now())), move || drop(lock.read()));
    }),
    ("RwLock::write", "no_wait", || {
        let lock = Arc::new(RwLock::new(()));
        let theirs = lock.clone();
        held(move || drop((theirs.read(), yield_now())), move || drop(lock.write()));
    }),
    ("thread::scope", "no_wait", || {
        run(|| {
            let mut generator = Generator::new(|values| {
                thread::scope(|s| {
                    s.spawn(|| time::sleep(HOUR));
                    values.yield_(());
                });
            });
            generator.next();
            no_wait(|| unwinds(|| assert!(generator.next().is_none())));
        });
    }),
];

/// Calls `f`, and lets the process live if it unwinds.
fn unwinds(f: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(f));
}

fn refused(f: fn()) {
    run(move || no_wait(|| unwinds(f)));
}

/// Calls `f` where waits are forbidden, while a coroutine is in `hold`.
fn held(hold: impl FnOnce() + 'static, f: impl FnOnce() + 'static) {
    run(move || {
        plainsong_std::plainsong::spawn(hold);
        yield_now();
        no_wait(|| unwinds(f));
    });
}

#[test]
fn a_call_that_never_unwinds_ends_the_process_where_it_cannot_wait() {
    let (chosen, mut wrong) = (std::env::var(CASE), Vec::new());
    for (call, place, body) in CASES {
        let case = format!("{call} {place}");
        if let Ok(chosen) = &chosen {
            if case == *chosen {
                body();
            }
            continue;
        }
        let script = r#"ulimit -c 0 && exec "$0" --nocapture"#;
        let mut child = Command::new("timeout");
        child.args(["60", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        let output = child.env(CASE, &case).env("RUST_BACKTRACE", "0").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let message = format!("plainsong: `{call}` of plainsong-std has panicked");
        if output.status.success() || !told.contains(&message) {
            wrong.push(format!("{case}: {}\n{told}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
