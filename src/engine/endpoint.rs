//! Sockets and other files behind descriptors, as plain data for reports: such as
//! `tcp 127.0.0.1:80 <- 10.0.0.7:41522`.

#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::{fmt, io, iter};

use socket2::{SockAddr, SockRef, Type};

use super::fd::file_type;

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
    /// As many numbers are a name.
    pub(crate) const WORDS: usize = 1 + Self::UNIX_MAX.div_ceil(size_of::<u64>());

    /// The name as numbers, which [`from_words`](Self::from_words) reads.
    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        match self {
            Self::None => {}
            Self::Inet(SocketAddr::V4(address)) => {
                words[0] = u64::from(address.port()) << 2 | 1;
                words[1] = u32::from(*address.ip()).into();
            }
            Self::Inet(SocketAddr::V6(address)) => {
                words[0] = u64::from(address.scope_id()) << 18 | u64::from(address.port()) << 2 | 2;
                let ip = u128::from(*address.ip());
                (words[1], words[2]) = ((ip >> 64) as u64, ip as u64);
                words[3] = address.flowinfo().into();
            }
            Self::Unix { text, len } => {
                words[0] = u64::from(len) << 2 | 3;
                for (word, part) in words[1..].iter_mut().zip(text.chunks(size_of::<u64>())) {
                    let mut bytes = [0; size_of::<u64>()];
                    bytes[..part.len()].copy_from_slice(part);
                    *word = u64::from_ne_bytes(bytes);
                }
            }
        }
        words
    }

    pub(crate) fn from_words(words: &[u64]) -> Self {
        let &[first, high, low, flow, ..] = words else { return Self::None };
        let port = (first >> 2) as u16;
        match first & 3 {
            1 => Self::Inet((Ipv4Addr::from(high as u32), port).into()),
            2 => {
                let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
                let scope = (first >> 18) as u32;
                Self::Inet(SocketAddrV6::new(ip, port, flow as u32, scope).into())
            }
            3 => {
                let mut text = [0; Self::UNIX_MAX];
                let bytes = words[1..].iter().flat_map(|word| word.to_ne_bytes());
                text.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                Self::Unix { text, len: (first >> 2) as u8 }
            }
            _ => Self::None,
        }
    }

    fn of(address: &SockAddr) -> Self {
        if let Some(address) = address.as_socket() {
            return Self::Inet(address);
        }
        let path = address.as_pathname().map(|path| path.as_os_str().as_bytes());
        let name = address.as_abstract_namespace();
        match (path, name) {
            (Some(path), _) => Self::unix(path.iter().copied()),
            (None, Some(name)) => Self::unix(iter::once(b'@').chain(name.iter().copied())),
            (None, None) => Self::None,
        }
    }

    fn unix(bytes: impl Iterator<Item = u8>) -> Self {
        let (mut text, mut len) = ([0; Self::UNIX_MAX], 0);
        for (to, from) in text.iter_mut().zip(bytes) {
            *to = from;
            len += 1;
        }
        Self::Unix { text, len }
    }
}

impl Endpoint {
    /// The file behind the descriptor with this number.
    pub(crate) fn of(number: u32) -> Self {
        let Ok(number) = i32::try_from(number) else { return Self::Other("descriptor") };
        // SAFETY: a coroutine waits for the descriptor, so it is open. Should it have been closed
        // behind our back, the calls below fail, or describe what has the number now; they change
        // nothing.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&fd);
        let Ok(kind) = socket.r#type() else { return Self::Other(file_kind(fd)) };
        let name = |address: io::Result<SockAddr>| address.as_ref().map_or(Name::None, Name::of);
        let (local, peer) = (name(socket.local_addr()), name(socket.peer_addr()));
        let inet = matches!(local, Name::Inet(_));
        let protocol = match (inet, kind) {
            (true, Type::STREAM) => "tcp",
            (true, Type::DGRAM) => "udp",
            (true, _) => "socket",
            (false, Type::DGRAM) => "unix datagram",
            (false, _) => "unix",
        };
        let listens = listens(&socket);
        Self::Socket { protocol, listens, local, peer }
    }
}

#[cfg(not(target_vendor = "apple"))]
fn listens(socket: &SockRef<'_>) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// These systems do not say.
#[cfg(target_vendor = "apple")]
fn listens(_socket: &SockRef<'_>) -> bool {
    false
}

fn file_kind(fd: BorrowedFd<'_>) -> &'static str {
    match file_type(fd) {
        Some(libc::S_IFIFO) => "pipe",
        Some(libc::S_IFCHR) => "terminal or device",
        Some(libc::S_IFREG) => "file",
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
