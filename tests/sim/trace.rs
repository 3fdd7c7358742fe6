//! How busy the uplinks of a simulated swarm were, and how far its nodes had come: what to look at when a
//! schedule misses its bound. `SIM_TRACE=1` prints it.

use std::time::Duration;

/// Time that one line stands for.
const LINE: Duration = Duration::from_millis(250);

/// One line.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Seconds that the origin's uplink was busy, and those of all others together.
    origin_s: f64,
    others_s: f64,
    /// Pieces held by the node that has least, by all, by the one that has most.
    held: Option<(u32, u64, u32)>,
}

/// A line for each quarter of a second.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Vec<Line>,
}

impl Trace {
    /// One, if the environment asks for it.
    pub(crate) fn wanted() -> Option<Self> {
        std::env::var_os("SIM_TRACE").map(|_| Self::default())
    }

    fn line(&mut self, at: Duration) -> &mut Line {
        let number = (at.as_millis() / LINE.as_millis()) as usize;
        if self.lines.len() <= number {
            self.lines.resize(number + 1, Line::default());
        }
        &mut self.lines[number]
    }

    /// An uplink was busy for some seconds up to `until`.
    pub(crate) fn busy(&mut self, host: usize, until: Duration, seconds: f64) {
        let line = self.line(until);
        match host {
            0 => line.origin_s += seconds,
            _ => line.others_s += seconds,
        }
    }

    /// Whether nobody has said yet how far the nodes are in the line at `at`.
    pub(crate) fn is_open(&mut self, at: Duration) -> bool {
        self.line(at).held.is_none()
    }

    /// How many pieces each node but the origin holds.
    pub(crate) fn held(&mut self, at: Duration, held: impl Iterator<Item = u32> + Clone) {
        let (least, most) = (held.clone().min(), held.clone().max());
        let all = held.map(u64::from).sum();
        self.line(at).held = Some((least.unwrap_or(0), all, most.unwrap_or(0)));
    }

    /// A table of it.
    pub(crate) fn print(&self, nodes: usize, pieces: u32) {
        println!("  seconds  origin busy  others busy  held: least, mean, most");
        let span = LINE.as_secs_f64();
        for (number, line) in self.lines.iter().enumerate() {
            let (least, all, most) = line.held.unwrap_or_default();
            let share = |held: f64| held / f64::from(pieces);
            println!(
                "  {:7.2}  {:11.2}  {:11.2}  {:.3} {:.3} {:.3}",
                number as f64 * span,
                line.origin_s / span,
                line.others_s / span / nodes as f64,
                share(f64::from(least)),
                share(all as f64 / nodes as f64),
                share(f64::from(most)),
            );
        }
    }
}
