//! The text that Prometheus reads, version 0.0.4 of its exposition format.
//!
//! Source: Prometheus documentation, "Exposition formats". Why not OpenMetrics: `promtool check
//! metrics` reads the older form, and every collector reads both.

use std::fmt::{self, Write};
use std::time::Duration;

use super::histogram::Histogram;

/// The `Content-Type` of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family of figures is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by range.
    Histogram,
}

/// A page of figures that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// A time, told in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0.as_nanos())
    }
}

/// Writes nanoseconds as seconds, without the zeros at the end.
fn decimal(out: &mut impl Write, nanos: u128) -> fmt::Result {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return write!(out, "{whole}");
    }
    let digits = format!("{rest:09}");
    write!(out, "{whole}.{}", digits.trim_end_matches('0'))
}

impl Page {
    /// The page as text.
    pub fn text(self) -> String {
        self.text
    }

    /// Begins a family: figures of one name that differ in their labels. Each family is written
    /// once.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {word}\n");
        Family { text: &mut self.text, name }
    }

    /// A family of one counter.
    pub fn counter(&mut self, name: &'static str, help: &str, value: impl fmt::Display) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// A family of one gauge.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl fmt::Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// A family of one histogram.
    pub fn histogram(&mut self, name: &'static str, help: &str, value: &Histogram) {
        self.family(name, Kind::Histogram, help).histogram(&[], value);
    }
}

/// A family whose figures are being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// A label's name and its value.
type Label<'a> = (&'a str, &'a str);

impl Family<'_> {
    /// Writes one figure.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl fmt::Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// Writes a histogram.
    pub fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) -> &mut Self {
        let scale = histogram.scale();
        let mut total = 0;
        for (at, count) in histogram.counts().into_iter().enumerate() {
            total += count;
            let bound = match scale.bounds.get(at) {
                Some(bound) if scale.seconds => Seconds(Duration::from_nanos(*bound)).to_string(),
                Some(bound) => bound.to_string(),
                None => "+Inf".to_owned(),
            };
            self.line("_bucket", labels, Some(("le", &bound)), total);
        }
        match scale.seconds {
            true => self.line("_sum", labels, None, Seconds(Duration::from_nanos(histogram.sum()))),
            false => self.line("_sum", labels, None, histogram.sum()),
        }
        self.line("_count", labels, None, total);
        self
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Label<'_>],
        last: Option<Label<'_>>,
        value: impl fmt::Display,
    ) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            let _ = write!(self.text, "{separator}{name}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scale;
    use super::*;

    #[test]
    fn a_page_is_what_the_format_says() {
        let mut page = Page::default();
        page.gauge("tributary_up", "Is it \\ up?\nYes.", 1);
        let mut family = page.family("tributary_calls_total", Kind::Counter, "Calls.");
        family.sample(&[("method", "a\"b\\c\nd"), ("code", "OK")], 7_u64);
        let histogram = Histogram::new(Scale::BYTES);
        histogram.observe(1_024);
        histogram.observe(5_000);
        page.histogram("tributary_bytes", "Bytes.", &histogram);
        let text = page.text();
        let expected = "# HELP tributary_up Is it \\\\ up?\\nYes.\n# TYPE tributary_up gauge\n\
                        tributary_up 1\n# HELP tributary_calls_total Calls.\n\
                        # TYPE tributary_calls_total counter\n\
                        tributary_calls_total{method=\"a\\\"b\\\\c\\nd\",code=\"OK\"} 7\n";
        assert!(text.starts_with(expected), "{text}");
        for line in [
            "tributary_bytes_bucket{le=\"1024\"} 1",
            "tributary_bytes_bucket{le=\"4096\"} 1",
            "tributary_bytes_bucket{le=\"16384\"} 2",
            "tributary_bytes_bucket{le=\"+Inf\"} 2",
            "tributary_bytes_sum 6024",
            "tributary_bytes_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn times_are_told_in_seconds() {
        for (nanos, text) in
            [(0, "0"), (1, "0.000000001"), (2_500_000, "0.0025"), (61 * 1_000_000_000, "61")]
        {
            assert_eq!(Seconds(Duration::from_nanos(nanos)).to_string(), text);
        }
        let histogram = Histogram::new(Scale::CALLS);
        histogram.took(Duration::from_millis(3));
        let mut page = Page::default();
        page.histogram("tributary_seconds", "Seconds.", &histogram);
        let text = page.text();
        assert!(text.contains("tributary_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("tributary_seconds_sum 0.003\n"), "{text}");
    }
}
