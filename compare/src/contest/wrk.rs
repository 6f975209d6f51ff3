//! A second opinion: `wrk`, where it is installed, on the core of our own load.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{find_program, our_program};

/// Whether it is installed.
pub(super) fn is_here() -> bool {
    find_program("wrk").is_some()
}

/// Requests a second, as it measures them.
pub(super) fn ask(address: SocketAddr, page: &str, connections: usize) -> Result<f64> {
    // It measures whole seconds.
    const WINDOW: Duration = Duration::from_secs(1);
    let output = Command::new(our_program()?)
        .args(["on-load-core", "wrk", "-t1", "-c"])
        .arg(connections.to_string())
        .arg(format!("-d{}", WINDOW.as_secs()))
        .arg(format!("http://{address}/{page}"))
        .output()
        .context("cannot run wrk")?;
    ensure!(output.status.success(), "wrk failed: {}", String::from_utf8_lossy(&output.stderr));
    parse(&String::from_utf8(output.stdout)?)
}

fn parse(report: &str) -> Result<f64> {
    let failed = report.lines().find(|line| line.contains("Non-2xx") || line.contains("errors"));
    ensure!(failed.is_none(), "wrk saw {failed:?}");
    let line = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.context("wrk reported no rate")?.trim().parse().context("wrk's rate is no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_is_understood() {
        assert_eq!(parse("Running 1s test\nRequests/sec:  1234.50\n").unwrap(), 1234.5);
        assert!(parse("  Socket errors: connect 0\nRequests/sec: 1\n").is_err());
    }
}
