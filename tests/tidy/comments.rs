//! Comments: their width, and words that make a sentence hard to read.

use std::path::Path;

/// Columns of a line that is a comment.
const COLUMNS_MAX: usize = 100;

/// Words that may not be the subject of a sentence. A noun says more: "the waiter" for "who waits".
const AS_SUBJECT: &[&str] = &[
    "who",
    "whoever",
    "whom",
    "whose",
    "what",
    "whatever",
    "one that",
    "one who",
    "ones that",
    "ones who",
    "those who",
];

/// Words that have no place in a comment at all.
const ANYWHERE: &[&str] = &["whoever", "whomever", ", who ", "those who", "one who", "ones who"];

/// The text of a line that is a comment and nothing else.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// The comments of a file: the line where each begins, and its text in one piece. Examples in
/// documentation are left out: they are code.
fn comments(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut goes_on, mut in_example) = (false, false);
    for (line, number) in text.lines().zip(1..) {
        let Some(comment) = comment(line) else {
            (goes_on, in_example) = (false, false);
            continue;
        };
        if comment.starts_with("```") {
            in_example = !in_example;
            goes_on = false;
        } else if comment.is_empty() || in_example {
            goes_on = false;
        } else if goes_on {
            let (_, text) = found.last_mut().unwrap();
            text.push(' ');
            text.push_str(comment);
        } else {
            found.push((number, comment.to_owned()));
            goes_on = true;
        }
    }
    found
}

/// The sentences of a text, split at `;` and `:` as well.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.match_indices(['.', ';', ':', '!', '?']).map(|(at, _)| at + 1);
    let ends: Vec<_> = ends.filter(|at| text[*at..].starts_with(' ')).chain([text.len()]).collect();
    let starts: Vec<_> = [0].into_iter().chain(ends.iter().copied()).collect();
    starts.into_iter().zip(ends).map(|(start, end)| text[start..end].trim())
}

/// The findings in the comments of a file: wide lines, and subjects.
pub(crate) fn wrong(file: &Path, text: &str) -> (Vec<String>, Vec<String>) {
    let (mut wide, mut subjects) = (Vec::new(), Vec::new());
    for (line, number) in text.lines().zip(1..) {
        let columns = line.chars().count();
        if comment(line).is_some() && columns > COLUMNS_MAX {
            wide.push(format!("{}:{number}: {columns} columns", file.display()));
        }
    }
    for (number, text) in comments(text) {
        for sentence in sentences(&text) {
            let lower = sentence.to_lowercase();
            let begins =
                |word: &&&str| lower.strip_prefix(**word).is_some_and(|rest| rest.starts_with(' '));
            let question = sentence.ends_with('?');
            let word = AS_SUBJECT.iter().find(begins).filter(|_| !question);
            let word = word.or_else(|| ANYWHERE.iter().find(|word| lower.contains(**word)));
            if let Some(word) = word {
                let word = word.trim_matches([',', ' ']);
                let file = file.display();
                subjects.push(format!("{file}:{number}: `{word}` as a subject: {sentence}"));
            }
        }
    }
    (wide, subjects)
}
