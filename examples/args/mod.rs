//! The command lines of the examples. Wrong arguments end an example with a line about its usage.

#![allow(dead_code, reason = "each example uses a part of this")]

use std::ffi::OsString;
use std::path::Path;
use std::{env, process};

/// The only argument: an address to listen on, or to connect to.
pub(crate) fn address() -> String {
    let usage = "[ADDR]";
    let address = optional(usage).unwrap_or_else(|| "127.0.0.1:4915".into());
    address.into_string().unwrap_or_else(|_| refuse(usage))
}

/// The only argument, if there is one.
pub(crate) fn optional(usage: &str) -> Option<OsString> {
    let mut arguments = env::args_os().skip(1);
    let first = arguments.next();
    if arguments.next().is_some() { refuse(usage) } else { first }
}

/// All arguments.
pub(crate) fn all(usage: &str) -> Vec<String> {
    let arguments: Result<_, _> = env::args_os().skip(1).map(OsString::into_string).collect();
    arguments.unwrap_or_else(|_| refuse(usage))
}

/// As many arguments as the caller names.
pub(crate) fn exactly<const N: usize>(usage: &str) -> [String; N] {
    all(usage).try_into().unwrap_or_else(|_| refuse(usage))
}

/// For an example without arguments.
pub(crate) fn none() {
    let [] = exactly("");
}

/// Ends the example with a line about its usage.
pub(crate) fn refuse(usage: &str) -> ! {
    let program = env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    eprintln!("{}", format!("usage: {name} {usage}").trim_end());
    process::exit(1);
}
