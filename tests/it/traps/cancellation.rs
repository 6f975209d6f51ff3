//! Cancels each operation that waits, in each way; and a program, at each of its waits.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread as system;
use std::time::{Duration, Instant};

use plainsong::generator::Generator;
use plainsong::io::{
    Interest, Pollable, stderr, stdin, stdout, wait_readable, wait_ready, wait_writable,
};
use plainsong::net::{Server, TcpStream, ToSocketAddrs};
use plainsong::pool::Pool;
use plainsong::process::{ChildStdin, ChildStdout, Command, Stdio};
use plainsong::signal::{SIGUSR2, Signals};
use plainsong::sync::select::Select;
use plainsong::sync::{
    Barrier, Condvar, Event, LazyLock, Mutex, Once, OnceLock, Promise, Queue, ReentrantMutex,
    RwLock, Semaphore, WaitGroup, broadcast, channel, mpsc, oneshot, watch,
};
use plainsong::time::{fail_after, fail_at, interval, sleep, sleep_until, timeout, timeout_at};
use plainsong::{CancellationToken, JoinError, JoinHandle, net, select, task, thread};

use crate::util::{
    self, Folder, HOUR, MOMENT, OnDrop, alone, descriptors, full_listener, listen, mappings, pair,
    panic_of, spawn_with_handle, until, until_parked,
};

fn sleeper() -> JoinHandle<()> {
    plainsong::spawn(|| sleep(Duration::MAX))
}

fn udp() -> net::UdpSocket {
    net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn datagrams() -> (net::UnixDatagram, net::UnixDatagram) {
    net::UnixDatagram::pair().unwrap()
}

/// A name that no other socket has.
fn name() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("plainsong-cancelled-{}-{count}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn unix_listener() -> (SocketAddr, net::UnixListener) {
    let address = name();
    let listener = net::UnixListener::bind_addr(&address).unwrap();
    (address, listener)
}

fn ignore<T>(_: T) {}

/// Keeps both ends of a channel.
fn held<S, R>(ends: (S, R)) -> Box<(S, R)> {
    Box::new(ends)
}

/// Writes until it must wait.
fn fill(stream: &TcpStream) -> ! {
    loop {
        (&*stream).write_all(&[0; 65536]).unwrap();
    }
}

/// An address whose look-up takes until it is cancelled.
struct Nowhere;

impl ToSocketAddrs for Nowhere {
    type Iter = std::iter::Empty<std::net::SocketAddr>;

    fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
        sleep(HOUR);
        unreachable!("slept an hour");
    }
}

/// A child process that ends with its input.
fn cat() -> Command {
    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::null());
    cat
}

/// A child process whose input does not end before the pipe is dropped.
fn cat_of_a_pipe() -> (std::io::PipeWriter, Command) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut cat = cat();
    cat.stdin(reader);
    (writer, cat)
}

/// A pool with one worker, which works for ever.
fn busy_pool() -> Pool {
    let pool = Pool::coroutines(1).unwrap();
    drop(pool.submit(|| sleep(HOUR)));
    pool
}

