//! The closed loop: every client sends its next message as soon as the last one has come back, or after it has
//! thought for a while. It finds the most that a server can do; a slow server slows its clients too, so its
//! latencies flatter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::clients::Clients;
use super::{Driven, Shape};

/// Keeps all clients busy for `window`, then waits until every message has come back.
pub(super) fn drive(clients: &mut Clients, shape: &Shape, window: Duration) -> Result<Driven> {
    let mut driven = Driven::new(shape.pipeline)?;
    let end = Instant::now() + window;
    let mut sent_at = Vec::with_capacity(clients.active());
    for index in 0..clients.active() {
        sent_at.push(Instant::now());
        clients.send(index)?;
    }
    // All think for the same time, so those who began first are done first.
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
