//! The open loop: messages are due at fixed times, and a message's latency counts from when it was *due*. A
//! server that stalls is charged for every message that had to wait meanwhile, which is what the closed loop
//! leaves out ("coordinated omission").

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Driven;
use super::clients::Clients;

/// How long messages that were due may take after the window's end.
const GRACE: Duration = Duration::from_secs(1);

/// Sends `rate` requests a second for `window`, taking the clients in turn.
pub(super) fn drive(
    clients: &mut Clients,
    pipeline: usize,
    rate: f64,
    window: Duration,
) -> Result<Driven> {
    ensure!(rate > 0.0, "an open loop needs a rate above nothing");
    let mut driven = Driven::new(pipeline)?;
    // What is pipelined is due together.
    let rate = rate / pipeline as f64;
    let interval = Duration::from_secs_f64(1.0 / rate);
    let total = (window.as_secs_f64() * rate) as u64;
    // The messages of each client that are due; the front one is under way.
    let mut due: Vec<VecDeque<Instant>> = vec![VecDeque::new(); clients.active()];
    let mut done = Vec::new();
    let began = Instant::now();
    let mut next_due = began;
    let mut sent = 0;
    while sent < total || clients.under_way() > 0 {
        let now = Instant::now();
        if now > began + window + GRACE {
            break;
        }
        while sent < total && next_due <= now {
            let index = (sent % clients.active() as u64) as usize;
            due[index].push_back(next_due);
            if due[index].len() == 1 {
                clients.send(index)?;
            }
            sent += 1;
            next_due = began + interval.mul_f64(sent as f64);
        }
        clients.poll(&mut done)?;
        let now = Instant::now();
        for index in done.drain(..) {
            if let Some(was_due) = due[index].pop_front() {
                driven.record(now - was_due);
            }
            if !due[index].is_empty() {
                clients.send(index)?;
            }
        }
    }
    finish(clients, &mut driven, &due)?;
    Ok(driven)
}

/// Charges the messages that are still due for the time they have waited, and lets those under way come back.
fn finish(clients: &mut Clients, driven: &mut Driven, due: &[VecDeque<Instant>]) -> Result<()> {
    let now = Instant::now();
    for was_due in due.iter().flatten() {
        driven.unanswered += driven.pipeline;
        driven.record(now - *was_due);
    }
    clients.settle(|_, _| Ok(false))
}
