//! The screen: its state, its keys, and how it is drawn.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState, Wrap};

use crate::report::{Coroutine, Counts, Report, Turns};

/// A report that is older is said to be old.
const OLD: Duration = Duration::from_secs(3);
const PAGE: usize = 10;

const HEADING: Style = Style::new().fg(Color::Cyan);
const WARNING: Style = Style::new().fg(Color::Yellow);
const TROUBLE: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().fg(Color::DarkGray);

#[derive(Default)]
pub(crate) struct View {
    shown: Option<Shown>,
    trouble: Option<String>,
    order: Order,
    // The coroutine that was chosen; the first one before a choice.
    chosen: Option<u64>,
    table: TableState,
}

/// A report, with what follows from it and the one before.
struct Shown {
    report: Report,
    received: Instant,
    sum: Counts,
    rates: Option<Rates>,
    turns: HashMap<u64, Turns>,
}

/// The counts of the time between two reports.
struct Rates {
    seconds: f64,
    before: Counts,
}

/// The order of the list.
#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
pub(crate) enum Order {
    /// Those that have been parked longest come first
    #[default]
    Parked,
    /// Those with the longest turn come first
    Slowest,
    /// Those that take most processor time come first
    Busiest,
    /// Those with the largest stack come first
    Stack,
    Name,
    Id,
}

impl Order {
    const ALL: [Order; 6] =
        [Order::Parked, Order::Slowest, Order::Busiest, Order::Stack, Order::Name, Order::Id];

    /// Its key, and its name.
    fn name(self) -> (char, &'static str) {
        match self {
            Order::Parked => ('p', "parked longest"),
            Order::Slowest => ('s', "slowest"),
            Order::Busiest => ('b', "busiest"),
            Order::Stack => ('m', "most stack"),
            Order::Name => ('n', "name"),
            Order::Id => ('i', "id"),
        }
    }
}

impl View {
    pub(crate) fn ordered(order: Order) -> View {
        View { order, ..View::default() }
    }

    pub(crate) fn update(&mut self, report: Report) {
        let sum = Counts::sum(&report.metrics);
        let before = self.shown.take().filter(|before| {
            // Not of another program that serves there now.
            before.report.dump.process == report.dump.process
                && before.report.uptime_ms < report.uptime_ms
        });
        let rates = before.map(|before| Rates {
            seconds: (report.uptime_ms - before.report.uptime_ms) as f64 / 1e3,
            before: before.sum,
        });
        let turns = report.turns.iter().flatten().map(|turns| (turns.coroutine, *turns)).collect();
        self.shown = Some(Shown { report, received: Instant::now(), sum, rates, turns });
        self.trouble = None;
    }

    pub(crate) fn trouble(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    /// Breaks to end the program.
    pub(crate) fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return ControlFlow::Break(());
            }
            KeyCode::Down | KeyCode::Char('j') => self.choose(|at| at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(|at| at.saturating_sub(1)),
            KeyCode::PageDown => self.choose(|at| at + PAGE),
            KeyCode::PageUp => self.choose(|at| at.saturating_sub(PAGE)),
            // From now on the first one, whichever that is.
            KeyCode::Home => self.chosen = None,
            KeyCode::Char(key) => {
                if let Some(order) = Order::ALL.into_iter().find(|order| order.name().0 == key) {
                    self.order = order;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn choose(&mut self, to: impl Fn(usize) -> usize) {
        let Some(shown) = &self.shown else { return };
        let all = shown.sorted(self.order);
        let at = to(position(&all, self.chosen)).min(all.len().saturating_sub(1));
        self.chosen = all.get(at).map(|one| one.id);
    }

    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let foot = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]);
        let [body, keys] = foot.areas(frame.area());
        frame.render_widget(self.keys(), keys);
        let Some(shown) = &self.shown else {
            let text = self.trouble.clone().unwrap_or_else(|| "waiting for a report".to_owned());
            frame.render_widget(Paragraph::new(text).style(TROUBLE).wrap(Wrap::default()), body);
            return;
        };
        let all = shown.sorted(self.order);
        let at = position(&all, self.chosen);
        let head = shown.head(self.trouble.as_deref());
        let parts = Layout::vertical([
            Constraint::Length(head.len() as u16),
            Constraint::Fill(3),
            Constraint::Fill(2),
        ]);
        let [above, list, below] = parts.areas(body);
        frame.render_widget(Paragraph::new(head), above);
        self.table.select((!all.is_empty()).then_some(at));
        shown.draw_list(frame, list, &all, self.order, &mut self.table);
        if let Some(one) = all.get(at) {
            shown.draw_one(frame, below, one);
        }
    }

