//! A threaded program as it is written for std, compiled in each edition. Its `std` is
//! plainsong-std.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, Once, RwLock};
use std::thread;
use std::time::Duration;

/// Whether the type is one of plainsong's.
fn is_ours<T>(_: &T) -> bool {
    std::any::type_name::<T>().starts_with("plainsong")
}

fn echo(stream: TcpStream) -> io::Result<()> {
    let mut output = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        writeln!(output, "{}", line?)?;
    }
    Ok(())
}

#[test]
fn a_thread_for_each_connection_takes_no_thread_of_the_system() {
    const CLIENTS: usize = 500;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(is_ours(&listener));
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || echo(stream));
        }
    });
    let (met, all) = (Arc::new((Mutex::new(0), Condvar::new())), CLIENTS);
    let clients: Vec<thread::JoinHandle<io::Result<usize>>> = (0..CLIENTS)
        .map(|n| {
            let met = Arc::clone(&met);
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address)?;
                writeln!(stream, "{}", n)?;
                {
                    // All are connected at once.
                    let mut count = met.0.lock().unwrap();
                    *count += 1;
                    met.1.notify_all();
                    drop(met.1.wait_while(count, |count| *count < all).unwrap());
                }
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line)?;
                Ok(line.trim().parse().unwrap())
            })
        })
        .collect();
    drop(met.1.wait_while(met.0.lock().unwrap(), |count| *count < all).unwrap());
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert!(threads < CLIENTS / 2, "{} threads", threads);
    let sum: usize = clients.into_iter().map(|client| client.join().unwrap().unwrap()).sum();
    assert_eq!(sum, CLIENTS * (CLIENTS - 1) / 2);
}

#[test]
fn channels_and_locks() {
    let (sender, receiver) = sync_channel::<u32>(1);
    let (done, ended) = channel();
    let total = Arc::new(RwLock::new(0));
    let theirs = total.clone();
    thread::Builder::new()
        .name("adder".to_owned())
        .stack_size(1)
        .spawn(move || {
            for n in receiver {
                *theirs.write().unwrap() += n;
            }
            done.send(thread::current().name().map(|name| name.to_owned())).unwrap();
        })
        .unwrap();
    for n in 0..100 {
        sender.send(n).unwrap();
    }
    drop(sender);
    assert_eq!(ended.recv().unwrap().unwrap(), "adder");
    assert_eq!(*total.read().unwrap(), 4950);
    assert!(is_ours(&*total) && is_ours(&ended));

    static START: Once = Once::new();
    static STARTS: AtomicUsize = AtomicUsize::new(0);
    thread::scope(|s| {
        for _ in 0..10 {
            s.spawn(|| {
                START.call_once(|| {
                    thread::sleep(Duration::from_millis(1));
                    STARTS.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(STARTS.load(Ordering::Relaxed), 1);
            });
        }
    });
}

#[test]
fn a_panic_is_the_result_of_a_join() {
    let panicked = thread::spawn(|| {
        std::panic::resume_unwind(Box::new("gone"));
    });
    assert_eq!(panicked.join().unwrap_err().downcast_ref(), Some(&"gone"));
}

#[test]
fn processes_and_unix_sockets() {
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert!(is_ours(&child));
    child.stdin.take().unwrap().write_all(b"meow").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"meow");

    let (mut one, mut two) = UnixStream::pair().unwrap();
    let writer = thread::spawn(move || two.write_all(b"hello"));
    let mut text = String::new();
    one.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    writer.join().unwrap().unwrap();
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Derived {
    names: Vec<Option<String>>,
}

std::thread_local! {
    static OWN: std::cell::Cell<u32> = const { std::cell::Cell::new(1) };
    pub(crate) static LIST: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::default();
}

thread_local! {
    static LOCAL: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn shown<T: Debug>(value: T) -> String {
    format!("{:?}", value)
}

#[test]
fn macros_and_derives() {
    println!("{} {}", 1, shown(Derived::default()));
    std::println!("{}", concat!("a", "b", line!()));
    eprint!("");
    print!("");
    std::io::stdout().flush().unwrap();
    assert_eq!(shown(vec![1; 2]), "[1, 1]");
    assert!(matches!(Some(1), Some(0..=2)), "{}", stringify!(a b));
    assert_ne!(::std::mem::size_of::<Derived>(), 0);
    let mut map = HashMap::new();
    map.insert(Derived { names: vec![None] }, write!(String::new(), "{}", 1).is_ok());
    assert_eq!(map.len(), 1);
    // Each coroutine has its own values.
    std::plainsong::run(|| {
        OWN.set(2);
        thread::spawn(|| assert_eq!(OWN.replace(3), 1)).join().unwrap();
        assert_eq!(OWN.get(), 2);
        LIST.with_borrow_mut(|list| list.push(1));
        assert_eq!(LIST.take(), [1]);
    });
    LOCAL.with(|bytes| writeln!(bytes.borrow_mut(), "{}", file!()).unwrap());
    let caught = std::panic::catch_unwind(|| {
        if shown(1) == "1" {
            std::panic::panic_any(7)
        }
        unreachable!("{}", env!("CARGO_PKG_NAME"))
    });
    let caught: Box<dyn std::any::Any + Send> = caught.map(|_: ()| ()).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&7));
    if cfg!(any()) {
        let _: Option<u8> = todo!();
    }

    fn write<W: std::fmt::Write>(_: &W) {}
    use std::fmt::Write;
    write(&String::new());
    debug_assert!(include_str!("nothing.rs").len() > 1);
}

mod attribute {
    use std::plainsong;

    #[plainsong::test]
    fn a_test_runs_as_a_coroutine() {
        assert!(plainsong::Handle::try_current().is_some());
    }

    #[std::plainsong::test(workers = 2, stack_size = 1 << 20)]
    #[should_panic(expected = "seen")]
    fn a_test_with_arguments() {
        assert_eq!(plainsong::spawn(|| 1).join().unwrap(), 1);
        panic!("seen")
    }

    #[plainsong::main]
    fn program() -> ::std::io::Result<u32> {
        ::std::fs::metadata("/proc")?;
        Ok(7)
    }

    #[test]
    fn a_main_function_returns_its_value() {
        assert_eq!(program().unwrap(), 7);
    }
}
