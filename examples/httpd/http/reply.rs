//! Replies, and the `Date` that each of them has.

use std::cell::Cell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::request::Request;

/// A reply that has not been sent.
pub(crate) struct Reply<'a> {
    output: &'a mut Vec<u8>,
    clock: &'a Clock,
    connection: &'static str,
    has_body: bool,
}

/// A reply that was sent. Only [`Reply::send`] makes one, so no handler can forget its reply.
pub(crate) struct Sent(());

impl<'a> Reply<'a> {
    pub(super) fn new(output: &'a mut Vec<u8>, clock: &'a Clock) -> Self {
        Self { output, clock, connection: "", has_body: true }
    }

    /// Says that the connection closes after this reply.
    pub(super) fn closes(mut self) -> Self {
        self.connection = "\r\nConnection: close";
        self
    }

    /// Leaves out the body, whose length is still given: a reply to HEAD.
    pub(super) fn without_body(mut self) -> Self {
        self.has_body = false;
        self
    }

    pub(super) fn to(mut self, request: &Request<'_>) -> Self {
        self.has_body = request.method != "HEAD";
        if !request.keeps_alive() {
            return self.closes();
        }
        if request.is_1_0 {
            self.connection = "\r\nConnection: keep-alive";
        }
        self
    }

    /// Sends the reply. `headers` are those beside `Date`, `Content-Length` and `Connection`.
    pub(crate) fn send(self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Sent {
        let output = self.output;
        output.extend_from_slice(status_line(status));
        output.extend_from_slice(&self.clock.text.get());
        output.extend_from_slice(b"\r\nContent-Length: ");
        // Writing to memory cannot fail.
        let _ = write!(output, "{}", body.len());
        output.extend_from_slice(self.connection.as_bytes());
        for (name, value) in headers {
            for part in ["\r\n", name, ": ", value] {
                output.extend_from_slice(part.as_bytes());
            }
        }
        output.extend_from_slice(b"\r\n\r\n");
        if self.has_body {
            output.extend_from_slice(body);
        }
        Sent(())
    }
}

/// A status line, and what stands between it and the date.
fn status_line(status: u16) -> &'static [u8] {
    macro_rules! line {
        ($status:literal) => {
            concat!("HTTP/1.1 ", $status, "\r\nDate: ").as_bytes()
        };
    }
    match status {
        200 => line!("200 OK"),
        400 => line!("400 Bad Request"),
        404 => line!("404 Not Found"),
        405 => line!("405 Method Not Allowed"),
        408 => line!("408 Request Timeout"),
        413 => line!("413 Content Too Large"),
        414 => line!("414 URI Too Long"),
        417 => line!("417 Expectation Failed"),
        431 => line!("431 Request Header Fields Too Large"),
        501 => line!("501 Not Implemented"),
        505 => line!("505 HTTP Version Not Supported"),
        _ => line!("500 Internal Server Error"),
    }
}

const DATE_BYTES: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

/// The date as headers have it, formatted once a second.
pub(crate) struct Clock {
    second: Cell<u64>,
    text: Cell<[u8; DATE_BYTES]>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let clock = Self { second: Cell::new(u64::MAX), text: Cell::new([0; DATE_BYTES]) };
        clock.update();
        clock
    }

    pub(super) fn update(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second.replace(since.as_secs()) != since.as_secs() {
            self.text.set(date(since.as_secs()));
        }
    }
}

/// A time in seconds since 1970, as HTTP writes it.
fn date(second: u64) -> [u8; DATE_BYTES] {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (mut day, time) = (second / 86_400, second % 86_400);
    let weekday = WEEKDAYS[(day % 7) as usize];
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    let days = |month| match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    };
    while day >= days(month) {
        day -= days(month);
        month += 1;
    }
    let mut text = [b' '; DATE_BYTES];
    // It fits for the next eight thousand years.
    let _ = write!(
        &mut text[..],
        "{weekday}, {:02} {} {year} {:02}:{:02}:{:02} GMT",
        day + 1,
        MONTHS[month],
        time / 3600,
        time / 60 % 60,
        time % 60
    );
    text
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&date(second)), Ok(text));
        }
    }
}
