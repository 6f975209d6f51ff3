//! The trial of a crate: operations of 100 ms beside a ticker, and the ways in which an operation
//! can end early. All coroutines are on one worker.

use std::cell::RefCell;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::plainsong::time::timeout;
use std::plainsong::{self, Runtime};
use std::process::{Command, exit};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long the peer lets an operation wait.
pub const DELAY: Duration = Duration::from_millis(100);
const TOGETHER_MAX: Duration = Duration::from_millis(300);
const GAP_MAX: Duration = Duration::from_millis(10);
const ATTEMPTS: usize = 3;

/// The result of an operation.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// A call in the middle of an operation, while it has a connection.
pub type Middle<'a> = &'a dyn Fn();

/// The address of a peer, from the environment variable `PEER_{name}`.
pub fn peer(name: &str) -> String {
    let variable = format!("PEER_{name}");
    std::env::var(&variable).unwrap_or_else(|_| {
        eprintln!("{variable} has no address: start this by .ci/ecosystem, which starts the peers");
        exit(1)
    })
}

/// Fails unless both are the same.
pub fn expect<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("got {got:?} and not {expected:?}").into()) }
}

/// Tries a client. `operation` connects, waits for [`DELAY`], calls [`Middle`], and asks the peer
/// once more. `many` of it are run at once, too.
pub fn client(
    name: &'static str,
    many: usize,
    operation: impl Fn(Middle) -> Outcome + Send + Sync + 'static,
) {
    try_client(name, many, operation, move |operation| {
        survive(operation)?;
        println!("{name}: time-outs, cancellations, and panics");
        Ok(())
    });
}

/// [`client`], but no operation is ended early.
pub fn uncancelled_client(
    name: &'static str,
    many: usize,
    operation: impl Fn(Middle) -> Outcome + Send + Sync + 'static,
) {
    try_client(name, many, operation, |_| Ok(()));
}

fn try_client(
    name: &'static str,
    many: usize,
    operation: impl Fn(Middle) -> Outcome + Send + Sync + 'static,
    survive: impl FnOnce(&Operation) -> Outcome + Send + 'static,
) {
    run(name, move || {
        let operation: Operation = Arc::new(operation);
        operation(&|| ())?;
        measure(name, || at_once(&operation, 100))?;
        survive(&operation)?;
        at_once(&operation, many).map_err(|error| format!("{many} at once: {error}"))?;
        println!("{name}: {many} at once");
        Ok(())
    });
}

/// Tries a server, which `start` starts and whose URL it returns. An answer takes [`DELAY`]; that
/// to `/panic` panics. curl is the client.
pub fn http_server(
    name: &'static str,
    start: impl FnOnce() -> Result<String, Box<dyn Error + Send + Sync>> + Send + 'static,
) {
    run(name, move || {
        let url = start()?;
        curl(&url, 1)?;
        measure(name, || curl(&url, 100))?;
        for _ in 0..3 {
            // The answer is 500, or none.
            Command::new("curl")
                .args(["-s", "-o", "/dev/null"])
                .arg(format!("{url}panic"))
                .status()?;
        }
        // These leave while the server prepares the answer.
        let impatient: Vec<_> = (0..20)
            .map(|_| Command::new("curl").args(["-s", "-m", "0.05"]).arg(&url).spawn())
            .collect();
        for curl in impatient {
            expect(curl?.wait()?.code(), Some(28))?;
        }
        curl(&url, 1000)?;
        println!("{name}: panics, clients that leave, and 1,000 connections at once");
        Ok(())
    });
}

/// Asks for the page by so many connections at once.
fn curl(url: &str, count: usize) -> Outcome {
    let output = Command::new("curl")
        .args(["-sSf", "-Z", "--parallel-immediate", "--parallel-max", &count.to_string()])
        // tiny_http forgets connections that come together while others are kept: its pool counts
        // a waiting thread once for each of them.
        .args(["-H", "Connection: close"])
        .arg(format!("{url}[1-{count}]"))
        .output()?;
    if !output.status.success() {
        return Err(format!("curl: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let pages = String::from_utf8(output.stdout)?;
    expect(pages.matches("plainsong").count(), count)
}

/// Runs the body on one worker, and ends the process with what it returns.
pub fn run(name: &'static str, body: impl FnOnce() -> Outcome + Send + 'static) -> ! {
    quiet();
    let runtime = Runtime::builder().workers(1).build().expect("a runtime");
    // The crate may have threads of its own, which end with the run.
    let code = match runtime.run(body) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{name}: FAILED: {error}");
            1
        }
    };
    exit(code)
}

/// Prints no message for the panics that are part of a trial.
fn quiet() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Planned>() {
            hook(info);
        }
    }));
}

