//! Dumps with backtraces and as JSON, and the diagnoses of docs/debugging.md.

use std::fmt;
use std::fs;
use std::hint;
use std::io::{BufRead, BufReader, Read, Write};
use std::mem;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use plainsong::inspect::{
    Answer, Cause, Coroutine, Dump, Leaks, Stall, dump, dump_on, leaks, watchdog,
};
use plainsong::net::{TcpListener, TcpStream};
use plainsong::signal::SIGQUIT;
use plainsong::sync::{Mutex, channel};
use plainsong::time::{sleep, timeout};
use plainsong::{Builder, Runtime, run, scope, spawn, spawn_anywhere, yield_now};
use rustix::process::{Pid, Signal, kill_process};

const HOUR: Duration = Duration::from_secs(3600);

#[inline(never)]
fn waits_deep_down(depth: usize) -> usize {
    if depth == 0 {
        sleep(HOUR);
        return 0;
    }
    waits_deep_down(depth - 1) + 1
}

#[test]
fn a_parked_coroutine_has_a_backtrace_with_lines() {
    run(|| {
        Builder::new().name("deep").spawn(|| waits_deep_down(3)).unwrap();
        yield_now();
        let dump = dump();
        let deep = dump.coroutines().find(|one| one.name.as_deref() == Some("deep")).unwrap();
        let ours = deep.backtrace.iter().filter(|frame| {
            frame.function.as_ref().is_some_and(|name| name.contains("waits_deep_down"))
        });
        let ours: Vec<_> = ours.collect();
        assert_eq!(ours.len(), 4, "{dump}");
        assert!(ours[0].file.as_ref().unwrap().ends_with("tests/debugging.rs"), "{dump}");
        let text = dump.to_string();
        assert!(text.contains("waits_deep_down, "), "{text}");
        assert!(text.contains("frames of the library"), "{text}");
    });
}

#[test]
fn a_backtrace_shows_the_frames_on_a_grown_stack() {
    run(|| {
        let body = || plainsong::stack::grow(1 << 20, || waits_deep_down(0));
        Builder::new().name("grown").stack_size(16 * 1024).spawn(body).unwrap();
        settle();
        let dump = dump();
        let grown = dump.coroutines().find(|one| one.name.as_deref() == Some("grown")).unwrap();
        let has = |part: &str| {
            grown
                .backtrace
                .iter()
                .any(|frame| frame.function.as_ref().is_some_and(|name| name.contains(part)))
        };
        assert!(has("waits_deep_down") && has("stack::call_on"), "{dump}");
        assert_eq!(grown.stack.used, None);
    });
}

#[test]
fn the_running_coroutine_has_one_too_and_a_new_one_has_none() {
    run(|| {
        Builder::new().name("new").spawn(|| ()).unwrap();
        let dump = dump();
        let running = dump
            .coroutines()
            .find(|one| one.backtrace.iter().any(|frame| frame.line == Some(line!() - 3)));
        assert_eq!(running.and_then(|one| one.name).as_deref(), Some("main"), "{dump}");
        let new = dump.coroutines().find(|one| one.name.as_deref() == Some("new")).unwrap();
        assert!(new.backtrace.is_empty());
    });
}

#[test]
fn a_dump_is_serialised_in_the_documented_shape() {
    run(|| {
        let (_sender, receiver) = channel::bounded::<()>(16);
        spawn(move || receiver.recv());
        yield_now();
        let json = serde_json::to_value(dump()).unwrap();
        assert_eq!(json["version"], 1);
        let all = json["workers"].as_array().unwrap().iter();
        let mut all = all.flat_map(|worker| worker["coroutines"].as_array().unwrap());
        let one = all.find(|one| {
            let text = one["waits_for"]["text"].as_str();
            text.is_some_and(|text| text.starts_with("recv, channel") && text.ends_with("of 16"))
        });
        let one = one.unwrap();
        let created = &one["waits_for"]["created"];
        assert!(created["file"].as_str().unwrap().ends_with("tests/debugging.rs"), "{json:#}");
        // Each field is in the table of the documentation, and each row is a field.
        let fields = |of: &serde_json::Value| -> Vec<String> {
            of.as_object().unwrap().keys().cloned().collect()
        };
        let mut fields = [fields(one), fields(&one["waits_for"]), fields(&one["stack"])].concat();
        fields.extend(["version", "process", "workers", "coroutines"].map(String::from));
        let rows = documentation();
        for field in fields {
            assert!(rows.contains(&format!("`{field}`")), "docs/debugging.md: no `{field}`");
        }
    });
}

