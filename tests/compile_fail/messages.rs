//! Easy mistakes have messages that say what to do.

use std::time::Duration;

use plainsong::net::{Server, TcpListener, serve};
use plainsong::{Builder, scope, spawn, spawn_anywhere};

fn a_future_is_awaited_in_a_closure(text: &str, runtime: &plainsong::Runtime) {
    spawn(async { 1 }); //~ E0277: to wait for a future, `move || plainsong::block_on(future)`
    spawn(async move {}); //~ E0277: pass a closure: `move || …`
    spawn_anywhere(async { 1 }); //~ E0277: plainsong::block_on
    plainsong::thread::spawn(async { 1 }); //~ E0277: plainsong::block_on
    let _ = Builder::new().spawn(async { 1 }); //~ E0277: plainsong::block_on
    let _ = Builder::new().spawn_anywhere(async { 1 }); //~ E0277: plainsong::block_on
    scope(|s| s.spawn(async { text.len() }).is_finished()); //~ E0277: plainsong::block_on
    plainsong::run(async { 1 }); //~ E0277: plainsong::block_on
    plainsong::run_all(std::future::ready(1)); //~ E0277: plainsong::block_on
    runtime.run(async { 1 }); //~ E0277: plainsong::block_on
    runtime.handle().spawn(async { 1 }); //~ E0277: plainsong::block_on
    let _ = plainsong::time::timeout(Duration::ZERO, async { 1 }); //~ E0277: plainsong::block_on
}

fn a_value_is_no_closure() {
    spawn(1); //~ E0277: a coroutine runs a closure without arguments, and `{integer}` is not one
    spawn(println!("hello")); //~ E0277: a coroutine runs a closure without arguments
}

fn the_error_of_a_handler_is_shown(listener: TcpListener) {
    let _ = serve("127.0.0.1:0", |_| 7); //~ E0277: return `()`, or a `Result` whose error implements `Display`
    let _ = serve("127.0.0.1:0", |_| Some(())); //~ E0277: the handler of a connection cannot return
    struct Hidden;
    let _ = listener.serve(|_| Err::<(), _>(Hidden)); //~ E0277
    let _ = Server::new(listener).serve(|_| async {}); //~ E0277: the handler of a connection cannot return
}

fn sockets_of_std_become_ours(theirs: std::net::TcpListener, stream: std::net::TcpStream) {
    let _ = Server::new(theirs); //~ E0277: `plainsong::net::TcpListener::from(listener)`
    let mut stream = stream;
    let _ = plainsong::io::copy(&mut stream, &mut Vec::new()); //~ E0277: `plainsong::net::TcpStream::from(stream)`
}

fn a_listener_is_no_address(theirs: std::net::TcpListener, ours: TcpListener) {
    let _ = serve(theirs, drop); //~ E0277: a listener has its own `serve`
    let _ = serve(ours, drop); //~ E0277: a listener has its own `serve`
    let _ = TcpListener::bind(4915); //~ E0277: write `"HOST:PORT"`
}

fn a_coroutine_takes_no_arguments() {
    spawn(|number: i32| number); //~ E0593
}
