//! Reads `src/` as far as the checks need it: files as modules, their tokens, and the file that a
//! path leads to.

use std::collections::{BTreeMap, BTreeSet};

/// A word, a `::`, or any other single character, with its line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$')
    }
}

/// The tokens of a file, without comments, strings and lifetimes.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let start = at;
        let rest = &chars[at..];
        let is = |text: &str| text.chars().zip(rest).filter(|(a, b)| a == *b).count() == text.len();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        at += match rest[0] {
            _ if is("//") => until(rest, "\n"),
            _ if is("/*") => until(rest, "*/"),
            'r' if is("r\"") || is("r#") => {
                let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
                if rest.get(1 + hashes) == Some(&'"') {
                    let end = format!("\"{}", "#".repeat(hashes));
                    2 + hashes + until(&rest[2 + hashes..], &end)
                } else {
                    1
                }
            }
            '"' => quoted(rest),
            '\'' if rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'') => quoted(rest),
            // A lifetime.
            '\'' => 1 + rest[1..].iter().take_while(|c| word(**c)).count(),
            c if word(c) || c == '$' => 1 + rest[1..].iter().take_while(|c| word(**c)).count(),
            _ if is("::") => 2,
            _ => 1,
        };
        let text: String = chars[start..at].iter().collect();
        let kept = !text.trim().is_empty()
            && !text.starts_with("//")
            && !text.starts_with("/*")
            && !text.contains(['"', '\'']);
        if kept {
            found.push(Token { text: text.clone(), line });
        }
        line += text.matches('\n').count();
    }
    without_tests(found)
}

/// The length of a text up to `end`, `end` included.
fn until(rest: &[char], end: &str) -> usize {
    let end: Vec<char> = end.chars().collect();
    rest.windows(end.len()).position(|part| part == end).map_or(rest.len(), |at| at + end.len())
}

/// The length of a literal in quotes, in which a backslash escapes the next character.
fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != rest[0] {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Leaves out the items that are for tests only.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_cfg =
            tokens[at..].iter().map(|t| t.text.as_str()).take(4).eq(["#", "[", "cfg", "("]);
        let end = closing(&tokens, at + 1);
        let names = |word: &str| tokens[at..end].iter().any(|t| t.text == word);
        if !is_cfg || !names("test") || names("not") {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at = end;
        while tokens.get(at).is_some_and(|t| !["{", ";"].contains(&t.text.as_str())) {
            at += 1;
        }
        at = if tokens.get(at).is_some_and(|t| t.text == "{") {
            closing(&tokens, at)
        } else {
            at + 1
        };
    }
    kept
}

/// The place behind the bracket that closes the one at `open`, or behind a token that is no
/// bracket.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// A path as it is written: each item of a `use`, and each path in the code.
struct Written {
    line: usize,
    /// The module around it: that of the file, or one nested in it.
    within: Vec<String>,
    segments: Vec<String>,
    /// The name that a `use` gives it.
    name: Option<String>,
}

/// Collects the paths of a file.
struct Paths<'a> {
    tokens: &'a [Token],
    at: usize,
    within: Vec<String>,
    found: Vec<Written>,
    /// Functions that are declared here, outside of any `impl`.
    functions: BTreeSet<String>,
    /// Modules that are declared here, `pub` or not.
    declared: Vec<(String, bool)>,
    /// Whether there are other items than modules and `use`.
    has_items: bool,
}

