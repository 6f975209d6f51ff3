//! Rules of this repository that a machine can check: layers, `unsafe`, lengths, comments, and the
//! names in documents and tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/cancellation.rs"]
mod cancellation;
#[path = "tidy/comments.rs"]
mod comments;
#[path = "tidy/source.rs"]
mod source;

use source::{Crate, File, Reference, cycles};

/// The modules that a module of the crate may name. A module that is not listed may name none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("sync", &["engine", "task"]),
    ("inspect", &["engine", "signal"]),
    ("io", &["engine", "sync"]),
    ("fs", &["engine"]),
    ("generator", &["engine"]),
    ("signal", &["engine", "io", "task"]),
    ("task", &["engine"]),
    ("thread", &["task", "time"]),
    ("time", &["engine", "task"]),
    ("runtime", &["engine", "task"]),
    ("stack", &["engine"]),
    ("future", &["engine", "stack", "task"]),
    ("host", &["engine", "runtime", "task"]),
    ("pool", &["engine", "sync", "task"]),
    ("net", &["engine", "io", "runtime", "sync", "task", "time"]),
    ("process", &["engine", "io", "task"]),
];

/// The modules of `src/engine/` in layers, the lowest first. A file may name only modules of lower
/// layers. A folder is one module here; the files in it have layers of their own.
const ENGINE_LAYERS: &[&[&str]] = &[
    &["processor"],
    &[
        "shared",
        "sanitizer",
        "abort",
        "defer",
        "order",
        "error",
        "fd",
        "pin",
        "id",
        "core_files",
        "ticks",
    ],
    &["bounds", "mutex", "mapping"],
    &["stack", "timer", "subject", "endpoint"],
    &["coroutine", "scopes", "settings"],
    &["mailbox"],
    &["waiter"],
    &["reactor", "task"],
    &["ready", "current", "job", "numbers", "recorder", "debugger"],
    &["facts"],
    &["rows"],
    &["survey"],
    &["cancel", "overflow", "workers"],
    &["blocking_pool"],
    &["scheduler"],
    &["context"],
    &["panic_hook", "park", "signals"],
    &["descriptor", "blocking", "packet", "address"],
    &["spawn", "root"],
];

/// The files of each folder in `src/engine/` in layers, the lowest first; `mod` is its `mod.rs`.
const ENGINE_FOLDERS: &[(&str, &[&[&str]])] = &[
    ("workers", &[&["run_queue", "quiescence", "question"], &["run"], &["injector"], &["mod"]]),
    (
        "scheduler",
        &[
            &[
                "alarms",
                "clock",
                "host",
                "observer",
                "outside",
                "pace",
                "refused",
                "table",
                "unwinding",
            ],
            &["calls", "sleeps"],
            &["core"],
            &["cancelling", "survey"],
            &["closing"],
            &["tick"],
            &["run"],
            &["guest"],
            &["mod"],
        ],
    ),
];

/// Fields that stand for a module where a method of theirs is called: `.scheduler.` names the
/// scheduler.
const FIELDS: &[(&str, &str)] = &[("scheduler", "engine::scheduler")];

/// Files that may contain `unsafe`; `docs/unsafe.md` says what each must hold.
const UNSAFE: &[&str] = &[
    "../crates/compat/src/hyper.rs",
    "../crates/compat/src/tokio.rs",
    "../crates/std/src/command.rs",
    "../crates/std/src/thread/scope.rs",
    "../crates/tokio/src/lib.rs",
    "engine/bounds.rs",
    "engine/context.rs",
    "engine/coroutine.rs",
    "engine/endpoint.rs",
    "engine/fd.rs",
    "engine/job.rs",
    "engine/mapping.rs",
    "engine/packet.rs",
    "engine/pin.rs",
    "engine/processor.rs",
    "engine/reactor.rs",
    "engine/recorder.rs",
    "engine/sanitizer.rs",
    "engine/scheduler/core.rs",
    "engine/signals.rs",
    "engine/spawn.rs",
    "engine/stack.rs",
    "engine/task.rs",
    "engine/workers/question.rs",
    "inspect/frames.rs",
    "net/socket.rs",
    "sync/guard.rs",
    "sync/wait.rs",
    "task/scope.rs",
];

const FILE_LINES_MAX: usize = 650;
const FUNCTION_LINES_MAX: usize = 80;
const ARCHITECTURE_LINES_MAX: usize = 150;

