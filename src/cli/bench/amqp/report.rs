//! What a run found, for people and for programs.
//!
//! Owns: rates between two moments, and the words and names of the figures.

use std::fmt;

use serde_json::{Value, json};

use super::check::Faults;
use super::shared::{Counts, Shared};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::process::{Process, Usage};

/// Counters and what was used, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) at_ns: u64,
    pub(super) counts: Counts,
    broker: Usage,
    own: Usage,
}

impl Moment {
    /// As it is now; the broker's usage is 0 if its process is not known.
    pub(super) fn now(shared: &Shared, broker: Option<Process>) -> anyhow::Result<Self> {
        Ok(Self {
            broker: broker.map(Process::usage).transpose()?.unwrap_or_default(),
            own: Process::own().usage().unwrap_or_default(),
            counts: shared.counts(),
            at_ns: shared.now(),
        })
    }
}

/// What a run found.
pub(super) struct Report {
    pub(super) body_bytes: u64,
    pub(super) fan_out: u64,
    pub(super) is_consumed: bool,
    pub(super) from: Moment,
    pub(super) to: Moment,
    /// Counters of the whole run.
    pub(super) total: Counts,
    pub(super) latencies: Histogram,
    pub(super) confirm_times: Histogram,
    pub(super) pid: Option<u32>,
    pub(super) is_interrupted: bool,
    pub(super) faults: Faults,
}

impl Report {
    fn seconds(&self) -> f64 {
        (self.to.at_ns.saturating_sub(self.from.at_ns) as f64 / 1e9).max(1e-9)
    }

    fn published(&self) -> u64 {
        self.to.counts.published - self.from.counts.published
    }

    fn consumed(&self) -> u64 {
        self.to.counts.consumed - self.from.counts.consumed
    }

    /// What CPU time is counted by: deliveries, or publishes if nobody consumes.
    fn moved(&self) -> u64 {
        match self.is_consumed {
            true => self.consumed(),
            false => self.published(),
        }
    }

    fn cpu_us_per_message(&self, usage: impl Fn(&Moment) -> Usage) -> f64 {
        let spent = usage(&self.to).cpu_seconds - usage(&self.from).cpu_seconds;
        rounded(spent * 1e6 / self.moved().max(1) as f64, 1_000.0)
    }

    /// One object with all figures.
    pub(super) fn to_json(&self) -> Value {
        let per_second = |count: u64| rounded(count as f64 / self.seconds(), 10.0);
        let confirmed = self.to.counts.confirmed - self.from.counts.confirmed;
        let broker = self.pid.map(|pid| {
            json!({
                "pid": pid,
                "cpu_seconds": rounded(self.to.broker.cpu_seconds - self.from.broker.cpu_seconds, 1e3),
                "cpu_us_per_message": self.cpu_us_per_message(|moment| moment.broker),
                "rss_bytes_before": self.from.broker.rss_bytes,
                "rss_bytes_peak": self.to.broker.rss_bytes_peak,
                "rss_bytes_after": self.to.broker.rss_bytes,
                "anonymous_bytes_after": self.to.broker.anonymous_bytes,
            })
        });
        json!({
            "seconds": rounded(self.seconds(), 1e3),
            "body_bytes": self.body_bytes,
            "published": self.published(),
            "confirmed": confirmed,
            "consumed": self.consumed(),
            "published_per_second": per_second(self.published()),
            "confirmed_per_second": per_second(confirmed),
            "consumed_per_second": per_second(self.consumed()),
            "bytes_per_second": per_second(self.moved().saturating_mul(self.body_bytes)),
            "latency_us": self.latencies.to_json(),
            "confirm_us": self.confirm_times.to_json(),
            "broker": broker,
            "generator_cpu_us_per_message": self.cpu_us_per_message(|moment| moment.own),
            "interrupted": self.is_interrupted,
            "check": {
                "published": self.total.published,
                "expected": self.total.published * self.fan_out,
                "consumed": self.total.consumed,
                "lost": self.faults.lost,
                "duplicated": self.faults.duplicated,
                "out_of_order": self.faults.out_of_order,
                "damaged": self.faults.damaged,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        let rate = |count: u64| count as f64 / seconds;
        writeln!(
            out,
            "published  {:>12}  {:>12.0} /s   in {seconds:.1} s",
            self.published(),
            rate(self.published())
        )?;
        if self.is_consumed {
            writeln!(
                out,
                "consumed   {:>12}  {:>12.0} /s",
                self.consumed(),
                rate(self.consumed())
            )?;
        }
        let bytes = self.moved() as f64 * self.body_bytes as f64;
        writeln!(out, "bodies     {:>26.1} MB/s", bytes / seconds / 1e6)?;
        for (name, times) in [
            ("latency", &self.latencies),
            ("confirms", &self.confirm_times),
        ] {
            if times.count() > 0 {
                let at = |part| Milliseconds(times.quantile(part));
                writeln!(
                    out,
                    "{name:<10} p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                    at(0.5),
                    at(0.9),
                    at(0.99),
                    at(0.999),
                    Milliseconds(times.max())
                )?;
            }
        }
        if self.pid.is_some() {
            writeln!(
                out,
                "broker     {:.3} us CPU a message, peak {:.1} MiB resident",
                self.cpu_us_per_message(|moment| moment.broker),
                self.to.broker.rss_bytes_peak as f64 / f64::from(1 << 20)
            )?;
        }
        writeln!(
            out,
            "generator  {:.3} us CPU a message",
            self.cpu_us_per_message(|moment| moment.own)
        )?;
        if self.faults.sentence().is_none() {
            writeln!(
                out,
                "checked    {} messages of the whole run: each came once and in order",
                self.total.published
            )?;
        }
        Ok(())
    }
}

/// Nanoseconds, shown as milliseconds.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3} ms", self.0 as f64 / 1e6)
    }
}

/// `value` to the nearest part of `parts`, and 0 for what is no number.
fn rounded(value: f64, parts: f64) -> f64 {
    let rounded = (value * parts).round() / parts;
    if rounded.is_finite() { rounded } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates and costs are those between the two moments, not of the whole run.
    #[test]
    fn figures_are_of_the_measured_time() {
        let moment = |at_ns, count, cpu_seconds| Moment {
            at_ns,
            counts: Counts {
                published: count,
                confirmed: 0,
                consumed: 2 * count,
            },
            broker: Usage {
                cpu_seconds,
                ..Usage::default()
            },
            own: Usage::default(),
        };
        let mut report = Report {
            body_bytes: 100,
            fan_out: 2,
            is_consumed: true,
            from: moment(1_000_000_000, 1_000, 1.0),
            to: moment(3_000_000_000, 5_000, 1.5),
            total: Counts {
                published: 6_000,
                confirmed: 0,
                consumed: 12_000,
            },
            latencies: Histogram::default(),
            confirm_times: Histogram::default(),
            pid: Some(1),
            is_interrupted: false,
            faults: Faults::default(),
        };
        let json = report.to_json();
        assert_eq!(json["seconds"], 2.0);
        assert_eq!(json["published_per_second"], 2_000.0);
        assert_eq!(json["consumed_per_second"], 4_000.0);
        assert_eq!(json["bytes_per_second"], 400_000.0);
        assert_eq!(json["broker"]["cpu_us_per_message"], 62.5);
        assert_eq!(json["check"]["expected"], 12_000);
        assert!(json["latency_us"].is_null());
        report.is_consumed = false;
        assert_eq!(report.to_json()["broker"]["cpu_us_per_message"], 125.0);
        assert!(report.to_string().contains("each came once and in order"));
    }
}