impl Paths<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.text)
    }

    /// The items of a module, up to the bracket that closes it.
    fn module(&mut self) {
        while self.at < self.tokens.len() && self.text(0) != "}" {
            let public = self.text(0) == "pub";
            if public {
                self.at += 1;
                if self.text(0) == "(" {
                    self.at = closing(self.tokens, self.at);
                    self.item(false);
                    continue;
                }
            }
            self.item(public);
        }
        self.at += 1;
    }

    fn item(&mut self, public: bool) {
        match self.text(0) {
            "#" => {
                let hash = self.at;
                self.at += if self.text(1) == "!" { 2 } else { 1 };
                self.at = closing(self.tokens, self.at).max(hash + 1);
            }
            "use" => {
                self.at += 1;
                self.tree(&[], self.tokens[self.at].line);
                self.at += 1;
            }
            "mod" => {
                let name = self.text(1).to_owned();
                self.at += 3;
                if self.tokens[self.at - 1].text == "{" {
                    self.has_items = true;
                    self.within.push(name);
                    self.module();
                    self.within.pop();
                } else {
                    self.declared.push((name, public));
                }
            }
            // An error for an unsupported target names nothing.
            "compile_error" => self.code(),
            _ => {
                self.has_items = true;
                self.code();
            }
        }
    }

    /// An item that is code, up to its `;` or the end of its braces.
    fn code(&mut self) {
        while self.at < self.tokens.len() {
            match self.text(0) {
                ";" => {
                    self.at += 1;
                    return;
                }
                "{" => {
                    let end = closing(self.tokens, self.at);
                    self.inside(end);
                    return;
                }
                "(" | "[" => {
                    let end = closing(self.tokens, self.at);
                    self.inside(end);
                }
                "fn" => {
                    self.functions.insert(self.text(1).to_owned());
                    self.at += 2;
                }
                _ => self.word(),
            }
        }
    }

    /// Everything up to `end`.
    fn inside(&mut self, end: usize) {
        while self.at < end {
            self.word();
        }
    }

    /// One token, or the path that begins with it.
    fn word(&mut self) {
        let before = self.at.checked_sub(1).map(|at| self.tokens[at].text.as_str());
        // `use<'a>` lists the captures of a type.
        if self.text(0) == "use" && self.text(1) != "<" {
            self.at += 1;
            return self.tree(&[], self.tokens[self.at].line);
        }
        let (line, start) = (self.tokens[self.at].line, self.at);
        let mut segments = Vec::new();
        while self.tokens.get(self.at).is_some_and(Token::is_word) {
            segments.push(self.text(0).to_owned());
            if self.text(1) != "::" {
                break;
            }
            self.at += 2;
        }
        self.at = self.at.max(start) + 1;
        // A path of one word is a local name, or was imported by a `use` that counts already.
        // `pub(in path)` does not use the path, and no path begins behind `.` or `::`.
        if segments.len() > 1 && !before.is_some_and(|word| ["in", ".", "::"].contains(&word)) {
            let within = self.within.clone();
            self.found.push(Written { line, within, segments, name: None });
        }
    }

    /// One tree of a `use`, behind `prefix`.
    fn tree(&mut self, prefix: &[String], line: usize) {
        let mut segments = prefix.to_vec();
        loop {
            match self.text(0) {
                "{" => {
                    let end = closing(self.tokens, self.at);
                    self.at += 1;
                    while self.at + 1 < end {
                        self.tree(&segments, self.tokens[self.at].line);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at = end;
                    return;
                }
                "::" => self.at += 1,
                "as" => {
                    let name = Some(self.text(1).to_owned());
                    self.at += 2;
                    let within = self.within.clone();
                    return self.found.push(Written { line, within, segments, name });
                }
                "" | ";" | "," | "}" => break,
                "self" if !segments.is_empty() => self.at += 1,
                segment => {
                    segments.push(segment.to_owned());
                    self.at += 1;
                }
            }
        }
        let (name, within) = (segments.last().cloned(), self.within.clone());
        self.found.push(Written { line, within, segments, name });
    }
}

/// A file of `src/` as a module.
pub(crate) struct File {
    /// Its path in `src/`.
    pub(crate) path: String,
    /// Its module: `["engine", "task"]`.
    pub(crate) module: Vec<String>,
    pub(crate) tokens: Vec<Token>,
    /// Whether it only declares modules and re-exports what is in them.
    pub(crate) is_facade: bool,
    /// Modules declared `pub` in it.
    pub(crate) public: BTreeSet<String>,
    /// Functions declared in it, outside of any `impl`.
    functions: BTreeSet<String>,
    paths: Vec<Written>,
}

/// A file that names another one, and the line where it does so first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Reference {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) line: usize,
}

