//! The closed loop: every client sends its next message as soon as the last one has come back. It finds the
//! most that a server can do; a slow server slows its clients too, so its latencies flatter.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Driven;
use super::clients::Clients;

/// Keeps all clients busy for `window`, then waits until every message has come back.
pub(super) fn drive(clients: &mut Clients, window: Duration) -> Result<Driven> {
    let mut driven = Driven::new()?;
    let end = Instant::now() + window;
    let mut sent_at = Vec::with_capacity(clients.len());
    for index in 0..clients.len() {
        sent_at.push(Instant::now());
        clients.send(index)?;
    }
    clients.settle(|clients, index| {
        let now = Instant::now();
        driven.record(now - sent_at[index]);
        if now < end {
            sent_at[index] = now;
            clients.send(index)?;
        }
        Ok(())
    })?;
    Ok(driven)
}
