//! Processes under std's names: waiting for a child or its pipes parks only the coroutine.
//!
//! Names, signatures, errors and behaviour are those of [`std::process`]. Each child is awaited
//! through a descriptor of its own (pidfd), so no handler for `SIGCHLD` is needed. On kernels
//! without such descriptors, a thread of the blocking pool waits.
//!
//! [`Command::spawn`] runs on the calling thread and takes about a millisecond. On another thread,
//! the child would inherit the wrong thread's attributes, and a parent-death signal would be wrong.
//!
//! ```
//! use std::io::{Read, Write};
//! use plainsong::process::{Command, Stdio};
//!
//! # fn main() -> std::io::Result<()> {
//! plainsong::run(|| {
//!     let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//!     child.stdin.take().unwrap().write_all(b"plainsong")?; // and closes it
//!     let mut text = String::new();
//!     child.stdout.take().unwrap().read_to_string(&mut text)?;
//!     assert_eq!(text, "plainsong");
//!     assert!(child.wait()?.success());
//!     Ok(())
//! })
//! # }
//! ```

mod child;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;

pub use self::child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use std::process::{
    CommandArgs, CommandEnvs, ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id,
};

/// A program to be started: [`std::process::Command`].
///
/// Other options can be set on the [command of std's](Self::as_std_mut) that this one wraps, such
/// as `pre_exec`, which is unsafe. This one can be [made](From) of one of std's, too. Redirections
/// of that one are not visible here, so [`output`](Self::output) captures the streams that are not
/// redirected on this command.
pub struct Command {
    inner: std::process::Command,
    // Whether each of the three standard streams has been redirected.
    redirected: [bool; 3],
}

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident = $at:literal;)*) => {$(
        $(#[$doc])*
        pub fn $name<T: Into<Stdio>>(&mut self, to: T) -> &mut Self {
            self.inner.$name(to);
            self.redirected[$at] = true;
            self
        }
    )*};
}

impl Command {
    /// A command to run `program`, found as the shell would find it, without arguments.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Self {
        std::process::Command::new(program).into()
    }

    /// Adds an argument.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(&mut self, args: I) -> &mut Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.inner.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, value: V) -> &mut Self {
        self.inner.env(key, value);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.inner.envs(vars);
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Self {
        self.inner.env_remove(key);
        self
    }

    /// Removes all variables from the child's environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.inner.env_clear();
        self
    }

    /// Sets the child's working directory.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Self {
        self.inner.current_dir(dir);
        self
    }

    streams! {
        /// Redirects the child's standard input.
        stdin = 0;
        /// Redirects the child's standard output.
        stdout = 1;
        /// Redirects the child's standard error.
        stderr = 2;
    }

    /// Sets the user of the child: [`CommandExt::uid`].
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.inner.uid(id);
        self
    }

    /// Sets the group of the child: [`CommandExt::gid`].
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.inner.gid(id);
        self
    }

    /// Sets the name that the child sees as its own: [`CommandExt::arg0`].
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg0(arg);
        self
    }

    /// Puts the child in a process group, of its own for 0: [`CommandExt::process_group`].
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.inner.process_group(group);
        self
    }

    /// The command of std's that this one wraps, for options that it has and this one has not.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.inner
    }

    /// Replaces this process with the program: [`CommandExt::exec`]. Returns only on failure, and
    /// then, as with std, `SIGPIPE` and other settings of the process may have changed.
    pub fn exec(&mut self) -> io::Error {
        self.inner.exec()
    }

    /// Starts the child. Its standard streams are this process's, where not redirected.
    ///
    /// # Errors
    ///
    /// Those of [`std::process::Command::spawn`].
    pub fn spawn(&mut self) -> io::Result<Child> {
        self.inner.spawn().map(Child::from)
    }

    /// Starts the child, waits for it to end, and returns its exit status.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and of [`Child::wait`].
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; the child lives on.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Starts the child, waits for it to end, and returns its output and errors. They are captured
    /// unless they are redirected, and its input is empty unless redirected.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and of [`Child::wait_with_output`].
    ///
    /// # Panics
    ///
    /// As [`Child::wait_with_output`].
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; the child lives on, and its pipes are closed.
    ///
    /// ```
    /// use plainsong::process::Command;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// plainsong::run(|| {
    ///     let output = Command::new("echo").arg("plainsong").output()?;
    ///     assert_eq!(output.stdout, b"plainsong\n");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn output(&mut self) -> io::Result<Output> {
        let [stdin, stdout, stderr] = self.redirected;
        self.redirect_rest([stdin, stdout, stderr], [Stdio::null, Stdio::piped, Stdio::piped]);
        let child = self.spawn();
        // For the next `spawn`.
        self.redirect_rest([stdin, stdout, stderr], [Stdio::inherit; 3]);
        child?.wait_with_output()
    }

    fn redirect_rest(&mut self, redirected: [bool; 3], to: [fn() -> Stdio; 3]) {
        let set = [
            std::process::Command::stdin::<Stdio>,
            std::process::Command::stdout::<Stdio>,
            std::process::Command::stderr::<Stdio>,
        ];
        for ((redirected, to), set) in redirected.into_iter().zip(to).zip(set) {
            if !redirected {
                set(&mut self.inner, to());
            }
        }
    }

    /// The program.
    pub fn get_program(&self) -> &OsStr {
        self.inner.get_program()
    }

    /// The arguments.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.inner.get_args()
    }

    /// The variables that are set or removed.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.inner.get_envs()
    }

    /// The working directory, if one is set.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.inner.get_current_dir()
    }
}

/// The command line, as std's has it.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl From<std::process::Command> for Command {
    fn from(inner: std::process::Command) -> Self {
        Self { inner, redirected: [false; 3] }
    }
}

impl From<Command> for std::process::Command {
    fn from(command: Command) -> Self {
        command.inner
    }
}
