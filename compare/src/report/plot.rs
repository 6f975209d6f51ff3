//! Two kinds of plots, as SVG: grouped bars and curves.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::stats::Spread;

const WIDTH: u32 = 960;
const TITLE: i32 = 22;
const TEXT: i32 = 15;
/// The approximate width of a letter of that size.
const LETTER: i32 = 7;
/// Room for the title, and for a line of the legend.
const HEAD: u32 = 44;
const LEGEND: i32 = 22;
/// When the largest value is this many times the least, the axis becomes logarithmic.
const WIDE: f64 = 30.0;
/// When a few bars are this many times as long as all others, they are cut and show their length.
const OUTLIER: f64 = 2.5;
/// Room for the names on the left.
const NAMES: u32 = 210;
/// Distinct also for people who see colours differently, and in grey.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(150, 120, 60),
];
/// Behind our own bars.
const HIGHLIGHT: RGBColor = RGBColor(255, 243, 196);

/// A name and its bars, one for each series; a series may lack one.
pub(super) struct Group {
    pub(super) name: String,
    /// Whether it is our own group, which is highlighted.
    pub(super) is_ours: bool,
    pub(super) bars: Vec<Option<Spread>>,
}

/// Horizontal bars in groups, with the quartiles drawn over them.
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) value: String,
    pub(super) series: Vec<String>,
    pub(super) groups: Vec<Group>,
    /// A value to draw a line at. Where the axis is logarithmic, the bars begin there.
    pub(super) mark: Option<f64>,
}

/// The horizontal axis of bars.
#[derive(Debug, PartialEq)]
struct Axis {
    start: f64,
    end: f64,
    /// Where bars begin. A logarithmic axis has no zero: they begin at the mark, or at a power of
    /// ten.
    base: f64,
    is_logarithmic: bool,
}

impl Axis {
    /// An axis for bars whose quartiles reach from `least` to `lengths`, the longest first.
    fn of(least: f64, lengths: &[f64], mark: Option<f64>) -> Axis {
        let most = lengths[0];
        if most / least > WIDE {
            let base = mark.unwrap_or_else(|| 10f64.powf(least.log10().floor()));
            let (start, end) = (base.min(least / 1.3), base.max(most * 1.3));
            return Axis { start, end, base, is_logarithmic: true };
        }
        let is_cut = |pair: &&[f64]| pair[0] > OUTLIER * pair[1];
        let few = lengths.len().div_ceil(4);
        let cut = lengths.windows(2).take(few).rfind(is_cut);
        let end = cut.map_or(most * 1.05, |pair| pair[1] * 1.3);
        Axis { start: 0.0, end, base: 0.0, is_logarithmic: false }
    }

    /// A remark for the axis label.
    fn remark(&self) -> String {
        if self.is_logarithmic {
            format!("; logarithmic, bars begin at {}", self.base)
        } else {
            String::new()
        }
    }
}

impl Bars {
    /// Draws the bars, if there are any.
    pub(super) fn draw(&self, path: &Path) -> Result<()> {
        let values = || self.groups.iter().flat_map(|group| group.bars.iter().flatten());
        let least = values().map(|spread| spread.lower).filter(|value| *value > 0.0);
        let least = least.fold(f64::INFINITY, f64::min);
        let mut lengths: Vec<f64> = values().map(|spread| spread.upper).collect();
        lengths.sort_by(|a, b| b.total_cmp(a));
        if lengths.first().is_none_or(|most| *most <= 0.0) {
            return Ok(());
        }
        let axis = Axis::of(least, &lengths, self.mark);
        if axis.is_logarithmic {
            self.draw_over((axis.start..axis.end).log_scale(), &axis, path)
        } else {
            self.draw_over(axis.start..axis.end, &axis, path)
        }
    }

