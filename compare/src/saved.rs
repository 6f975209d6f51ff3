//! Results that were kept, so that a report can be written from several runs.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Results, and what they are from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved<T> {
    /// The machine that they are from.
    pub machine: Machine,
    /// Whether they are from a first look, too noisy to quote.
    pub quick: bool,
    /// The results.
    pub results: T,
}

/// Keeps results under a name, beside the program itself.
///
/// # Errors
///
/// When the file cannot be written.
pub fn save<T: Serialize>(name: &str, quick: bool, results: T) -> Result<()> {
    let path = path(name)?;
    let folder = path.parent().context("the file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let saved = Saved { machine: Machine::here(), quick, results };
    let text = serde_json::to_string(&saved)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Results that were kept under a name; none when there are none.
///
/// # Errors
///
/// When there are some, of another version of this program.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<Option<Saved<T>>> {
    let path = path(name)?;
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => serde_json::from_str(&text?)
            .map(Some)
            .with_context(|| format!("{} is not of this version; measure anew", path.display())),
    }
}

fn path(name: &str) -> Result<PathBuf> {
    let ours = std::env::current_exe()?;
    Ok(ours.with_file_name("compare-results").join(name).with_extension("json"))
}
