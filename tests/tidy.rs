//! Rules of this repository that a machine can hold: who may use whom, where `unsafe` may be, how long
//! things may get, and what the documents must name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the crate a module may name. What is not here may name none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("fs", &["engine"]),
    ("io", &["engine", "sync"]),
    ("future", &["engine", "task"]),
    ("generator", &["engine"]),
    ("signal", &["engine", "io"]),
    // These three are one layer: coroutines under three names.
    // (On a plain thread, a scope is a `run` of its own.)
    ("task", &["engine", "run", "thread"]),
    ("thread", &["engine", "task", "time"]),
    ("time", &["engine", "task", "yield_now"]),
    ("net", &["engine", "io", "runtime", "Runtime", "task", "time"]),
    ("process", &["engine", "io", "task"]),
    ("runtime", &["engine", "task"]),
    ("sync", &["engine", "task", "time"]),
    ("pool", &["engine", "sync", "task"]),
    (
        "lib",
        &[
            "engine",
            "fs",
            "future",
            "generator",
            "io",
            "net",
            "process",
            "pool",
            "runtime",
            "signal",
            "sync",
            "task",
            "thread",
            "time",
        ],
    ),
];

/// Files of the engine that may name the scheduler. The others are called by it.
const MAY_SEE_SCHEDULER: &[&str] = &["calls", "context", "deadlock", "idle", "interrupt", "mod"];

/// Files of the engine that may name few of the others, so that they can be thought of alone.
const ALONE: &[(&str, &[&str])] = &[
    ("timer", &[]),
    ("reactor", &["remote"]),
    ("ready", &["task"]),
    ("coroutine", &["context", "stack"]),
    ("stack", &["context"]),
];

/// Files that may contain `unsafe`.
const UNSAFE: &[&str] = &[
    "engine/blocking.rs",
    "engine/context.rs",
    "engine/coroutine.rs",
    "engine/interrupt.rs",
    "engine/job.rs",
    "engine/overflow.rs",
    "engine/packet.rs",
    "engine/reactor.rs",
    "engine/ready.rs",
    "engine/root.rs",
    "engine/scheduler.rs",
    "engine/stack.rs",
    "engine/task.rs",
    "generator.rs",
    "sync/guard.rs",
    "sync/lock.rs",
    "sync/mutex.rs",
    "sync/once.rs",
    "sync/reentrant.rs",
    "sync/rwlock.rs",
    "sync/wait.rs",
    "task/anywhere.rs",
    "task/group.rs",
    "task/scope.rs",
    "task/spawn.rs",
];

const FILE_LINES_MAX: usize = 650;
const FUNCTION_LINES_MAX: usize = 80;
const ARCHITECTURE_LINES_MAX: usize = 300;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below `folder` for which `wanted` holds, hidden ones and build products left out.
fn files(folder: &Path, wanted: fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if !name.starts_with("target") {
                files(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

/// The files of `src/` by their path in it.
fn sources() -> BTreeMap<String, String> {
    let (src, mut found) = (root().join("src"), Vec::new());
    files(&src, |path| path.extension().is_some_and(|extension| extension == "rs"), &mut found);
    let name = |path: &Path| path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
    let source = |path: PathBuf| (name(&path), fs::read_to_string(&path).unwrap());
    found.into_iter().map(source).collect()
}

/// A file without its unit tests: its numbered lines, their comments cut off.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.map(|line| line.split("//").next().unwrap_or_default()).zip(1..).map(|(l, n)| (n, l))
}

/// The names that follow `path` in a line: `b` in `a::b::c` for `a::`, and both in `a::{b, c}`.
fn names_after<'a>(line: &'a str, path: &str) -> Vec<&'a str> {
    let name = |text: &'a str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
    };
    // A macro's `$crate::` is its user's view.
    let after = line.match_indices(path).filter(|(at, _)| !line[..*at].ends_with('$'));
    let after = after.map(|(at, _)| &line[at + path.len()..]);
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            None => vec![name(rest)],
            Some(list) => list.split(',').map(|item| name(item.trim())).collect(),
        })
        .collect()
}

