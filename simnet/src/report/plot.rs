//! Plots as SVG, drawn here so that a report needs nothing from elsewhere.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
/// Most points of a line: more would not be seen.
const POINTS_MAX: usize = 600;
const COLOURS: [&str; 4] = ["#0969da", "#bf3989", "#1a7f37", "#9a6700"];

/// A line of a plot.
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// What a plot is about.
pub struct Plot<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below it.
    pub x: &'a str,
    /// Beside it.
    pub y: &'a str,
    /// Whether x is logarithmic.
    pub log_x: bool,
    /// The highest y that is shown at least.
    pub y_at_least: f64,
}

impl Plot<'_> {
    /// Draws lines.
    pub fn draw(&self, lines: &[Line]) -> String {
        let scale_x = |x: f64| if self.log_x { libm::log10(x.max(1e-9)) } else { x };
        let points = || lines.iter().flat_map(|line| line.points.iter());
        let xs = points().map(|(x, _)| scale_x(*x));
        let (low, high) = bounds(xs);
        let top = nice(points().map(|(_, y)| *y).fold(self.y_at_least, f64::max));
        let right = WIDTH - RIGHT;
        let base = HEIGHT - BOTTOM;
        let at_x = |x: f64| LEFT + (scale_x(x) - low) / (high - low) * (right - LEFT);
        let at_y = |y: f64| base - (y / top).clamp(0.0, 1.0) * (base - TOP);
        let mut svg = self.frame(top, &at_y);
        self.x_axis(&mut svg, (low, high), &at_x);
        for (place, line) in lines.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let mut path = String::new();
            for (x, y) in thin(&line.points) {
                let _infallible = write!(path, "{:.1},{:.1} ", at_x(x), at_y(y));
            }
            let _infallible = write!(
                svg,
                r##"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.6"/>"##,
                path.trim_end()
            );
            if line.points.len() < 30 {
                for (x, y) in &line.points {
                    let _infallible = write!(
                        svg,
                        r##"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"##,
                        at_x(*x),
                        at_y(*y)
                    );
                }
            }
            let left = right - 110.0 * (lines.len() - place) as f64;
            let _infallible = write!(
                svg,
                r##"<rect x="{left:.0}" y="14" width="10" height="10" fill="{colour}"/><text x="{:.0}" y="23">{}</text>"##,
                left + 14.0,
                escape(&line.name)
            );
        }
        svg.push_str("</svg>");
        svg
    }

    fn frame(&self, top: f64, at_y: &dyn Fn(f64) -> f64) -> String {
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="11" fill="#1f2328"><title>{title}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="23" font-size="14" font-weight="600">{title}</text><text x="14" y="{middle}" transform="rotate(-90 14 {middle})" text-anchor="middle" fill="#59636e">{y}</text><text x="{centre}" y="{below}" text-anchor="middle" fill="#59636e">{x}</text>"##,
            title = escape(self.title),
            middle = (TOP + HEIGHT - BOTTOM) / 2.0,
            centre = (LEFT + WIDTH - RIGHT) / 2.0,
            below = HEIGHT - 6.0,
            x = escape(self.x),
            y = escape(self.y),
        );
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            let at = at_y(value);
            let _infallible = write!(
                svg,
                r##"<line x1="{LEFT}" x2="{end}" y1="{at:.1}" y2="{at:.1}" stroke="#d1d9e0"/><text x="{label}" y="{text:.1}" text-anchor="end" fill="#59636e">{value}</text>"##,
                end = WIDTH - RIGHT,
                label = LEFT - 6.0,
                text = at + 4.0,
                value = number(value),
            );
        }
        svg
    }

    fn x_axis(&self, svg: &mut String, (low, high): (f64, f64), at_x: &dyn Fn(f64) -> f64) {
        let ticks: Vec<f64> = if self.log_x {
            let (first, last) = (low.ceil() as i32, high.floor() as i32);
            let every = ((last - first) / 8 + 1).max(1) as usize;
            (first..=last).step_by(every).map(|power| libm::pow(10.0, f64::from(power))).collect()
        } else {
            (0..=4).map(|step| low + (high - low) * f64::from(step) / 4.0).collect()
        };
        for tick in ticks {
            let _infallible = write!(
                svg,
                r##"<text x="{:.1}" y="{}" text-anchor="middle" fill="#59636e">{}</text>"##,
                at_x(tick),
                HEIGHT - BOTTOM + 16.0,
                number(tick)
            );
        }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if !low.is_finite() {
        (0.0, 1.0)
    } else if high - low < 1e-9 {
        (low - 0.5, high + 0.5)
    } else {
        (low, high)
    }
}

/// Averages neighbours until few enough points are left.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let count = chunk.len() as f64;
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(size).map(mean).collect()
}

/// The next round number.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = libm::pow(10.0, libm::floor(libm::log10(value)));
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|step| *step >= value * 0.999_999).unwrap_or(value)
}

/// A value in few digits.
pub fn number(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        size if size >= 1e12 => short(value / 1e12, "T"),
        size if size >= 1e9 => short(value / 1e9, "G"),
        size if size >= 1e6 => short(value / 1e6, "M"),
        size if size >= 1e4 => short(value / 1e3, "k"),
        size if size >= 0.1 || size == 0.0 => short(value, ""),
        size if size >= 1e-4 => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').to_owned()
        }
        _ => format!("{value:.1e}"),
    }
}

/// Text inside markup.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.0016, 2e-7, 0.25, 1_500.0, 25_000.0, 3.2e6, 7e9].map(number);
        assert_eq!(texts, ["0", "0.0016", "2.0e-7", "0.25", "1500", "25k", "3.2M", "7G"]);
    }

    #[test]
    fn a_plot_has_a_line_for_each_series_and_escapes_names() {
        let plot = Plot { title: "a<b", x: "t", y: "v", log_x: false, y_at_least: 0.0 };
        let line = |name: &str, top: f64| Line {
            name: name.into(),
            points: (0..5_000).map(|x| (f64::from(x), top)).collect(),
        };
        let svg = plot.draw(&[line("one", 3.0), line("t&o", 6.0)]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("t&amp;o"));
        assert!(svg.len() < 40_000, "{}", svg.len());
        assert!(plot.draw(&[]).ends_with("</svg>"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.0, 0.93, 1.0, 17.0, 2_100.0].map(nice), [1.0, 1.0, 1.0, 20.0, 2_400.0]);
    }
}
