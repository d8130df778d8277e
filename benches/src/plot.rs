//! Plots as SVG, for pages that are read on GitHub.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;

/// One colour of bars: a name, and a value for each group; none where nothing was measured.
pub struct Series<'a> {
    /// What it is.
    pub name: &'a str,
    /// Its colour, as CSS writes it.
    pub colour: &'a str,
    /// Values by group, above 0.
    pub values: Vec<Option<f64>>,
}

/// Groups of bars over a logarithmic axis, each with its value written on top.
pub fn bars(title: &str, axis: &str, groups: &[String], series: &[Series<'_>]) -> String {
    let values = series.iter().flat_map(|series| series.values.iter().flatten().copied());
    let (low, high) = values
        .fold((f64::INFINITY, 1.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    // Whole decades around the values; the lowest bar keeps some height.
    let bottom = (low.min(high) / 2.0).max(1e-3).log10().floor();
    let top = high.log10().ceil().max(bottom + 1.0);
    let y = |value: f64| {
        let part = (value.log10() - bottom) / (top - bottom);
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="22" font-size="16" font-weight="600" fill="#1f2328">{title}</text>
<text x="14" y="{middle}" transform="rotate(-90 14 {middle})" text-anchor="middle" fill="#59636e">{axis}</text>
"##,
        title = escape(title),
        axis = escape(axis),
        middle = (TOP + HEIGHT - BOTTOM) / 2.0,
    );
    let mut decade = bottom;
    while decade <= top {
        let (value, at) = (10_f64.powf(decade), y(10_f64.powf(decade)));
        let _infallible = writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{end}" y1="{at:.1}" y2="{at:.1}" stroke="#d1d9e0"/><text x="{label}" y="{base:.1}" text-anchor="end" fill="#59636e">{value}</text>"##,
            end = WIDTH - RIGHT,
            label = LEFT - 6.0,
            base = at + 4.0,
            value = number(value),
        );
        decade += 1.0;
    }
    let group_width = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let bar_width = (group_width * 0.84 / series.len().max(1) as f64).min(64.0);
    for (place, group) in groups.iter().enumerate() {
        let middle = LEFT + (place as f64 + 0.5) * group_width;
        let _infallible = writeln!(
            svg,
            r##"<text x="{middle:.1}" y="{base}" text-anchor="middle" fill="#1f2328">{group}</text>"##,
            base = HEIGHT - BOTTOM + 18.0,
            group = escape(group),
        );
        for (number_of_bar, one) in series.iter().enumerate() {
            let Some(value) = one.values.get(place).copied().flatten() else { continue };
            let left = middle + (number_of_bar as f64 - series.len() as f64 / 2.0) * bar_width;
            let _infallible = writeln!(
                svg,
                r##"<rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/><text x="{centre:.1}" y="{label:.1}" text-anchor="middle" font-size="10" fill="#1f2328">{value}</text>"##,
                top = y(value),
                width = bar_width - 3.0,
                height = HEIGHT - BOTTOM - y(value),
                colour = one.colour,
                centre = left + (bar_width - 3.0) / 2.0,
                label = y(value) - 4.0,
                value = number(value),
            );
        }
    }
    let mut left = LEFT;
    for one in series {
        let _infallible = writeln!(
            svg,
            r##"<rect x="{left:.1}" y="36" width="11" height="11" fill="{colour}"/><text x="{text:.1}" y="46" fill="#1f2328">{name}</text>"##,
            colour = one.colour,
            text = left + 16.0,
            name = escape(one.name),
        );
        left += 40.0 + 7.0 * one.name.chars().count() as f64;
    }
    svg.push_str("</svg>\n");
    svg
}

/// A value in few digits, thousands parted.
pub fn number(value: f64) -> String {
    if value < 10.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0312, 0.5, 9.0, 10.4, 999.0, 1_000.0, 1_234_567.0].map(number);
        assert_eq!(texts, ["0.03", "0.5", "9", "10", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_larger_value_is_a_higher_bar_and_a_missing_one_is_none() {
        let series =
            [Series { name: "a<b", colour: "red", values: vec![Some(10.0), None, Some(99.0)] }];
        let groups = ["1", "10", "100"].map(String::from);
        let svg = bars("t", "per s", &groups, &series);
        let heights: Vec<f64> = svg
            .lines()
            .filter(|line| {
                line.starts_with("<rect") && line.contains("red") && !line.contains("y=\"36\"")
            })
            .map(|line| {
                let rest = line.split("height=\"").nth(1).unwrap();
                rest.split('"').next().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(heights.len(), 2);
        assert!(heights[1] > heights[0] && heights[0] > 0.0);
        assert!(svg.contains("a&lt;b"));
    }
}
