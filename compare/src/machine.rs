//! The machine on which the numbers were measured.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Facts about the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// The number of its cores.
    pub cores: usize,
    /// Memory, in GiB.
    pub memory_gib: u64,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// The kernel's release.
    pub kernel: String,
    /// The version of the Rust compiler.
    pub rustc: String,
    /// The version of Go, if it is installed.
    pub go: Option<String>,
}

impl Machine {
    /// This machine.
    pub fn here() -> Machine {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |name: &str| {
            let line = cpu.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let uname = rustix::system::uname();
        let flags = value("flags").unwrap_or_default();
        Machine {
            processor: value("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_kib().div_ceil(1024 * 1024),
            is_virtual: flags.split_whitespace().any(|flag| flag == "hypervisor"),
            kernel: kernel(&uname.sysname().to_string_lossy(), &uname.release().to_string_lossy()),
            rustc: version("rustc", "--version").unwrap_or_else(|| "unknown".to_owned()),
            go: version("go", "version").map(|text| text.replace("go version ", "")),
        }
    }
}

/// The machine's load average over a minute, before and after a measurement. On an idle machine it
/// is near zero before, and the measurement itself raises it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LoadAverage {
    /// Before the measurement.
    pub before: f64,
    /// After the measurement.
    pub after: f64,
}

impl LoadAverage {
    /// Measures with `f`, and returns the load averages around it, where the machine has them.
    ///
    /// # Errors
    ///
    /// When `f` fails.
    pub fn around<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, Option<LoadAverage>)> {
        let before = load_average();
        let result = f()?;
        let around = before.zip(load_average());
        Ok((result, around.map(|(before, after)| LoadAverage { before, after })))
    }

    /// A sentence about it.
    pub fn sentence(load: Option<LoadAverage>) -> String {
        match load {
            Some(load) => format!("Load average of the machine: {load}."),
            None => "The load average of the machine was not recorded.".to_owned(),
        }
    }
}

impl fmt::Display for LoadAverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} before, {:.2} after", self.before, self.after)
    }
}

fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The version alone, without what the builder of the kernel has appended.
fn kernel(system: &str, release: &str) -> String {
    let version = release.split('-').next().unwrap_or(release);
    format!("{system} {version}")
}

fn memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    crate::process::field(&text, "MemTotal:").unwrap_or(0)
}

fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// How many mappings the kernel allows a process; none where the limit is not known.
pub fn mappings_at_most() -> Option<u64> {
    fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}