#[test]
fn a_wait_that_an_adaptor_of_std_calls_has_no_place() {
    run(|| {
        let (_sender, receiver) = channel::unbounded::<i32>();
        let counts = Builder::new().name("counts").spawn(move || receiver.iter().count()).unwrap();
        yield_now();
        let dump = dump();
        let one = dump.coroutines().find(|one| one.id == counts.id()).unwrap();
        assert_eq!(one.waits_for.as_ref().unwrap().at, None, "{dump}");
    });
}

// ---- docs/debugging.md ----

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/debugging.md")
}

fn documentation() -> String {
    fs::read_to_string(path()).unwrap()
}

/// A dump without what differs from run to run: numbers, and parts of paths.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.trim_end().lines() {
        if line.trim_start().starts_with("stack: ") || line.contains("of the library") {
            continue;
        }
        let (start, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        // The test's own directory.
        let line = match start.split_once(", /").zip(start.split_once("tests/debugging.rs")) {
            Some(((before, _), (_, after))) => format!("{before}, tests/debugging.rs{after}"),
            None => start.to_owned(),
        };
        // The amount of debug information decides how much of a path a function's name has.
        let line = match line.strip_prefix("at ").and_then(|line| line.rsplit_once(", ")) {
            Some((name, place)) if name.contains("closure") => format!("at a closure, {place}"),
            Some((name, place)) => format!("at {}, {place}", name.rsplit("::").next().unwrap()),
            None => line,
        };
        // How long a wait has lasted.
        let wait = line.split_once("waits for ").and_then(|(before, wait)| {
            let (_time, wait) = wait.split_once(": ")?;
            Some(format!("{before}waits for {wait}"))
        });
        let line = wait.unwrap_or(line);
        let mut digits = false;
        out += &" ".repeat(indent);
        for c in line.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !digits {
                out.push('0');
            }
            digits = c.is_ascii_digit();
        }
        out.push('\n');
    }
    out
}

/// Compares a report with the one in the documentation, or puts it there if `BLESS` is set.
fn compare(name: &str, report: &impl fmt::Display) {
    let (text, page) = (report.to_string(), documentation());
    let mark = format!("<!-- {name} -->\n```text\n");
    let start = page.find(&mark).unwrap_or_else(|| panic!("no {mark} in the page")) + mark.len();
    let end = start + page[start..].find("```").unwrap();
    if std::env::var_os("BLESS").is_some() {
        let home = format!(", {}/", env!("CARGO_MANIFEST_DIR").trim_end_matches("/tests"));
        let text = text.replace(&home, ", ");
        fs::write(path(), format!("{}{text}{}", &page[..start], &page[end..])).unwrap();
    } else {
        assert_eq!(normal(&text), normal(&page[start..end]), "{name}:\n{text}");
    }
}

/// Lets all other coroutines run until they park.
fn settle() {
    (0..10).for_each(|_| yield_now());
}

fn lock_cycle() -> Dump {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Builder::new().name("accept").spawn(move || listener.accept()).unwrap();
        let accounts = Arc::new([Mutex::new(100), Mutex::new(200)]);
        for (name, from, to) in [("transfer 1", 0, 1), ("transfer 2", 1, 0)] {
            let accounts = Arc::clone(&accounts);
            let transfer = move || {
                let mut from = accounts[from].lock().unwrap();
                yield_now();
                let mut to = accounts[to].lock().unwrap();
                *from -= 10;
                *to += 10;
            };
            Builder::new().name(name).spawn(transfer).unwrap();
        }
        settle();
        dump()
    })
}

