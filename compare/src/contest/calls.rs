//! Counts a server's system calls from outside, with `perf` or `strace`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::process::{Helper, find_program};

/// How long a counter may take to attach.
const ATTACH: Duration = Duration::from_secs(5);
/// How long `perf` may take to start its counters after it has opened them.
const SETTLE: Duration = Duration::from_millis(100);

/// A count of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Calls {
    /// Counted by the kernel's own tracepoint, which hardly slows the server down.
    Perf(f64),
    /// Counted by `strace`, which stops the server at every call. The server then finds more to do
    /// after each wait, and so it waits less often than without `strace`.
    Strace(f64),
    /// Neither `perf` nor `strace` works here.
    NotCounted,
}

impl Calls {
    /// The count, if there is one.
    pub fn count(self) -> Option<f64> {
        match self {
            Calls::Perf(count) | Calls::Strace(count) => Some(count),
            Calls::NotCounted => None,
        }
    }

    /// The count for one of `requests`.
    pub(super) fn per(self, requests: u64) -> Calls {
        match self {
            Calls::Perf(count) => Calls::Perf(count / requests as f64),
            Calls::Strace(count) => Calls::Strace(count / requests as f64),
            Calls::NotCounted => Calls::NotCounted,
        }
    }
}

#[derive(Clone, Copy)]
enum Tool {
    Perf,
    Strace,
}

/// A counter that is attached to a process.
pub(super) struct Counter {
    tool: Tool,
    process: Helper,
    report: PathBuf,
}

impl Counter {
    /// Attaches to process `pid`. Returns none when neither tool works on this machine.
    pub(super) fn attach(pid: u32) -> Result<Option<Counter>> {
        for (tool, name) in [(Tool::Perf, "perf"), (Tool::Strace, "strace")] {
            if find_program(name).is_none() {
                continue;
            }
            let report = std::env::temp_dir().join(format!("compare-calls-{pid}"));
            let mut command = Command::new(name);
            match tool {
                Tool::Perf => command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter"]),
                Tool::Strace => command.args(["-c", "-f", "-qq", "-U", "calls,name"]),
            };
            command.arg("-o").arg(&report).arg("-p").arg(pid.to_string());
            // Its complaints are of no interest, because the next tool is tried.
            command.stderr(std::process::Stdio::null());
            let mut counter = Counter { tool, process: Helper::start(name, command)?, report };
            if counter.wait_until_attached(pid)? {
                return Ok(Some(counter));
            }
        }
        Ok(None)
    }

    /// Waits until the counter counts. Returns false when it has given up.
    fn wait_until_attached(&mut self, pid: u32) -> Result<bool> {
        let began = Instant::now();
        while began.elapsed() < ATTACH {
            let attached = match self.tool {
                Tool::Perf => has_perf_event(self.process.id()),
                Tool::Strace => is_traced(pid)?,
            };
            if attached {
                thread::sleep(SETTLE);
                return Ok(!self.process.has_ended());
            }
            if self.process.has_ended() {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// Detaches and returns the count.
    pub(super) fn detach(self) -> Result<Calls> {
        self.process.interrupt()?;
        let report = fs::read_to_string(&self.report).context("the counter left no report")?;
        fs::remove_file(&self.report)?;
        Ok(match self.tool {
            Tool::Perf => Calls::Perf(parse_perf(&report)?),
            Tool::Strace => Calls::Strace(parse_strace(&report)?),
        })
    }
}

/// Whether process `pid` has opened a performance counter.
fn has_perf_event(pid: u32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.any(|link| link.to_string_lossy().contains("perf_event"))
}

/// Whether every thread of process `pid` has a tracer.
fn is_traced(pid: u32) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if crate::process::field(&status, "TracerPid:")? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The count is the first field of the line that names the event. It is missing for a process that
/// never ran.
fn parse_perf(report: &str) -> Result<f64> {
    let line = report.lines().find(|line| line.contains("sys_enter"));
    let count = line.and_then(|line| line.split(',').next());
    if count == Some("<not counted>") {
        return Ok(0.0);
    }
    let count = count.and_then(|n| n.parse().ok());
    count.with_context(|| format!("perf reported {report:?}"))
}

/// The count is in the line of totals, which is missing when there was nothing to count.
fn parse_strace(report: &str) -> Result<f64> {
    for line in report.lines() {
        if let [count, "total"] = line.split_whitespace().collect::<Vec<_>>()[..] {
            return Ok(count.parse()?);
        }
    }
    ensure!(report.trim().is_empty(), "strace reported {report:?}");
    Ok(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_understood() {
        let perf = "# started on Mon\n\n143,,raw_syscalls:sys_enter,500,100.00,,\n";
        assert_eq!(parse_perf(perf).unwrap(), 143.0);
        assert_eq!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0,").unwrap(), 0.0);
        let strace = "    calls syscall\n--------- -----\n       12 read\n--------- -----\n       29 total\n";
        assert_eq!(parse_strace(strace).unwrap(), 29.0);
        assert_eq!(parse_strace("").unwrap(), 0.0);
        assert!(parse_perf("").is_err() && parse_strace("no").is_err());
    }
}