    fn draw_over<X>(&self, range: X, axis: &Axis, path: &Path) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let rows = self.groups.len();
        let series: Vec<&str> = self.series.iter().map(String::as_str).collect();
        let height = 64 + legend(&series).1 + (rows * (series.len() * 11 + 12)) as u32;
        let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        let below = head(&area, &self.title, &series)?;
        let mut chart = ChartBuilder::on(&below)
            .margin(12)
            .margin_right(40)
            .x_label_area_size(44)
            .y_label_area_size(NAMES)
            .build_cartesian_2d(range, Rows(rows))
            .map_err(drawing)?;
        let bands = self.groups.iter().enumerate().filter(|(_, group)| group.is_ours);
        let bands = bands.map(|(row, _)| {
            let top = (rows - row) as f64;
            Rectangle::new([(axis.start, top - 1.0), (axis.end, top)], HIGHLIGHT.filled())
        });
        chart.draw_series(bands).map_err(drawing)?;
        let name = |row: &f64| self.name(*row);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_labels(5)
            .max_light_lines(4)
            .x_desc(format!("{}{}", self.value, axis.remark()))
            .y_labels(rows)
            .y_label_formatter(&name)
            .label_style(("sans-serif", TEXT))
            .draw()
            .map_err(drawing)?;
        if let Some(mark) = self.mark {
            let line = PathElement::new([(mark, 0.0), (mark, rows as f64)], BLACK.mix(0.6));
            chart.draw_series([line]).map_err(drawing)?;
        }
        for at in 0..self.series.len() {
            let colour = COLOURS[at % COLOURS.len()];
            let bars = self.rectangles(at).map(|(spread, low, high)| {
                let end = spread.median.min(axis.end);
                Rectangle::new([(axis.base, low), (end, high)], colour.filled())
            });
            chart.draw_series(bars).map_err(drawing)?;
            let whole = self.rectangles(at).filter(|(spread, ..)| spread.median <= axis.end);
            let whiskers = whole.map(|(spread, low, high)| {
                let middle = f64::midpoint(low, high);
                let ends = [(spread.lower, middle), (spread.upper.min(axis.end), middle)];
                PathElement::new(ends, BLACK)
            });
            chart.draw_series(whiskers).map_err(drawing)?;
            let cut = self.rectangles(at).filter(|(spread, ..)| spread.median > axis.end);
            let lengths = cut.map(|(spread, low, high)| {
                let place = (axis.end, f64::midpoint(low, high));
                let right = Pos::new(HPos::Right, VPos::Center);
                let font = ("sans-serif", TEXT - 4).into_font().color(&WHITE).pos(right);
                Text::new(format!("cut: {}  ", shown(spread.median)), place, font)
            });
            chart.draw_series(lengths).map_err(drawing)?;
        }
        area.present().map_err(drawing).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The bars of one series: a spread, and the lower and upper edge of its bar. The first group
    /// is on top.
    fn rectangles(&self, series: usize) -> impl Iterator<Item = (Spread, f64, f64)> {
        let thickness = 0.8 / self.series.len() as f64;
        self.groups.iter().enumerate().filter_map(move |(row, group)| {
            let top = (self.groups.len() - row) as f64 - 0.1 - thickness * series as f64;
            Some((group.bars[series]?, top - thickness, top))
        })
    }

    fn name(&self, row: f64) -> String {
        let row = self.groups.len() - 1 - (row.floor() as usize).min(self.groups.len() - 1);
        self.groups[row].name.clone()
    }
}

/// A number with as many digits as a reader needs.
fn shown(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// A vertical axis of rows, each with its name at its middle.
struct Rows(usize);

impl Ranged for Rows {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = value / self.0 as f64;
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.0).map(|row| row as f64 + 0.5).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.0 as f64
    }
}

impl ValueFormatter<f64> for Rows {}

