//! Two kinds of plots, as SVG: grouped bars and curves.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::stats::Spread;

const WIDTH: u32 = 960;
const TITLE: i32 = 22;
const TEXT: i32 = 15;
/// About how wide a letter of that size is.
const LETTER: i32 = 7;
/// Room for the title, and for a line of names of series.
const HEAD: u32 = 44;
const LEGEND: i32 = 22;
/// From this ratio on between the largest and the least value, the axis is logarithmic.
const WIDE: f64 = 30.0;
/// Room for the names at the left.
const NAMES: u32 = 210;
/// Told apart by people who see colours differently, and in grey.
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

/// A name and its bars, one for each series; a series may lack one.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Option<Spread>>,
}

/// Horizontal bars in groups, with the quartiles drawn over them.
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) value: String,
    pub(super) series: Vec<String>,
    pub(super) groups: Vec<Group>,
    /// A value to draw a line at.
    pub(super) mark: Option<f64>,
}

impl Bars {
    /// Draws them, unless there is nothing to be drawn.
    pub(super) fn draw(&self, path: &Path) -> Result<()> {
        let values = || self.groups.iter().flat_map(|group| group.bars.iter().flatten());
        let most = values().map(|spread| spread.upper).fold(0.0, f64::max);
        let least = values().map(|spread| spread.lower).filter(|value| *value > 0.0);
        let least = least.fold(f64::INFINITY, f64::min);
        if most <= 0.0 {
            return Ok(());
        }
        if most / least > WIDE {
            self.draw_over((least / 2.0..most * 1.3).log_scale(), least / 2.0, path)
        } else {
            self.draw_over(0.0..most * 1.05, 0.0, path)
        }
    }

    fn draw_over<X>(&self, range: X, base: f64, path: &Path) -> Result<()>
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
        let name = |row: &f64| self.name(*row);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_labels(5)
            .max_light_lines(4)
            .x_desc(&self.value)
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
                Rectangle::new([(base, low), (spread.median, high)], colour.filled())
            });
            chart.draw_series(bars).map_err(drawing)?;
            let whiskers = self.rectangles(at).map(|(spread, low, high)| {
                let middle = f64::midpoint(low, high);
                let ends = [(spread.lower.max(base), middle), (spread.upper, middle)];
                PathElement::new(ends, BLACK)
            });
            chart.draw_series(whiskers).map_err(drawing)?;
        }
        area.present().map_err(drawing).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The bars of one series: a spread and from where to where its bar reaches. The first group is on top.
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

/// A vertical axis of rows whose names stand at their middle.
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
        let style = COLOURS[at % COLOURS.len()].stroke_width(2);
        let line = LineSeries::new(curve.points.iter().copied(), style).point_size(3);
        chart.draw_series(line).map_err(drawing)?;
    }
    area.present().map_err(drawing).with_context(|| format!("cannot write {}", path.display()))
}

/// Where the names of the series stand, in as many lines as they need, and how high all of that is.
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

/// Draws a title and, below it, the names of the series with their colours; returns what is left of the area.
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

/// The errors of plots borrow what they drew on: only their text is kept.
fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}
