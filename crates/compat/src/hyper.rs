//! The traits that hyper needs of a runtime: `hyper::rt`.

#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt::{self, Read, ReadBufCursor, Write};

use crate::{Async, Readable};

impl<T: Readable + Unpin> Read for Async<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: the slice is only given to `try_read_uninit`, which takes no initialisation away.
        let unfilled = unsafe { buf.as_mut() };
        let read = Async::poll_read(&self, cx, unfilled.len(), |stream| {
            stream.try_read_uninit(unfilled).map(|read| read.len())
        });
        let len = ready!(read)?;
        // SAFETY: `try_read_uninit` has initialised this many bytes at the start of the slice.
        unsafe { buf.advance(len) };
        Poll::Ready(Ok(()))
    }
}

crate::writer!(Write);

/// Runs each future that hyper hands over, such as the requests of an HTTP/2 connection, as a
/// coroutine of its own.
///
/// # Panics
///
/// hyper's call panics on a thread on which no runtime of plainsong runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> rt::Executor<F> for Executor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        drop(plainsong::spawn(|| plainsong::block_on(future)));
    }
}

/// The clock and the timers of plainsong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

struct Sleep(plainsong::time::Sleep);

impl rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep(plainsong::time::Sleep::new(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep(plainsong::time::Sleep::until(deadline)))
    }

    fn now(&self) -> Instant {
        plainsong::time::now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(mut sleep) => sleep.0.reset(new_deadline),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}