/// Every operation whose documentation has a section `# Cancellation`, made to wait for ever. A row
/// has the name of the documented item, and behind a comma whatever tells it from other rows of
/// that name.
#[allow(deprecated)]
const OPERATIONS: &[(&str, fn())] = &[
    ("time::sleep", || sleep(HOUR)),
    ("time::sleep, for ever", || sleep(Duration::MAX)),
    ("time::sleep, as thread::sleep", || thread::sleep(HOUR)),
    ("thread::sleep_ms", || thread::sleep_ms(3_600_000)),
    ("thread::park_timeout_ms", || thread::park_timeout_ms(3_600_000)),
    ("time::sleep_until", || sleep_until(Instant::now() + HOUR)),
    ("time::Interval::tick", || {
        let mut ticks = interval(HOUR);
        ticks.tick();
        ticks.tick();
    }),
    ("task::park", || {
        loop {
            thread::park();
        }
    }),
    ("task::park_timeout", || thread::park_timeout(HOUR)),
    ("thread::JoinHandle::join", || thread::spawn(|| sleep(HOUR)).join().unwrap()),
    ("task::JoinHandle::join", || sleeper().join().unwrap()),
    ("task::JoinHandle::join_timeout", || drop(sleeper().join_timeout(HOUR))),
    ("task::join_all", || drop(task::join_all([sleeper(), sleeper()]))),
    ("task::wait", || drop(task::wait([sleeper(), sleeper()], Some(HOUR)))),
    ("task::AsCompleted::next", || drop(task::as_completed([sleeper(), sleeper()]).next())),
    ("task::gather", || drop(task::gather([HOUR, HOUR].map(|time| move || sleep(time))))),
    ("task::race", || task::race([HOUR, HOUR].map(|time| move || sleep(time)))),
    ("task::scope, at its end", || {
        plainsong::scope(|s| drop(s.spawn(|| sleep(HOUR))));
    }),
    ("task::scope, in its body", || {
        plainsong::scope(|s| {
            s.spawn(|| sleep(HOUR));
            sleep(HOUR);
        });
    }),
    ("task::scope, in a generator", || {
        let body = |_: &_| plainsong::scope(|s| s.spawn(|| sleep(HOUR)).join().unwrap());
        ignore(Generator::<()>::new(body).next());
    }),
    ("task::ScopedJoinHandle::join", || {
        plainsong::scope(|s| s.spawn(|| sleep(HOUR)).join().unwrap());
    }),
    ("task::ScopedJoinHandle::join_timeout", || {
        plainsong::scope(|s| drop(s.spawn(|| sleep(HOUR)).join_timeout(HOUR)));
    }),
    ("task::CancellationToken::cancelled", || CancellationToken::new().cancelled()),
    ("task::CancellationToken::run_until_cancelled", || {
        CancellationToken::new().run_until_cancelled(|| sleep(HOUR));
    }),
    ("task::timeout", || ignore(timeout(Duration::MAX, || sleep(HOUR)))),
    ("task::fail_after", || fail_after(HOUR, || sleep(HOUR))),
    ("task::fail_after, for ever", || fail_after(Duration::MAX, || sleep(HOUR))),
    ("task::fail_at", || fail_at(Instant::now() + HOUR, || ignore((pair().0).read(&mut [0])))),
    ("task::timeout_at", || ignore(timeout_at(Instant::now() + HOUR, || sleep(HOUR)))),
    ("plainsong::block_on_with", || {
        plainsong::block_on_with(|| (), std::future::pending::<()>());
    }),
    ("plainsong::block_on", || plainsong::block_on(std::future::pending::<()>())),
    ("generator::Generator::send", || {
        ignore(Generator::<(), u8>::new(|_: &_| sleep(HOUR)).send(1));
    }),
    ("generator::Generator::send, as next", || {
        ignore(Generator::<()>::new(|_: &_| sleep(HOUR)).next());
    }),
    ("pool::Map::next", || ignore(busy_pool().map([1], |n| n).next().is_some())),
    ("pool::Pool::shutdown", || busy_pool().shutdown()),
    ("signal::Signals::wait", || drop(Signals::new([SIGUSR2]).unwrap().wait())),
    ("signal::ctrl_c", || drop(plainsong::signal::ctrl_c())),
    ("process::Child::wait", || {
        let mut child = cat().spawn().unwrap();
        let _input = child.stdin.take();
        drop(child.wait());
    }),
    ("process::Child::wait_with_output", || {
        let mut child = cat().spawn().unwrap();
        let _input = child.stdin.take();
        drop(child.wait_with_output());
    }),
    ("process::Command::status", || {
        let (_input, mut cat) = cat_of_a_pipe();
        drop(cat.status());
    }),
    ("process::Command::output", || {
        let (_input, mut cat) = cat_of_a_pipe();
        drop(cat.output());
    }),
    ("process::ChildStdout, read", || {
        let (reader, _writer) = std::io::pipe().unwrap();
        drop(ChildStdout::from(OwnedFd::from(reader)).read(&mut [0]));
    }),
    ("process::ChildStdin, write", || {
        let (_reader, writer) = std::io::pipe().unwrap();
        let mut writer = ChildStdin::from(OwnedFd::from(writer));
        while writer.write(&[0; 4096]).is_ok() {}
    }),
    ("io::wait_readable", || {
        let (_one, two) = UnixStream::pair().unwrap();
        drop(wait_readable(&two));
    }),
    ("io::wait_ready", || {
        let (_one, two) = UnixStream::pair().unwrap();
        drop(wait_ready(&two, Interest::READABLE));
    }),
    ("plainsong::offload", || {
        let (_sender, receiver) = std::sync::mpsc::channel::<()>();
        // The cancellation drops the sender, and so the call ends.
        ignore(plainsong::offload(move || receiver.recv()));
    }),
    ("plainsong::select!, for a socket", || {
        let ((ours, _theirs), (listener, _)) = (pair(), listen());
        select! {
            readable(ours) => {}
            accept(listener) -> _ => {}
        }
    }),
    ("io::wait_writable", || {
        let (one, _two) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        while (&one).write(&[0; 4096]).is_ok() {}
        drop(wait_writable(&one));
    }),
    ("io::Pollable::read_with", || {
        let (_one, two) = UnixStream::pair().unwrap();
        drop(Pollable::new(two).unwrap().read_with(|mut two| two.read(&mut [0])));
    }),
    ("io::Pollable::read_with, as read", || {
        let (_one, two) = UnixStream::pair().unwrap();
        drop(Pollable::new(two).unwrap().read(&mut [0]));
    }),
    ("io::Pollable::write_with", || {
        let (_one, two) = UnixStream::pair().unwrap();
        let two = Pollable::new(two).unwrap();
        while two.write_with(|mut two| two.write(&[0; 4096])).is_ok() {}
    }),
    ("io::copy", || {
        let (ours, _theirs) = pair();
        drop(plainsong::io::copy(&mut &ours, &mut &ours));
    }),
    ("io::Stdin::lock", || {
        let _held = stdin().lock();
        task::gather([|| drop(stdin().lock())]);
    }),
    ("io::Stdin::read_line", || drop(stdin().read_line(&mut String::new()))),
    ("io::Stdin::lines", || drop(stdin().lines().next())),
    ("io::Stdout::lock", || {
        let _held = stdout().lock();
        task::gather([|| drop(stdout().lock())]);
    }),
    ("io::Stderr::lock", || {
        let _held = stderr().lock();
        task::gather([|| drop(stderr().lock())]);
    }),
    ("net::ToSocketAddrs", || drop(TcpStream::connect(Nowhere))),
    ("net::TcpListener::accept", || drop(listen().0.accept())),
    ("net::TcpListener::accept, by incoming", || drop(listen().0.incoming().next())),
    ("net::TcpStream::connect", || {
        let (_listener, address, _clients) = full_listener();
        drop(TcpStream::connect(address));
    }),
    ("net::TcpStream::connect_timeout", || {
        let (_listener, address, _clients) = full_listener();
        drop(TcpStream::connect_timeout(&address, HOUR));
    }),
    ("net::TcpStream, read", || {
        let (mut ours, _theirs) = pair();
        drop(ours.read(&mut [0]));
    }),
    ("net::TcpStream, read with a time-out", || {
        let (mut ours, _theirs) = pair();
        ours.set_read_timeout(Some(HOUR)).unwrap();
        drop(ours.read(&mut [0]));
    }),
    ("net::TcpStream, write", || {
        let (ours, _theirs) = pair();
        fill(&ours);
    }),
    ("net::TcpStream::peek", || {
        let (ours, _theirs) = pair();
        drop(ours.peek(&mut [0]));
    }),
    ("net::UdpSocket::bind", || drop(net::UdpSocket::bind(Nowhere))),
    ("net::UdpSocket::connect", || drop(udp().connect(Nowhere))),
    ("net::UdpSocket::send_to", || drop(udp().send_to(&[0], Nowhere))),
    ("net::UdpSocket, recv with a time-out", || {
        let socket = udp();
        socket.set_read_timeout(Some(HOUR)).unwrap();
        drop(socket.recv(&mut [0]));
    }),
    ("net::UdpSocket::recv", || drop(udp().recv(&mut [0]))),
    ("net::UdpSocket::recv_from", || drop(udp().recv_from(&mut [0]))),
    ("net::UdpSocket::peek", || drop(udp().peek(&mut [0]))),
    ("net::UdpSocket::peek_from", || drop(udp().peek_from(&mut [0]))),
    ("net::UnixListener::accept", || drop(unix_listener().1.accept())),
    ("net::UnixListener::accept, by incoming", || drop(unix_listener().1.incoming().next())),
    ("net::UnixStream::connect", || {
        let folder = Folder::new();
        let path = folder.join("full");
        let listener = net::UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _clients: [_; 2] = [(); 2].map(|()| net::UnixStream::connect(&path));
    }),
    ("net::UnixStream::connect_addr", || {
        let (address, listener) = unix_listener();
        rustix::net::listen(&listener, 0).unwrap();
        let _clients: [_; 2] = [(); 2].map(|()| net::UnixStream::connect_addr(&address));
    }),
    ("net::UnixStream, read", || {
        let (mut one, _two) = net::UnixStream::pair().unwrap();
        drop(one.read(&mut [0]));
    }),
    ("net::UnixStream, write", || {
        let (mut one, _two) = net::UnixStream::pair().unwrap();
        while one.write(&[0; 4096]).is_ok() {}
    }),
    ("net::UnixStream::peek", || {
        let (one, _two) = net::UnixStream::pair().unwrap();
        drop(one.peek(&mut [0]));
    }),
    ("net::UnixDatagram, recv with a time-out", || {
        let (one, _two) = datagrams();
        one.set_read_timeout(Some(HOUR)).unwrap();
        drop(one.recv(&mut [0]));
    }),
    ("net::UnixDatagram::recv", || drop(datagrams().0.recv(&mut [0]))),
    ("net::UnixDatagram::recv_from", || drop(datagrams().0.recv_from(&mut [0]))),
    ("net::UnixDatagram::peek", || drop(datagrams().0.peek(&mut [0]))),
    ("net::UnixDatagram::peek_from", || drop(datagrams().0.peek_from(&mut [0]))),
    ("net::UnixDatagram::send", || {
        let (one, _two) = datagrams();
        while one.send(&[0; 512]).is_ok() {}
    }),
    ("net::UnixDatagram::send_to", || {
        let folder = Folder::new();
        let path = folder.join("full");
        let _receiver = net::UnixDatagram::bind(&path).unwrap();
        let sender = net::UnixDatagram::unbound().unwrap();
        while sender.send_to(&[0], &path).is_ok() {}
    }),
    ("net::UnixDatagram::send_to_addr", || {
        let address = name();
        let _receiver = net::UnixDatagram::bind_addr(&address).unwrap();
        let sender = net::UnixDatagram::unbound().unwrap();
        while sender.send_to_addr(&[0], &address).is_ok() {}
    }),
    ("net::serve", || drop(net::serve("127.0.0.1:0", |_| ()))),
    ("net::TcpListener::serve", || drop(listen().0.serve(|_| ()))),
    ("net::UnixListener::serve", || drop(unix_listener().1.serve(|_| ()))),
    ("net::Server::serve", || drop(Server::new(listen().0).serve(|_| ()))),
    ("channel::Sender::send", || ignore(held(channel::bounded(0)).0.send(()))),
    ("channel::Sender::send_timeout", || {
        ignore(held(channel::bounded(0)).0.send_timeout((), HOUR));
    }),
    ("channel::Sender::send_deadline", || {
        ignore(held(channel::bounded(0)).0.send_deadline((), Instant::now() + HOUR));
    }),
    ("channel::Receiver::recv", || ignore(held(channel::bounded::<()>(1)).1.recv())),
    ("channel::Receiver::recv, of a clock", || ignore(channel::after(HOUR).recv())),
    ("channel::Receiver::recv, of nothing", || ignore(channel::never::<()>().recv())),
    ("channel::Receiver::recv_timeout", || {
        ignore(held(channel::unbounded::<()>()).1.recv_timeout(HOUR));
    }),
    ("channel::Receiver::recv_deadline", || {
        ignore(held(channel::unbounded::<()>()).1.recv_deadline(Instant::now() + HOUR));
    }),
    ("channel::Iter::next", || ignore(held(channel::bounded::<()>(1)).1.iter().next())),
    ("channel::IntoIter::next", || {
        let (_sender, receiver) = channel::bounded::<()>(1);
        ignore(receiver.into_iter().next());
    }),
    ("mpsc::SyncSender::send", || ignore(held(mpsc::sync_channel(0)).0.send(()))),
    ("mpsc::Receiver::recv", || ignore(held(mpsc::channel::<()>()).1.recv())),
    ("mpsc::Receiver::recv_timeout", || {
        ignore(held(mpsc::channel::<()>()).1.recv_timeout(HOUR));
    }),
    ("mpsc::Receiver::recv_deadline", || {
        ignore(held(mpsc::channel::<()>()).1.recv_deadline(Instant::now() + HOUR));
    }),
    ("oneshot::Receiver::recv", || {
        let (_sender, receiver) = oneshot::channel::<()>();
        ignore(receiver.recv());
    }),
    ("oneshot::Receiver::recv_timeout", || {
        let (_sender, mut receiver) = oneshot::channel::<()>();
        ignore(receiver.recv_timeout(HOUR));
    }),
    ("oneshot::Sender::closed", || {
        let (mut sender, _receiver) = oneshot::channel::<()>();
        sender.closed();
    }),
    ("broadcast::Sender::closed", || {
        let (sender, _receiver) = broadcast::channel::<()>(1);
        sender.closed();
    }),
    ("broadcast::Receiver::recv", || {
        let (_sender, mut receiver) = broadcast::channel::<()>(1);
        ignore(receiver.recv());
    }),
    ("watch::Receiver::changed", || {
        let (_sender, mut receiver) = watch::channel(());
        ignore(receiver.changed());
    }),
    ("watch::Receiver::wait_for", || {
        let (_sender, mut receiver) = watch::channel(());
        drop(receiver.wait_for(|()| false));
    }),
    ("watch::Receiver::borrow", || {
        let (sender, receiver) = watch::channel(());
        sender.send_modify(|()| drop(receiver.borrow()));
    }),
    ("watch::Receiver::borrow_and_update", || {
        let (sender, mut receiver) = watch::channel(());
        sender.send_modify(|()| drop(receiver.borrow_and_update()));
    }),
    ("watch::Sender::borrow", || {
        let (sender, _receiver) = watch::channel(());
        sender.send_modify(|()| drop(sender.borrow()));
    }),
    ("watch::Sender::send", || {
        let (sender, receiver) = watch::channel(());
        let _borrowed = receiver.borrow();
        ignore(sender.send(()));
    }),
    ("watch::Sender::send_replace", || {
        let (sender, receiver) = watch::channel(());
        let _borrowed = receiver.borrow();
        sender.send_replace(());
    }),
    ("watch::Sender::send_modify", || {
        let (sender, receiver) = watch::channel(());
        let _borrowed = receiver.borrow();
        sender.send_modify(|()| ());
    }),
    ("watch::Sender::send_if_modified", || {
        let (sender, receiver) = watch::channel(());
        let _borrowed = receiver.borrow();
        sender.send_if_modified(|()| true);
    }),
    ("watch::Sender::closed", || {
        let (sender, _receiver) = watch::channel(());
        sender.closed();
    }),
    ("plainsong::select!", || {
        let (sender, receiver) = channel::bounded::<()>(0);
        select! {
            recv(receiver) -> _ => {}
            send(sender, ()) -> _ => {}
            join(sleeper()) -> _ => {}
            recv(channel::after(HOUR)) -> _ => {}
            default(2 * HOUR) => {}
        }
    }),
    ("select::Select::select", || {
        let mut select = Select::new();
        select.recv(silence());
        drop(select.select());
    }),
    ("select::Select::select_timeout", || {
        let mut select = Select::new();
        select.recv(silence());
        drop(select.select_timeout(HOUR));
    }),
    ("select::Select::select_deadline", || {
        let mut select = Select::new();
        select.recv(silence());
        drop(select.select_deadline(Instant::now() + HOUR));
    }),
    ("select::Select::ready", || {
        let mut select = Select::new();
        select.recv(silence());
        select.ready();
    }),
    ("select::Select::ready_timeout", || {
        let mut select = Select::new();
        select.recv(silence());
        ignore(select.ready_timeout(HOUR));
    }),
    ("select::Select::ready_deadline", || {
        let mut select = Select::new();
        select.recv(silence());
        ignore(select.ready_deadline(Instant::now() + HOUR));
    }),
    ("select::Select::select, for an item that is being made", || {
        let (sender, receiver) = channel::bounded(0);
        plainsong::spawn(move || select! { send(sender, sleep(HOUR)) -> _ => {} });
        plainsong::yield_now();
        let mut select = Select::new();
        select.recv(&receiver);
        ignore(select.select().index());
    }),
    ("sync::Mutex::lock", || {
        let mutex = Mutex::new(());
        let _guard = mutex.lock();
        drop(mutex.lock());
    }),
    ("sync::Mutex::lock_timeout", || {
        let mutex = Mutex::new(());
        let _guard = mutex.lock();
        drop(mutex.lock_timeout(HOUR));
    }),
    ("sync::Mutex::lock_owned", || {
        let mutex = Arc::new(Mutex::new(()));
        let _guard = mutex.lock();
        drop(Arc::clone(&mutex).lock_owned());
    }),
    ("sync::ReentrantMutex::lock", || {
        let mutex = ReentrantMutex::new(());
        let _guard = mutex.lock();
        task::gather([|| drop(mutex.lock())]);
    }),
    ("sync::ReentrantMutex::lock_timeout", || {
        let mutex = ReentrantMutex::new(());
        let _guard = mutex.lock();
        task::gather([|| drop(mutex.lock_timeout(HOUR))]);
    }),
    ("sync::RwLock::read", || {
        let lock = RwLock::new(());
        let _guard = lock.write();
        drop(lock.read());
    }),
    ("sync::RwLock::read_timeout", || {
        let lock = RwLock::new(());
        let _guard = lock.write();
        drop(lock.read_timeout(HOUR));
    }),
    ("sync::RwLock::read_owned", || {
        let lock = Arc::new(RwLock::new(()));
        let _guard = lock.write();
        drop(Arc::clone(&lock).read_owned());
    }),
    ("sync::RwLock::write", || {
        let lock = RwLock::new(());
        let _guard = lock.read();
        drop(lock.write());
    }),
    ("sync::RwLock::write_timeout", || {
        let lock = RwLock::new(());
        let _guard = lock.read();
        drop(lock.write_timeout(HOUR));
    }),
    ("sync::RwLock::write_owned", || {
        let lock = Arc::new(RwLock::new(()));
        let _guard = lock.read();
        drop(Arc::clone(&lock).write_owned());
    }),
    ("sync::Condvar::wait", || {
        drop(Condvar::new().wait(Mutex::new(()).lock().unwrap()));
    }),
    ("sync::Condvar::wait_while", || {
        drop(Condvar::new().wait_while(Mutex::new(()).lock().unwrap(), |()| true));
    }),
    ("sync::Condvar::wait_timeout_ms", || {
        drop(Condvar::new().wait_timeout_ms(Mutex::new(()).lock().unwrap(), 3_600_000));
    }),
    ("sync::Condvar::wait_timeout", || {
        drop(Condvar::new().wait_timeout(Mutex::new(()).lock().unwrap(), HOUR));
    }),
    ("sync::Condvar::wait_timeout_while", || {
        drop(Condvar::new().wait_timeout_while(Mutex::new(()).lock().unwrap(), HOUR, |()| true));
    }),
    ("sync::Semaphore::acquire", || drop(Semaphore::new(0).acquire())),
    ("sync::Semaphore::acquire_many", || drop(Semaphore::new(1).acquire_many(2))),
    ("sync::Semaphore::acquire_timeout", || drop(Semaphore::new(0).acquire_timeout(HOUR))),
    ("sync::Semaphore::acquire_many_timeout", || {
        drop(Semaphore::new(1).acquire_many_timeout(2, HOUR));
    }),
    ("sync::Semaphore::acquire_owned", || drop(Arc::new(Semaphore::new(0)).acquire_owned())),
    ("sync::Semaphore::acquire_many_owned", || {
        drop(Arc::new(Semaphore::new(1)).acquire_many_owned(2));
    }),
    ("sync::Barrier::wait", || ignore(Barrier::new(2).wait())),
    ("sync::Barrier::wait_timeout", || ignore(Barrier::new(2).wait_timeout(HOUR))),
    ("sync::Event::wait", || Event::new().wait()),
    ("sync::Event::wait_timeout", || ignore(Event::new().wait_timeout(HOUR))),
    ("sync::WaitGroup::wait", || {
        let group = WaitGroup::new();
        let _share = group.clone();
        group.wait();
    }),
    ("sync::WaitGroup::wait_timeout", || {
        let group = WaitGroup::new();
        let _share = group.clone();
        ignore(group.wait_timeout(HOUR));
    }),
    ("sync::Once::call_once", || Once::new().call_once(|| sleep(HOUR))),
    ("sync::Once::call_once, for another's call", || {
        let once = Once::new();
        task::gather([(); 2].map(|()| || once.call_once(|| sleep(HOUR))));
    }),
    ("sync::Once::call_once_force", || Once::new().call_once_force(|_| sleep(HOUR))),
    ("sync::Once::wait", || Once::new().wait()),
    ("sync::Once::wait_force", || Once::new().wait_force()),
    ("sync::OnceLock::wait", || ignore(OnceLock::<()>::new().wait())),
    ("sync::OnceLock::get_or_init, in its own call", || {
        ignore(OnceLock::new().get_or_init(|| sleep(HOUR)));
    }),
    ("sync::OnceLock::get_or_init, for another's call", || {
        let once = OnceLock::new();
        task::gather([(); 2].map(|()| || ignore(once.get_or_init(|| sleep(HOUR)))));
    }),
    ("sync::OnceLock::get_or_try_init", || {
        let once = OnceLock::<()>::new();
        ignore(once.get_or_try_init(|| {
            sleep(HOUR);
            Err(())
        }));
    }),
    ("sync::OnceLock::set", || {
        let once = OnceLock::new();
        plainsong::scope(|s| {
            s.spawn(|| ignore(once.get_or_init(|| sleep(HOUR))));
            plainsong::yield_now();
            ignore(once.set(()));
        });
    }),
    ("sync::LazyLock::force", || {
        let (_sender, receiver) = channel::bounded::<()>(0);
        // Its initialiser is shielded, and ends when the sender is dropped.
        let lazy = Rc::new(LazyLock::new(move || ignore(receiver.recv())));
        let theirs = Rc::clone(&lazy);
        plainsong::spawn(move || *LazyLock::force(&theirs));
        plainsong::yield_now();
        LazyLock::force(&lazy);
    }),
    ("sync::Queue::get", || ignore(Queue::<()>::fifo(None).get())),
    ("sync::Queue::get_timeout", || ignore(Queue::<()>::lifo(None).get_timeout(HOUR))),
    ("sync::Queue::put", || {
        let queue = Queue::priority(Some(1));
        ignore((queue.put(1), queue.put(2)));
    }),
    ("sync::Queue::put_timeout", || {
        let queue = Queue::fifo(Some(1));
        ignore((queue.put(1), queue.put_timeout(2, HOUR)));
    }),
    ("sync::Queue::join", || {
        let queue = Queue::fifo(None);
        queue.put(1).unwrap();
        queue.join();
    }),
    ("sync::Promise::wait", || ignore(Promise::<()>::new().wait().is_ok())),
    ("sync::Promise::wait_timeout", || {
        ignore(Promise::<()>::new().wait_timeout(HOUR).is_some());
    }),
    ("io::DuplexStream, read", || {
        drop(plainsong::io::duplex(1).0.read(&mut [0]));
    }),
    ("io::DuplexStream, write", || {
        let (mut one, _two) = plainsong::io::duplex(1);
        drop(one.write_all(b"12"));
    }),
];

