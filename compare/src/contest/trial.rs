//! One trial: a fresh server on one core, a fresh load on the other.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::calls::{Calls, Counter};
use super::wrk;
use crate::load::{Job, Plan, Seen, Shape};
use crate::process::Helper;
use crate::servers::Style;

/// How much longer than planned a load may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The servers' ports: below the range from which the kernel takes the clients' ports.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A load, and how long it is measured.
pub(super) struct Trial {
    pub(super) job: Job,
    pub(super) shape: Shape,
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
    /// Requests a second of the open loop; none without an open loop.
    pub(super) rate: Option<f64>,
}

impl Trial {
    /// Measures a style's server under the load.
    pub(super) fn run(&self, style: Style) -> Result<Seen> {
        let (server, address) = self.start(style)?;
        let plan = self.plan(&server, address);
        let mut load = Helper::of_ourselves("the load", ["load", &serde_json::to_string(&plan)?])?;
        let patience = 2 * (self.warm_up + self.window) + PATIENCE;
        load.answer(patience).with_context(|| format!("{style} under load"))
    }

    /// Counts a style's system calls for a request, and in a second while its clients are idle.
    /// This needs a separate run, because counting slows the server down.
    pub(super) fn count_calls(&self, style: Style) -> Result<(Calls, Option<f64>)> {
        let (server, address) = self.start(style)?;
        let plan = Plan { rate: None, gate: true, ..self.plan(&server, address) };
        let mut load = Helper::of_ourselves("the load", ["load", &serde_json::to_string(&plan)?])?;
        let warm = load.read_line(PATIENCE)?;
        ensure!(warm == "warm", "the load said {warm:?}");
        let Some(counter) = Counter::attach(server.id())? else {
            return Ok((Calls::NotCounted, None));
        };
        let began = Instant::now();
        thread::sleep(self.window);
        let elapsed = began.elapsed();
        let silent = counter.detach()?.count().map(|calls| calls / elapsed.as_secs_f64());
        let Some(counter) = Counter::attach(server.id())? else {
            return Ok((Calls::NotCounted, silent));
        };
        load.send_line("go")?;
        let seen: Seen = load.answer(self.window + PATIENCE)?;
        Ok((counter.detach()?.per(seen.closed.requests), silent))
    }

    /// Requests a second, as `wrk` measures them.
    pub(super) fn ask_wrk(&self, style: Style) -> Result<f64> {
        let (_server, address) = self.start(style)?;
        wait_until_it_listens(address)?;
        wrk::ask(address, &name(self.job)?, self.shape.connections)
    }

    /// Starts a style's server. It may not listen yet, so the load tries until it does.
    fn start(&self, style: Style) -> Result<(Helper, SocketAddr)> {
        let address = free_address()?;
        let arguments = ["serve", &name(self.job)?, &name(style)?, &address.to_string()];
        Ok((Helper::of_ourselves(style.label(), arguments)?, address))
    }

    fn plan(&self, server: &Helper, address: SocketAddr) -> Plan {
        Plan {
            address,
            server: server.id(),
            job: self.job,
            shape: self.shape,
            warm_up: self.warm_up,
            window: self.window,
            rate: self.rate,
            gate: false,
        }
    }
}

/// Its name on the command line.
fn name(value: impl ValueEnum) -> Result<String> {
    Ok(value.to_possible_value().context("it has a name")?.get_name().to_owned())
}

fn wait_until_it_listens(address: SocketAddr) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(began.elapsed() < PATIENCE, "the server does not listen");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A free address. Each server gets another port, because the kernel may still hold connections of
/// an earlier one.
///
/// # Errors
///
/// When every port is taken.
pub fn free_address() -> Result<SocketAddr> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two comparisons that run at the same time start at different ports.
    let first = (std::process::id() % 1000) as u16 * 11;
    for _ in PORTS {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + offset));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port is free")
}
