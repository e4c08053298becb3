//! Plots, as SVG.

use crate::{
    dataset::{Dataset, Part},
    error::{Error, Result},
    report::{group_name, Study},
    stats::Interval,
    tables::{mean, median},
};
use plotters::{coord::Shift, prelude::*};
use poq_inference::{quality::calibration::pearson, TaskKind};
use std::path::Path;

const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(214, 90, 30), RGBColor(70, 70, 70)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn drawn<T>(path: &Path, result: std::result::Result<T, impl std::fmt::Display>) -> Result<T> {
    result.map_err(|e| Error::Plot { path: path.to_path_buf(), reason: e.to_string() })
}

fn canvas(path: &Path, size: (u32, u32)) -> Result<Area<'_>> {
    let area = SVGBackend::new(path, size).into_drawing_area();
    drawn(path, area.fill(&WHITE))?;
    Ok(area)
}

/// Every signal's correlation with token F1, per kind, with its interval.
pub(crate) fn correlations(study: &Study<'_>, path: &Path) -> Result<()> {
    let kinds = study.data.kinds();
    let of = |name: &str, kind: TaskKind| study.of_column(name, Some(kind), Part::Whole, pearson);
    let mut rows: Vec<(&String, Vec<Option<Interval>>)> = study
        .data
        .columns
        .keys()
        .map(|name| (name, kinds.iter().map(|kind| of(name, *kind)).collect()))
        .filter(|(_, intervals): &(_, Vec<Option<Interval>>)| intervals.iter().any(Option::is_some))
        .collect();
    let first = |intervals: &[Option<Interval>]| {
        intervals.iter().flatten().map(|i| i.estimate).next().unwrap_or(-2.0)
    };
    rows.sort_by(|a, b| first(&a.1).total_cmp(&first(&b.1)));
    let height = 90 + 24 * rows.len() as u32;
    let area = canvas(path, (900, height))?;
    let last = rows.len() as f64;
    let mut chart = drawn(
        path,
        ChartBuilder::on(&area)
            .caption("Pearson correlation with token F1, 95 % intervals", (FONT, 18))
            .margin(12)
            .x_label_area_size(32)
            .y_label_area_size(290)
            .build_cartesian_2d(-0.8f64..1.0, 0.0..last),
    )?;
    let label = |y: &f64| {
        let index = y.floor() as usize;
        let at_middle = (y - y.floor() - 0.5).abs() < 1e-6;
        if at_middle {
            rows.get(index).map_or(String::new(), |row| row.0.clone())
        } else {
            String::new()
        }
    };
    drawn(
        path,
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(10)
            .y_label_formatter(&label)
            .draw(),
    )?;
    let zero = [(0.0, 0.0), (0.0, last)];
    drawn(path, chart.draw_series([PathElement::new(zero.to_vec(), BLACK.mix(0.5))]))?;
    for (index, (name, _)) in rows.iter().enumerate() {
        let text = Text::new(name.to_string(), (10, 0), (FONT, 13).into_font());
        let y = index as f64 + 0.5;
        let (_, pixel) = chart.backend_coord(&(0.0, y));
        drawn(path, area.draw(&(EmptyElement::at((6, pixel - 7)) + text)))?;
    }
    for (k, kind) in kinds.iter().enumerate() {
        let colour = COLOURS[k % COLOURS.len()];
        let offset = 0.5 + if k == 0 { 0.16 } else { -0.16 };
        let points: Vec<(f64, Interval)> = rows
            .iter()
            .enumerate()
            .filter_map(|(i, (_, intervals))| Some((i as f64 + offset, intervals[k]?)))
            .collect();
        let bars = points
            .iter()
            .map(|(y, i)| PathElement::new(vec![(i.low, *y), (i.high, *y)], colour.stroke_width(2)));
        drawn(path, chart.draw_series(bars))?;
        let dots = points.iter().map(|(y, i)| Circle::new((i.estimate, *y), 4, colour.filled()));
        drawn(path, chart.draw_series(dots))?
            .label(group_name(Some(*kind)))
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    legend(path, &mut chart, SeriesLabelPosition::UpperLeft)?;
    drawn(path, area.present())
}

fn legend<'a, X, Y>(
    path: &Path,
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let result = chart
        .configure_series_labels()
        .position(position)
        .label_font((FONT, 14))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw();
    drawn(path, result)
}

