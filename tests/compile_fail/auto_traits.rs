//! Values that must stay on their thread, or must not be shared.

use std::cell::Cell;
use std::rc::Rc;

use plainsong::sync::{self, channel};
use plainsong::{generator, io, net, pool, process, time};

fn send<T: Send>(_: T) {}
fn sync<T: Sync>(_: &T) {}

type Local = Rc<i32>;

fn guards_are_given_back_by_the_coroutine_that_took_them(
    mutex: sync::MutexGuard<'static, i32>,
    owned: sync::OwnedMutexGuard<i32>,
    read: sync::RwLockReadGuard<'static, i32>,
    owned_read: sync::OwnedRwLockReadGuard<i32>,
    write: sync::RwLockWriteGuard<'static, i32>,
    owned_write: sync::OwnedRwLockWriteGuard<i32>,
    reentrant: sync::ReentrantMutexGuard<'static, i32>,
    stdout: io::StdoutLock<'static>,
    stderr: io::StderrLock<'static>,
    stdin: io::StdinLock<'static>,
    seen: channel::watch::Ref<'static, i32>,
) {
    send(mutex); //~ E0277
    send(owned); //~ E0277
    send(read); //~ E0277
    send(owned_read); //~ E0277
    send(write); //~ E0277
    send(owned_write); //~ E0277
    send(reentrant); //~ E0277
    send(stdout); //~ E0277
    send(stderr); //~ E0277
    send(stdin); //~ E0277
    send(seen); //~ E0277
}

fn a_shared_guard_shares_the_value(
    mutex: sync::MutexGuard<'static, Cell<i32>>,
    owned: sync::OwnedMutexGuard<Cell<i32>>,
    write: sync::RwLockWriteGuard<'static, Cell<i32>>,
    owned_write: sync::OwnedRwLockWriteGuard<Cell<i32>>,
    reentrant: sync::ReentrantMutexGuard<'static, Cell<i32>>,
) {
    sync(&mutex); //~ E0277
    sync(&owned); //~ E0277
    sync(&write); //~ E0277
    sync(&owned_write); //~ E0277
    sync(&reentrant); //~ E0277
}

fn a_shared_lock_moves_or_shares_the_value(
    mutex: sync::Mutex<Local>,
    reentrant: sync::ReentrantMutex<Local>,
    rwlock: sync::RwLock<Cell<i32>>,
    once: sync::OnceLock<Cell<i32>>,
    lazy: sync::LazyLock<Cell<i32>>,
    promise: sync::Promise<Cell<i32>>,
    queue: sync::Queue<Local>,
) {
    sync(&mutex); //~ E0277
    sync(&reentrant); //~ E0277
    sync(&rwlock); //~ E0277
    sync(&once); //~ E0277
    sync(&lazy); //~ E0277
    sync(&promise); //~ E0277
    sync(&queue); //~ E0277
    send(mutex); //~ E0277
    send(queue); //~ E0277
}

fn handles_and_channels_carry_values_between_threads(
    handle: plainsong::JoinHandle<Local>,
    thread: plainsong::thread::JoinHandle<Local>,
    sender: channel::Sender<Local>,
    receiver: channel::Receiver<Local>,
    one: channel::oneshot::Sender<Local>,
    all: channel::broadcast::Receiver<Local>,
    std_sender: sync::mpsc::Sender<Local>,
    results: pool::Map<Local>,
) {
    send(handle); //~ E0277
    send(thread); //~ E0277
    send(sender); //~ E0277
    send(receiver); //~ E0277
    send(one); //~ E0277
    send(all); //~ E0277
    send(std_sender); //~ E0277
    send(results); //~ E0277
}

fn as_in_std_a_receiver_of_mpsc_is_not_shared(receiver: sync::mpsc::Receiver<i32>) {
    sync(&receiver); //~ E0277
}

fn a_generator_is_a_stack_of_its_thread(generator: generator::Generator<i32>) {
    sync(&generator); //~ E0277
    send(generator); //~ E0277
}

fn a_yielder_suspends_its_own_body(yielder: generator::Yielder<i32>) {
    send(yielder); //~ E0277
}

fn a_call_for_later_is_known_to_its_thread(timer: time::Timer) {
    sync(&timer); //~ E0277
    send(timer); //~ E0277
}

fn a_coroutine_for_any_worker_is_send() {
    let count = Rc::new(1);
    plainsong::spawn_anywhere(move || *count + 1); //~ E0277
}

fn and_so_is_its_result() {
    plainsong::spawn_anywhere(|| Rc::new(1)); //~ E0277
}

fn and_what_a_plain_thread_spawns(handle: plainsong::Handle) {
    let shared = Rc::new(1);
    handle.spawn(move || *shared + 1); //~ E0277
}

fn and_a_scoped_one(numbers: Rc<[i32]>) {
    plainsong::scope(|s| {
        s.spawn_anywhere(|| numbers.len()); //~ E0277
    });
}

fn jobs_of_a_pool_are_send(pool: &pool::Pool) {
    let shared = Rc::new(1);
    pool.submit(move || *shared); //~ E0277
}

fn a_call_on_another_thread_is_send() {
    let shared = Rc::new(1);
    plainsong::blocking(|| *shared); //~ E0277
}