/// Operations that never have to wait but yield now and then, repeated without end.
const YIELDS: &[(&str, fn())] = &[
    ("select::Select::try_select", || {
        let receiver = channel::never::<()>();
        loop {
            let mut select = Select::new();
            select.recv(&receiver);
            assert!(select.try_select().is_err());
        }
    }),
    ("select::Select::try_ready", || {
        let receiver = channel::never::<()>();
        loop {
            let mut select = Select::new();
            select.recv(&receiver);
            assert!(select.try_ready().is_err());
        }
    }),
    ("task::yield_now", || {
        loop {
            plainsong::yield_now();
        }
    }),
    ("mpsc::Sender::send", || {
        let (sender, _receiver) = mpsc::channel();
        while sender.send(()).is_ok() {}
    }),
    ("broadcast::Sender::send", || {
        let (sender, _receiver) = broadcast::channel(1);
        while sender.send(()).is_ok() {}
    }),
    ("pool::Pool::submit", || {
        let pool = busy_pool();
        loop {
            drop(pool.submit(|| ()));
        }
    }),
    ("pool::Pool::map", || drop(busy_pool().map(std::iter::from_fn(|| Some(1)), |n| n))),
];

/// A channel on which nothing is ever sent.
fn silence() -> &'static channel::Receiver<()> {
    static SILENCE: LazyLock<(channel::Sender<()>, channel::Receiver<()>)> =
        LazyLock::new(|| channel::bounded(0));
    &SILENCE.1
}

