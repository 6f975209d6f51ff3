//! `CommandExt`, which std keeps for its own `Command`.

#![allow(unsafe_code)]

use ::std::ffi::OsStr;
use ::std::io;
use ::std::os::unix::process::CommandExt as Std;

use ::plainsong::process::Command;

/// [`std::os::unix::process::CommandExt`](trait@::std::os::unix::process::CommandExt), for the
/// [`Command`] of this crate.
pub trait CommandExt: sealed::Sealed {
    /// Sets the user of the child.
    fn uid(&mut self, id: u32) -> &mut Command;

    /// Sets the group of the child.
    fn gid(&mut self, id: u32) -> &mut Command;

    /// Has the child call `f` before it becomes the program.
    ///
    /// # Safety
    ///
    /// `f` runs between `fork` and `exec`, with the rules of std's `pre_exec`. It must not wait for
    /// anything of this crate.
    unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static;

    /// Replaces this process with the program. Returns only on failure.
    fn exec(&mut self) -> io::Error;

    /// Sets the name that the child sees as its own.
    fn arg0<S>(&mut self, arg: S) -> &mut Command
    where
        S: AsRef<OsStr>;

    /// Puts the child in a process group, of its own for 0.
    fn process_group(&mut self, pgroup: i32) -> &mut Command;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for ::plainsong::process::Command {}
}

impl CommandExt for Command {
    fn uid(&mut self, id: u32) -> &mut Command {
        self.uid(id)
    }

    fn gid(&mut self, id: u32) -> &mut Command {
        self.gid(id)
    }

    /// # Safety
    ///
    /// That of the trait.
    unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        // SAFETY: by the caller's promise.
        unsafe { Std::pre_exec(self.as_std_mut(), f) };
        self
    }

    fn exec(&mut self) -> io::Error {
        self.exec()
    }

    fn arg0<S>(&mut self, arg: S) -> &mut Command
    where
        S: AsRef<OsStr>,
    {
        self.arg0(arg)
    }

    fn process_group(&mut self, pgroup: i32) -> &mut Command {
        self.process_group(pgroup)
    }
}
