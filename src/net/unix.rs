//! Unix streams, with the names, signatures and errors of [`std::os::unix::net`].

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::offset_of;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::task::{Context, Poll};

use socket2::{Domain, SockAddr, SockRef};

use super::addr::describe;
use super::listener::{Incoming, listener};
use super::socket::{BACKLOG, Socket, accept, socket};
use super::surface::{socket_surface, stream_surface, timeout_surface};
use crate::engine::reactor::Interest;
use crate::io::source::Descriptor;

/// A connection of Unix sockets: [`std::os::unix::net::UnixStream`], whose calls park only their
/// own coroutine.
///
/// `&UnixStream` implements [`Read`] and [`Write`] too, so several coroutines and threads may use a
/// stream at once. Clones share the descriptor, the time-outs and the mode. The connection closes
/// when the last clone is dropped.
///
/// # Cancellation
///
/// A read or write that is cancelled has moved nothing: it unwinds only while it waits.
///
/// ```
/// use plainsong::net::UnixStream;
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let (mut one, mut two) = UnixStream::pair()?;
///     plainsong::spawn(move || two.write_all(b"hello"));
///     let mut text = String::new();
///     one.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     Ok(())
/// })
/// # }
/// ```
pub struct UnixStream(Socket<net::UnixStream>);

impl UnixStream {
    /// Opens a connection to the socket of this name in the file system.
    ///
    /// Waits while the listener's queue is full.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a path that is too long for a socket, and those of the system, naming the
    /// path.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::connect_addr(&to_address("connect to", path.as_ref())?)
    }

    /// Opens a connection to this address: [`connect`](Self::connect), also for names that are not
    /// in the file system.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        let connect = || {
            let stream = Socket::new(net::UnixStream::from(socket(Domain::UNIX)?));
            let address = to_system(socket_addr)?;
            // While the listener's queue is full the socket is not connected, and no event reports
            // room in that queue.
            stream.retry_unannounced(|io| SockRef::from(io).connect(&address))?;
            Ok(Self(stream))
        };
        connect().map_err(|error| name("connect to", socket_addr, error))
    }

    /// Two sockets that are connected with each other.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, two) = net::UnixStream::pair()?;
        one.set_nonblocking(true)?;
        two.set_nonblocking(true)?;
        Ok((Self(Socket::new(one)), Self(Socket::new(two))))
    }

    /// The address of the other side; most clients have no name.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner().peer_addr()
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.0.is_shared()
    }
}

impl Read for &UnixStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return self.0.read_nothing(|mut io| io.read(buf));
        }
        self.0.transfer(Interest::Read, buf.len(), |mut io| io.read(buf), |&len| len)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if len == 0 {
            return self.0.read_nothing(|mut io| io.read_vectored(bufs));
        }
        self.0.transfer(Interest::Read, len, |mut io| io.read_vectored(bufs), |&len| len)
    }
}

