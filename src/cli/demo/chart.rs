//! Line charts as SVG: a few series of points on logarithmic axes.
//!
//! Owns: the drawing. Knows nothing of what is measured.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
/// Colours that differ also for the colour-blind; series beyond them repeat.
const COLORS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

/// One line of a chart.
pub(super) struct Series {
    /// What the legend calls it.
    pub(super) name: String,
    /// Points from left to right; both coordinates are above zero.
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart with its words.
pub(super) struct Chart {
    /// Over the chart.
    pub(super) title: String,
    /// Below the horizontal axis, with its unit.
    pub(super) x_label: String,
    /// Beside the vertical axis, with its unit.
    pub(super) y_label: String,
    /// The lines.
    pub(super) series: Vec<Series>,
}

/// A logarithmic axis from value to position.
struct Axis {
    min: f64,
    max: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut min, mut max) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            min = min.min(value);
            max = max.max(value);
        }
        if !min.is_finite() {
            (min, max) = (1.0, 10.0);
        }
        if max <= min {
            (min, max) = (min / 2.0, max * 2.0);
        }
        Self { min, max, from, to }
    }

    fn position(&self, value: f64) -> f64 {
        let part = (value / self.min).ln() / (self.max / self.min).ln();
        self.from + part * (self.to - self.from)
    }

    /// 1, 2 and 5 times the powers of ten within the axis.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(self.min.log10().floor());
        while power <= self.max {
            let steps = [1.0, 2.0, 5.0].map(|step| step * power);
            ticks.extend(
                steps
                    .into_iter()
                    .filter(|tick| (self.min..=self.max).contains(tick)),
            );
            power *= 10.0;
        }
        ticks
    }
}

impl Chart {
    /// The chart as an SVG document.
    pub(super) fn to_svg(&self) -> String {
        let all = || {
            self.series
                .iter()
                .flat_map(|series| series.points.iter().copied())
        };
        let x = Axis::new(all().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::new(all().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
            escape(&self.title)
        );
        self.draw_axes(&mut svg, &x, &y);
        for (index, series) in self.series.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            draw_series(&mut svg, series, index, color, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in x.ticks() {
            let at = x.position(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#dddddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
                bottom + 16.0
            );
        }
        for tick in y.ticks() {
            let at = y.position(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let middle = (TOP + bottom) / 2.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#333333\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"18\" y=\"{middle:.1}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 18 {middle:.1})\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 16.0,
            escape(&self.x_label),
            escape(&self.y_label)
        );
    }
}

fn draw_series(svg: &mut String, series: &Series, index: usize, color: &str, x: &Axis, y: &Axis) {
    let points = series
        .points
        .iter()
        .filter(|point| point.0 > 0.0 && point.1 > 0.0);
    let places: Vec<_> = points
        .map(|point| (x.position(point.0), y.position(point.1)))
        .collect();
    let line: Vec<_> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>"
        );
    }
    let row = TOP + 10.0 + 20.0 * u32::try_from(index).map_or(0.0, f64::from);
    let _ = writeln!(
        svg,
        "<circle cx=\"{:.1}\" cy=\"{row:.1}\" r=\"5\" fill=\"{color}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        WIDTH - RIGHT + 16.0,
        WIDTH - RIGHT + 28.0,
        row + 4.0,
        escape(&series.name)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let series = vec![Series {
            name: "a<b".to_owned(),
            points,
        }];
        let words = |word: &str| word.to_owned();
        Chart {
            title: words("t"),
            x_label: words("x"),
            y_label: words("y"),
            series,
        }
        .to_svg()
    }

    /// Every point is drawn inside the frame and words are escaped.
    #[test]
    fn points_are_drawn_inside_the_frame() {
        let svg = chart(vec![(1.0, 10.0), (60.0, 900.0)]);
        assert_eq!(svg.matches("r=\"3.5\"").count(), 2);
        assert!(svg.contains("a&lt;b"));
        assert!(svg.contains(&format!("cx=\"{LEFT:.1}\" cy=\"{:.1}\"", HEIGHT - BOTTOM)));
        assert!(svg.contains(&format!("cx=\"{:.1}\" cy=\"{TOP:.1}\"", WIDTH - RIGHT)));
    }

    /// One point, or none, still makes a chart without endless numbers.
    #[test]
    fn few_points_still_make_a_chart() {
        for points in [vec![], vec![(5.0, 5.0)], vec![(0.0, 1.0)]] {
            let svg = chart(points);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
