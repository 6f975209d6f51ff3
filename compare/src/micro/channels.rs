//! The channels that come with each runtime, or that its documentation recommends.

use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Threads, Tokio};

/// The capacity of a channel.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// None, or the least that there is.
    Rendezvous,
    Unbounded,
}

/// A runtime where a wait is an ordinary call, with its channels of numbers.
pub(super) trait StackfulChannels: Stackful {
    type Sender: Send + 'static;
    type Receiver: Send + 'static;

    fn channel(kind: Kind) -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, number: u64);
    fn recv(receiver: &mut Self::Receiver) -> u64;
}

/// A runtime where a wait is `.await`, with its channels of numbers.
pub(super) trait AsyncChannels: Async {
    type Sender: Send + Sync + 'static;
    type Receiver: Send + 'static;

    fn channel(kind: Kind) -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, number: u64) -> impl Future<Output = ()> + Send;
    fn recv(receiver: &mut Self::Receiver) -> impl Future<Output = u64> + Send;
}

/// The other end exists until everything is done.
const OPEN: &str = "the other end of the channel is there";

impl StackfulChannels for Plainsong {
    type Sender = plainsong::sync::channel::Sender<u64>;
    type Receiver = plainsong::sync::channel::Receiver<u64>;

    fn channel(kind: Kind) -> (Self::Sender, Self::Receiver) {
        match kind {
            Kind::Rendezvous => plainsong::sync::channel::bounded(0),
            Kind::Unbounded => plainsong::sync::channel::unbounded(),
        }
    }

    fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).expect(OPEN);
    }

    fn recv(receiver: &mut Self::Receiver) -> u64 {
        receiver.recv().expect(OPEN)
    }
}

impl StackfulChannels for Threads {
    type Sender = crossbeam_channel::Sender<u64>;
    type Receiver = crossbeam_channel::Receiver<u64>;

    fn channel(kind: Kind) -> (Self::Sender, Self::Receiver) {
        match kind {
            Kind::Rendezvous => crossbeam_channel::bounded(0),
            Kind::Unbounded => crossbeam_channel::unbounded(),
        }
    }

    fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).expect(OPEN);
    }

    fn recv(receiver: &mut Self::Receiver) -> u64 {
        receiver.recv().expect(OPEN)
    }
}

/// It has no bounded channels.
impl StackfulChannels for May {
    type Sender = may::sync::mpsc::Sender<u64>;
    type Receiver = may::sync::mpsc::Receiver<u64>;

    fn channel(_: Kind) -> (Self::Sender, Self::Receiver) {
        may::sync::mpsc::channel()
    }

    fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).expect(OPEN);
    }

    fn recv(receiver: &mut Self::Receiver) -> u64 {
        receiver.recv().expect(OPEN)
    }
}

/// In tokio, bounded and unbounded channels are two types.
pub(super) enum TokioSender {
    Bounded(tokio::sync::mpsc::Sender<u64>),
    Unbounded(tokio::sync::mpsc::UnboundedSender<u64>),
}

pub(super) enum TokioReceiver {
    Bounded(tokio::sync::mpsc::Receiver<u64>),
    Unbounded(tokio::sync::mpsc::UnboundedReceiver<u64>),
}

impl AsyncChannels for Tokio {
    type Sender = TokioSender;
    type Receiver = TokioReceiver;

    fn channel(kind: Kind) -> (Self::Sender, Self::Receiver) {
        match kind {
            Kind::Rendezvous => {
                let (sender, receiver) = tokio::sync::mpsc::channel(1);
                (TokioSender::Bounded(sender), TokioReceiver::Bounded(receiver))
            }
            Kind::Unbounded => {
                let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
                (TokioSender::Unbounded(sender), TokioReceiver::Unbounded(receiver))
            }
        }
    }

    async fn send(sender: &Self::Sender, number: u64) {
        match sender {
            TokioSender::Bounded(sender) => sender.send(number).await.expect(OPEN),
            TokioSender::Unbounded(sender) => sender.send(number).expect(OPEN),
        }
    }

    async fn recv(receiver: &mut Self::Receiver) -> u64 {
        match receiver {
            TokioReceiver::Bounded(receiver) => receiver.recv().await.expect(OPEN),
            TokioReceiver::Unbounded(receiver) => receiver.recv().await.expect(OPEN),
        }
    }
}

impl AsyncChannels for Smol {
    type Sender = async_channel::Sender<u64>;
    type Receiver = async_channel::Receiver<u64>;

    fn channel(kind: Kind) -> (Self::Sender, Self::Receiver) {
        match kind {
            Kind::Rendezvous => async_channel::bounded(1),
            Kind::Unbounded => async_channel::unbounded(),
        }
    }

    async fn send(sender: &Self::Sender, number: u64) {
        sender.send(number).await.expect(OPEN);
    }

    async fn recv(receiver: &mut Self::Receiver) -> u64 {
        receiver.recv().await.expect(OPEN)
    }
}
