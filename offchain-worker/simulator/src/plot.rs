//! Plots as SVG: small multiples of lines, and bars.

use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// A line with confidence intervals.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its name in the legend; lines of one name have one colour in all panels.
    pub(crate) name: String,
    /// x, mean, low, high.
    pub(crate) points: Vec<(f64, f64, f64, f64)>,
    /// Whether it is drawn thinner: what goes along with another line of its colour.
    pub(crate) faint: bool,
}

/// One panel of small multiples.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
    /// Where its y axis starts and ends.
    pub(crate) range: (f64, f64),
    /// Horizontal lines to read by.
    pub(crate) guides: &'static [f64],
}

/// Small multiples.
#[derive(Clone, Debug)]
pub(crate) struct Multiples<'a> {
    pub(crate) title: &'a str,
    /// What the axes are, in words.
    pub(crate) axes: &'a str,
    pub(crate) panels: Vec<Panel>,
    pub(crate) columns: usize,
}

/// Colours that are told apart with any colour vision (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];
const PANEL: (u32, u32) = (240, 190);
const HEAD: u32 = 78;
const GREY: RGBColor = RGBColor(150, 150, 150);
const INK: RGBColor = RGBColor(40, 40, 40);

const LEGEND: u32 = 55;

/// Where the legend's entries go: as many in a row as fit.
fn legend(names: &[&str], width: u32) -> Vec<(i32, i32)> {
    let (mut x, mut y) = (12, LEGEND as i32);
    names
        .iter()
        .map(|name| {
            let wide = 46 + 7 * name.len() as i32;
            if x > 12 && x + wide > width as i32 {
                (x, y) = (12, y + 18);
            }
            let at = (x, y);
            x += wide;
            at
        })
        .collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn failed<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Error + '_ {
    move |e| Error::Plot { path: path.into(), problem: e.to_string() }
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// A tick's label: no more digits than it needs.
fn tick(x: &f64) -> String {
    let text = format!("{x:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}

impl Multiples<'_> {
    /// Draws them into a file.
    pub(crate) fn draw(&self, path: &Path) -> Result<()> {
        let columns = self.columns.max(1);
        let rows = self.panels.len().div_ceil(columns);
        let names = self.names();
        let width = PANEL.0 * columns as u32;
        let head = HEAD + legend(&names, width).last().map_or(0, |(_, y)| *y as u32 - LEGEND);
        let root = SVGBackend::new(path, (width, PANEL.1 * rows as u32 + head)).into_drawing_area();
        self.head(&root, &names).map_err(failed(path))?;
        let (_, below) = root.split_vertically(head);
        for (area, panel) in below.split_evenly((rows, columns)).iter().zip(&self.panels) {
            self.panel(area, panel, &names).map_err(failed(path))?;
        }
        root.present().map_err(failed(path))
    }

    /// The lines' names, in the order of their first appearance.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for line in self.panels.iter().flat_map(|panel| &panel.lines) {
            if !names.contains(&line.name.as_str()) {
                names.push(&line.name);
            }
        }
        names
    }

    fn head(&self, root: &Area<'_>, names: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
        root.fill(&WHITE)?;
        root.draw(&Text::new(self.title.to_string(), (12, 10), text(18)))?;
        root.draw(&Text::new(self.axes.to_string(), (12, 34), text(13).color(&GREY)))?;
        for (index, (x, y)) in legend(names, root.dim_in_pixel().0).into_iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            root.draw(&PathElement::new(vec![(x, y + 7), (x + 18, y + 7)], colour.stroke_width(3)))?;
            root.draw(&Text::new(names[index].to_string(), (x + 24, y), text(13)))?;
        }
        Ok(())
    }

    fn panel(
        &self,
        area: &Area<'_>,
        panel: &Panel,
        names: &[&str],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let (left, right) = points()
            .fold((f64::MAX, f64::MIN), |(left, right), point| (left.min(point.0), right.max(point.0)));
        let (left, right) = if left < right { (left, right) } else { (0.0, 1.0) };
        let (low, high) = panel.range;
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .caption(&panel.title, text(14))
            .x_label_area_size(22)
            .y_label_area_size(38)
            .build_cartesian_2d(left..right, low..high)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(5)
            .y_labels(5)
            .label_style(text(11))
            .axis_style(GREY)
            .x_label_formatter(&tick)
            .y_label_formatter(&tick)
            .draw()?;
        for guide in panel.guides.iter().filter(|guide| (low..=high).contains(*guide)) {
            chart.draw_series(DashedLineSeries::new(
                [(left, *guide), (right, *guide)],
                4,
                4,
                GREY.stroke_width(1),
            ))?;
        }
        let inside = |y: f64| y.clamp(low, high);
        for line in &panel.lines {
            let index = names.iter().position(|name| *name == line.name).unwrap_or(0);
            let colour = COLOURS[index % COLOURS.len()];
            for (x, _, from, to) in &line.points {
                // What is no longer than the line is thick would not be seen.
                if to - from > (high - low) * 0.03 {
                    chart.draw_series([PathElement::new(
                        vec![(*x, inside(*from)), (*x, inside(*to))],
                        colour.mix(0.5).stroke_width(1),
                    )])?;
                }
            }
            chart.draw_series(LineSeries::new(
                line.points.iter().map(|(x, y, _, _)| (*x, inside(*y))),
                colour.mix(if line.faint { 0.55 } else { 1.0 }).stroke_width(if line.faint { 1 } else { 2 }),
            ))?;
        }
        Ok(())
    }
}

