//! What a head means. Whatever two readers could understand in two ways is refused: that is how requests are
//! smuggled past proxies.

use std::mem::MaybeUninit;

use httparse::{Error, Header, Status};

use super::{Failure, Result};

/// How many headers a request may have.
pub(crate) const HEADERS_MAX: usize = 64;

/// A request, as its handler sees it.
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

/// Parses a head, if all of it is there, and says how long it is.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    headers: &'a mut [MaybeUninit<Header<'a>>],
) -> Result<Option<(usize, Request<'a>)>> {
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, headers) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(Error::TooManyHeaders) => return Err(Failure::Refused(431, "too many headers")),
        Err(Error::Version) => {
            return Err(Failure::Refused(505, "only HTTP/1.0 and HTTP/1.1 here"));
        }
        Err(_) => return Err(Failure::Refused(400, "this is no request of HTTP")),
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default(),
        target: path(parsed.path.unwrap_or_default())?,
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

/// The path and the query of a target, which may also be a whole URL or, for all of the server, an asterisk.
fn path(target: &str) -> Result<&str> {
    if target.starts_with('/') || target == "*" {
        return Ok(target);
    }
    let rest = target.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    let (_, rest) = rest.ok_or(Failure::Refused(400, "the target is neither a path nor a URL"))?;
    Ok(rest.find('/').map_or("/", |slash| &rest[slash..]))
}

impl<'a> Request<'a> {
    /// The value of a header that is text; the first, if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let header = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    }

    pub(super) fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// Whether another request may follow: in HTTP/1.1 unless it says no, before that only if it says so.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.says_close && (!self.is_1_0 || self.says_keep_alive)
    }

    /// Reads the headers that are about the message and not about what is asked for.
    fn understand(&mut self) -> Result<()> {
        let (mut length, mut is_chunked, mut hosts) = (None, false, 0);
        for Header { name, value } in self.headers {
            if name.eq_ignore_ascii_case("Host") {
                hosts += 1;
            } else if name.eq_ignore_ascii_case("Content-Length") {
                if length.replace(number(value)?).is_some() {
                    return Err(Failure::Refused(400, "there are two lengths"));
                }
            } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
                if is_chunked || self.is_1_0 {
                    return Err(Failure::Refused(400, "this transfer encoding cannot be right"));
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
                // Older clients do not understand the answer.
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

/// A length is digits and nothing else: no sign, no list.
fn number(value: &[u8]) -> Result<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number);
    let text = text.ok_or(Failure::Refused(400, "the length is not a number"))?;
    // One that is too long for a number is too long for us.
    Ok(text.parse().unwrap_or(usize::MAX))
}
