//! The report: the saved results as Markdown and plots, in `compare/report/`.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::code::{self, Counted};
use crate::machine::{LoadAverage, Machine};
use crate::micro::{self, Bench};
use crate::saved::{self, Saved};
use crate::servers::Style;
use crate::{contest, terminal};
use contest::Part;

mod charts;
mod losses;
mod plot;
mod targets;

/// All saved results.
struct Data {
    echo: Option<contest::Results>,
    http: Option<contest::Results>,
    short: Option<contest::Results>,
    scale: Option<contest::Results>,
    guest: Option<contest::Results>,
    watched: Option<contest::Results>,
    micro: Vec<micro::Results>,
    code: Option<Vec<Counted>>,
    machines: Vec<Machine>,
    /// Whether they are from quick runs.
    quick: bool,
}

/// Writes the report.
///
/// # Errors
///
/// When there are no saved results, or a file cannot be written.
pub fn write(quick: bool) -> Result<()> {
    let data = Data::load(quick)?;
    ensure!(!data.machines.is_empty(), "there are no saved results: run `compare all` first");
    let folder = saved::folder(quick);
    fs::create_dir_all(&folder)?;
    let page = Page { folder, text: String::new() }.of(&data)?;
    let path = page.folder.join("README.md");
    fs::write(&path, page.text).with_context(|| format!("cannot write {}", path.display()))?;
    let name = if quick { "compare/report/quick/README.md" } else { "compare/report/README.md" };
    terminal::note(&format!("\nThe report is {name}"))
}

impl Data {
    fn load(quick: bool) -> Result<Data> {
        let mut data = Data {
            echo: None,
            http: None,
            short: None,
            scale: None,
            guest: None,
            watched: None,
            micro: Vec::new(),
            code: None,
            machines: Vec::new(),
            quick,
        };
        data.code = data.take(code::NAME)?;
        for bench in Bench::ALL {
            let results = data.take(&bench.name()?)?;
            data.micro.extend(results);
        }
        data.echo = data.take(contest::ECHO)?;
        data.http = data.take(contest::HTTP)?;
        data.short = data.take(contest::SHORT)?;
        data.scale = data.take(contest::SCALE)?;
        data.guest = data.take(contest::GUEST)?;
        data.watched = data.take(contest::WATCHED)?;
        Ok(data)
    }

    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(Saved { machine, results }) = saved::load(name, self.quick)? else {
            return Ok(None);
        };
        if !self.machines.contains(&machine) {
            self.machines.push(machine);
        }
        Ok(Some(results))
    }

    fn micro(&self, bench: Bench) -> Option<&micro::Results> {
        self.micro.iter().find(|results| results.bench == bench)
    }
}

/// The page, and the folder for it and its plots.
struct Page {
    folder: PathBuf,
    text: String,
}

/// The introduction.
const PREFACE: &str = "\
# plainsong beside other ways to write the same server

Written by `cargo run --release -p compare -- all`, which measures the machine it runs on. The numbers of each
part are from one run of it. Ratios are valid on more machines than times are, and neither is valid on all.

Each server runs in a process of its own on core 0, and the load in another on core 1, over loopback. Every style
takes its turn in every round. A ratio is the median of the ratios *within* each round, with the quartiles
beside it, so a machine that slows down for a minute favours no style. The floor is an epoll loop written by
hand for this one job, or bare corosensei where there is no socket; no runtime is expected to beat it. In the
closed loop each client sends its next message when the last one is complete. In the open loop messages are
due at fixed times, and a latency counts from when its message was due, so that a stall counts for every
message that had to wait. Peers are used as their own documentation recommends, with their default settings;
one core means one worker. The load average beside each part shows whether the machine was busy with
something else: the measurement itself keeps two cores busy.
";

impl Page {
    fn of(mut self, data: &Data) -> Result<Page> {
        self.add(PREFACE);
        self.machines(data)?;
        self.add("## Targets\n");
        let targets = targets::table(data);
        self.add(&targets.markdown());
        self.add("\n## Where plainsong loses\n");
        self.add(&losses::text(data));
        self.notes()?;
        self.contest(data.echo.as_ref(), contest::ECHO, "The same echo server in every style")?;
        self.contest(data.http.as_ref(), contest::HTTP, "HTTP")?;
        self.contest(data.short.as_ref(), contest::SHORT, "Short connections")?;
        self.scale(data)?;
        let title = "Coroutines beside tokio, and hyper on sockets of plainsong";
        self.contest(data.guest.as_ref(), contest::GUEST, title)?;
        let title = "Looking into a running program";
        self.contest(data.watched.as_ref(), contest::WATCHED, title)?;
        self.micro(data)?;
        if let Some(counted) = &data.code {
            self.add("## The servers as text\n");
            self.add(&code::table(counted).markdown());
        }
        Ok(self)
    }