/// All files of `src/`.
pub(crate) struct Crate {
    pub(crate) files: Vec<File>,
    /// The file of each module, by its place in `files`.
    modules: BTreeMap<Vec<String>, usize>,
    /// The paths that each imported name of a module stands for.
    names: BTreeMap<(Vec<String>, String), Vec<Vec<String>>>,
}

impl Crate {
    pub(crate) fn new(sources: &BTreeMap<String, String>) -> Self {
        let files: Vec<_> = sources.iter().map(|(path, text)| File::new(path, text)).collect();
        let modules =
            files.iter().enumerate().map(|(at, file)| (file.module.clone(), at)).collect();
        let mut names: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for written in files.iter().flat_map(|file| &file.paths) {
            if let Some(name) = &written.name {
                let place = (written.within.clone(), name.clone());
                names.entry(place).or_default().push(written.segments.clone());
            }
        }
        Self { files, modules, names }
    }

    /// The file of the crate, if any, that a path in a module leads to.
    fn target(&self, within: &[String], segments: &[String], depth: usize) -> Option<usize> {
        // A name that stands for itself leads nowhere.
        if depth > 8 {
            return None;
        }
        let mut base = within.to_vec();
        let mut rest = segments;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                // A name in scope: a module below this one, or an imported name.
                let below = [&base[..], &[first.to_owned()]].concat();
                if !self.modules.contains_key(&below) {
                    return self.imported(within, segments, depth);
                }
            }
        }
        let mut place = base;
        while let Some(segment) = rest.first() {
            let below = [&place[..], std::slice::from_ref(segment)].concat();
            if !self.modules.contains_key(&below) {
                break;
            }
            place = below;
            rest = &rest[1..];
        }
        // In a module that is nested in a file, the path goes on from the file.
        let mut file = place.clone();
        while !self.modules.contains_key(&file) {
            file.pop()?;
        }
        if rest.is_empty() {
            return Some(self.modules[&file]);
        }
        // A function may have the name of a module that its file imports.
        let is_function =
            rest.len() == 1 && self.files[self.modules[&file]].functions.contains(&rest[0]);
        if !is_function && self.names.contains_key(&(place.clone(), rest[0].clone())) {
            // A name imported there: the item belongs to the file that declares it.
            return self.imported(&place, rest, depth);
        }
        Some(self.modules[&file])
    }

    /// The same for a path whose first segment is an imported name.
    fn imported(&self, within: &[String], segments: &[String], depth: usize) -> Option<usize> {
        let place = (within.to_vec(), segments[0].clone());
        let meanings = self.names.get(&place)?;
        let meanings = meanings.iter().filter(|meaning| meaning[..] != segments[..1]);
        let whole = |meaning: &Vec<String>| [&meaning[..], &segments[1..]].concat();
        meanings.filter_map(|meaning| self.target(within, &whole(meaning), depth + 1)).next()
    }

    /// Which file names which. A method call on a field of `fields` names its module.
    pub(crate) fn references(&self, fields: &[(&str, &str)]) -> Vec<Reference> {
        let mut all = BTreeMap::new();
        for file in self.files.iter().filter(|file| !file.is_facade) {
            let mut add = |line: usize, to: &str| {
                let first = all.entry((file.path.clone(), to.to_owned())).or_insert(line);
                *first = line.min(*first);
            };
            for written in &file.paths {
                let target = self.target(&written.within, &written.segments, 0);
                if let Some(to) = target.map(|to| &self.files[to]).filter(|to| !to.is_facade) {
                    add(written.line, &to.path);
                }
            }
            for three in file.tokens.windows(3) {
                let is_called = |field: &str| {
                    three.iter().map(|token| token.text.as_str()).eq([".", field, "."])
                };
                for (_, module) in fields.iter().filter(|(field, _)| is_called(field)) {
                    let module: Vec<_> = module.split("::").map(str::to_owned).collect();
                    if let Some(to) = self.modules.get(&module) {
                        add(three[1].line, &self.files[*to].path);
                    }
                }
            }
        }
        let all = all.into_iter().filter(|((from, to), _)| from != to);
        all.map(|((from, to), line)| Reference { from, to, line }).collect()
    }

    /// The public modules in which an item of a file can be named: the innermost one around the
    /// file, and all that import the item.
    pub(crate) fn public_modules(&self, file: &File, item: &str) -> Vec<String> {
        let is_public = |module: &[String], depth: usize| {
            let parent = self.modules.get(&module[..depth]);
            parent.is_some_and(|at| self.files[*at].public.contains(&module[depth]))
        };
        let name = |module: &[String]| module.last().map_or("plainsong".to_owned(), String::clone);
        let around = (0..file.module.len()).take_while(|depth| is_public(&file.module, *depth));
        let mut found = vec![name(&file.module[..around.count()])];
        for ((module, _), paths) in self.names.iter().filter(|((_, name), _)| name == item) {
            let leads_here = |path: &Vec<String>| {
                self.target(module, path, 0).is_some_and(|at| self.files[at].path == file.path)
            };
            let is_reachable = (0..module.len()).all(|depth| is_public(module, depth));
            if is_reachable && paths.iter().any(leads_here) {
                found.push(name(module));
            }
        }
        found
    }
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap_or(path);
        let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
            module.pop();
        }
        let tokens = tokens(text);
        let mut paths = Paths {
            tokens: &tokens,
            at: 0,
            within: module.clone(),
            found: Vec::new(),
            functions: BTreeSet::new(),
            declared: Vec::new(),
            has_items: false,
        };
        paths.module();
        let Paths { found, functions, declared, has_items, .. } = paths;
        Self {
            path: path.to_owned(),
            module,
            is_facade: !has_items && !declared.is_empty(),
            public: declared.into_iter().filter(|(_, public)| *public).map(|(n, _)| n).collect(),
            paths: found,
            functions,
            tokens,
        }
    }
}