fn lost_reply() -> Dump {
    run(|| {
        let (requests, inbox) = channel::bounded::<(u32, channel::oneshot::Sender<u32>)>(16);
        let server = move || {
            let mut forgotten = Vec::new();
            while let Ok((number, reply)) = inbox.recv() {
                match number {
                    // The bug: it is put aside, and never answered.
                    7 => forgotten.push(reply),
                    number => _ = reply.send(number),
                }
            }
        };
        Builder::new().name("server").spawn(server).unwrap();
        let client = move || {
            let (reply, answer) = channel::oneshot::channel();
            requests.send((7, reply)).unwrap();
            timeout(HOUR, || answer.recv())
        };
        Builder::new().name("client").spawn(client).unwrap();
        settle();
        dump()
    })
}

fn leaked_coroutines() -> Dump {
    run(|| {
        let (_never_sent_to, jobs) = channel::unbounded::<u32>();
        for number in 0..1000 {
            let jobs = jobs.clone();
            let worker = move || while jobs.recv().is_ok() {};
            Builder::new().name(format!("worker {number}")).spawn(worker).unwrap();
        }
        settle();
        dump()
    })
}

fn forgotten_handles() -> Leaks {
    run(|| {
        let totals = Arc::new(Mutex::new(0));
        for number in 0..3 {
            let collect = move || {
                // The bug: a sender is left when the others have been dropped.
                let (results, collected) = channel::unbounded();
                let theirs = results.clone();
                spawn(move || theirs.send(number).unwrap());
                let mut sum = 0;
                while let Ok(result) = collected.recv() {
                    sum += result;
                }
                drop(results);
                sum
            };
            Builder::new().name(format!("collector {number}")).spawn(collect).unwrap();
        }
        let (ours, theirs) = (Arc::clone(&totals), totals);
        Builder::new().name("handler").spawn(move || mem::forget(ours.lock().unwrap())).unwrap();
        Builder::new().name("reporter").spawn(move || *theirs.lock().unwrap()).unwrap();
        settle();
        leaks()
    })
}

fn slow_peer() -> Dump {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut conn, _) = listener.accept().unwrap();
        let send = move || while conn.write_all(&[0; 1 << 16]).is_ok() {};
        let sender = Builder::new().name("sender").spawn(send).unwrap();
        while !format!("{sender:?}").contains("writable") {
            yield_now();
        }
        dump()
    })
}

/// A dump of a worker that does not come to its next turn, because of what `body` does. The worker
/// is left behind, as those of `earlier` runs were.
fn stuck(body: fn(), earlier: &[u64]) -> Dump {
    hold_up("culprit", body);
    loop {
        let mut dump = dump();
        dump.workers.retain(|worker| {
            let culprit = |one: Coroutine| one.name.as_deref() == Some("culprit");
            worker.answer == Answer::Interrupted
                && !earlier.contains(&worker.run)
                && worker.coroutines.iter().any(culprit)
        });
        if !dump.workers.is_empty() {
            return dump;
        }
    }
}

/// Starts a worker on which `body` runs, and leaves it behind.
fn hold_up(name: &'static str, body: fn()) {
    let (started, starts) = mpsc::channel();
    thread::spawn(move || {
        run(|| {
            Builder::new().name("beside").spawn(|| sleep(HOUR)).unwrap();
            Builder::new().name(name).spawn(body).unwrap();
            started.send(()).unwrap();
            sleep(HOUR);
        });
    });
    starts.recv().unwrap();
}

#[inline(never)]
fn computes_for_ever() {
    loop {
        hint::spin_loop();
    }
}

