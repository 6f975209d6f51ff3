//! Saved results, so that a report can be written from several runs.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Results, and the machine on which they were measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved<T> {
    /// The machine.
    pub machine: Machine,
    /// The results.
    pub results: T,
}

/// The folder of the report. Quick runs have another folder, so that they never overwrite a full
/// report.
pub fn folder(quick: bool) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("report");
    if quick { folder.join("quick") } else { folder }
}

/// Saves results under a name, beside the report.
///
/// # Errors
///
/// When the file cannot be written.
pub fn save<T: Serialize>(name: &str, quick: bool, results: T) -> Result<()> {
    let path = path(name, quick);
    let folder = path.parent().context("the file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let saved = Saved { machine: Machine::here(), results };
    let text = serde_json::to_string(&saved)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Loads the results that were saved under a name, if there are any.
///
/// # Errors
///
/// When they were saved by an incompatible version of this program.
pub fn load<T: DeserializeOwned>(name: &str, quick: bool) -> Result<Option<Saved<T>>> {
    let path = path(name, quick);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => serde_json::from_str(&text?)
            .map(Some)
            .with_context(|| format!("{} is not of this version; measure again", path.display())),
    }
}

fn path(name: &str, quick: bool) -> PathBuf {
    folder(quick).join("data").join(name).with_extension("json")
}
