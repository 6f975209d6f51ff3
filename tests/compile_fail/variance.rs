//! A type that may change the values behind it must not take shorter lifetimes for longer ones.

use plainsong::generator::{Generator, Yielder};
use plainsong::sync::{self, channel};
use plainsong::{Scope, ScopedJoinHandle};

fn a_mutex<'a>(long: &'a sync::Mutex<&'static str>) -> &'a sync::Mutex<&'a str> {
    long //~ -
}

fn its_guard<'a>(long: sync::MutexGuard<'a, &'static str>) -> sync::MutexGuard<'a, &'a str> {
    long //~ -
}

fn its_owned_guard<'a>(long: sync::OwnedMutexGuard<&'static str>) -> sync::OwnedMutexGuard<&'a str> {
    long //~ -
}

/// The address of a key stands for one type.
fn a_key_of_a_local(
    any: &'static plainsong::LocalKey<fn(&str)>,
) -> &'static plainsong::LocalKey<fn(&'static str)> {
    any //~ E0308
}

fn a_rwlock<'a>(long: &'a sync::RwLock<&'static str>) -> &'a sync::RwLock<&'a str> {
    long //~ -
}

fn its_guard_for_writing<'a>(
    long: sync::RwLockWriteGuard<'a, &'static str>,
) -> sync::RwLockWriteGuard<'a, &'a str> {
    long //~ -
}

fn its_owned_guard_for_writing<'a>(
    long: sync::OwnedRwLockWriteGuard<&'static str>,
) -> sync::OwnedRwLockWriteGuard<&'a str> {
    long //~ -
}

fn a_reentrant_mutex_does_not_change_what_it_guards<'a>(
    short: sync::ReentrantMutexGuard<'a, &'a str>,
) -> sync::ReentrantMutexGuard<'a, &'static str> {
    short //~ -
}

fn a_once<'a>(long: &'a sync::OnceLock<&'static str>) -> &'a sync::OnceLock<&'a str> {
    long //~ -
}

fn a_promise<'a>(long: sync::Promise<&'static str>) -> sync::Promise<&'a str> {
    long //~ -
}

fn a_sender<'a>(long: channel::Sender<&'static str>) -> channel::Sender<&'a str> {
    long //~ -
}

fn a_receiver<'a>(short: channel::Receiver<&'a str>) -> channel::Receiver<&'static str> {
    short //~ -
}

fn a_queue<'a>(long: &'a sync::Queue<&'static str>) -> &'a sync::Queue<&'a str> {
    long //~ -
}

fn a_scope<'a>(long: &'a Scope<'static, 'static>) -> &'a Scope<'a, 'a> {
    long //~ -
}

fn a_handle<'a>(short: ScopedJoinHandle<'a, i32>) -> ScopedJoinHandle<'static, i32> {
    short //~ -
}

fn a_generator<'a>(long: Generator<i32, &'static str>) -> Generator<i32, &'a str> {
    long //~ -
}

fn a_yielder<'a>(long: Yielder<&'static str>) -> Yielder<&'a str> {
    long //~ -
}