#[inline(never)]
fn blocks_the_thread() {
    thread::sleep(HOUR);
}

#[inline(never)]
fn locks_a_mutex_of_std() {
    let shared = Arc::new(std::sync::Mutex::new(0));
    let theirs = Arc::clone(&shared);
    let holds_it = move || {
        let _guard = theirs.lock().unwrap();
        sleep(HOUR);
    };
    Builder::new().name("holds it").spawn(holds_it).unwrap();
    yield_now();
    *shared.lock().unwrap() += 1;
}

#[test]
fn the_diagnoses_of_the_documentation_are_what_is_printed() {
    // One after the other, and without the coroutines of earlier ones.
    let only = |mut dump: Dump, name: &str| {
        dump.workers
            .retain(|worker| worker.coroutines.iter().any(|one| one.name.as_deref() == Some(name)));
        dump
    };
    compare("lock cycle", &only(lock_cycle(), "transfer 1"));
    compare("lost reply", &only(lost_reply(), "client"));
    compare("leaked coroutines", &only(leaked_coroutines(), "worker 7"));
    compare("slow peer", &only(slow_peer(), "sender"));
    let mut earlier = Vec::new();
    for (name, body) in [
        ("busy loop", computes_for_ever as fn()),
        ("blocking call", blocks_the_thread),
        ("std mutex", locks_a_mutex_of_std),
    ] {
        let dump = stuck(body, &earlier);
        earlier.extend(dump.workers.iter().map(|worker| worker.run));
        compare(name, &dump);
    }
}

/// Runs `body` in a process of its own, where no other test has coroutines.
fn alone(test: &str, body: fn()) {
    const CHILD: &str = "PLAINSONG_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    let output = program.args([test, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("running 1 test"), "{output:?}");
}

