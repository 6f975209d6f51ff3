//! Sockets and other files behind descriptors, as plain data for reports: such as
//! `tcp 127.0.0.1:80 <- 10.0.0.7:41522`.

#![allow(unsafe_code)]

use std::fmt;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::fs::FileType;
use rustix::net::SocketType;
use rustix::net::sockopt;

/// The file behind a descriptor. Finding out takes some system calls, and allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Endpoint {
    Socket { protocol: &'static str, listens: bool, local: Name, peer: Name },
    Other(&'static str),
}

/// The address of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Name {
    None,
    Inet(SocketAddr),
    /// The beginning of a path, or of an abstract name behind an `@`.
    Unix {
        text: [u8; Name::UNIX_MAX],
        len: u8,
    },
}

impl Name {
    /// Longer paths are cut.
    const UNIX_MAX: usize = 46;

    /// The address that `ask`, one of libc's functions, finds.
    ///
    /// rustix has these calls too, but panics at a Unix path of the full length.
    fn ask(fd: i32, ask: Ask) -> Self {
        // SAFETY: zeroes are valid for a `sockaddr_storage`.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut len = size_of_val(&storage) as libc::socklen_t;
        let place = ptr::from_mut(&mut storage);
        // SAFETY: the place is valid for as many bytes as `len` says.
        if unsafe { ask(fd, place.cast(), &mut len) } != 0 {
            return Self::None;
        }
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: an address of this family is of this type, which is plain data.
                let it = unsafe { &*place.cast::<libc::sockaddr_in>() };
                let address = Ipv4Addr::from(u32::from_be(it.sin_addr.s_addr));
                Self::Inet(SocketAddr::new(address.into(), u16::from_be(it.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let it = unsafe { &*place.cast::<libc::sockaddr_in6>() };
                let address = Ipv6Addr::from(it.sin6_addr.s6_addr);
                Self::Inet(SocketAddr::new(address.into(), u16::from_be(it.sin6_port)))
            }
            libc::AF_UNIX => {
                // SAFETY: as above.
                let it = unsafe { &*place.cast::<libc::sockaddr_un>() };
                let room =
                    (len as usize).saturating_sub(mem::offset_of!(libc::sockaddr_un, sun_path));
                Self::unix(it.sun_path.iter().take(room).map(|byte| *byte as u8))
            }
            _ => Self::None,
        }
    }

    fn unix(bytes: impl Iterator<Item = u8>) -> Self {
        let (mut text, mut len) = ([0; Self::UNIX_MAX], 0);
        for from in bytes.take(Self::UNIX_MAX) {
            text[usize::from(len)] = match (len, from) {
                // An abstract name begins with a zero, a path ends with one.
                (0, 0) => b'@',
                (_, 0) if text[0] != b'@' => break,
                _ => from,
            };
            len += 1;
        }
        if len == 0 { Self::None } else { Self::Unix { text, len } }
    }
}

/// The type of `getsockname` and `getpeername`.
///
/// # Safety
///
/// The second argument must be valid for as many bytes as the third says. SAFETY: see the calls.
type Ask =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

impl Endpoint {
    /// The file behind the descriptor with this number.
    pub(crate) fn of(number: u32) -> Self {
        let Ok(number) = i32::try_from(number) else { return Self::Other("descriptor") };
        // SAFETY: a coroutine waits for the descriptor, so it is open. Should it have been closed
        // behind our back, the calls below fail, or describe what has the number now; they change
        // nothing.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let Ok(kind) = sockopt::socket_type(fd) else { return Self::Other(file_kind(fd)) };
        let local = Name::ask(number, libc::getsockname);
        let peer = Name::ask(number, libc::getpeername);
        let inet = matches!(local, Name::Inet(_));
        let protocol = match (inet, kind) {
            (true, SocketType::STREAM) => "tcp",
            (true, SocketType::DGRAM) => "udp",
            (true, _) => "socket",
            (false, SocketType::DGRAM) => "unix datagram",
            (false, _) => "unix",
        };
        let listens = listens(fd);
        Self::Socket { protocol, listens, local, peer }
    }
}

#[cfg(not(target_vendor = "apple"))]
fn listens(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// These systems do not say.
#[cfg(target_vendor = "apple")]
fn listens(_socket: BorrowedFd<'_>) -> bool {
    false
}

fn file_kind(fd: BorrowedFd<'_>) -> &'static str {
    match rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Fifo) => "pipe",
        Ok(FileType::CharacterDevice) => "terminal or device",
        Ok(FileType::RegularFile) => "file",
        // A pidfd, a timer, an inotify instance and the like.
        _ => "descriptor",
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("unnamed"),
            Self::Inet(address) => address.fmt(f),
            Self::Unix { text, len } => {
                let text = String::from_utf8_lossy(&text[..usize::from(*len)]);
                write!(f, "{}", text.escape_debug())
            }
        }
    }
}

impl Endpoint {
    /// Writes an operation on it: `read tcp 127.0.0.1:80 <- 10.0.0.7:41522`.
    pub(crate) fn describe(&self, verb: &str, number: u32) -> String {
        match self {
            Self::Other(kind) => format!("{verb} {kind}, descriptor {number}"),
            Self::Socket { protocol, listens: true, local, .. } => {
                format!("accept {protocol} {local}")
            }
            Self::Socket { protocol, local, peer: Name::None, .. } => {
                format!("{verb} {protocol} {local}")
            }
            Self::Socket { protocol, local, peer, .. } => {
                let arrow = if verb == "write" { "->" } else { "<-" };
                format!("{verb} {protocol} {local} {arrow} {peer}")
            }
        }
    }
}
