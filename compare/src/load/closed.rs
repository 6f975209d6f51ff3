//! The closed loop: every client sends its next message when the last one is complete, or after a
//! pause. It measures the most that a server can do. A slow server also slows its clients down, so
//! its latencies look too good.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::clients::Clients;
use super::{Driven, Shape};

/// Keeps all clients busy for `window`, then waits until every message is complete.
pub(super) fn drive(clients: &mut Clients, shape: &Shape, window: Duration) -> Result<Driven> {
    let mut driven = Driven::new(shape.pipeline)?;
    let end = Instant::now() + window;
    let mut sent_at = Vec::with_capacity(clients.active());
    for index in 0..clients.active() {
        sent_at.push(Instant::now());
        clients.send(index)?;
    }
    // All pauses are equally long, so the first to begin is the first to end.
    let mut thinking = VecDeque::new();
    clients.settle(|clients, done| {
        let now = Instant::now();
        for index in done.drain(..) {
            driven.record(now - sent_at[index]);
            thinking.push_back((now + shape.think, index));
        }
        if now >= end {
            return Ok(false);
        }
        while thinking.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, index)) = thinking.pop_front() else { break };
            sent_at[index] = Instant::now();
            clients.send(index)?;
        }
        Ok(true)
    })?;
    Ok(driven)
}
