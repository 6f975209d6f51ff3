//! Errors in words for people, which `main` shows as they are.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

/// A text, and the system's error behind it.
struct Explained {
    text: Cow<'static, str>,
    source: Option<io::Error>,
}

/// An error of this library.
#[cold]
pub(crate) fn explained(kind: io::ErrorKind, text: impl Into<Cow<'static, str>>) -> io::Error {
    io::Error::new(kind, Explained { text: text.into(), source: None })
}

/// The error of an operation whose deadline has passed.
#[cold]
pub(crate) fn past_deadline() -> io::Error {
    explained(
        io::ErrorKind::TimedOut,
        "the deadline has passed: that of `fail_after`, `set_read_deadline` or \
         `set_write_deadline`",
    )
}

/// The system's `error` in other words. It stays the source, with its number.
#[cold]
pub(crate) fn reworded(error: io::Error, text: String) -> io::Error {
    io::Error::new(error.kind(), Explained { text: text.into(), source: Some(error) })
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// A program whose `main` returns an error shows it like this.
impl fmt::Debug for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Explained {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