/// Folders whose comments are checked.
const COMMENTED: &[&str] = &[
    "src",
    "tests",
    "examples",
    "benches",
    "compare/src",
    "crates",
    "ecosystem/crates",
    "model",
    "torture/src",
    "fuzz/fuzz_targets",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below `folder` for which `wanted` holds, without hidden ones and build products.
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

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// The Rust files of a folder, by their path in it.
fn rust_files(folder: &str) -> BTreeMap<String, String> {
    let (folder, mut found) = (root().join(folder), Vec::new());
    files(&folder, is_rust, &mut found);
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
    found.into_iter().map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

fn sources() -> BTreeMap<String, String> {
    rust_files("src")
}

/// A file without its unit tests: its numbered lines, without their comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.map(|line| line.split("//").next().unwrap_or_default()).zip(1..).map(|(l, n)| (n, l))
}

/// Fails with the list of findings, unless it is empty.
#[track_caller]
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n{} in all\n", wrong.join("\n"), wrong.len());
}

// ---- layers ----

/// The module of the crate that a file belongs to: its folder, or its own name.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

#[test]
fn a_module_uses_only_what_is_below_it() {
    let references = Crate::new(&sources()).references(&[]);
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for Reference { from, to, line } in &references {
        let (from_module, to_module) = (module(from), module(to));
        let allowed = MAY_USE.iter().find(|(name, _)| *name == from_module);
        let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
        if from_module != to_module && !allowed.contains(&to_module) {
            wrong.push(format!("src/{from}:{line}: `{from_module}` may not use `{to_module}`"));
        }
        used.insert((from_module, to_module));
    }
    for (name, allowed) in MAY_USE {
        for other in allowed.iter().filter(|other| !used.contains(&(*name, **other))) {
            wrong.push(format!("MAY_USE: `{name}` does not use `{other}`: take it off the list"));
        }
    }
    report(&wrong);
}

/// A file of the engine as the tables name it: `("scheduler", Some("idle"))` for
/// `engine/scheduler/idle.rs`, `("task", None)` for `engine/task.rs`.
fn engine_module(file: &str) -> Option<(&str, Option<&str>)> {
    let path = file.strip_prefix("engine/")?.strip_suffix(".rs")?;
    Some(path.split_once('/').map_or((path, None), |(folder, inner)| (folder, Some(inner))))
}

/// The place of a module in a table of layers.
fn layer(layers: &[&[&str]], name: &str) -> Option<usize> {
    layers.iter().position(|layer| layer.contains(&name))
}

#[test]
fn the_engine_is_in_layers() {
    let sources = sources();
    let mut wrong = Vec::new();
    let modules: Vec<_> = sources.keys().filter_map(|file| engine_module(file)).collect();
    // Each file has its place in the tables, and each entry its file.
    let folders = |name: &str| {
        ENGINE_FOLDERS
            .iter()
            .find(|(folder, _)| *folder == name)
            .map_or(&[][..], |(_, layers)| layers)
    };
    for (name, inner) in modules.iter().filter(|(name, _)| *name != "mod") {
        if layer(ENGINE_LAYERS, name).is_none() {
            wrong.push(format!("ENGINE_LAYERS: `{name}` is missing"));
        }
        if inner.is_some_and(|inner| layer(folders(name), inner).is_none()) {
            wrong.push(format!("ENGINE_FOLDERS: `{name}/{}` is missing", inner.unwrap()));
        }
    }
    for name in ENGINE_LAYERS.iter().copied().flatten() {
        if !modules.iter().any(|(module, _)| module == name) {
            wrong.push(format!("ENGINE_LAYERS: there is no `engine/{name}`"));
        }
    }
    for (folder, layers) in ENGINE_FOLDERS {
        for inner in layers.iter().copied().flatten() {
            if !modules.contains(&(folder, Some(inner))) {
                wrong.push(format!("ENGINE_FOLDERS: there is no `engine/{folder}/{inner}.rs`"));
            }
        }
    }
    for Reference { from, to, line } in Crate::new(&sources).references(FIELDS) {
        let (Some((module, inner)), Some((used, part))) =
            (engine_module(&from), engine_module(&to))
        else {
            continue;
        };
        let is_below = if module == used {
            let place = |inner: Option<&str>| layer(folders(module), inner.unwrap_or("mod"));
            place(part) < place(inner)
        } else {
            layer(ENGINE_LAYERS, used) < layer(ENGINE_LAYERS, module)
        };
        if !is_below {
            wrong.push(format!("src/{from}:{line}: `{to}` is not below it"));
        }
    }
    report(&wrong);
}

