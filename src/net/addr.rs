//! Addresses: from text and host names to numbers, and in errors.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{iter, option, slice, vec};

use crate::engine::blocking::try_offload;
use crate::engine::error::{explained, reworded};
use crate::engine::park;

#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a socket address",
    label = "neither an address nor a host and a port",
    note = "write `\"HOST:PORT\"`, `(host, port)` or a `SocketAddr`",
    note = "a listener has its own `serve`; std's becomes ours with \
            `plainsong::net::TcpListener::from(listener)`"
)]
/// Values that can be turned into socket addresses: [`std::net::ToSocketAddrs`], except that host
/// names are looked up without blocking the scheduler's thread.
///
/// # Cancellation
///
/// A look-up unwinds when the coroutine is cancelled. The system's own look-up goes on, and its
/// result is dropped.
pub trait ToSocketAddrs {
    /// The addresses, in the order in which they should be tried.
    type Iter: Iterator<Item = SocketAddr>;

    /// Turns this into addresses.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for text that is no address; the resolver's error, with the name, for a name
    /// without an address.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

macro_rules! one_address {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some(SocketAddr::from(*self)).into_iter())
            }
        }
    )*};
}

one_address!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)].into_iter()),
            Err(_) => look_up(host, port),
        }
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        if let Ok(address) = self.parse() {
            return Ok(vec![address].into_iter());
        }
        let parts = self.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parts {
            Some((host, port)) if !host.is_empty() => (host, port).to_socket_addrs(),
            _ => Err(explained(
                io::ErrorKind::InvalidInput,
                format!(
                    "{self:?} is not a socket address: write HOST:PORT, such as 127.0.0.1:4915, \
                     [::1]:4915 or localhost:4915"
                ),
            )),
        }
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Copied<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().copied())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs()
    }
}

/// Asks the system's resolver.
fn look_up(host: &str, port: u16) -> io::Result<vec::IntoIter<SocketAddr>> {
    look_up_with(host, port, |name, port| {
        std::net::ToSocketAddrs::to_socket_addrs(&(name, port)).map(Iterator::collect)
    })
}

/// Asks `resolve`, on a thread that may block.
fn look_up_with(
    host: &str,
    port: u16,
    resolve: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<vec::IntoIter<SocketAddr>> {
    let name = host.to_owned();
    match try_offload(park::fails_at(), move || resolve(&name, port))? {
        Ok(addresses) => Ok(addresses.into_iter()),
        Err(error) => {
            let text = format!("cannot look up the host {host:?}: {error}");
            Err(reworded(error, text))
        }
    }
}

/// Calls `f` with each address in turn until it succeeds; the last error otherwise.
pub(super) fn try_each<T>(
    addresses: impl ToSocketAddrs,
    mut f: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in addresses.to_socket_addrs()? {
        match f(address) {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last
        .unwrap_or_else(|| explained(io::ErrorKind::InvalidInput, "there is no address to try")))
}

/// An error with the operation and its address.
pub(super) fn name(what: &str, address: SocketAddr, error: io::Error) -> io::Error {
    let connects = what == "connect to";
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse if !connects => {
            ": another socket holds it; stop that program or choose another port (0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied if (1..1024).contains(&address.port()) && !connects => {
            ": ports below 1024 need a privilege"
        }
        io::ErrorKind::ConnectionRefused => ": nothing listens there",
        _ => "",
    };
    describe(what, &address, error, advice)
}

/// An error with the operation, its object, and perhaps advice.
pub(super) fn describe(what: &str, on: &dyn Display, error: io::Error, advice: &str) -> io::Error {
    let text = format!("cannot {what} {on}: {error}{advice}");
    reworded(error, text)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::net::{TcpListener, TcpStream};
    use crate::time::timeout;

    type Answer = io::Result<Vec<SocketAddr>>;

    /// A resolver that reports when it has begun, and answers on request.
    fn resolver()
    -> (Sender<Answer>, Receiver<()>, impl FnOnce(&str, u16) -> Answer + Send + 'static) {
        let (begin, begun) = channel();
        let (answer, answered) = channel::<Answer>();
        let resolve = move |_: &str, _| {
            // The receiver may have been dropped.
            let _ = begin.send(());
            answered.recv().unwrap_or_else(|_| Ok(Vec::new()))
        };
        (answer, begun, resolve)
    }

    #[test]
    fn a_resolver_that_hangs_delays_no_other_coroutine_and_can_be_cancelled() {
        crate::run(|| {
            let (answer, begun, resolve) = resolver();
            let hanging = crate::spawn(|| {
                let found = timeout(Duration::from_millis(20), || {
                    look_up_with("hangs.example", 80, resolve).map(drop)
                });
                found.is_err()
            });
            // The others of this thread go on, and open connections.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..100 {
                let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                listener.accept().unwrap();
            }
            assert!(hanging.join().unwrap());
            // It had really begun, and its answer is dropped.
            begun.recv().unwrap();
            answer.send(Ok(Vec::new())).unwrap();

            let (answer, begun, resolve) = resolver();
            let cancelled = crate::spawn(|| look_up_with("hangs.example", 80, resolve).map(drop));
            while begun.try_recv().is_err() {
                crate::yield_now();
            }
            cancelled.cancel();
            assert!(cancelled.join().unwrap_err().is_cancelled());
            drop(answer);
        });
    }

    #[test]
    fn answers_come_back_with_the_name() {
        crate::run(|| {
            let address: SocketAddr = "192.0.2.7:80".parse().unwrap();
            let (answer, _begun, resolve) = resolver();
            answer.send(Ok(vec![address])).unwrap();
            let found = look_up_with("found.example", 80, resolve).unwrap();
            assert_eq!(found.collect::<Vec<_>>(), [address]);
            let (answer, _begun, resolve) = resolver();
            answer.send(Err(io::ErrorKind::NotFound.into())).unwrap();
            let error = look_up_with("lost.example", 80, resolve).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains("lost.example"), "{error}");
        });
    }
}
