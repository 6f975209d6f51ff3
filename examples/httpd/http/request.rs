//! The meaning of a head.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use httparse::{Error, Header, Status};

use super::{Failure, Result};

/// How many headers a request may have, and how many trailers.
pub(crate) const HEADERS_MAX: usize = 64;

/// A request as its handler sees it.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// The path and the query.
    pub(crate) target: &'a str,
    headers: &'a [Header<'a>],
    pub(crate) body: &'a [u8],
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    pub(super) is_1_0: bool,
    says_close: bool,
    says_keep_alive: bool,
}

/// Where a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// Parses a head if all of it is there, and returns its length with it.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    headers: &'a mut [MaybeUninit<Header<'a>>],
) -> Result<Option<(usize, Request<'a>)>> {
    if bytes.starts_with(b"\r\n") || bytes.starts_with(b"\n") {
        return Err(Failure::Refused(400, "an empty line is not a request"));
    }
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, headers) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(Error::TooManyHeaders) => return Err(Failure::Refused(431, "too many headers")),
        Err(Error::Version) => {
            return Err(Failure::Refused(505, "only HTTP/1.0 and HTTP/1.1 here"));
        }
        Err(_) => return Err(Failure::Refused(400, "this is not an HTTP request")),
    };
    check_line_ends(&bytes[..len])?;
    let mut request = Request {
        method: parsed.method.unwrap_or_default(),
        target: target(parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default())?,
        headers: parsed.headers,
        body: &[],
        framing: Framing::None,
        expects_continue: false,
        is_1_0: parsed.version == Some(0),
        says_close: false,
        says_keep_alive: false,
    };
    request.understand()?;
    Ok(Some((len, request)))
}

/// Refuses a line that ends in a bare LF. httparse accepts it, but to other readers it is no end.
pub(super) fn check_line_ends(lines: &[u8]) -> Result<()> {
    let pairs = lines.iter().zip(lines.get(1..).unwrap_or_default());
    // No early exit, so that the compiler can look at many bytes at a time.
    let is_bare = pairs.fold(lines.starts_with(b"\n"), |is_bare, (&before, &byte)| {
        is_bare | ((byte == b'\n') & (before != b'\r'))
    });
    if is_bare { Err(Failure::Refused(400, "a line must end in CR LF")) } else { Ok(()) }
}

/// The path and the query of a target. It may also be a whole URL, or an asterisk for `OPTIONS` of
/// the whole server.
fn target<'a>(method: &str, target: &'a str) -> Result<&'a str> {
    const WRONG: Failure = Failure::Refused(400, "the target is neither a path nor a URL");
    if target.contains('#') {
        return Err(WRONG);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(target);
    }
    let rest = target.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    let (_, rest) = rest.ok_or(WRONG)?;
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A URL without a slash before its query would need a new string.
    if host.is_empty() || !is_host(host.as_bytes()) || path.starts_with('?') {
        return Err(WRONG);
    }
    Ok(if path.is_empty() { "/" } else { path })
}

/// Whether this is a name or an address, with or without a port (RFC 3986, section 3.2.2).
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b);
    let is_host = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.bytes().all(is_name),
    };
    let is_port = port.bytes().all(|b| b.is_ascii_digit());
    is_host && is_port && (port.is_empty() || port.parse::<u16>().is_ok())
}

impl<'a> Request<'a> {
    /// The value of a header, if it is text. Of several headers, the first.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let header = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    }

    pub(super) fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// Whether another request may follow. That is the default in HTTP/1.1, and must be asked for
    /// in HTTP/1.0.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.says_close && (!self.is_1_0 || self.says_keep_alive)
    }

    /// Reads the headers that are about the message itself.
    fn understand(&mut self) -> Result<()> {
        let (mut length, mut is_chunked, mut hosts) = (None, false, 0);
        for Header { name, value } in self.headers {
            if name.eq_ignore_ascii_case("Host") {
                hosts += 1;
                if !is_host(value) {
                    return Err(Failure::Refused(400, "the Host is not a host and a port"));
                }
            } else if name.eq_ignore_ascii_case("Content-Length") {
                if length.replace(number(value)?).is_some() {
                    return Err(Failure::Refused(400, "there are two lengths"));
                }
            } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
                if is_chunked || self.is_1_0 {
                    return Err(Failure::Refused(
                        400,
                        "this transfer encoding is not allowed here",
                    ));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Failure::Refused(
                        501,
                        "the only transfer encoding here is chunked",
                    ));
                }
                is_chunked = true;
            } else if name.eq_ignore_ascii_case("Connection") {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.says_close |= option.eq_ignore_ascii_case(b"close");
                    self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if name.eq_ignore_ascii_case("Expect") {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Failure::Refused(417, "only 100-continue can be expected here"));
                }
                // Clients of HTTP/1.0 do not understand that reply.
                self.expects_continue = !self.is_1_0;
            }
        }
        if hosts > 1 || (hosts == 0 && !self.is_1_0) {
            return Err(Failure::Refused(400, "there must be one Host"));
        }
        self.framing = match (length, is_chunked) {
            (Some(_), true) => return Err(Failure::Refused(400, "a chunked body has no length")),
            (None, true) => Framing::Chunked,
            (None | Some(0), false) => Framing::None,
            (Some(length), false) => Framing::Length(length),
        };
        Ok(())
    }
}

/// A length consists of digits: no sign, no list.
fn number(value: &[u8]) -> Result<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number);
    let text = text.ok_or(Failure::Refused(400, "the length is not a number"))?;
    // A length that overflows is too long in any case.
    Ok(text.parse().unwrap_or(usize::MAX))
}
