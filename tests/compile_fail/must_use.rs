//! Values that do nothing, or undo their work, when they are ignored.

use std::time::Duration;

use plainsong::net::{Server, TcpListener};
use plainsong::sync::{self, channel};
use plainsong::{Builder, JoinHandle, Runtime, time};

async fn futures(handle: JoinHandle<i32>, receiver: channel::Receiver<i32>) {
    handle.into_future(); //~ -: a future does nothing unless it is awaited
    receiver.into_future(); //~ -: a future does nothing unless it is awaited
}

fn guards(
    mutex: sync::Mutex<i32>,
    rwlock: sync::RwLock<i32>,
    reentrant: sync::ReentrantMutex<i32>,
    semaphore: sync::Semaphore,
    watched: channel::watch::Receiver<i32>,
) {
    mutex.lock().unwrap(); //~ -: the mutex is unlocked when the guard is dropped
    rwlock.read().unwrap(); //~ -: the lock is given back when the guard is dropped
    rwlock.write().unwrap(); //~ -: the lock is given back when the guard is dropped
    reentrant.lock(); //~ -: the lock is given back when the guard is dropped
    semaphore.acquire().unwrap(); //~ -: the permits are given back when this is dropped
    watched.borrow(); //~ -: the lock is given back when the guard is dropped
    plainsong::io::stdout().lock(); //~ -: the lock is given back when the guard is dropped
    plainsong::io::stdin().lock(); //~ -: the lock is given back when the guard is dropped
}

fn builders(listener: TcpListener) {
    Builder::new().name("one"); //~ -: a builder does nothing until `spawn`
    plainsong::thread::Builder::new(); //~ -: a builder does nothing until `spawn`
    Runtime::builder().workers(2); //~ -: a builder does nothing until `build`
    Server::new(listener).grace(Duration::ZERO); //~ -: a server does nothing until `serve`
}

fn iterators(listener: &TcpListener, handles: Vec<JoinHandle<i32>>) {
    listener.incoming(); //~ -: an iterator does nothing unless it is used
    plainsong::task::as_completed(handles); //~ -: an iterator does nothing unless it is used
    plainsong::generator::Generator::<i32>::new(|_| ()); //~ -: a generator does nothing until it is resumed
}

fn results(event: &sync::Event, child: JoinHandle<i32>, sender: &channel::Sender<i32>) {
    event.wait_timeout(Duration::ZERO); //~ -: it may not have been set
    time::now(); //~ -
    plainsong::current(); //~ -
    child.thread().id(); //~ -
    sender.send(1); //~ -
    time::timeout(Duration::ZERO, || 1); //~ -
    child.join(); //~ -
}

fn as_in_std_a_coroutine_may_be_detached() {
    plainsong::spawn(|| 1);
    time::after(Duration::ZERO, || ());
}
