//! Children and their pipes.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{ExitStatus, Output};
use crate::engine::blocking::try_offload;
use crate::engine::fd::from_raw_fd;
use crate::engine::park;
use crate::engine::reactor::Interest;
use crate::io::pipe::{
    Pipe, pipe_read_readiness, pipe_reads, pipe_surface, pipe_write_readiness, pipe_writes,
};
use crate::io::source::Source;
use crate::task::{fail_at, gather};

/// A child that was started: [`std::process::Child`].
///
/// Dropping it neither kills the child nor waits for it, as with std's. A child that is never
/// waited for stays a zombie until this process ends.
#[derive(Debug)]
pub struct Child {
    /// Writes to the child's standard input, if that was piped.
    pub stdin: Option<ChildStdin>,
    /// Reads the child's standard output, if that was piped.
    pub stdout: Option<ChildStdout>,
    /// Reads the child's standard error, if that was piped.
    pub stderr: Option<ChildStderr>,
    inner: std::process::Child,
    // Readable when the child has ended. Made by the first wait.
    ended: Option<Source<OwnedFd>>,
}

impl Child {
    /// The child's process id.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Ends the child with `SIGKILL`. Nothing happens when it has been waited for.
    ///
    /// # Errors
    ///
    /// Those of [`std::process::Child::kill`].
    pub fn kill(&mut self) -> io::Result<()> {
        self.inner.kill()
    }

    /// The exit status of the child, if it has ended.
    ///
    /// # Errors
    ///
    /// Those of [`std::process::Child::try_wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.inner.try_wait()?;
        if status.is_some() {
            self.ended = None;
        }
        Ok(status)
    }

    /// Closes the child's standard input, waits for the child to end and returns how it did.
    /// Further calls return the same.
    ///
    /// # Errors
    ///
    /// Those of [`std::process::Child::wait`]: `ECHILD` when it has been waited for elsewhere.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled. The child lives on and can be waited for again,
    /// also by a destructor that has killed it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        // A wait, also when the child has ended already.
        park::check_cancelled();
        park::spend();
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        // It has not been waited for, so the number is not used again yet.
        let Some(pid) = Pid::from_raw(self.inner.id() as i32) else {
            return self.inner.wait();
        };
        if self.ended.is_none() {
            self.ended = pidfd(pid).map(Source::new);
        }
        let status = match &self.ended {
            // A coroutine that unwinds waits for no descriptor, and must not leave a zombie either.
            Some(ended) if !park::is_unwinding() => {
                ended.retry(Interest::Read, |_| match self.inner.try_wait()? {
                    Some(status) => Ok(status),
                    None => Err(io::ErrorKind::WouldBlock.into()),
                })
            }
            _ => {
                // Leaves the child unreaped: a caller that is cancelled here may wait again.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                let wait = move || waitid(WaitId::Pid(pid), options).map(drop);
                try_offload(park::fails_at(), wait)??;
                self.inner.wait()
            }
        }?;
        self.ended = None;
        Ok(status)
    }

    /// Closes the child's standard input, reads its output and errors, as far as they are piped,
    /// both at once, and waits for it to end.
    ///
    /// # Errors
    ///
    /// Those of the reads and of [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// As [`gather`](crate::task::gather), where both are piped.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; the child lives on, and its pipes are closed.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        fn drain(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
        }
        drop(self.stdin.take());
        let (stdout, stderr) = match (self.stdout.take(), self.stderr.take()) {
            (Some(stdout), Some(stderr)) => {
                // A deadline of the caller's is not that of the coroutines that read.
                let fails_at = park::fails_at();
                // The two types differ, and `gather` takes functions of one.
                let pipes = [stdout.0, stderr.0].map(|pipe| {
                    let drain = move || drain(Some(ChildStdout(pipe)));
                    move || match fails_at {
                        Some(deadline) => fail_at(deadline, drain),
                        None => drain(),
                    }
                });
                let mut both = gather(pipes).into_iter();
                let mut next = || both.next().unwrap_or_else(|| Ok(Vec::new()));
                (next()?, next()?)
            }
            (stdout, stderr) => (drain(stdout)?, drain(stderr)?),
        };
        Ok(Output { status: self.wait()?, stdout, stderr })
    }
}

/// A descriptor that is readable when this child has ended.
#[cfg(target_os = "linux")]
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_pid: Pid) -> Option<OwnedFd> {
    None
}

/// Takes a child of std's, whose pipes are put in non-blocking mode at this end.
impl From<std::process::Child> for Child {
    fn from(mut inner: std::process::Child) -> Self {
        Self {
            stdin: inner.stdin.take().map(ChildStdin::from),
            stdout: inner.stdout.take().map(ChildStdout::from),
            stderr: inner.stderr.take().map(ChildStderr::from),
            inner,
            ended: None,
        }
    }
}

macro_rules! pipe {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// # Cancellation
        ///
        /// A call unwinds while it waits; a call that has moved data returns.
        #[derive(Debug)]
        pub struct $name(Pipe);

        pipe_surface!($name);

        /// Takes this end of a pipe and puts it in non-blocking mode.
        impl From<std::process::$name> for $name {
            fn from(pipe: std::process::$name) -> Self {
                Self::from(OwnedFd::from(pipe))
            }
        }
    };
}

pipe! {
    /// Writes to the standard input of a child, which sees the end when this is dropped.
    ChildStdin
}

pipe! {
    /// Reads the standard output of a child.
    ChildStdout
}

pipe! {
    /// Reads the standard error of a child.
    ChildStderr
}

from_raw_fd!(ChildStdin, ChildStdout, ChildStderr);
pipe_read_readiness!(ChildStdout, ChildStderr);
pipe_write_readiness!(ChildStdin);
pipe_writes!(ChildStdin);
pipe_writes!(&ChildStdin);
pipe_reads!(ChildStdout);
pipe_reads!(ChildStderr);
