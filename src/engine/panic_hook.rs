//! A panic hook that runs before the program's own: it notes which coroutine panics, and names it.
//!
//! std counts panics per thread, and its count cannot be read. While one coroutine is suspended in
//! the middle of an unwind, the count is above zero for all coroutines of the thread. Then only the
//! hook can tell that another one begins to panic. `scheduler/unwinding.rs` depends on this.
//!
//! The hook is installed when the first run of the process begins, and calls the previous hook. A
//! hook that the program sets later replaces it. Then a panic that begins while another coroutine
//! of the thread is suspended in an unwind is not recognised.

use std::cell::Cell;
use std::io::{self, Write};
use std::panic;
use std::sync::Once;
use std::thread;

use super::context::{self, Running};
use super::task::Flag;

thread_local! {
    // How many panics have begun on this thread since the hook was installed.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

static INSTALLED: Once = Once::new();

/// Whether panics are counted.
pub(crate) fn is_installed() -> bool {
    INSTALLED.is_completed()
}

/// How many panics the hook has seen on this thread.
pub(crate) fn panics() -> u64 {
    PANICS.try_with(Cell::get).unwrap_or(0)
}

/// Installs the hook, once per process. Does nothing on a panicking thread, because std does not
/// allow it there. Nor in the model, which panics where none of its primitives may be used.
pub(crate) fn install() {
    if thread::panicking() || cfg!(plainsong_model) {
        return;
    }
    INSTALLED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let _ = PANICS.try_with(|panics| panics.set(panics.get() + 1));
            context::running(|running| {
                if let Some(running) = running {
                    note(running);
                }
            });
            next(info);
        }));
    });
}

/// Notes that the running coroutine panics. Must neither wait nor panic.
fn note(running: Running<'_>) {
    let Running { scheduler, task } = running;
    scheduler.note_panic(task);
    // For the main coroutine, std's message is enough.
    if !task.flags.has(Flag::Main) {
        let name = task.name().map_or("<unnamed>", |name| name);
        let (id, spawned) = (task.id, task.spawned);
        let _ = writeln!(
            io::stderr(),
            "\nplainsong: coroutine {id} '{name}', spawned at {spawned}, panics:"
        );
    }
}
