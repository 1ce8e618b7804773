//! Training curves as inline SVG.

use super::{ReportError, format};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Points of one drawn line; more would not be seen.
const MAX_POINTS: usize = 400;
const SIZE: (u32, u32) = (560, 240);

/// Colours the page's style sheet replaces (`[stroke="#010101"]`), so that curves follow light and dark.
const GRID: RGBColor = RGBColor(1, 1, 1);
const TEXT: RGBColor = RGBColor(2, 2, 2);
/// The line drawn strongest.
pub(super) const MAIN: RGBColor = RGBColor(3, 3, 3);
/// A faint line behind it.
pub(super) const FAINT: RGBColor = RGBColor(4, 4, 4);
/// A second quantity.
pub(super) const SECOND: RGBColor = RGBColor(5, 5, 5);

/// A line of a curve.
pub(super) struct Line {
    pub colour: RGBColor,
    /// (step, value); values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether each point gets a dot (for few points).
    pub dots: bool,
}

impl Line {
    pub fn new(colour: RGBColor, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points: Vec<_> = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Self { colour, points: thinned(&points), dots: false }
    }

    pub fn with_dots(mut self) -> Self {
        self.dots = true;
        self
    }
}

/// Means of as many equal stretches as can be seen.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    (0..MAX_POINTS)
        .map(|i| {
            let stretch = &points[i * points.len() / MAX_POINTS..(i + 1) * points.len() / MAX_POINTS];
            let n = stretch.len() as f64;
            let sum = stretch.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
            (sum.0 / n, sum.1 / n)
        })
        .collect()
}

/// Share of the page's width that a smoothed line looks back, about: on a short run a longer memory would draw
/// values that were never near.
const LOOK_BACK: f64 = 1.0 / 40.0;

/// Exponential moving average, corrected for its start.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let weight = (1.0 - 1.0 / (points.len() as f64 * LOOK_BACK)).clamp(0.0, 0.95);
    let (mut average, mut mass) = (0.0, 0.0);
    points
        .iter()
        .filter(|(_, y)| y.is_finite())
        .map(|(x, y)| {
            average = weight * average + (1.0 - weight) * y;
            mass = weight * mass + (1.0 - weight);
            (*x, average / mass)
        })
        .collect()
}

/// One curve; `None` when no line has a point.
pub(super) fn svg(title: &str, lines: &[Line]) -> Result<Option<String>, ReportError> {
    let all = || lines.iter().flat_map(|l| &l.points);
    let range = |value: fn(&(f64, f64)) -> f64| {
        all()
            .map(value)
            .fold(None, |r: Option<(f64, f64)>, v| Some(r.map_or((v, v), |(lo, hi)| (lo.min(v), hi.max(v)))))
    };
    let (Some((first, last)), Some((low, high))) = (range(|p| p.0), range(|p| p.1)) else { return Ok(None) };
    // A curve that is all one value, but for the rounding of its averages, still needs an axis; one close to 0 starts there.
    let flat = high - low <= 1e-9 * high.abs().max(low.abs());
    let span = if flat { high.abs().max(1.0) } else { high - low };
    let low = if low >= 0.0 && low < 0.6 * high { 0.0 } else { low - 0.08 * span };
    let x_axis = first..if last > first { last } else { first + 1.0 };
    let y_axis = low..high + 0.08 * span;

    let mut out = String::new();
    let fail = |what: String| ReportError::Curve { curve: title.to_owned(), what };
    draw(&mut out, lines, x_axis, y_axis).map_err(fail)?;
    Ok(Some(out))
}

fn draw(
    out: &mut String,
    lines: &[Line],
    x_axis: std::ops::Range<f64>,
    y_axis: std::ops::Range<f64>,
) -> Result<(), String> {
    let text = |e: DrawingAreaErrorKind<_>| -> String { format!("{e:?}") };
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(8)
        .margin_right(14)
        .x_label_area_size(26)
        .y_label_area_size(58)
        .build_cartesian_2d(x_axis, y_axis)
        .map_err(text)?;
    let label = TextStyle::from(("sans-serif", 14)).color(&TEXT);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(6)
        .y_labels(5)
        .x_label_style(label.clone().pos(Pos::new(HPos::Center, VPos::Top)))
        .y_label_style(label.pos(Pos::new(HPos::Right, VPos::Center)))
        .x_label_formatter(&|x| if x.fract().abs() < 1e-9 { format::count(*x as u64) } else { String::new() })
        .y_label_formatter(&|y| format::short(*y))
        .draw()
        .map_err(text)?;
    for line in lines {
        let style = line.colour.stroke_width(if line.colour == FAINT { 1 } else { 2 });
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style)).map_err(text)?;
        if line.dots || line.points.len() == 1 {
            let dots = line.points.iter().map(|p| Circle::new(*p, 3, line.colour.filled()));
            chart.draw_series(dots).map_err(text)?;
        }
    }
    root.present().map_err(text)
}

type DrawingAreaErrorKind<E> = plotters::drawing::DrawingAreaErrorKind<E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_draw_and_odd_values() {
        assert!(svg("t", &[]).unwrap().is_none());
        assert!(svg("t", &[Line::new(MAIN, [(1.0, f64::NAN)])]).unwrap().is_none());
        let one = svg("t", &[Line::new(MAIN, [(1.0, 2.0), (2.0, f64::INFINITY)])]).unwrap().unwrap();
        assert!(one.contains("<circle") && !one.contains("NaN") && !one.contains("inf"), "{one}");
        let flat = svg("t", &[Line::new(MAIN, [(1.0, 0.0), (2.0, 0.0)])]).unwrap().unwrap();
        assert!(flat.contains("<polyline") && !flat.contains("NaN"), "{flat}");
        // The last bits of an average are no curve.
        let ys = |line: &str| -> Vec<f64> {
            let points = line.split("points=\"").nth(1).and_then(|p| p.split('"').next()).unwrap_or_default();
            points.split_whitespace().map(|p| p.split(',').nth(1).unwrap().parse().unwrap()).collect()
        };
        let averages = Line::new(MAIN, [(1.0, 0.3), (2.0, 0.1 + 0.2), (3.0, 0.3)]);
        let drawn = svg("t", &[averages]).unwrap().unwrap();
        let curve = drawn.split("<polyline").map(ys).find(|ys| ys.len() == 3).unwrap();
        assert!(curve.iter().all(|y| *y == curve[0]), "{curve:?}");
    }

    #[test]
    fn long_curves_are_thinned_to_their_means() {
        let line = Line::new(MAIN, (0..100_000).map(|i| (f64::from(i), 1.0)));
        assert_eq!(line.points.len(), MAX_POINTS);
        assert!(line.points.iter().all(|p| p.1 == 1.0));
    }

    #[test]
    fn smoothing_starts_at_the_first_value() {
        // 80 points look back over two: half of the past stays.
        let line =
            smoothed(&(0..80).map(|i| (f64::from(i), if i < 79 { 4.0 } else { 0.0 })).collect::<Vec<_>>());
        assert!((line[0].1 - 4.0).abs() < 1e-12 && (line[78].1 - 4.0).abs() < 1e-12);
        assert!((line[79].1 - 2.0).abs() < 1e-9, "{:?}", line[79]);
        // On a short run the line is the values themselves.
        assert_eq!(smoothed(&[(1.0, 4.0), (2.0, 0.0)]), [(1.0, 4.0), (2.0, 0.0)]);
    }
}