    fn keys(&self) -> Line<'static> {
        let mut keys = vec![Span::styled("q quit  ↑↓ choose  order by: ", FAINT)];
        for order in Order::ALL {
            let (key, name) = order.name();
            let style = if order == self.order { HEADING } else { FAINT };
            keys.push(Span::styled(format!("{key} {name}  "), style));
        }
        Line::from(keys)
    }
}

fn position(all: &[&Coroutine], chosen: Option<u64>) -> usize {
    chosen.and_then(|id| all.iter().position(|one| one.id == id)).unwrap_or(0)
}

impl Shown {
    fn sorted(&self, order: Order) -> Vec<&Coroutine> {
        let workers = &self.report.dump.workers;
        let mut all: Vec<_> = workers.iter().flat_map(|worker| &worker.coroutines).collect();
        let turns = |one: &Coroutine| self.turns.get(&one.id).copied();
        match order {
            Order::Parked => all.sort_by_key(|one| {
                (Reverse(one.waits_for.as_ref().map(|wait| wait.waited_ms)), one.id)
            }),
            Order::Slowest => {
                all.sort_by_key(|one| (Reverse(turns(one).map(|it| it.longest_ns)), one.id));
            }
            Order::Busiest => {
                all.sort_by_key(|one| (Reverse(turns(one).map(|it| it.total_ns)), one.id));
            }
            Order::Stack => all.sort_by_key(|one| (Reverse(one.stack.most), one.id)),
            Order::Name => all.sort_by(|a, b| {
                (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id))
            }),
            Order::Id => all.sort_by_key(|one| one.id),
        }
        all
    }

    /// The lines above the list.
    fn head(&self, trouble: Option<&str>) -> Vec<Line<'static>> {
        let Report { program, uptime_ms, dump, metrics, turns, .. } = &self.report;
        let sum = &self.sum;
        let mut lines = vec![Line::from(vec![
            Span::styled(
                program.clone().unwrap_or_else(|| "a program".to_owned()),
                HEADING.add_modifier(Modifier::BOLD),
            ),
            Span::raw(format!(
                ", process {}, serves for {}; {}",
                dump.process,
                duration(uptime_ms * 1_000_000),
                count(metrics.workers.len(), "worker"),
            )),
        ])];
        let age = self.received.elapsed();
        if let Some(trouble) = trouble {
            lines.push(Line::styled(
                format!("{trouble}. Trying again; below is the last report"),
                TROUBLE,
            ));
        } else if age > OLD {
            lines.push(Line::styled(
                format!("this report is {} old", duration(age.as_nanos() as u64)),
                WARNING,
            ));
        }
        for worker in dump.workers.iter().filter(|worker| worker.answer != "in_turn") {
            let text = format!(
                "worker {} of run {} is held up: it answers {}",
                worker.worker,
                worker.run,
                if worker.answer == "silent" { "not at all" } else { "only when interrupted" }
            );
            lines.push(Line::styled(text, WARNING));
        }
        let parked: u64 = sum.parked.values().sum();
        let running = sum.live.saturating_sub(sum.ready + parked);
        lines.push(field(
            "coroutines",
            format!(
                "{} ({running} running, {} ready, {parked} parked), {} pending",
                sum.live, sum.ready, sum.pending
            ),
        ));
        let mut waits: Vec<_> = sum.parked.iter().collect();
        waits.sort_by_key(|(_, count)| Reverse(**count));
        let waits: Vec<_> = waits.iter().map(|(wait, count)| format!("{count} {wait}")).collect();
        lines.push(field("parked for", waits.join(", ")));
        lines.extend(self.rates.as_ref().map(|rates| rates.line(sum)));
        lines.extend(self.times(turns.is_some()));
        let blocking = &metrics.blocking;
        lines.push(field(
            "memory",
            format!(
                "{} of stacks; threads for blocking calls: {}, {} idle, {} calls queued",
                bytes(sum.stack_bytes_resident),
                blocking.threads,
                blocking.idle,
                blocking.queued
            ),
        ));
        lines
    }

    fn times(&self, recorded: bool) -> Vec<Line<'static>> {
        let Some(Rates { seconds, before }) = &self.rates else { return Vec::new() };
        let quantiles = |now: &crate::report::Histogram, before| {
            let measured = now.since(before);
            let at = |part| measured.quantile(part).map_or_else(|| "–".to_owned(), duration);
            format!("{} (half), {} (99 %)", at(0.5), at(0.99))
        };
        let asleep = self.sum.poll_times.since(&before.poll_times).sum_ns as f64 / 1e9;
        let workers = self.report.metrics.workers.len().max(1) as f64;
        let is_measured = self.sum.poll_times.sum_ns > 0;
        let mut lines = Vec::new();
        if is_measured {
            lines.push(field(
                "times",
                format!(
                    "a turn takes up to {}, and is waited for up to {}; workers sleep {:.0} %",
                    quantiles(&self.sum.turn_times, &before.turn_times),
                    quantiles(&self.sum.delays, &before.delays),
                    (100.0 * asleep / seconds / workers).min(100.0)
                ),
            ));
        } else {
            lines.push(Line::styled("times are not measured: inspect::measure_times(true)", FAINT));
        }
        if !recorded {
            let text = "turns are not recorded: inspect::recorder().start(100_000)";
            lines.push(Line::styled(text, FAINT));
        }
        lines
    }

    fn draw_list(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        all: &[&Coroutine],
        order: Order,
        state: &mut TableState,
    ) {
        let unlisted: usize = self.report.dump.workers.iter().map(|worker| worker.unlisted).sum();
        let more = if unlisted > 0 { format!(", and {unlisted} more") } else { String::new() };
        let title = format!(" {} by: {}{more} ", count(all.len(), "coroutine"), order.name().1);
        let rows = all.iter().map(|one| self.row(one));
        let widths = [
            Constraint::Length(8),
            Constraint::Length(16),
            Constraint::Length(7),
            Constraint::Length(8),
            Constraint::Length(5),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Fill(1),
        ];
        let names =
            ["ID", "NAME", "STATE", "TURNS/S", "CPU", "LONGEST", "PARKED", "STACK", "WAITS FOR"];
        let table = Table::new(rows, widths)
            .header(Row::new(names).style(HEADING))
            .block(Block::bordered().border_style(FAINT).title(title))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, state);
    }

    fn row(&self, one: &Coroutine) -> Row<'static> {
        let turns = self.turns.get(&one.id);
        let of_turns = |cell: fn(&Turns) -> String| match turns {
            Some(turns) => cell(turns),
            None => "–".to_owned(),
        };
        let waits = one.waits_for.as_ref();
        let spawned = || format!("(spawned at {}:{})", one.spawned.file, one.spawned.line);
        let row = Row::new([
            format!("#{}", one.id),
            one.name.clone().unwrap_or_default(),
            one.state.clone(),
            of_turns(|turns| turns.count.to_string()),
            of_turns(|turns| format!("{:.0} %", (turns.total_ns as f64 / 1e7).min(100.0))),
            of_turns(|turns| duration(turns.longest_ns)),
            waits.map_or_else(|| "–".to_owned(), |wait| parked(wait.waited_ms)),
            bytes(one.stack.most),
            waits.map_or_else(spawned, |wait| wait.text.clone()),
        ]);
        match &*one.state {
            "running" => row.style(Color::Green),
            "ready" | "new" => row.style(WARNING),
            _ => row,
        }
    }

    /// The coroutine that was chosen, with its backtrace.
    fn draw_one(&self, frame: &mut Frame<'_>, area: Rect, one: &Coroutine) {
        let name = one.name.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default();
        let parent = one.parent.map(|id| format!(" by #{id}")).unwrap_or_default();
        let mut lines =
            vec![field("spawned at", format!("{}:{}{parent}", one.spawned.file, one.spawned.line))];
        lines.extend(one.waits_for.as_ref().map(|wait| field("waits for", wait.text.clone())));
        let stack = format!("{} at most, of {}", bytes(one.stack.most), bytes(one.stack.size));
        lines.push(field("stack", stack));
        if one.cancelled {
            lines.push(Line::styled("it has been cancelled, and has not ended yet", WARNING));
        }
        for (at, frame) in one.backtrace.iter().enumerate() {
            let function = frame.function.clone().unwrap_or_else(|| {
                format!("{}+{:#x}", frame.object.as_deref().unwrap_or("?"), frame.offset)
            });
            let mut spans = vec![Span::raw(format!("{at:>4}  {function}"))];
            if let (Some(file), Some(line)) = (&frame.file, frame.line) {
                spans.push(Span::styled(format!("  {}:{line}", shorten(file)), FAINT));
            }
            lines.push(Line::from(spans));
        }
        if one.backtrace.is_empty() && one.state != "new" {
            let text = "no frames of the program; backtraces need its feature `backtrace`";
            lines.push(Line::styled(text, FAINT));
        }
        let block = Block::bordered().border_style(FAINT).title(format!(" #{}{name} ", one.id));
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }
}

