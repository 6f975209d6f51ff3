//! Helper processes: pinned to a core, observed through `/proc`, ended with their parent.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The core of the measured process.
pub const MEASURED_CORE: usize = 0;
/// The core of the load generator.
pub const LOAD_CORE: usize = 1;

/// Makes this process a helper: it runs on `core` alone, and is killed when its parent ends.
///
/// # Errors
///
/// When the kernel refuses, as it does for a core that does not exist.
pub fn become_helper(core: usize) -> Result<()> {
    end_with_parent()?;
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {core} alone"))
}

/// Has this process killed when its parent ends.
///
/// # Errors
///
/// When the kernel refuses.
pub fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// Raises the limit on open files to its maximum, and returns that.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return limit.maximum.unwrap_or(u64::MAX);
    }
    limit.current.unwrap_or(u64::MAX)
}

/// The path of `compare`, which is beside the other program of this package.
///
/// # Errors
///
/// When the path of this program is not known.
pub fn our_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("compare"))
}

/// A child process. The drop kills it and waits for it.
pub struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: mpsc::Receiver<io::Result<String>>,
    what: String,
}

impl Helper {
    /// Runs this program again with other arguments.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn of_ourselves<I, S>(what: &str, arguments: I) -> Result<Helper>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new(our_program()?);
        command.args(arguments);
        Helper::start(what, command)
    }

    /// Runs `command`, which answers with lines on its standard output.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(what: &str, mut command: Command) -> Result<Helper> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        Ok(Helper {
            stdin: child.stdin.take(),
            stdout: lines(stdout),
            child,
            what: what.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is piped")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} has ended", self.what))
    }

    /// Waits for its next line.
    ///
    /// # Errors
    ///
    /// When it ends, or prints nothing for `patience`.
    pub fn read_line(&mut self, patience: Duration) -> Result<String> {
        match self.stdout.recv_timeout(patience) {
            Ok(line) => Ok(line?),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{} said nothing for {} s", self.what, patience.as_secs())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("{} ended early: {status}", self.what)
            }
        }
    }

    /// Waits for its next line, which is JSON.
    ///
    /// # Errors
    ///
    /// As [`Helper::read_line`], and when the line is not of this type.
    pub fn answer<T: for<'de> Deserialize<'de>>(&mut self, patience: Duration) -> Result<T> {
        let line = self.read_line(patience)?;
        serde_json::from_str(&line).with_context(|| format!("{} answered {line:?}", self.what))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Interrupts it, as Ctrl-C does, and waits for its end.
    ///
    /// # Errors
    ///
    /// When it cannot be signalled or waited for.
    pub fn interrupt(mut self) -> Result<()> {
        kill(Pid::from_raw(self.id() as i32), Signal::SIGINT)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread, so that a wait for them can have a timeout.
fn lines(stdout: ChildStdout) -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The resources that a process has used.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time of all its threads, those that have ended included.
    pub cpu: Duration,
    /// How often its live threads have waited.
    pub voluntary_switches: u64,
    /// How often its live threads were preempted.
    pub involuntary_switches: u64,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// Reads the resources that process `pid` has used.
///
/// # Errors
///
/// When there is no such process.
pub fn usage(pid: u32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = field(&status, "VmRSS:")? * 1024;
    let mut usage = Usage { cpu: cpu_time(pid)?, resident, ..Usage::default() };
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        usage.voluntary_switches += field(&status, "voluntary_ctxt_switches:")?;
        usage.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:")?;
    }
    Ok(usage)
}

/// The processor time of process `pid`, with the resolution of nanoseconds. (`/proc/pid/stat` has
/// hundredths of a second.)
///
/// # Errors
///
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32))?;
    Ok(clock.now()?.into())
}

/// The number after `name`, at the start of a line of a `/proc` file.
///
/// # Errors
///
/// When there is no such line.
pub fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).ok_or_else(|| anyhow!("/proc has no {name}"))
}

/// Finds a program on the path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