/// The cycles among files, largest first: sets of files each of which leads to all others.
pub(crate) fn cycles(references: &[Reference]) -> Vec<BTreeSet<String>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Reference { from, to, .. } in references {
        next.entry(from).or_default().insert(to);
    }
    let reached = |from: &str| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(file) = left.pop() {
            for &to in next.get(file).into_iter().flatten() {
                if seen.insert(to) {
                    left.push(to);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|&file| (file, reached(file))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, to) in &all {
        let back = |other: &&&str| all.get(**other).is_some_and(|there| there.contains(file));
        let cycle: BTreeSet<String> = to.iter().filter(back).map(|f| (*f).to_owned()).collect();
        if !cycle.is_empty() && !found.contains(&cycle) {
            found.push(cycle);
        }
    }
    found.sort_by_key(|cycle| std::cmp::Reverse(cycle.len()));
    found
}

#[test]
fn a_path_leads_to_the_file_that_declares_its_item() {
    let sources = [
        ("lib.rs", "mod a; pub mod b; pub use b::inner::{Deep as Deeper};"),
        (
            "a.rs",
            "use crate::{b::{self, inner::Deep},\n Deeper};\nfn f() { b::g(); super::Deeper; }",
        ),
        (
            "b/mod.rs",
            "mod inner;\npub(crate) use inner::{Deep, g};\npub fn g() { self::inner::h() }",
        ),
        (
            "b/inner.rs",
            "use super::g;\n// use crate::a;\nmod nested { use super::super::g; }\nconst TEXT: &str = \"crate::a::x\";\n\
             #[cfg(test)]\nmod tests { use crate::a::f; }\nfn i(s: &S) -> impl Sized + use<'_> { s.a.call(); 'c' }",
        ),
    ];
    let sources = sources.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    let found = Crate::new(&sources).references(&[("a", "a")]);
    let found: Vec<_> = found.iter().map(|it| (&*it.from, &*it.to, it.line)).collect();
    assert_eq!(
        found,
        [
            ("a.rs", "b/inner.rs", 1),
            ("a.rs", "b/mod.rs", 1),
            ("b/inner.rs", "a.rs", 7),
            ("b/inner.rs", "b/mod.rs", 1),
            ("b/mod.rs", "b/inner.rs", 2),
        ]
    );
    let cycles = cycles(&Crate::new(&sources).references(&[("a", "a")]));
    assert_eq!(cycles.iter().map(BTreeSet::len).collect::<Vec<_>>(), [3]);
}