impl Write for &UnixStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.transfer(Interest::Write, buf.len(), |mut io| io.write(buf), |&len| len)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.retry(Interest::Write, |mut io| io.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for UnixStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for UnixStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Descriptor for net::UnixStream {
    // A read also stops short after descriptors that were passed along, and between the data of
    // different senders. No event reports the data behind these.
    const SHORT_READ_DRAINS: bool = false;
    const CLOSES_FILE: bool = true;
}

socket_surface!(UnixStream, net::UnixStream);
timeout_surface!(UnixStream);
stream_surface!(UnixStream);

/// A Unix socket that listens: [`std::os::unix::net::UnixListener`], whose `accept` parks only
/// its own coroutine.
///
/// As with std, the file that gives a socket its name stays when the listener is dropped, and the
/// name stays taken: remove the file when you are done.
///
/// ```
/// use plainsong::net::{UnixListener, UnixStream};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// # let folder = std::env::temp_dir().join(format!("plainsong-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("echo.sock");
/// plainsong::run(|| {
///     let listener = UnixListener::bind(&path)?;
///     plainsong::spawn(move || listener.serve(|conn| std::io::copy(&mut &conn, &mut &conn)));
///     let mut stream = UnixStream::connect(&path)?;
///     stream.write_all(b"hello")?;
///     stream.read_exact(&mut [0; 5])?;
///     std::fs::remove_file(&path)
/// })?;
/// # std::fs::remove_dir(&folder)
/// # }
/// ```
pub struct UnixListener(Socket<net::UnixListener>);

listener!(UnixListener, UnixStream, SocketAddr, show, UnixListener::try_clone);

impl UnixListener {
    /// Listens under this name in the file system.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when a file of that name is there, `InvalidInput` for a path that is too
    /// long for a socket, and those of the system, naming the path.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::bind_addr(&to_address("listen on", path.as_ref())?)
    }

    /// Listens on this address: [`bind`](Self::bind), also for names that are not in the file
    /// system.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        let bind = || {
            let socket = socket(Domain::UNIX)?;
            socket.bind(&to_system(socket_addr)?)?;
            socket.listen(BACKLOG)?;
            Ok(Self(Socket::new(socket.into())))
        };
        bind().map_err(|error| name("listen on", socket_addr, error))
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }

    /// Waits for a connection. The stream has no time-outs, as with std on Linux.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open descriptors; the listener stays usable.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; no connection is lost.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        self.0.retry(Interest::Read, accept_with_address)
    }

    /// Polls for a connection: [`accept`](Self::accept) for futures. If there is none, the task of
    /// `cx` is woken when there is. Only the waker of the last call is kept.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept) and of [`poll_read_ready`](Self::poll_read_ready).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, SocketAddr)>> {
        self.0.poll_retry(Interest::Read, cx, accept_with_address)
    }

    /// Accepts a connection that is in the queue, or fails with `WouldBlock`.
    pub(super) fn accept_queued(&self) -> io::Result<(UnixStream, SocketAddr)> {
        self.0.attempt(accept_with_address)
    }

    /// Waits until it is worthwhile to accept again, whatever the time-out and the mode.
    pub(super) fn wait_readable(&self) -> io::Result<()> {
        self.0.wait_until(Interest::Read, None).map(drop)
    }

    /// The connections, as they come. Never ends.
    pub fn incoming(&self) -> Incoming<'_, Self> {
        Incoming { listener: self }
    }
}

impl Descriptor for net::UnixListener {}
socket_surface!(UnixListener, net::UnixListener);

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a, UnixListener>;

    fn into_iter(self) -> Self::IntoIter {
        self.incoming()
    }
}

fn accept_with_address(listener: &net::UnixListener) -> io::Result<(UnixStream, SocketAddr)> {
    let (fd, peer) = accept(listener)?;
    let stream = UnixStream(Socket::new(fd.into()));
    // An unnamed socket's address, which most clients have, ends where a name would begin.
    let unnamed = offset_of!(libc::sockaddr_un, sun_path);
    let is_named = peer.len() as usize > unnamed;
    // Some systems forget the name when the other side has closed already.
    let peer = if is_named { stream.peer_addr().ok() } else { None };
    Ok((stream, peer.map_or_else(|| SocketAddr::from_pathname(""), Ok)?))
}

/// std's address of a name in the file system.
pub(super) fn to_address(what: &str, path: &Path) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(path).map_err(|error| describe(what, &format!("{path:?}"), error, ""))
}

fn to_system(address: &SocketAddr) -> io::Result<SockAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = address.as_abstract_name() {
        return SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat()));
    }
    match address.as_pathname() {
        Some(path) => SockAddr::unix(path),
        // Other systems have no sockets that get a name of the system's choice.
        None if cfg!(any(target_os = "linux", target_os = "android")) => SockAddr::unix(""),
        None => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// An error with the operation and its address.
pub(super) fn name(what: &str, address: &SocketAddr, error: io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse if address.as_pathname().is_none() => {
            ": another socket has it; stop that program or choose another name"
        }
        io::ErrorKind::ConnectionRefused if address.as_pathname().is_none() => {
            ": nothing listens there"
        }
        io::ErrorKind::AddrInUse => {
            ": a file of that name exists; remove it, unless it belongs to a server that runs"
        }
        io::ErrorKind::ConnectionRefused => {
            ": nothing listens there; a server that has ended leaves its file behind"
        }
        io::ErrorKind::NotFound => ": there is no socket of that name, or no folder to make one in",
        _ => "",
    };
    describe(what, &show(address), error, advice)
}

/// An address in words.
pub(super) fn show(address: &SocketAddr) -> String {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = address.as_abstract_name() {
        return format!("the abstract name {:?}", OsStr::from_bytes(name));
    }
    match address.as_pathname() {
        Some(path) => format!("{path:?}"),
        None => "a socket without a name".to_owned(),
    }
}
