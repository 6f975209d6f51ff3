//! Dumps with backtraces and as JSON, and the diagnoses of docs/debugging.md.

use std::time::Duration;

use plainsong::inspect::dump;
use plainsong::sync::channel;
use plainsong::time::sleep;
use plainsong::{Builder, run, spawn, yield_now};

#[inline(never)]
fn waits_deep_down(depth: usize) -> usize {
    if depth == 0 {
        sleep(Duration::from_secs(3600));
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
        assert!(text.contains("    at debugging::waits_deep_down, "), "{text}");
        assert!(text.contains("frames of the library"), "{text}");
        println!("{text}");
    });
}

#[test]
fn the_running_coroutine_has_one_too_and_a_new_one_has_none() {
    run(|| {
        Builder::new().name("new").spawn(|| ()).unwrap();
        let dump = dump();
        let main = dump.coroutines().find(|one| one.name.as_deref() == Some("main")).unwrap();
        let here = |name: &String| name.contains("the_running_coroutine_has_one_too");
        assert!(main.backtrace.iter().any(|it| it.function.as_ref().is_some_and(here)), "{dump}");
        let new = dump.coroutines().find(|one| one.name.as_deref() == Some("new")).unwrap();
        assert!(new.backtrace.is_empty());
    });
}

#[test]
fn json() {
    run(|| {
        let (_sender, receiver) = channel::bounded::<()>(16);
        spawn(move || receiver.recv());
        yield_now();
        let json = serde_json::to_value(dump()).unwrap();
        println!("{json:#}");
        assert_eq!(json["version"], 1);
        let all = json["workers"].as_array().unwrap().iter();
        let mut all = all.flat_map(|worker| worker["coroutines"].as_array().unwrap());
        let waits = all.find_map(|one| {
            let waits = &one["waits_for"];
            waits["text"].as_str()?.starts_with("recv, channel").then_some(waits)
        });
        let created = &waits.unwrap()["created"];
        assert!(created["file"].as_str().unwrap().ends_with("tests/debugging.rs"), "{json:#}");
    });
}
