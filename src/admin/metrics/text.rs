//! Prometheus' text format, version 0.0.4.
//!
//! Owns: how families, samples and labels are written. Knows no metric.
//! Written by hand: RabbitMQ's families are `untyped` here and there, repeat labels in an order of their own and
//! have help texts without a full stop, which libraries for the format do not let pass.

use std::fmt::{Display, Write as _};
use std::time::Duration;

/// What kind of number a family is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Only grows, from the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
    /// Nothing is said.
    Untyped,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }
}

/// A family: its name without what stands before it, its kind, and what it tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// Families with what each reads of a `Row`.
pub(super) type Columns<Row> = [(Family, fn(&Row) -> u64)];

/// What is being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    /// Stands before the names of families.
    prefix: &'static str,
    name: &'static str,
    /// What the samples of the family begin with that have labels.
    head: String,
}

impl Page {
    /// A page whose families begin with `prefix`.
    pub(super) fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            ..Self::default()
        }
    }

    /// Goes on with families that begin with `prefix`.
    pub(super) fn set_prefix(&mut self, prefix: &'static str) {
        self.prefix = prefix;
    }

    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, family: &Family) {
        let (prefix, name) = (self.prefix, family.name);
        let (kind, help) = (family.kind.name(), family.help);
        // Writing to memory does not fail.
        let _ = writeln!(self.text, "# TYPE {prefix}{name} {kind}");
        let _ = writeln!(self.text, "# HELP {prefix}{name} {help}");
        self.name = family.name;
        self.head = format!("{prefix}{name}{{");
    }

    /// Families with a sample for each row; `labels` are those of the rows. Of tens of thousands of rows this is most of
    /// a page, so that nothing is allocated or formatted for a sample beside its digits.
    pub(super) fn rows<Row>(&mut self, families: &Columns<Row>, rows: &[Row], labels: &[String]) {
        for (family, read) in families {
            self.family(family);
            let labels_bytes: usize = labels.iter().map(String::len).sum();
            let line_bytes = self.head.len() + LINE_BYTES_MAX;
            self.text.reserve(labels_bytes + rows.len() * line_bytes);
            for (row, labels) in rows.iter().zip(labels) {
                self.text.push_str(&self.head);
                self.text.push_str(labels);
                self.text.push_str("} ");
                push_decimal(&mut self.text, read(row));
                self.text.push('\n');
            }
        }
    }

    /// A sample of the family that was begun; `labels` as [`Labels`] gives them.
    pub(super) fn sample(&mut self, labels: &str, value: impl Display) {
        self.part("", labels, value);
    }

    fn part(&mut self, ending: &str, labels: &str, value: impl Display) {
        let (prefix, name) = (self.prefix, self.name);
        let _ = match labels.is_empty() {
            true => writeln!(self.text, "{prefix}{name}{ending} {value}"),
            false => writeln!(self.text, "{prefix}{name}{ending}{{{labels}}} {value}"),
        };
    }

    /// A family with a single sample without labels.
    pub(super) fn single(&mut self, family: &Family, value: impl Display) {
        self.family(family);
        self.sample("", value);
    }

    /// A distribution: `counts` are those of each class alone, one for each of `bounds` and one for what is
    /// above all of them.
    pub(super) fn histogram<B: Display>(
        &mut self,
        labels: &str,
        bounds: impl IntoIterator<Item = B>,
        counts: &[u64],
        sum: impl Display,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        let mut counts_left = counts.iter();
        for (bound, count) in bounds.into_iter().zip(counts_left.by_ref()) {
            below += count;
            self.part("_bucket", &format!("{labels}{comma}le=\"{bound}\""), below);
        }
        let all: u64 = counts.iter().sum();
        self.part("_bucket", &format!("{labels}{comma}le=\"+Inf\""), all);
        self.part("_sum", labels, sum);
        self.part("_count", labels, all);
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;
/// What a sample has beside the family's name and its labels at most, in bytes.
const LINE_BYTES_MAX: usize = DIGITS_MAX + 3;

/// Adds a number in decimal digits.
fn push_decimal(text: &mut String, mut number: u64) {
    let mut digits = [b'0'; DIGITS_MAX];
    let mut begin = DIGITS_MAX;
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        begin = at;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let digits = digits.get(begin..).unwrap_or_default();
    text.push_str(std::str::from_utf8(digits).unwrap_or_default());
}

/// Labels as they stand between the braces.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// These labels, in this order.
    pub(super) fn of<const N: usize>(pairs: [(&str, &str); N]) -> String {
        let mut labels = Self::default();
        for (name, value) in pairs {
            labels.push(name, value);
        }
        labels.0
    }

    fn push(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{name}=\"");
        for part in value.split_inclusive(['\\', '"', '\n']) {
            let ends = [('\\', "\\\\"), ('"', "\\\""), ('\n', "\\n")];
            let mut ends = ends.into_iter();
            let found = ends.find_map(|(end, escaped)| Some((part.strip_suffix(end)?, escaped)));
            let (plain, escaped) = found.unwrap_or((part, ""));
            self.0.push_str(plain);
            self.0.push_str(escaped);
        }
        self.0.push('"');
    }
}

/// A time in seconds.
pub(super) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: Family = Family {
        name: "depth",
        kind: Kind::Gauge,
        help: "How deep",
    };

    /// Names of queues may hold anything; what would end a label or a line is escaped.
    #[test]
    fn labels_are_escaped() {
        let labels = Labels::of([("vhost", "/"), ("queue", "a\"b\\c\nd")]);
        assert_eq!(labels, "vhost=\"/\",queue=\"a\\\"b\\\\c\\nd\"");
        let mut page = Page::new("x_");
        page.family(&DEPTH);
        page.sample(&labels, 3);
        page.sample("", 1.5);
        assert_eq!(
            page.finish(),
            "# TYPE x_depth gauge\n# HELP x_depth How deep\n\
             x_depth{vhost=\"/\",queue=\"a\\\"b\\\\c\\nd\"} 3\nx_depth 1.5\n"
        );
    }

    /// Rows are written as samples are, whatever their number.
    #[test]
    fn rows_are_samples() {
        let labels: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| Labels::of([("queue", name)]))
            .collect();
        let rows = [0, 7, 10_203, u64::MAX];
        let mut written = Page::new("x_");
        written.rows(&[(DEPTH, |row: &u64| *row)], &rows, &labels);
        let mut expected = Page::new("x_");
        expected.family(&DEPTH);
        for (row, labels) in rows.iter().zip(&labels) {
            expected.sample(labels, row);
        }
        assert_eq!(written.finish(), expected.finish());
    }

    /// Each class of a histogram holds those below it.
    #[test]
    fn histograms_are_cumulative() {
        let mut page = Page::new("");
        page.family(&Family {
            kind: Kind::Histogram,
            ..DEPTH
        });
        page.histogram("a=\"b\"", [0.5, 1.0], &[1, 2, 3], 9);
        let text = page.finish();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "depth_bucket{a=\"b\",le=\"0.5\"} 1",
                "depth_bucket{a=\"b\",le=\"1\"} 3",
                "depth_bucket{a=\"b\",le=\"+Inf\"} 6",
                "depth_sum{a=\"b\"} 9",
                "depth_count{a=\"b\"} 6",
            ]
        );
    }
}