#[test]
fn the_leaks_of_the_documentation_are_what_is_printed_and_serialised() {
    alone("the_leaks_of_the_documentation_are_what_is_printed_and_serialised", || {
        let leaks = forgotten_handles();
        compare("leaks", &leaks);
        let json = serde_json::to_value(&leaks).unwrap();
        let rows = documentation();
        for field in json.as_object().unwrap().keys() {
            assert!(rows.contains(&format!("`{field}`")), "docs/debugging.md: no `{field}`");
        }
        assert_eq!(json["leaked"]["workers"][0]["coroutines"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn the_watchdog_reports_each_of_them_once_and_while_it_lasts() {
    let limit = Duration::from_millis(100);
    let (sender, stalls) = mpsc::channel::<Stall>();
    watchdog(limit, move |stall| _ = sender.send(stall.clone())).unwrap();
    let mut seen = Vec::new();
    let mut stall_of = |wanted: &dyn Fn(&Stall) -> bool| loop {
        let stall = stalls.recv().unwrap();
        assert!(!seen.contains(&(stall.run, stall.worker)), "twice: {stall}");
        seen.push((stall.run, stall.worker));
        if wanted(&stall) {
            return stall;
        }
    };
    for (name, body, cause) in [
        ("counts", computes_for_ever as fn(), Cause::Computes),
        ("naps", blocks_the_thread, Cause::Sleeps),
        ("locks", locks_a_mutex_of_std, Cause::WaitsForLock),
        ("reads", reads_a_socket, Cause::SystemCall(libc::SYS_recvfrom as u32)),
    ] {
        hold_up(name, body);
        let is_it = |stall: &Stall| {
            let coroutine = stall.coroutine.as_ref();
            coroutine.is_some_and(|one| one.name.as_deref() == Some(name))
        };
        let stall = stall_of(&is_it);
        assert_eq!((stall.cause, stall.limit), (cause, limit), "{stall}");
        if name != "reads" {
            compare(&format!("watchdog, {name}"), &stall);
        }
    }
    // Several workers at once, and a run that goes on and ends.
    let release = AtomicBool::new(false);
    thread::scope(|s| {
        let run = s.spawn(|| {
            Runtime::builder().workers(3).build().unwrap().run(|| {
                scope(|s| {
                    for _ in 0..3 {
                        s.spawn_anywhere(|| {
                            while !release.load(Ordering::SeqCst) {
                                hint::spin_loop();
                            }
                        });
                    }
                });
            });
        });
        let mut workers = Vec::new();
        while workers.len() < 3 {
            workers.push(stall_of(&|stall| stall.cause == Cause::Computes).worker);
        }
        workers.sort();
        assert_eq!(workers, [0, 1, 2]);
        release.store(true, Ordering::SeqCst);
        run.join().unwrap();
    });
    hold_up("later", computes_for_ever);
    let json = serde_json::to_value(stall_of(&|stall| stall.worker == 0)).unwrap();
    assert_eq!((&json["cause"], &json["limit_ms"]), (&"computes".into(), &100.into()));
}

#[inline(never)]
fn reads_a_socket() {
    let (mut reader, _writer) = std::os::unix::net::UnixStream::pair().unwrap();
    reader.read_exact(&mut [0]).unwrap();
}

/// In the child process: many short turns.
fn takes_turns_under_a_watchdog() {
    watchdog(Duration::from_millis(500), |stall| {
        eprintln!("{stall}");
        std::process::abort();
    })
    .unwrap();
    run(|| {
        spawn(|| {
            loop {
                yield_now();
            }
        });
        eprintln!("ready");
        let mut byte = [0];
        plainsong::io::stdin().read_exact(&mut byte).unwrap();
    });
}

#[test]
fn a_process_that_is_stopped_and_continued_is_not_held_up() {
    if std::env::var_os(CHILD).is_some() {
        return takes_turns_under_a_watchdog();
    }
    let mut child = child(&std::env::current_exe().unwrap(), "is_not_held_up")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for _ in 0..2 {
        kill_process(pid, Signal::STOP).unwrap();
        // Longer than the limit: this is what is tried.
        thread::sleep(Duration::from_millis(1200));
        kill_process(pid, Signal::CONT).unwrap();
    }
    child.stdin.take().unwrap().write_all(&[1]).unwrap();
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended}: {:?}", lines.collect::<Vec<_>>());
}

/// This test, to be run in a process of its own.
fn child(program: &Path, test: &str) -> Command {
    let mut child = Command::new(program);
    child.args([test, "--nocapture"]).env(CHILD, "1");
    child
}

#[test]
fn an_overflow_while_dumps_are_taken() {
    #[expect(unconditional_recursion, reason = "that is the point")]
    fn recurse(n: u64) -> u64 {
        hint::black_box(recurse(hint::black_box(n) + 1)) + 1
    }
    if std::env::var_os(CHILD).is_some() {
        let (dumped, dumps) = mpsc::channel();
        let forever = move || {
            loop {
                let _ = dumped.send(dump().coroutines().count());
            }
        };
        thread::spawn(forever);
        run(|| {
            (0..1000).for_each(|_| drop(spawn(|| sleep(HOUR))));
            while !dumps.try_iter().any(|count| count > 1000) {
                yield_now();
            }
            let _ = Builder::new().name("deep").spawn(|| recurse(0)).unwrap().join();
        });
    }
    let program = std::env::current_exe().unwrap();
    let output = child(&program, "an_overflow_while_dumps_are_taken").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("'deep', spawned at tests/debugging.rs:"), "{said}");
    assert!(said.contains("has overflowed its stack of 262144 bytes"), "{said}");
}

#[test]
fn without_symbols_a_frame_is_an_offset_from_which_a_copy_with_symbols_tells_the_line() {
    if std::env::var_os(CHILD).is_some() {
        run(|| {
            spawn(|| waits_deep_down(3));
            settle();
            println!("{}", dump());
        });
        return;
    }
    let program = std::env::current_exe().unwrap();
    let folder = std::env::temp_dir().join(format!("plainsong-stripped-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let stripped = folder.join("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&program).status();
    assert!(done.unwrap().success(), "binutils are installed");
    let output = child(&stripped, "without_symbols_a_frame").output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let offsets = said.lines().filter_map(|line| line.trim().split_once("/stripped+0x"));
    let offsets: Vec<_> = offsets.map(|(_, offset)| format!("0x{offset}")).collect();
    assert!(offsets.len() > 4, "{said}");
    let found = Command::new("addr2line").arg("-fie").arg(&program).args(offsets).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let ours = found.lines().filter(|line| line.contains("waits_deep_down"));
    assert!(ours.count() >= 4, "{found}");
}

const CHILD: &str = "PLAINSONG_DEBUGGING_CHILD";

/// In the child process: a server under load, of two workers.
fn serve_for_ever() {
    dump_on(&[SIGQUIT]).unwrap();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        for _ in 0..100 {
            spawn_anywhere(|| {
                loop {
                    let (sender, receiver) = channel::bounded(1);
                    let echo = spawn(move || receiver.recv());
                    sender.send(1).unwrap();
                    echo.join().unwrap().unwrap();
                    yield_now();
                }
            });
        }
        eprintln!("ready");
        sleep(HOUR);
    });
}

#[test]
fn many_signals_under_load_and_a_process_that_is_stopped_and_continued() {
    if std::env::var_os(CHILD).is_some() {
        return serve_for_ever();
    }
    let mut child = child(&std::env::current_exe().unwrap(), "many_signals_under_load")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until = |start: &str| {
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(start)));
        assert!(found.is_some(), "the process has ended");
    };
    until("ready");
    for _ in 0..20 {
        kill_process(pid, Signal::QUIT).unwrap();
        until("plainsong: ");
    }
    kill_process(pid, Signal::STOP).unwrap();
    kill_process(pid, Signal::QUIT).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    until("plainsong: ");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_a_slow_reader_has_not_read_is_not_lost_by_a_dump() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut conn, _) = listener.accept().unwrap();
        let reader = spawn(move || {
            let mut byte = [0];
            conn.read_exact(&mut byte).map(|()| byte[0])
        });
        settle();
        drop(dump());
        client.write_all(&[7]).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 7);
    });
}