#[test]
fn imports_have_no_cycles() {
    let references = Crate::new(&sources()).references(FIELDS);
    let mut wrong = Vec::new();
    for cycle in cycles(&references) {
        wrong.push(format!("a cycle of {} files:", cycle.len()));
        for file in &cycle {
            let uses = references.iter().filter(|it| it.from == *file && cycle.contains(&it.to));
            let uses: Vec<_> = uses.map(|it| format!("{} (line {})", it.to, it.line)).collect();
            wrong.push(format!("    {file} uses {}", uses.join(", ")));
        }
    }
    report(&wrong);
}

#[test]
fn only_one_file_names_each_foreign_crate_of_the_engine() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (number, line) in code(&text) {
            // `stack.rs` implements corosensei's trait for stacks.
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
fn a_thread_local_is_private_to_its_file() {
    let all = Crate::new(&sources());
    let mut wrong = Vec::new();
    // The names that each file declares in `thread_local!`.
    let mut declared = Vec::new();
    for file in &all.files {
        let text = |at: usize| file.tokens.get(at).map_or("", |token| token.text.as_str());
        let declares = |at: &usize| text(*at) == "thread_local" && text(*at + 1) == "!";
        for start in (0..file.tokens.len()).filter(declares) {
            let mut depth = 0;
            for at in start + 2.. {
                depth += i32::from(text(at) == "{") - i32::from(text(at) == "}");
                if depth == 0 {
                    break;
                }
                let line = file.tokens[at].line;
                if depth == 1 && text(at) == "static" {
                    declared.push((text(at + 1).to_owned(), file));
                }
                if depth == 1 && text(at) == "pub" {
                    wrong.push(format!("src/{}:{line}: a thread-local is private", file.path));
                }
            }
        }
    }
    // It is private, so only a file in the folder of its module could still name it.
    for (name, owner) in &declared {
        let is_inside =
            |file: &File| file.module.starts_with(&owner.module) && file.path != owner.path;
        for file in all.files.iter().filter(|file| is_inside(file)) {
            for token in file.tokens.iter().filter(|token| token.text == *name) {
                let (path, line) = (&file.path, token.line);
                wrong.push(format!(
                    "src/{path}:{line}: the thread-local `{name}` is for {}",
                    owner.path
                ));
            }
        }
    }
    report(&wrong);
}

// ---- `unsafe` and lengths ----

fn has_unsafe(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn unsafe_is_where_it_is_expected_and_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    let others = ["compat", "std", "tokio", "tracing"].into_iter().flat_map(|package| {
        let folder = format!("crates/{package}/src");
        let files = rust_files(&folder).into_iter();
        files.map(move |(file, text)| (format!("../{folder}/{file}"), text))
    });
    let sources: BTreeMap<_, _> = sources().into_iter().chain(others).collect();
    for (file, text) in &sources {
        let expected = UNSAFE.contains(&file.as_str());
        let lines: Vec<_> = text.lines().collect();
        let unsafes = code(text).filter(|(_, line)| has_unsafe(line));
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
    let stale = UNSAFE.iter().filter(|&&file| {
        sources.get(file).is_none_or(|text| !code(text).any(|(_, line)| has_unsafe(line)))
    });
    wrong.extend(stale.map(|file| format!("src/{file}: has no `unsafe`: take it off the list")));
    report(&wrong);
}

#[test]
fn the_table_of_unsafe_code_has_every_file() {
    let text = read("docs/unsafe.md");
    let row = |line: &str| {
        let path = line.strip_prefix("| `")?.split_once('`')?.0;
        Some(path.strip_prefix("src/").map_or_else(|| format!("../{path}"), str::to_owned))
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert_eq!(
        rows, UNSAFE,
        "docs/unsafe.md: its table does not list the files that may have `unsafe`"
    );
}

/// The functions of a file as rustfmt lays them out: their first lines and their lengths.
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

// ---- comments ----

/// The findings in the comments of all checked folders: wide lines, and subjects.
fn comments_that_are_wrong() -> (Vec<String>, Vec<String>) {
    let (mut wide, mut subjects) = (Vec::new(), Vec::new());
    for folder in COMMENTED {
        for (file, text) in rust_files(folder) {
            let (its_wide, its_subjects) = comments::wrong(&Path::new(folder).join(file), &text);
            wide.extend(its_wide);
            subjects.extend(its_subjects);
        }
    }
    (wide, subjects)
}

#[test]
fn comments_are_at_most_a_hundred_columns_wide() {
    report(&comments_that_are_wrong().0);
}

#[test]
fn the_subject_of_a_comment_is_a_noun() {
    report(&comments_that_are_wrong().1);
}

// ---- tables and documents ----

#[test]
fn each_section_on_cancellation_has_its_row_in_the_table() {
    let sources = sources();
    let all = Crate::new(&sources);
    let documented: Vec<_> = all
        .files
        .iter()
        .flat_map(|file| cancellation::documented(&all, file, &sources[&file.path]))
        .collect();
    let table = read("tests/it/traps/cancellation.rs");
    let mut rows = ["OPERATIONS", "YIELDS"].map(|name| cancellation::rows(&table, name)).concat();
    rows.extend(cancellation::ELSEWHERE.iter().map(|(name, _)| (*name).to_owned()));
    let mut wrong = Vec::new();
    let is_for = |row: &str, item: &cancellation::Documented| {
        item.names.iter().any(|name| cancellation::is_for(row, name))
    };
    for item in documented.iter().filter(|item| !rows.iter().any(|row| is_for(row, item))) {
        wrong.push(format!("{}: no row for `{}`", item.place, item.names.join("` or `")));
    }
    for row in rows.iter().filter(|row| !documented.iter().any(|item| is_for(row, item))) {
        wrong.push(format!("`{row}`: nothing of that name has a section `# Cancellation`"));
    }
    for (name, test) in cancellation::ELSEWHERE.iter().filter(|(_, test)| !test_exists(test)) {
        wrong.push(format!("`{name}`: there is no test `{test}`"));
    }
    report(&wrong);
}

/// Whether there is a test of that name: `it::PATH::TEST`, `tidy::TEST`, `model::TEST`, or, for
/// unit tests, `PATH::tests::TEST`.
fn test_exists(name: &str) -> bool {
    let (path, test) = name.rsplit_once("::").unwrap_or_default();
    let file = match path.strip_suffix("::tests") {
        Some(module) => format!("src/{}", module.replace("::", "/")),
        None => format!("tests/{}", path.replace("::", "/")),
    };
    let texts = [format!("{file}.rs"), format!("{file}/mod.rs")];
    let mut texts = texts.iter().filter_map(|file| fs::read_to_string(root().join(file)).ok());
    texts.any(|text| text.contains(&format!("fn {test}()")))
}

#[test]
fn each_file_of_tests_is_a_target_of_the_package() {
    let package = read("tests/Cargo.toml");
    let mut wrong = Vec::new();
    for (file, _) in rust_files("tests") {
        let is_root = !file.contains('/') || file.ends_with("/main.rs");
        if is_root && !package.contains(&format!("path = \"{file}\"")) {
            wrong.push(format!("tests/Cargo.toml: no `[[test]]` for `{file}`"));
        }
    }
    report(&wrong);
}

#[test]
fn the_architecture_is_short_and_names_every_layer() {
    let text = read("ARCHITECTURE.md");
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        wrong.push(format!("ARCHITECTURE.md: {lines} lines, of {ARCHITECTURE_LINES_MAX} at most"));
    }
    let words: BTreeSet<_> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let sources = sources();
    let modules = sources.keys().map(|file| module(file)).filter(|name| *name != "lib");
    let parts = sources.keys().filter_map(|file| engine_module(file)).map(|(name, _)| name);
    let names: BTreeSet<_> = modules.chain(parts.filter(|name| *name != "mod")).collect();
    for name in names.iter().filter(|name| !words.contains(*name)) {
        wrong.push(format!("ARCHITECTURE.md: does not name `{name}`"));
    }
    report(&wrong);
}

#[test]
fn the_documents_name_tests_that_exist() {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let is_document = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    files(root(), is_document, &mut found);
    for file in found {
        let text = fs::read_to_string(&file).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_test = ["it::", "tidy::", "model::"].iter().any(|it| name.starts_with(it));
            if (is_test || name.contains("::tests::")) && !test_exists(name) {
                wrong.push(format!("{}: there is no test `{name}`", file.display()));
            }
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
    // In pieces, or this file would be among the findings.
    let paths =
        [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"]].map(|p| p.concat());
    let wanted = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        // In a linked work tree, `.git` is a file with the path of the repository.
        !path.ends_with(".git")
            && extension
                .is_none_or(|text| ["rs", "md", "toml", "go", "svg", "json", "txt"].contains(&text))
    };
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    files(root(), wanted, &mut found);
    found.extend([".ci/run", ".ci/sanitizers"].map(|file| root().join(file)));
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