/// Fails with what is wrong, if anything is.
#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_module_uses_only_what_is_below_it() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let allowed = MAY_USE.iter().find(|(name, _)| *name == module);
        let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
        for (number, line) in code(&text) {
            for name in names_after(line, "crate::") {
                if name != module && !name.is_empty() && !allowed.contains(&name) {
                    wrong.push(format!("src/{file}:{number}: `{module}` may not use `{name}`"));
                }
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_engine_is_in_layers() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(name) = file.strip_prefix("engine/").and_then(|file| file.strip_suffix(".rs"))
        else {
            continue;
        };
        let alone = ALONE.iter().find(|(other, _)| *other == name).map(|(_, allowed)| *allowed);
        // What is nested in a file says `super` for the file.
        let flat =
            code(&text).filter(|(_, line)| line.starts_with("use ") || !line.contains("use "));
        for (number, line) in flat {
            for used in names_after(line, "super::") {
                if used == "scheduler" && !MAY_SEE_SCHEDULER.contains(&name) {
                    wrong.push(format!("src/{file}:{number}: it may not see the scheduler"));
                }
                if alone.is_some_and(|allowed| !used.is_empty() && !allowed.contains(&used)) {
                    wrong.push(format!("src/{file}:{number}: it may not use `{used}`"));
                }
            }
            if ["timer", "reactor"].contains(&name) && line.contains("scheduler") {
                wrong.push(format!("src/{file}:{number}: it may not know of the scheduler"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn only_one_file_names_each_foreign_crate_of_the_engine() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (number, line) in code(&text) {
            // A stack must say that it is one, so `stack.rs` names corosensei's trait.
            let corosensei = ["engine/coroutine.rs", "engine/stack.rs"].contains(&file.as_str());
            if line.contains("corosensei::") && !corosensei {
                wrong.push(format!("src/{file}:{number}: corosensei is for engine/coroutine.rs"));
            }
            if line.contains("polling::") && file != "engine/reactor.rs" {
                wrong.push(format!("src/{file}:{number}: polling is for engine/reactor.rs"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn there_is_one_place_for_thread_locals() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (number, line) in code(&text) {
            if line.contains("thread_local!") && file != "engine/context.rs" {
                wrong.push(format!("src/{file}:{number}: thread-locals are in engine/context.rs"));
            }
        }
    }
    report(&wrong);
}

fn has_unsafe(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn unsafe_is_where_it_is_expected_and_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let expected = UNSAFE.contains(&file.as_str());
        let lines: Vec<_> = text.lines().collect();
        let unsafes = code(&text).filter(|(_, line)| has_unsafe(line));
        for (number, line) in unsafes {
            if !expected {
                wrong.push(format!("src/{file}:{number}: `unsafe` is not expected in this file"));
            }
            let wanted = if line.contains("unsafe fn") { "# Safety" } else { "SAFETY:" };
            // The comment is above the statement, which may have begun some lines before.
            let above = lines[..number].iter().rev().take_while(|line| !line.is_empty()).take(20);
            if !above.into_iter().any(|line| line.contains(wanted)) {
                wrong.push(format!("src/{file}:{number}: no `{wanted}` above this"));
            }
        }
    }
    let gone = UNSAFE.iter().filter(|&&file| {
        sources().get(file).is_none_or(|text| !code(text).any(|(_, line)| has_unsafe(line)))
    });
    wrong.extend(gone.map(|file| format!("src/{file}: has no `unsafe`: take it off the list")));
    report(&wrong);
}

/// The functions of a file as rustfmt lays them out: where they begin and how many lines they have.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let is_head = |line: &str| {
        let mut words = line.trim_start().split(' ');
        let qualifier = |word: &str| {
            word.starts_with("pub")
                || ["const", "unsafe", "extern", "\"C\"", "async"].contains(&word)
        };
        words.find(|word| !qualifier(word)) == Some("fn")
    };
    let mut found = Vec::new();
    for (at, head) in lines.iter().enumerate().filter(|(_, line)| is_head(line)) {
        let end = format!("{}}}", &head[..head.len() - head.trim_start().len()]);
        let body = lines[at..].iter().position(|line| line.ends_with('{'));
        let nothing =
            lines[at..].iter().position(|line| line.ends_with(';') || line.ends_with('}'));
        if body < nothing || nothing.is_none() {
            let length = lines[at..].iter().position(|line| **line == end).unwrap_or(0) + 1;
            found.push((at + 1, length));
        }
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("src/{file}: {lines} lines, of {FILE_LINES_MAX} at most"));
        }
        for (number, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "src/{file}:{number}: a function of {length} lines, of {FUNCTION_LINES_MAX} at most"
                ));
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_library_prints_nothing_and_leaves_nothing_undone() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (number, line) in code(&text) {
            for unwanted in ["print!(", "println!(", "dbg!(", "todo!(", "unimplemented!("] {
                if line.contains(unwanted) {
                    wrong.push(format!("src/{file}:{number}: no `{unwanted}…)` here"));
                }
            }
        }
    }
    report(&wrong);
}

#[test]
fn the_architecture_names_every_file_and_tests_that_exist() {
    let text = read("ARCHITECTURE.md");
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        wrong.push(format!("ARCHITECTURE.md: {lines} lines, of {ARCHITECTURE_LINES_MAX} at most"));
    }
    for file in sources().keys().filter(|file| !text.contains(&format!("`{file}`"))) {
        wrong.push(format!("ARCHITECTURE.md: does not name `{file}`"));
    }
    // A test is named as `it::FILE::TEST`, `tidy::TEST`, `model::TEST` or, for those in src/, `FOLDER::FILE::tests::TEST`.
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
        let (path, test) = name.rsplit_once("::").unwrap_or_default();
        let file = match path.strip_suffix("::tests") {
            Some(module) => format!("src/{}.rs", module.replace("::", "/")),
            None if ["tidy", "model"].contains(&path) || path.starts_with("it::") => {
                format!("tests/{}.rs", path.replace("::", "/"))
            }
            None => continue,
        };
        let exists = fs::read_to_string(root().join(file));
        if !exists.is_ok_and(|text| text.contains(&format!("fn {test}()"))) {
            wrong.push(format!("ARCHITECTURE.md: there is no test `{name}`"));
        }
    }
    report(&wrong);
}

#[test]
fn the_changelog_has_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").contains(&heading), "CHANGELOG.md: no heading `{heading}`");
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // In pieces, or this file would be one of them.
    let paths =
        [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"]].map(|p| p.concat());
    let wanted = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        // In a linked work tree, `.git` is a file that says where the repository is.
        !path.ends_with(".git")
            && extension
                .is_none_or(|text| ["rs", "md", "toml", "go", "svg", "json", "txt"].contains(&text))
    };
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    files(root(), wanted, &mut found);
    found.push(root().join(".ci/run"));
    for file in found {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (line, number) in text.lines().zip(1..) {
            if paths.iter().any(|path| line.contains(path)) {
                wrong.push(format!("{}:{number}: names a path of some machine", file.display()));
            }
        }
    }
    report(&wrong);
}