static DUMPS: AtomicUsize = AtomicUsize::new(0);
static LATE_RUN_IS_OVER: AtomicBool = AtomicBool::new(false);

/// Runs coroutines on small stacks in its destructor, until three dumps have been taken.
struct RunsLate;

impl Drop for RunsLate {
    fn drop(&mut self) {
        let small = Runtime::builder().stack_size(16 * 1024).build().unwrap();
        small.run(|| {
            let computes = || {
                let before = DUMPS.load(Ordering::Relaxed);
                while DUMPS.load(Ordering::Relaxed) < before + 3 {
                    hint::spin_loop();
                }
            };
            spawn(computes).join().unwrap();
        });
        LATE_RUN_IS_OVER.store(true, Ordering::Relaxed);
    }
}

fn runs_while_its_thread_ends() {
    thread_local! {
        static LATE: RunsLate = const { RunsLate };
    }
    let ends = || {
        // The scheduler is older than `LATE`, which is older than the stack for signals.
        let _ = plainsong::time::now();
        LATE.with(|_| ());
        run(|| ());
    };
    let dumps = thread::spawn(|| {
        while !LATE_RUN_IS_OVER.load(Ordering::Relaxed) {
            hint::black_box(dump());
            DUMPS.fetch_add(1, Ordering::Relaxed);
        }
    });
    thread::spawn(ends).join().unwrap();
    dumps.join().unwrap();
}

/// The answer to a dump overflowed the stack of the coroutine.
#[test]
fn a_dump_of_a_thread_without_a_stack_for_signals() {
    alone("a_dump_of_a_thread_without_a_stack_for_signals", runs_while_its_thread_ends);
}