impl Rates {
    fn line(&self, now: &Counts) -> Line<'static> {
        let rate = |of: fn(&Counts) -> u64| {
            let rate = of(now).saturating_sub(of(&self.before)) as f64 / self.seconds;
            format!("{rate:.0}")
        };
        let text = format!(
            "{} turns, {} spawns, {} polls with {} events, {} wakes across threads, {} steals",
            rate(|counts| counts.turns),
            rate(|counts| counts.spawned),
            rate(|counts| counts.polls),
            rate(|counts| counts.events),
            rate(|counts| counts.remote_wakes),
            rate(|counts| counts.steals),
        );
        field("a second", text)
    }
}

fn field(name: &str, text: String) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<12}"), HEADING), Span::raw(text)])
}

/// A file by its path from the current folder, if it is there.
fn shorten(file: &str) -> &str {
    let here = std::env::current_dir().unwrap_or_default();
    Path::new(file).strip_prefix(here).ok().and_then(Path::to_str).unwrap_or(file)
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn parked(millis: u64) -> String {
    if millis == 0 { "< 1 ms".to_owned() } else { duration(millis * 1_000_000) }
}

fn duration(nanos: u64) -> String {
    // Below each limit, the unit in nanoseconds and its name.
    const UNITS: [(u64, u64, &str); 6] = [
        (1_000, 1, "ns"),
        (1_000_000, 1_000, "µs"),
        (1_000_000_000, 1_000_000, "ms"),
        (600_000_000_000, 1_000_000_000, "s"),
        (36_000_000_000_000, 60_000_000_000, "min"),
        (u64::MAX, 3_600_000_000_000, "h"),
    ];
    let fitting = UNITS.into_iter().find(|(limit, ..)| nanos < *limit);
    let (_, unit, name) = fitting.unwrap_or(UNITS[UNITS.len() - 1]);
    let (whole, tenth) = (nanos / unit, nanos % unit * 10 / unit);
    if whole < 10 && unit > 1 {
        format!("{whole}.{tenth} {name}")
    } else {
        format!("{whole} {name}")
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        ..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn report(process: u32, uptime_ms: u64, turns: u64) -> Report {
        let coroutine = |id: u64, name: &str, waited_ms: u64| {
            serde_json::json!({
                "id": id, "name": name, "parent": null, "spawned": {"file": "a.rs", "line": id},
                "state": "parked", "cancelled": false,
                "waits_for": {"text": format!("the wait of {name}"), "waited_ms": waited_ms},
                "stack": {"most": 4096 * id, "size": 262_144}, "backtrace": [{
                    "object": null, "offset": 0, "function": format!("frame_of_{name}"),
                    "file": "a.rs", "line": 1
                }]
            })
        };
        let histogram = serde_json::json!({"buckets": [], "sum_ns": 0});
        serde_json::from_value(serde_json::json!({
            "version": 1, "program": "tested", "uptime_ms": uptime_ms,
            "dump": {"process": process, "workers": [{
                "run": 1, "worker": 0, "answer": "interrupted", "unlisted": 5,
                "coroutines": [coroutine(1, "old", 9_000), coroutine(2, "large", 20)]
            }]},
            "metrics": {
                "workers": [{
                    "spawned": 7, "live": 7, "ready": 0, "parked": {"sleep": 7}, "pending": 0,
                    "turns": turns, "steals": 0, "remote_wakes": 0, "polls": 0, "events": 0,
                    "stack_bytes_resident": 4096, "delays": histogram, "turn_times": histogram,
                    "poll_times": histogram
                }],
                "blocking": {"threads": 0, "idle": 0, "queued": 0}
            },
            "turns": [{"coroutine": 2, "count": 3, "total_ns": 500_000_000, "longest_ns": 1_000}]
        }))
        .unwrap()
    }

    fn screen(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(132, 30)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    fn press(view: &mut View, code: KeyCode) -> bool {
        view.key(KeyEvent::new(code, KeyModifiers::NONE)).is_break()
    }

    #[test]
    fn keys_choose_a_coroutine_and_the_order() {
        let mut view = View::default();
        view.update(report(1, 1_000, 0));
        let seen = screen(&mut view);
        assert!(seen.contains("frame_of_old") && seen.contains("and 5 more"), "{seen}");
        assert!(seen.contains("answers only when interrupted"), "{seen}");
        assert!(!press(&mut view, KeyCode::Char('b')));
        let seen = screen(&mut view);
        assert!(seen.contains("frame_of_large") && seen.contains("50 %"), "{seen}");
        press(&mut view, KeyCode::Down);
        assert!(screen(&mut view).contains("frame_of_old"));
        // The choice stays with the coroutine.
        press(&mut view, KeyCode::Char('p'));
        press(&mut view, KeyCode::PageDown);
        assert!(screen(&mut view).contains("frame_of_large"));
        press(&mut view, KeyCode::Home);
        assert!(screen(&mut view).contains("frame_of_old"));
        assert!(press(&mut view, KeyCode::Char('q')));
    }

    #[test]
    fn rates_are_of_the_time_between_two_reports_of_one_process() {
        let mut view = View::default();
        view.update(report(1, 1_000, 100));
        assert!(!screen(&mut view).contains("a second"));
        view.update(report(1, 3_000, 300));
        assert!(screen(&mut view).contains("100 turns"));
        view.update(report(2, 4_000, 1_000));
        assert!(!screen(&mut view).contains("a second"));
    }

    #[test]
    fn the_last_report_stays_while_there_is_trouble() {
        let mut view = View::default();
        view.trouble("the program has ended".to_owned());
        assert!(screen(&mut view).contains("the program has ended"));
        view.update(report(1, 1_000, 0));
        assert!(!screen(&mut view).contains("has ended"));
        view.trouble("the program has ended".to_owned());
        let seen = screen(&mut view);
        assert!(seen.contains("the program has ended. Trying again"), "{seen}");
        assert!(seen.contains("frame_of_old"), "{seen}");
    }

    #[test]
    fn a_small_terminal_is_no_trouble() {
        let mut view = View::default();
        view.update(report(1, 1_000, 0));
        for (columns, rows) in [(1, 1), (20, 5), (80, 12)] {
            let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
            terminal.draw(|frame| view.draw(frame)).unwrap();
        }
    }
}