    fn add(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn machines(&mut self, data: &Data) -> Result<()> {
        self.add("## The machine\n");
        for machine in &data.machines {
            let kind = if machine.is_virtual { "virtual machine" } else { "machine" };
            let go = machine.go.as_deref().unwrap_or("no Go");
            writeln!(
                self.text,
                "{}, {} cores, {} GiB, {kind}; {}; {}; {go}.\n",
                machine.processor, machine.cores, machine.memory_gib, machine.kernel, machine.rustc
            )?;
        }
        if data.quick {
            self.add("**This is a first look, too noisy to quote.**\n");
        }
        Ok(())
    }

    /// The explanations of the numbers are written by hand.
    fn notes(&mut self) -> Result<()> {
        let path = saved::folder(false).join("notes.md");
        if path.is_file() {
            self.add(&fs::read_to_string(path)?);
        }
        Ok(())
    }

    fn contest(&mut self, data: Option<&contest::Results>, name: &str, title: &str) -> Result<()> {
        let Some(results) = data else { return Ok(()) };
        let (rounds, window) = (results.rounds, results.window.as_millis());
        let turn = contest::TURN.as_micros();
        writeln!(
            self.text,
            "## {title}\n\n{rounds} round(s), {window} ms of each load a round and {turn} µs for each client. {}\n",
            LoadAverage::sentence(results.load)
        )?;
        // A chart shows messages of one size, because other sizes take times of another order, and
        // one reference.
        let fit = |a: &contest::Part, b: &contest::Part| {
            a.shape.size == b.shape.size && Style::of(a.job) == Style::of(b.job)
        };
        for parts in results.parts.chunk_by(fit) {
            self.charts(name, &parts.iter().collect::<Vec<_>>())?;
        }
        for part in &results.parts {
            writeln!(self.text, "### {}\n", part.title())?;
            self.add(&contest::table::closed(part).markdown());
            if let Some(rate) = part.rate {
                writeln!(self.text, "\nOpen loop, {rate:.0} requests a second:\n")?;
                self.add(&contest::table::open(part).markdown());
            }
            for remark in contest::table::remarks(part) {
                writeln!(self.text, "\n{remark}.")?;
            }
            self.add("");
        }
        Ok(())
    }

    fn charts(&mut self, name: &str, parts: &[&contest::Part]) -> Result<()> {
        let Some(Part { job, shape, .. }) = parts.first() else { return Ok(()) };
        let name = match name {
            contest::SHORT => format!("{name}-{job}"),
            _ => name.to_owned(),
        };
        let file = |what| format!("{name}-{what}-{}.svg", shape.size);
        charts::cpu(parts, &self.folder.join(file("cpu")))?;
        writeln!(self.text, "![Processor time a request]({})\n", file("cpu"))?;
        if parts.iter().any(|part| part.rate.is_some()) {
            charts::p99(parts, &self.folder.join(file("p99")))?;
            writeln!(self.text, "![p99 in the open loop]({})\n", file("p99"))?;
        }
        Ok(())
    }

    fn scale(&mut self, data: &Data) -> Result<()> {
        let Some(results) = &data.scale else { return Ok(()) };
        charts::scale(results, &self.folder.join("scale.svg"))?;
        self.add("## More and more connections\n");
        writeln!(
            self.text,
            "CPU µs/request (× floor), closed loop, {} round(s). {}\n",
            results.rounds,
            LoadAverage::sentence(results.load)
        )?;
        self.add("![Processor time a request by number of connections](scale.svg)\n");
        self.add(&contest::table::scale(results).markdown());
        self.add("");
        Ok(())
    }

    fn micro(&mut self, data: &Data) -> Result<()> {
        for results in &data.micro {
            let name = results.bench.name()?;
            let title = results.bench.title();
            charts::micro(results, &self.folder.join(&name).with_extension("svg"))?;
            let load = LoadAverage::sentence(results.load);
            writeln!(self.text, "## `{name}`: {title}\n\n{} round(s). {load}\n", results.rounds)?;
            writeln!(self.text, "![{title}]({name}.svg)\n")?;
            self.add(&micro::table::table(results).markdown());
            if let Some(remark) = results.bench.remark() {
                writeln!(self.text, "\n{remark}")?;
            }
            for failure in micro::table::failures(results) {
                writeln!(self.text, "\n{failure}.")?;
            }
            self.add("");
        }
        Ok(())
    }
}