/// Each model's mean token F1 over its median processor time.
pub(crate) fn quality_and_cost(data: &Dataset, path: &Path) -> Result<()> {
    let mut points = Vec::new();
    for (k, kind) in data.kinds().into_iter().enumerate() {
        for (name, rows) in data.by_model(kind) {
            let seconds = median(rows.iter().map(|row| row.output.cpu_ms / 1e3).collect());
            points.push((k, kind, name, seconds.max(1e-3), mean(rows.iter().map(|row| row.f1))));
        }
    }
    let least = points.iter().map(|p| p.3).fold(f64::INFINITY, f64::min) / 1.5;
    let most = points.iter().map(|p| p.3).fold(0.0, f64::max) * 4.0;
    let area = canvas(path, (900, 520))?;
    let mut chart = drawn(
        path,
        ChartBuilder::on(&area)
            .caption("Quality and cost of the models", (FONT, 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(52)
            .build_cartesian_2d((least..most).log_scale(), 0.0..1.0f64),
    )?;
    drawn(
        path,
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("median processor seconds per answer (logarithmic)")
            .y_desc("mean token F1")
            .label_style((FONT, 13))
            .draw(),
    )?;
    for (k, kind) in data.kinds().into_iter().enumerate() {
        let colour = COLOURS[k % COLOURS.len()];
        let dots = points.iter().filter(|p| p.0 == k).map(|p| Circle::new((p.3, p.4), 5, colour.filled()));
        drawn(path, chart.draw_series(dots))?
            .label(group_name(Some(kind)))
            .legend(move |(x, y)| Circle::new((x + 8, y), 5, colour.filled()));
    }
    // By turns above and below their points from left to right: a model's formats often lie close.
    points.sort_by(|a, b| (a.0, a.3).partial_cmp(&(b.0, b.3)).unwrap_or(std::cmp::Ordering::Equal));
    let names = points.iter().enumerate().map(|(index, p)| {
        let offset = if index % 2 == 0 { (-8, 8) } else { (-8, -20) };
        EmptyElement::at((p.3, p.4)) + Text::new(p.2.to_string(), offset, (FONT, 12).into_font())
    });
    drawn(path, chart.draw_series(names))?;
    legend(path, &mut chart, SeriesLabelPosition::LowerRight)?;
    drawn(path, area.present())
}

/// Of held-out outputs in ten groups by the panel's score: mean score beside mean token F1.
pub(crate) fn reliability(study: &Study<'_>, path: &Path) -> Result<()> {
    let area = canvas(path, (560, 520))?;
    let mut chart = drawn(
        path,
        ChartBuilder::on(&area)
            .caption("Held-out reliability of the rubric", (FONT, 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..1.0f64, 0.0..1.0f64),
    )?;
    drawn(
        path,
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("panel's median score, mean of a tenth of the outputs")
            .y_desc("mean token F1 of the same outputs")
            .label_style((FONT, 13))
            .draw(),
    )?;
    drawn(path, chart.draw_series([PathElement::new(vec![(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4))]))?;
    for (k, (kind, fitted)) in study.rubrics.iter().enumerate() {
        let colour = COLOURS[k % COLOURS.len()];
        let rows: Vec<usize> =
            study.data.clusters(Some(*kind), Part::HeldOut).into_iter().flatten().collect();
        let mut pairs: Vec<(f64, f64)> =
            rows.iter().filter_map(|row| Some((fitted.panel(*row)?, study.data.rows[*row].f1))).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let groups: Vec<(f64, f64)> = pairs
            .chunks(pairs.len().div_ceil(10).max(1))
            .map(|group| (mean(group.iter().map(|p| p.0)), mean(group.iter().map(|p| p.1))))
            .collect();
        drawn(path, chart.draw_series(LineSeries::new(groups.clone(), colour.stroke_width(2))))?;
        drawn(path, chart.draw_series(groups.iter().map(|p| Circle::new(*p, 4, colour.filled()))))?
            .label(group_name(Some(*kind)))
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    legend(path, &mut chart, SeriesLabelPosition::LowerRight)?;
    drawn(path, area.present())
}
