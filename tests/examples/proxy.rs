//! `proxy`, between clients and servers that end in every order and in every way.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::{Client, PATIENCE, Program};

/// Starts a proxy for a server of ours, and returns it with its address.
fn proxy_to(target: &TcpListener) -> (Program, String) {
    let target = target.local_addr().unwrap().to_string();
    let proxy = Program::start("proxy", &["127.0.0.1:0", &target]);
    let address = proxy.address();
    (proxy, address)
}

#[test]
fn proxy_passes_both_directions_on_and_each_end_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, address) = proxy_to(&listener);
    let mut client = Client::connect(&address);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut server = Client(BufReader::new(stream));

    client.send("ping");
    assert_eq!(server.receive(4), b"ping");
    server.send("pong");
    assert_eq!(client.receive(4), b"pong");
    // The client has sent everything, and still reads.
    client.end();
    assert!(server.is_closed());
    let text = "A long answer to a question that is over. ".repeat(200_000);
    thread::scope(|scope| {
        scope.spawn(|| server.send(&text));
        assert!(client.receive(text.len()) == text.as_bytes());
    });
    server.end();
    assert!(client.is_closed());

    // The same with the server as the first to end.
    let mut client = Client::connect(&address);
    let (stream, _) = listener.accept().unwrap();
    let mut server = Client(BufReader::new(stream));
    server.end();
    assert!(client.is_closed());
    client.send("late");
    assert_eq!(server.receive(4), b"late");
    client.end();
    assert!(server.is_closed());
    proxy.stop();
}

#[test]
fn proxy_ends_both_sides_when_one_breaks_and_serves_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, address) = proxy_to(&listener);
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    };
    let bystander = Client::connect(&address);
    let mut its_server = accept();

    // A close with unread data is a reset.
    let client = Client::connect(&address);
    let mut server = accept();
    server.send("never read");
    client.send("x");
    assert_eq!(server.receive(1), b"x");
    client.0.get_ref().peek(&mut [0]).unwrap();
    drop(client);
    assert!(server.is_reset());
    // A close in order is an end.
    let mut client = Client::connect(&address);
    drop(accept());
    assert!(client.is_closed());
    drop(client);

    bystander.send("well");
    assert_eq!(its_server.receive(4), b"well");
    drop(listener);
    let mut refused = Client::connect(&address);
    assert!(refused.is_closed());
    proxy.stop();
}

#[test]
fn proxy_says_what_is_wrong_with_its_arguments() {
    for args in [&[][..], &["127.0.0.1:0"], &["127.0.0.1:0", "a", "b"]] {
        let (code, stdout, stderr) = Program::start("proxy", args).finish();
        assert_eq!((code, stdout), (Some(1), vec![]));
        assert!(stderr.concat().contains("usage: proxy LISTEN TARGET"), "{stderr:?}");
    }
    let (code, _, stderr) = Program::start("proxy", &["nonsense", "127.0.0.1:1"]).finish();
    assert!(code == Some(1) && stderr.concat().contains("HOST:PORT"), "{stderr:?}");
}

#[test]
fn proxy_looks_its_target_up_at_the_start() {
    for target in ["nonsense", "127.0.0.1:65536", ":80"] {
        let (code, stdout, stderr) = Program::start("proxy", &["127.0.0.1:0", target]).finish();
        assert_eq!((code, stdout.len()), (Some(1), 0), "{target}");
        assert!(stderr.concat().contains(target), "{target}: {stderr:?}");
    }
}

/// Resets a connection.
fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn proxy_passes_an_early_answer_on_while_the_client_still_sends() {
    const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, address) = proxy_to(&listener);
    for round in 0..60 {
        let mut client = TcpStream::connect(&address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                server.read_exact(&mut [0; 1000]).unwrap();
                server.write_all(ANSWER).unwrap();
                // With much unread: the kernel resets the connection.
                drop(server);
            });
            // Until it fails, as it does without a proxy.
            while (&client).write_all(&[b'x'; 100_000]).is_ok() {}
        });
        let mut answer = Vec::new();
        let end = client.read_to_end(&mut answer);
        assert!(answer == ANSWER, "round {round}: {} bytes, then {end:?}", answer.len());
    }
    proxy.stop();
}

#[test]
fn proxy_passes_a_reset_on_as_a_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, address) = proxy_to(&listener);
    let connect = || {
        let client = Client::connect(&address);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, Client(BufReader::new(stream)))
    };
    for _ in 0..20 {
        // While nothing moves.
        let (client, mut server) = connect();
        reset(client.0.into_inner());
        assert!(server.is_reset());
        let (mut client, server) = connect();
        reset(server.0.into_inner());
        assert!(client.is_reset());

        // While the other side sends. An end of its request before the reset would make that look
        // complete, and the send would fail with a broken pipe.
        let (client, mut server) = connect();
        client.send("half of a request");
        assert_eq!(server.receive(17), b"half of a request");
        let mut stream = server.0.into_inner();
        thread::scope(|scope| {
            let sent = scope.spawn(move || {
                loop {
                    if let Err(error) = stream.write_all(&[b'x'; 100_000]) {
                        return error.kind();
                    }
                }
            });
            reset(client.0.into_inner());
            assert_eq!(sent.join().unwrap(), ErrorKind::ConnectionReset);
        });
    }
    proxy.stop();
}