/// A bar with an interval, and a mark to compare it with.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: (f64, f64, f64),
    pub(crate) mark: Option<f64>,
    /// Which colour: bars of one group have one.
    pub(crate) group: usize,
}

/// Horizontal bars.
pub(crate) fn bars(path: &Path, title: &str, axes: &str, bars: &[Bar], groups: &[&str]) -> Result<()> {
    const ROW: u32 = 22;
    let size = (720, HEAD + ROW * bars.len() as u32 + 40);
    let root = SVGBackend::new(path, size).into_drawing_area();
    draw_bars(&root, title, axes, bars, groups).map_err(failed(path))?;
    root.present().map_err(failed(path))
}

fn draw_bars(
    root: &Area<'_>,
    title: &str,
    axes: &str,
    bars: &[Bar],
    groups: &[&str],
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    root.draw(&Text::new(title.to_string(), (12, 10), text(18)))?;
    root.draw(&Text::new(axes.to_string(), (12, 34), text(13).color(&GREY)))?;
    let mut x = 12;
    for (index, name) in groups.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        root.draw(&Rectangle::new([(x, 57), (x + 14, 67)], colour.filled()))?;
        root.draw(&Text::new((*name).to_string(), (x + 20, 55), text(13)))?;
        x += 46 + 7 * name.len() as i32;
    }
    let (_, below) = root.split_vertically(HEAD);
    let all = || bars.iter().flat_map(|bar| [bar.value.1, bar.value.2, bar.mark.unwrap_or(0.0)]);
    let low = all().fold(0.0, f64::min) * 1.05;
    let high = all().fold(0.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(&below)
        .margin(6)
        .x_label_area_size(24)
        .margin_left(150)
        .build_cartesian_2d(low..high.max(low + 1e-9), 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_axis()
        .disable_mesh()
        .x_labels(8)
        .label_style(text(11))
        .axis_style(GREY)
        .x_label_formatter(&tick)
        .draw()?;
    for (index, bar) in bars.iter().enumerate() {
        let y = (bars.len() - index) as f64 - 0.5;
        let colour = COLOURS[bar.group % COLOURS.len()];
        let (value, from, to) = bar.value;
        chart
            .draw_series([Rectangle::new([(0.0, y - 0.32), (value, y + 0.32)], colour.mix(0.75).filled())])?;
        chart.draw_series([PathElement::new(vec![(from, y), (to, y)], INK.stroke_width(1))])?;
        if let Some(mark) = bar.mark {
            chart.draw_series([PathElement::new(
                vec![(mark, y - 0.42), (mark, y + 0.42)],
                INK.stroke_width(3),
            )])?;
        }
        let (_, row) = chart.backend_coord(&(0.0, y));
        root.draw(&Text::new(bar.name.clone(), (12, row - 6), text(12)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_svg_with_their_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.svg");
        let line = |name: &str, at: f64| Line {
            name: name.into(),
            points: (0..4).map(|x| (f64::from(x), at, at - 0.1, at + 0.1)).collect(),
            faint: false,
        };
        let panel = |title: &str| Panel {
            title: title.into(),
            lines: vec![line("first rule", 0.5), line("second rule", 7.0)],
            range: (0.0, 1.0),
            guides: &[0.5],
        };
        let plot = Multiples {
            title: "A title",
            axes: "y over x",
            panels: vec![panel("one"), panel("two"), panel("three")],
            columns: 2,
        };
        plot.draw(&path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for words in ["A title", "y over x", "first rule", "second rule", "three"] {
            assert!(svg.contains(words), "{words}");
        }
        let path = folder.path().join("bars.svg");
        let one = Bar { name: "node 1".into(), value: (0.5, 0.4, 0.6), mark: Some(0.55), group: 0 };
        bars(&path, "Bars", "x", &[one], &["honest"]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("node 1"));
        let missing = folder.path().join("no/such/folder.svg");
        assert!(plot.draw(&missing).unwrap_err().to_string().contains("cannot be drawn"));
    }
}