/// A name and its points.
pub(super) struct Curve {
    pub(super) name: String,
    /// Whether it is our own curve, which is drawn thicker.
    pub(super) is_ours: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Curves over a logarithmic axis.
pub(super) fn curves(title: &str, axes: (&str, &str), curves: &[Curve], path: &Path) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let right = points().map(|point| point.0).fold(0.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max);
    if top <= 0.0 {
        return Ok(());
    }
    let area = SVGBackend::new(path, (WIDTH, 520)).into_drawing_area();
    let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
    let below = head(&area, title, &names)?;
    let mut chart = ChartBuilder::on(&below)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d((0.8..right * 1.3).log_scale(), 0.0..top * 1.05)
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .max_light_lines(4)
        .x_desc(axes.0)
        .y_desc(axes.1)
        .label_style(("sans-serif", TEXT))
        .draw()
        .map_err(drawing)?;
    for (at, curve) in curves.iter().enumerate() {
        let width = if curve.is_ours { 5 } else { 2 };
        let style = COLOURS[at % COLOURS.len()].stroke_width(width);
        let line = LineSeries::new(curve.points.iter().copied(), style).point_size(width + 1);
        chart.draw_series(line).map_err(drawing)?;
    }
    area.present().map_err(drawing).with_context(|| format!("cannot write {}", path.display()))
}

/// The places of the names of the series, in as many lines as they need, and the height of all.
fn legend(names: &[&str]) -> (Vec<(i32, i32)>, u32) {
    let (mut x, mut y) = (16, HEAD as i32);
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let width = 34 + name.chars().count() as i32 * LETTER;
        if x > 16 && x + width > WIDTH as i32 {
            (x, y) = (16, y + LEGEND);
        }
        places.push((x, y));
        x += width;
    }
    (places, (y + LEGEND) as u32)
}

/// Draws a title and, below it, the names of the series with their colours. Returns the rest of the
/// area.
fn head<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    title: &str,
    names: &[&str],
) -> Result<DrawingArea<SVGBackend<'a>, Shift>> {
    area.fill(&WHITE).map_err(drawing)?;
    let (places, height) = legend(names);
    let (above, below) = area.split_vertically(height);
    let font = ("sans-serif", TITLE).into_font();
    above.draw(&Text::new(title.to_owned(), (16, 12), font)).map_err(drawing)?;
    let font = ("sans-serif", TEXT).into_font();
    for ((name, (x, y)), colour) in names.iter().zip(places).zip(COLOURS.iter().cycle()) {
        above
            .draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour.filled()))
            .map_err(drawing)?;
        above
            .draw(&Text::new((*name).to_owned(), (x + 17, y - 1), font.clone()))
            .map_err(drawing)?;
    }
    Ok(below)
}

/// An error of plotters borrows the drawing, so only its text can be returned.
fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_begin_at_nothing_unless_their_lengths_are_of_different_orders() {
        let axis = Axis::of(2.0, &[10.0, 8.0], None);
        assert_eq!((axis.start, axis.end, axis.base), (0.0, 10.5, 0.0));
        let axis = Axis::of(43.0, &[9000.0, 800.0], None);
        assert_eq!((axis.base, axis.remark().as_str()), (10.0, "; logarithmic, bars begin at 10"));
        assert!(axis.start <= 10.0 && axis.end > 9000.0);
        let axis = Axis::of(0.8, &[90.0, 20.0], Some(1.0));
        assert!(axis.base == 1.0 && axis.start < 0.8);
    }

    #[test]
    fn a_few_long_bars_do_not_squash_the_others() {
        let end = |lengths: &[f64]| Axis::of(0.9, lengths, None).end;
        assert_eq!(end(&[10.0, 2.0, 1.0, 1.0]), 2.6);
        assert_eq!(end(&[10.0, 8.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 2.6);
        assert_eq!(end(&[4.0, 2.0, 1.0, 1.0]), 4.2);
        // Half of the bars are not a few.
        assert_eq!(end(&[10.0, 10.0, 1.0, 1.0]), 10.5);
        assert_eq!(end(&[4.0]), 4.2);
    }
}
