//! Streams of plainsong under the traits of async crates, and the other way round.

#![cfg(all(feature = "futures-io", feature = "tokio"))]

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::AsyncWriteExt as _;
use plainsong::net::UnixStream;
use plainsong_compat::{Async, futures, split, tokio as compat};
use tokio::io::{AsyncWriteExt as _, ReadBuf};

/// More than a socket holds, so that both sides wait.
const LEN: usize = 3_000_000;

fn text() -> Vec<u8> {
    (0..LEN).map(|n| n as u8).collect()
}

fn pair() -> (Async<UnixStream>, Async<UnixStream>) {
    let (one, two) = UnixStream::pair().unwrap();
    (Async::new(one), two.into())
}

#[test]
fn futures_io_moves_more_than_a_socket_holds() {
    plainsong::run(|| {
        let (mut one, mut two) = pair();
        plainsong::spawn(move || {
            plainsong::block_on(async {
                futures_util::AsyncWriteExt::write_all(&mut one, &text()).await.unwrap();
                one.close().await.unwrap();
            });
        });
        let mut got = Vec::new();
        let read = futures_util::AsyncReadExt::read_to_end(&mut two, &mut got);
        assert_eq!(plainsong::block_on(read).unwrap(), LEN);
        assert!(got == text());
    });
}

#[test]
fn tokios_traits_move_more_than_a_socket_holds() {
    plainsong::run(|| {
        let (mut one, mut two) = pair();
        plainsong::spawn(move || {
            plainsong::block_on(async {
                let (head, tail) = (&text()[..10], &text()[10..]);
                let bufs = [IoSlice::new(head), IoSlice::new(b"")];
                let sent = tokio::io::AsyncWriteExt::write_vectored(&mut one, &bufs).await;
                assert_eq!(sent.unwrap(), 10);
                tokio::io::AsyncWriteExt::write_all(&mut one, tail).await.unwrap();
                one.shutdown().await.unwrap();
            });
        });
        let mut got = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut two, &mut got);
        assert_eq!(plainsong::block_on(read).unwrap(), LEN);
        assert!(got == text());
    });
}

#[test]
fn halves_work_in_two_coroutines_and_the_one_that_writes_ends_its_direction() {
    plainsong::run(|| {
        let (one, two) = pair();
        let (mut read, mut write) = split(one.into_inner());
        let echo = plainsong::spawn(move || {
            let (mut read, mut write) = split(two.into_inner());
            plainsong::block_on(tokio::io::copy(&mut read, &mut write)).unwrap()
        });
        plainsong::spawn(move || {
            let sent = text();
            plainsong::block_on(tokio::io::AsyncWriteExt::write_all(&mut write, &sent)).unwrap();
        });
        let mut got = Vec::new();
        let all = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut got);
        plainsong::block_on(all).unwrap();
        assert!(got == text());
        assert_eq!(echo.join().unwrap(), LEN as u64);
    });
}

#[test]
fn coroutines_read_and_write_the_streams_of_async_crates() {
    plainsong::run(|| {
        let (one, two) = tokio::io::duplex(100);
        let (mut one, mut two) = (compat::SyncIo::new(one), compat::SyncIo::new(two));
        plainsong::spawn(move || {
            one.write_all(&text()).unwrap();
            one.flush().unwrap();
            one.shutdown().unwrap();
        });
        let mut got = Vec::new();
        two.read_to_end(&mut got).unwrap();
        assert!(got == text());

        let (one, two) = pair();
        let (mut one, mut two) = (futures::SyncIo::new(one), futures::SyncIo::new(two));
        plainsong::spawn(move || {
            one.write_all(&text()).unwrap();
            one.flush().unwrap();
            one.close().unwrap();
        });
        let mut got = Vec::new();
        two.read_to_end(&mut got).unwrap();
        assert!(got == text());
    });
}

#[test]
fn an_empty_read_does_not_wait() {
    plainsong::run(|| {
        let (one, two) = pair();
        let (mut one, mut two) = (compat::SyncIo::new(one), futures::SyncIo::new(two));
        let reads = plainsong::no_wait(|| {
            let vectored = two.read_vectored(&mut [IoSliceMut::new(&mut [])]);
            [one.read(&mut []), two.read(&mut []), vectored].map(Result::unwrap)
        });
        assert_eq!(reads, [0; 3]);
        // Later bytes are read.
        one.write_all(b"a").unwrap();
        two.write_all(b"b").unwrap();
        let (mut from_one, mut from_two) = ([0; 2], [0; 2]);
        assert_eq!((two.read(&mut from_one).unwrap(), from_one[0]), (1, b'a'));
        assert_eq!((one.read(&mut from_two).unwrap(), from_two[0]), (1, b'b'));
    });
}

#[test]
fn a_stream_that_exchanges_the_buffer_gets_an_error() {
    struct Exchanges;
    impl tokio::io::AsyncRead for Exchanges {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            *buf = ReadBuf::new(Box::leak(Box::new([0; 100])));
            buf.set_filled(100);
            Poll::Ready(Ok(()))
        }
    }
    plainsong::run(|| {
        let error = compat::SyncIo::new(Exchanges).read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    });
}
