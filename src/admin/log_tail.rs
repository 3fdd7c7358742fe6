//! The end of a log, kept in memory for those who look at it from afar.
//!
//! Owns: the latest lines. Whoever sets a log up puts lines in ([`LogTail::push`]), and gives it to the brokers that are to
//! show it ([`LogControl`](super::LogControl)): a program with several brokers says which of them shows which log.
//! Bounds: [`LINES_MAX`] lines of [`LINE_BYTES_MAX`]; the oldest go.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Most lines that are kept.
pub const LINES_MAX: usize = 2_000;
/// Most of one line, in bytes; the rest of a longer one is cut off.
pub const LINE_BYTES_MAX: usize = 4_096;

/// One line of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// Counts up from 1; says what a reader has seen.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// The part of the program that wrote it.
    pub target: String,
    /// What happened, with its fields.
    pub message: String,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    last_number: u64,
}

/// The latest lines of a log.
#[derive(Debug, Default)]
pub struct LogTail {
    lines: Mutex<Lines>,
}

impl LogTail {
    /// Adds a line that is written now.
    pub fn push(&self, level: &'static str, target: &str, mut message: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        if message.len() > LINE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(LINE_BYTES_MAX));
            message.push('…');
        }
        let mut lines = self.lines.lock();
        lines.last_number += 1;
        let line = LogLine {
            number: lines.last_number,
            at_unix_ms: now,
            level,
            target: target.to_owned(),
            message,
        };
        if lines.kept.len() >= LINES_MAX {
            lines.kept.pop_front();
        }
        lines.kept.push_back(line);
    }

    /// At most `count_max` of the latest lines behind `number`, the oldest first, and the number of the last line there is.
    ///
    /// A number beyond the last comes from before a restart: it counts as 0.
    #[must_use]
    pub fn after(&self, number: u64, count_max: usize) -> (Vec<LogLine>, u64) {
        let lines = self.lines.lock();
        let number = match number > lines.last_number {
            true => 0,
            false => number,
        };
        let newer = lines.kept.iter().rev();
        let mut newer: Vec<_> = newer
            .take_while(|line| line.number > number)
            .take(count_max)
            .cloned()
            .collect();
        newer.reverse();
        (newer, lines.last_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(lines: &[LogLine]) -> Vec<u64> {
        lines.iter().map(|line| line.number).collect()
    }

    /// A reader who says what it has seen gets what is new, and after a restart everything.
    #[test]
    fn a_reader_gets_what_it_has_not_seen() {
        let tail = LogTail::default();
        for text in ["one", "two", "three"] {
            tail.push("INFO", "test", text.to_owned());
        }
        let (lines, last) = tail.after(1, 10);
        assert_eq!((numbers(&lines), last), (vec![2, 3], 3));
        assert!(tail.after(3, 10).0.is_empty());
        assert_eq!(numbers(&tail.after(0, 2).0), [2, 3]);
        assert_eq!(numbers(&tail.after(77, 10).0), [1, 2, 3]);
    }

    /// However much is logged, so many lines of such a length are kept.
    #[test]
    fn the_tail_is_bounded() {
        let tail = LogTail::default();
        for _ in 0..LINES_MAX + 5 {
            tail.push("WARN", "test", "ä".repeat(LINE_BYTES_MAX));
        }
        let (lines, last) = tail.after(0, usize::MAX);
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(last, LINES_MAX as u64 + 5);
        let longest = lines.iter().map(|line| line.message.len()).max();
        assert!(longest <= Some(LINE_BYTES_MAX + '…'.len_utf8()));
    }
}
