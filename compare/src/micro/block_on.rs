//! `block-on`: one task that waits for a future that is ready, and for one that another task of the
//! thread wakes.

use std::cell::Cell;
use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use anyhow::Result;
use tokio::runtime::{Builder, LocalOptions};

use super::line::ns_each;
use super::{Bench, Peer, Sample, no_arm};

/// Waits `work` times for each.
pub(super) fn sample(peer: Peer, work: usize) -> Result<Sample> {
    match peer {
        Peer::Plainsong => Ok(plainsong::run(|| {
            let is_ready = time(work, || plainsong::block_on(black_box(ready(()))));
            vec![Some(is_ready), Some(woken(work, |slot| plainsong::block_on(slot)))]
        })),
        Peer::Guest => Ok(plainsong_tokio::run(|| {
            let is_ready = time(work, || plainsong_tokio::block_on(black_box(ready(()))));
            vec![Some(is_ready), Some(woken(work, |slot| plainsong_tokio::block_on(slot)))]
        })?),
        Peer::Tokio => {
            let runtime = Builder::new_current_thread().build_local(LocalOptions::default())?;
            Ok(runtime.block_on(tokio_sample(work)))
        }
        _ => Err(no_arm(Bench::BlockOn, peer)),
    }
}

/// A future that is ready once after each call of `fill`.
#[derive(Default)]
struct Slot {
    full: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Slot {
    fn fill(&self) {
        self.full.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Future for &Slot {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.full.take() {
            return Poll::Ready(());
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

fn time(work: usize, mut turn: impl FnMut()) -> f64 {
    (0..work / 10).for_each(|_| turn());
    let began = Instant::now();
    (0..work).for_each(|_| turn());
    ns_each(began.elapsed(), work)
}

/// Includes the turns of the coroutine that wakes, which yields after each.
fn woken(work: usize, wait: impl Fn(&Slot)) -> f64 {
    let (slot, over) = (Rc::new(Slot::default()), Rc::new(Cell::new(false)));
    let (theirs, ends) = (slot.clone(), over.clone());
    let other = plainsong::spawn(move || {
        while !ends.get() {
            theirs.fill();
            plainsong::yield_now();
        }
    });
    let ns = time(work, || wait(&slot));
    over.set(true);
    // It cannot panic.
    let _ = other.join();
    ns
}

async fn tokio_sample(work: usize) -> Sample {
    let task = tokio::task::spawn_local(async move {
        let is_ready = time_async(work, async || black_box(ready(())).await).await;
        let (slot, over) = (Rc::new(Slot::default()), Rc::new(Cell::new(false)));
        let (theirs, ends) = (slot.clone(), over.clone());
        tokio::task::spawn_local(async move {
            while !ends.get() {
                theirs.fill();
                tokio::task::yield_now().await;
            }
        });
        let woken = time_async(work, async || (&*slot).await).await;
        over.set(true);
        vec![Some(is_ready), Some(woken)]
    });
    task.await.unwrap_or_default()
}

async fn time_async(work: usize, mut turn: impl AsyncFnMut()) -> f64 {
    for _ in 0..work / 10 {
        turn().await;
    }
    let began = Instant::now();
    for _ in 0..work {
        turn().await;
    }
    ns_each(began.elapsed(), work)
}
