//! Sockets of socket2, which crates make for settings that std has no names for.

use std::io::{Read, Write};
use std::net::SocketAddr;

use plainsong_std::net::{TcpListener, TcpStream};
use plainsong_std::plainsong::run;
use plainsong_std::thread;
use socket2::{Domain, SockRef, Socket, Type};

#[test]
fn a_socket_of_socket2_parks_and_comes_back() {
    run(|| {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(1).unwrap();
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().unwrap();

        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&address.into()).unwrap();
        let mut client = TcpStream::from(client);
        SockRef::from(&client).set_tcp_nodelay(true).unwrap();
        let mut served = listener.accept().unwrap().0;
        // A read of it that blocked the worker would have nobody to answer it.
        let echo = thread::spawn(move || {
            let mut word = [0; 4];
            served.read_exact(&mut word).unwrap();
            served.write_all(&word).unwrap();
        });
        client.write_all(b"word").unwrap();
        let mut word = [0; 4];
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"word");
        echo.join().unwrap();

        let client = Socket::from(client);
        assert!(client.tcp_nodelay().unwrap());
    });
}