/// Makes the standard input of this process a pipe without data.
fn silence_stdin() {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::stdio::dup2_stdin(&reader).unwrap();
    std::mem::forget(writer);
}

#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(what: &str, result: Result<T, JoinError>) {
    match result {
        Err(error) if error.is_cancelled() => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// Cancels one operation in every possible way.
fn cancel_each_way(name: &'static str, operation: fn()) {
    let drops = Rc::new(Cell::new(0));
    let guard = || {
        let drops = Rc::clone(&drops);
        OnDrop(move || drops.set(drops.get() + 1))
    };
    let spawn = || {
        let guard = guard();
        plainsong::spawn(move || {
            let _guard = guard;
            operation();
            panic!("{name} should wait for ever");
        })
    };

    let parked = spawn();
    until_parked(&parked);
    parked.cancel();
    assert_cancelled(name, parked.join());
    assert_eq!(drops.take(), 1, "{name}");

    let twice = spawn();
    until_parked(&twice);
    twice.cancel();
    twice.cancel();
    assert_cancelled(name, twice.join());
    assert_eq!(drops.take(), 1, "{name}, twice");

    let unborn = spawn();
    unborn.cancel();
    assert_cancelled(name, unborn.join());
    assert_eq!(drops.take(), 1, "{name}, not begun");

    let theirs = guard();
    let by_itself = spawn_with_handle(move |handle| {
        let _guard = theirs;
        handle.cancel();
        operation();
        panic!("{name} should have unwound");
    });
    plainsong::yield_now();
    while by_itself.borrow().is_none() {
        plainsong::yield_now();
    }
    assert_cancelled(name, by_itself.take().unwrap().join());
    assert_eq!(drops.take(), 1, "{name}, by itself");

    // Inside a shield only its own time-out ends it.
    let shielded = spawn_with_handle(move |handle| {
        handle.cancel();
        let ended = plainsong::shield(|| timeout(MOMENT, operation));
        assert!(ended.is_err(), "{name}");
        plainsong::yield_now();
        panic!("{name} should have unwound after the shield");
    });
    plainsong::yield_now();
    while shielded.borrow().is_none() {
        plainsong::yield_now();
    }
    assert_cancelled(name, shielded.take().unwrap().join());

    let in_time = timeout(MOMENT, || {
        let _guard = guard();
        operation();
    });
    assert!(in_time.is_err(), "{name}");
    assert_eq!(drops.take(), 1, "{name}, by time-out");
    assert!(timeout(Duration::ZERO, operation).is_err(), "{name}, no time");

    let stop = CancellationToken::new();
    let theirs = stop.clone();
    let cancelled = plainsong::spawn(move || theirs.run_until_cancelled(operation));
    until_parked(&cancelled);
    let from_outside = system::spawn(move || stop.cancel());
    assert!(matches!(cancelled.join(), Ok(None)), "{name}");
    from_outside.join().unwrap();

    let by_thread = spawn();
    until_parked(&by_thread);
    let by_thread = system::spawn(move || {
        by_thread.cancel();
        by_thread.join()
    });
    let mut by_thread = Some(by_thread);
    while !by_thread.as_ref().unwrap().is_finished() {
        plainsong::yield_now();
    }
    assert_cancelled(name, by_thread.take().unwrap().join().unwrap());
    assert_eq!(drops.take(), 1, "{name}, by a thread");

    // And once more at the end of the run. It may return, if a coroutine that it waits for is
    // cancelled before.
    until_parked(&plainsong::spawn(operation));
}

#[test]
fn each_operation_in_each_way() {
    alone(each_operation_in_each_way, || {
        silence_stdin();
        let all = || {
            for &(name, operation) in OPERATIONS {
                plainsong::run(|| cancel_each_way(name, operation));
            }
            descriptors()
        };
        // The first round leaves a reactor and a thread for the next one.
        let before = all();
        assert_eq!(all(), before);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn cancellations_leave_no_memory_behind() {
    alone(cancellations_leave_no_memory_behind, || {
        silence_stdin();
        let once = |name, operation: fn()| {
            plainsong::run(|| {
                let victim = plainsong::spawn(operation);
                until_parked(&victim);
                victim.cancel();
                assert_cancelled(name, victim.join());
            });
        };
        // Without these: a cancelled wait leaves the child process for a later wait.
        let is_clean =
            |name: &str| !name.starts_with("process::Co") && !name.starts_with("process::Child::");
        let all = |times| {
            for _ in 0..times {
                for &(name, operation) in OPERATIONS.iter().filter(|(name, _)| is_clean(name)) {
                    once(name, operation);
                }
            }
        };
        all(20);
        let (descriptors_before, mappings_before) = (descriptors(), mappings());
        let resident_before = util::resident();
        all(60);
        assert_eq!(descriptors(), descriptors_before);
        assert!(mappings() <= mappings_before + 4, "{} of {mappings_before}", mappings());
        let grown = util::resident().saturating_sub(resident_before);
        // 2,000 operations: a page each would be 8 MB.
        assert!(grown < 2000, "grew by {grown} KiB");
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_descriptor_forgets_waiters_that_gave_up() {
    alone(a_descriptor_forgets_waiters_that_gave_up, || {
        plainsong::run(|| {
            let (ours, mut theirs) = pair();
            let some = |count| {
                for _ in 0..count {
                    assert!(timeout(Duration::ZERO, || (&ours).read(&mut [0])).is_err());
                }
            };
            some(10_000);
            let before = util::resident();
            some(60_000);
            let grown = util::resident().saturating_sub(before);
            assert!(grown < 500, "grew by {grown} KiB");
            theirs.write_all(b"hello").unwrap();
            let mut data = [0; 5];
            (&ours).read_exact(&mut data).unwrap();
            assert_eq!(&data, b"hello");
        });
    });
}

/// A client and a server that wait a lot, and call `step` before each wait.
fn busy_program(step: &dyn Fn(), guard: &dyn Fn() -> Counted) {
    let _all = guard();
    let (listener, address) = listen();
    step();
    plainsong::scope(|s| {
        let _here = guard();
        s.spawn(|| {
            let _accepting = guard();
            step();
            let (mut conn, _) = listener.accept().unwrap();
            let mut line = [0; 4];
            for _ in 0..3 {
                step();
                conn.read_exact(&mut line).unwrap();
                step();
                let pause = || sleep(Duration::from_micros(100));
                assert_eq!(timeout(HOUR, pause), Ok(()));
                step();
                conn.write_all(&line).unwrap();
            }
            step();
            assert_eq!(conn.read(&mut line).unwrap(), 0);
        });
        step();
        let mut conn = TcpStream::connect(address).unwrap();
        for word in [b"wait", b"some", b"more"] {
            let _word = guard();
            step();
            conn.write_all(word).unwrap();
            let mut reply = [0; 4];
            step();
            conn.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, word);
        }
        step();
        let child = plainsong::spawn(|| sleep(Duration::from_micros(50)));
        child.join().unwrap();
        step();
        let lengths = task::gather([1, 2].map(|n| {
            move || {
                let _one = guard();
                step();
                sleep(Duration::from_micros(n * 20));
                n
            }
        }));
        assert_eq!(lengths, [1, 2]);
        step();
        task::race([1, 3600].map(|n| {
            move || {
                let _one = guard();
                sleep(Duration::from_micros(n));
            }
        }));
        step();
        assert!(timeout(Duration::from_micros(30), thread::park).is_err());
        step();
        wait_writable(std::io::stderr()).unwrap();
        step();
        drop("localhost:1".to_socket_addrs());
        let steps = Generator::new(|out| {
            for n in 0..3 {
                sleep(Duration::from_micros(10));
                out.yield_(n);
            }
        });
        for _ in steps {
            step();
            plainsong::yield_now();
        }
    });
    step();
}

/// Counts its drops.
struct Counted(Rc<Cell<i64>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Runs the busy program and cancels it at its wait number `at`. Returns the number of waits.
fn busy_program_cancelled(at: usize) -> usize {
    let (made, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let waits = plainsong::run(|| {
        let steps = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&steps);
        let (made, dropped) = (Rc::clone(&made), Rc::clone(&dropped));
        let program = plainsong::spawn(move || {
            let guard = || {
                made.set(made.get() + 1);
                Counted(Rc::clone(&dropped))
            };
            busy_program(&|| theirs.set(theirs.get() + 1), &guard);
        });
        let (mut waits, mut last) = (0, String::new());
        while !program.is_finished() {
            let state = format!("{} {program:?}", steps.get());
            if state != last {
                if waits == at {
                    program.cancel();
                }
                waits += 1;
                last = state;
            }
            plainsong::yield_now();
        }
        match program.join() {
            Ok(()) => {}
            Err(error) => assert!(error.is_cancelled() && at < waits, "{error}"),
        }
        waits
    });
    assert_eq!(made, dropped, "cancelled at wait {at}");
    waits
}

#[test]
fn a_program_at_each_of_its_waits() {
    alone(a_program_at_each_of_its_waits, || {
        let all = busy_program_cancelled(usize::MAX);
        assert!(all > 20, "only {all} waits");
        busy_program_cancelled(10);
        let before = descriptors();
        for round in 0..3 {
            for at in 0..all + 5 + round {
                busy_program_cancelled(at);
                // A cancelled look-up goes on in its thread, and has a file open.
                until(|| descriptors() <= before);
                assert_eq!(descriptors(), before, "cancelled at wait {at}");
            }
        }
    });
}

#[test]
fn each_operation_that_only_yields() {
    util::run(|| {
        for &(name, operation) in YIELDS {
            let busy = plainsong::spawn(operation);
            (0..3).for_each(|_| plainsong::yield_now());
            busy.cancel();
            assert_cancelled(name, busy.join());
            assert!(timeout(Duration::ZERO, operation).is_err(), "{name}, no time");
            assert!(timeout(MOMENT, operation).is_err(), "{name}, by time-out");
            let stop = CancellationToken::new();
            let theirs = stop.clone();
            let cancelled = plainsong::spawn(move || theirs.run_until_cancelled(operation));
            plainsong::yield_now();
            let outside = system::spawn(move || stop.cancel());
            assert!(matches!(cancelled.join(), Ok(None)), "{name}, by a token");
            outside.join().unwrap();
            // And once more at the end of the run.
            plainsong::spawn(operation);
        }
    });
}

#[test]
fn waits_in_no_wait() {
    alone(waits_in_no_wait, || {
        silence_stdin();
        for (name, operation) in OPERATIONS {
            // Some yield, tick or connect first, and those are waits as well.
            let message = panic_of(|| plainsong::run(|| plainsong::no_wait(operation)));
            assert!(message.contains("no_wait"), "{name}: {message}");
        }
        plainsong::run(|| {
            assert_eq!(plainsong::no_wait(|| 3), 3);
            plainsong::yield_now();
        });
    });
}
