//! The open loop: messages are due at fixed times, and the latency of a message counts from when it
//! was *due*. So a stall of the server counts for every message that had to wait. The closed loop
//! leaves that out ("coordinated omission").

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Driven;
use super::clients::Clients;

/// How long messages may take after the end of the window.
const GRACE: Duration = Duration::from_secs(1);

/// Sends `rate` requests a second for `window`, from one client after the other.
pub(super) fn drive(
    clients: &mut Clients,
    pipeline: usize,
    rate: f64,
    window: Duration,
) -> Result<Driven> {
    ensure!(rate > 0.0, "an open loop needs a rate above nothing");
    let mut driven = Driven::new(pipeline)?;
    // Pipelined requests are due together.
    let rate = rate / pipeline as f64;
    let interval = Duration::from_secs_f64(1.0 / rate);
    let total = (window.as_secs_f64() * rate) as u64;
    // Each client's messages that are due. The front one is in flight.
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

/// Records the messages that are still due with the time that they have waited, and waits for those
/// in flight.
fn finish(clients: &mut Clients, driven: &mut Driven, due: &[VecDeque<Instant>]) -> Result<()> {
    let now = Instant::now();
    for was_due in due.iter().flatten() {
        driven.unanswered += driven.pipeline;
        driven.record(now - *was_due);
    }
    clients.settle(|_, _| Ok(false))
}
