//! `all`: measures everything that the report shows, or some parts of it.

use std::str::FromStr;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::micro::{self, Bench};
use crate::{code, contest, report, terminal};

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The servers as text.
    Code,
    /// A micro-benchmark.
    Micro(Bench),
    /// Echo servers under load.
    Echo,
    /// HTTP servers under load.
    Http,
    /// Servers whose connections are short.
    Short,
    /// Echo servers with more and more connections.
    Scale,
    /// Coroutines beside tokio, and hyper on sockets of plainsong.
    Guest,
    /// plainsong with what looks into a running program on.
    Watched,
}

impl Step {
    fn all() -> impl Iterator<Item = Step> {
        let micro = Bench::ALL.into_iter().map(Step::Micro);
        [Step::Code].into_iter().chain(micro).chain([
            Step::Echo,
            Step::Http,
            Step::Short,
            Step::Scale,
            Step::Guest,
            Step::Watched,
        ])
    }

    /// The names of all steps.
    fn names() -> String {
        let names: Vec<_> = Step::all().filter_map(|step| step.name().ok()).collect();
        format!("there are {}", names.join(", "))
    }

    fn name(self) -> Result<String> {
        match self {
            Step::Code => Ok(code::NAME.to_owned()),
            Step::Micro(bench) => bench.name(),
            Step::Echo => Ok(contest::ECHO.to_owned()),
            Step::Http => Ok(contest::HTTP.to_owned()),
            Step::Short => Ok(contest::SHORT.to_owned()),
            Step::Scale => Ok(contest::SCALE.to_owned()),
            Step::Guest => Ok(contest::GUEST.to_owned()),
            Step::Watched => Ok(contest::WATCHED.to_owned()),
        }
    }

    fn run(self, quick: bool) -> Result<()> {
        match self {
            Step::Code => code::run(Some(quick)),
            Step::Micro(bench) => micro::run(bench, &micro::Options::for_report(quick)),
            Step::Echo => contest::echo_for_report(quick),
            Step::Http => contest::http_for_report(quick),
            Step::Short => contest::short_for_report(quick),
            Step::Scale => contest::scale_for_report(quick),
            Step::Guest => contest::guest_for_report(quick),
            Step::Watched => contest::watched_for_report(quick),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            code::NAME => Ok(Step::Code),
            contest::ECHO => Ok(Step::Echo),
            contest::HTTP => Ok(Step::Http),
            contest::SHORT => Ok(Step::Short),
            contest::SCALE => Ok(Step::Scale),
            contest::GUEST => Ok(Step::Guest),
            contest::WATCHED => Ok(Step::Watched),
            _ => Bench::from_str(text, false).map(Step::Micro).map_err(|_| Step::names()),
        }
    }
}

/// Runs these steps, or all of them, and writes the report from their results and from saved ones.
///
/// # Errors
///
/// When a step fails, or the report cannot be written. A failed step does not stop the others.
pub fn run(steps: &[Step], quick: bool) -> Result<()> {
    let steps: Vec<Step> =
        Step::all().filter(|step| steps.is_empty() || steps.contains(step)).collect();
    let mut failures = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        terminal::note(&format!("\n[{}/{}] {}", at + 1, steps.len(), step.name()?))?;
        let began = Instant::now();
        if let Err(error) = step.run(quick) {
            failures.push(format!("{}: {error:#}", step.name()?));
        }
        terminal::note(&format!("{} took {:.0} s", step.name()?, began.elapsed().as_secs_f64()))?;
    }
    report::write(quick)?;
    ensure!(failures.is_empty(), "failed: {}", failures.join("; "));
    Ok(())
}