/// The payload of a panic that is part of a trial.
pub struct Planned;

type Operation = Arc<dyn Fn(Middle) -> Outcome + Send + Sync>;

fn at_once(operation: &Operation, count: usize) -> Outcome {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let operation = operation.clone();
            thread::spawn(move || operation(&|| ()))
        })
        .collect();
    let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    outcomes.into_iter().try_for_each(|outcome| outcome.map_err(|_| "a thread panicked")?)
}

/// Runs the body beside a ticker, a few times, and prints the best of its times. They are figures
/// of a machine that may be busy, so a bad one is a warning.
pub fn measure(name: &'static str, mut body: impl FnMut() -> Outcome) -> Outcome {
    let mut best: Option<(Duration, Duration)> = None;
    for _ in 0..ATTEMPTS {
        let (ticker, worst) = ticker();
        let began = Instant::now();
        body()?;
        let together = began.elapsed();
        ticker.cancel();
        let gap = *worst.lock().unwrap();
        best = Some(match best {
            Some(best) if best.1 <= gap => best,
            _ => (together, gap),
        });
        if together < TOGETHER_MAX && gap <= GAP_MAX {
            break;
        }
    }
    let (together, gap) = best.unwrap_or_default();
    let verdict =
        if together < TOGETHER_MAX && gap <= GAP_MAX { "" } else { ": WARNING: too slow" };
    println!(
        "{name}: 100 operations of {} ms at once: {} ms together, worst gap of a 1 ms ticker {:.1} \
         ms{verdict}",
        DELAY.as_millis(),
        together.as_millis(),
        gap.as_secs_f64() * 1e3
    );
    Ok(())
}

/// A coroutine that wakes every millisecond, and the longest time between two such wakes.
pub fn ticker() -> (plainsong::JoinHandle<()>, Arc<Mutex<Duration>>) {
    let worst = Arc::new(Mutex::new(Duration::ZERO));
    let record = worst.clone();
    let ticker = plainsong::spawn(move || {
        let mut last = Instant::now();
        loop {
            plainsong::time::sleep(Duration::from_millis(1));
            let now = Instant::now();
            let mut worst = record.lock().unwrap();
            *worst = worst.max(now - last);
            last = now;
        }
    });
    (ticker, worst)
}

/// Ends operations early in each way there is. Those beside them do not notice.
fn survive(operation: &Operation) -> Outcome {
    let beside = {
        let operation = operation.clone();
        thread::spawn(move || at_once(&operation, 10))
    };
    // Time-outs at many places, from the first wait on.
    let in_time = RefCell::new(0);
    let threads: Vec<_> = (0..50)
        .map(|index| {
            let operation = operation.clone();
            thread::spawn(move || timeout(DELAY * index / 40, || operation(&|| ())).is_ok())
        })
        .collect();
    for thread in threads {
        *in_time.borrow_mut() += usize::from(thread.join().map_err(|_| "a time-out panicked")?);
    }
    if *in_time.borrow() == 50 {
        return Err("no time-out took effect".into());
    }
    // Cancellations, as early as possible and in the middle.
    for index in 0..50 {
        let operation = operation.clone();
        let handle = plainsong::spawn(move || operation(&|| plainsong::time::sleep(10 * DELAY)));
        plainsong::time::sleep(DELAY * index / 200);
        handle.cancel();
        if handle.join().is_ok() {
            return Err("an operation was not cancelled".into());
        }
    }
    // A panic in the middle. The operation may have caught it.
    let panics = |_| {
        let operation = operation.clone();
        thread::spawn(move || {
            let panic = || resume_unwind(Box::new(Planned));
            let _ = catch_unwind(AssertUnwindSafe(|| operation(&panic)));
            resume_unwind(Box::new(Planned));
        })
    };
    let panics: Vec<_> = (0..10).map(panics).collect();
    for panic in panics {
        if panic.join().is_ok() {
            return Err("a panic was lost".into());
        }
    }
    beside.join().map_err(|_| "a thread beside the others panicked")??;
    // The things that they left behind are usable.
    at_once(operation, 20)
}
