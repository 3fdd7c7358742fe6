//! Publisher confirms of one channel: which publishes are answered, and in how few frames.
//!
//! Owns: numbers of publishes that wait for their journal record, and of those that need an answer.
//! Bound: one entry per publish that is not durable yet; the journal's pending bytes bound those.
//! Spec: RabbitMQ's confirms; RELIABILITY section 1: a confirm leaves after the sync that covers it.

use std::collections::VecDeque;

use crate::journal::Lsn;

/// One answer to a publisher.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// `basic.ack`: taken; with `multiple` all up to this number.
    Ack { tag: u64, multiple: bool },
    /// `basic.nack`: at least one queue refused it.
    Nack { tag: u64 },
}

/// The confirms of a channel in confirm mode.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Number of the last publish.
    last_tag: u64,
    /// Publishes whose record is not durable yet, by number.
    waiting: VecDeque<(u64, Lsn)>,
    /// Publishes to be acknowledged, by number.
    acks: Vec<u64>,
    /// Publishes to be refused, by number.
    nacks: Vec<u64>,
}

impl Confirms {
    /// Gives the next publish its number.
    pub(super) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// The publish is safe when the record `lsn` is; at once if there is none.
    pub(super) fn wait(&mut self, tag: u64, lsn: Option<Lsn>) {
        match lsn {
            Some(lsn) => {
                debug_assert!(self.waiting.back().is_none_or(|(last, _)| *last < tag));
                self.waiting.push_back((tag, lsn));
            }
            None => self.acks.push(tag),
        }
    }

    /// The publish was refused.
    pub(super) fn refuse(&mut self, tag: u64) {
        self.nacks.push(tag);
    }

    /// Whether some publish waits for the disk.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Everything up to `durable` is on disk.
    ///
    /// Records of one channel are numbered in the order of its publishes, so the front decides.
    pub(super) fn committed(&mut self, durable: Lsn) {
        while let Some((tag, lsn)) = self.waiting.front() {
            if *lsn > durable {
                break;
            }
            self.acks.push(*tag);
            self.waiting.pop_front();
        }
    }

    /// Takes the answers that can be given now: refusals first, then one for all that nothing waits
    /// in front of, then one each.
    pub(super) fn take_answers(&mut self, mut answer: impl FnMut(Answer)) {
        if self.acks.is_empty() && self.nacks.is_empty() {
            return;
        }
        self.acks.sort_unstable();
        for tag in self.nacks.drain(..) {
            answer(Answer::Nack { tag });
        }
        let first_waiting = self.waiting.front().map_or(u64::MAX, |(tag, _)| *tag);
        let together = self.acks.partition_point(|tag| *tag < first_waiting);
        if let Some(tag) = together.checked_sub(1).and_then(|last| self.acks.get(last)) {
            answer(Answer::Ack {
                tag: *tag,
                multiple: together > 1,
            });
        }
        for tag in self.acks.drain(..).skip(together) {
            answer(Answer::Ack {
                tag,
                multiple: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(confirms: &mut Confirms) -> Vec<Answer> {
        let mut answers = Vec::new();
        confirms.take_answers(|answer| answers.push(answer));
        answers
    }

    fn publish(confirms: &mut Confirms, lsn: Option<u64>) -> u64 {
        let tag = confirms.next_tag();
        confirms.wait(tag, lsn.map(Lsn));
        tag
    }

    /// Publishes that nothing waits in front of are acknowledged in one frame.
    #[test]
    fn what_is_safe_is_acknowledged_together() {
        let mut confirms = Confirms::default();
        for _ in 0..3 {
            publish(&mut confirms, None);
        }
        assert_eq!(
            answers(&mut confirms),
            [Answer::Ack {
                tag: 3,
                multiple: true
            }]
        );
        publish(&mut confirms, None);
        assert_eq!(
            answers(&mut confirms),
            [Answer::Ack {
                tag: 4,
                multiple: false
            }]
        );
        assert_eq!(answers(&mut confirms), []);
    }

    /// A publish behind one that waits for the disk is acknowledged alone, never with it.
    #[test]
    fn nothing_unsafe_is_acknowledged() {
        let mut confirms = Confirms::default();
        publish(&mut confirms, Some(10));
        publish(&mut confirms, None);
        publish(&mut confirms, Some(11));
        publish(&mut confirms, None);
        let single = |tag| Answer::Ack {
            tag,
            multiple: false,
        };
        assert_eq!(answers(&mut confirms), [single(2), single(4)]);
        confirms.committed(Lsn(9));
        assert_eq!(answers(&mut confirms), []);
        assert!(confirms.is_waiting());
        confirms.committed(Lsn(11));
        assert_eq!(
            answers(&mut confirms),
            [Answer::Ack {
                tag: 3,
                multiple: true
            }]
        );
        assert!(!confirms.is_waiting());
    }

    /// A refusal goes out before an acknowledgement that would cover its number.
    #[test]
    fn refusals_come_first() {
        let mut confirms = Confirms::default();
        publish(&mut confirms, None);
        let refused = confirms.next_tag();
        confirms.refuse(refused);
        publish(&mut confirms, None);
        let expected = [
            Answer::Nack { tag: 2 },
            Answer::Ack {
                tag: 3,
                multiple: true,
            },
        ];
        assert_eq!(answers(&mut confirms), expected);
    }
}
