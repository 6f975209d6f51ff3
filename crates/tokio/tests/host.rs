//! Hosts that end early, or do not do as they should: the coroutines run on.

use std::mem;
use std::task::Waker;
use std::time::Duration;

use plainsong::Runtime;
use plainsong::host::{self, Next};

/// Waits, so that a loop has to go on after its host.
fn program() -> u32 {
    let child = plainsong::spawn(|| plainsong::time::sleep(Duration::from_millis(5)));
    plainsong::time::sleep(Duration::from_millis(1));
    child.join().unwrap();
    7
}

#[test]
fn a_worker_goes_on_when_its_host_has_returned() {
    let runtime = Runtime::default();
    assert_eq!(host::run(&runtime, |_guest| (), program), 7);
    let one_slice = |mut guest: host::Guest<'_>| {
        assert!(matches!(guest.run_for(Duration::ZERO, Waker::noop()), Next::Wait(Some(_))));
    };
    assert_eq!(host::run(&runtime, one_slice, program), 7);
    let forgets = |mut guest: host::Guest<'_>| {
        guest.run_for(Duration::ZERO, Waker::noop());
        mem::forget(guest);
    };
    assert_eq!(host::run(&runtime, forgets, program), 7);
    assert_eq!(runtime.run(program), 7);
}
