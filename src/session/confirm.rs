//! Publisher confirms of one channel: which publishes are answered, and in how few frames.
//!
//! Owns: numbers of publishes that wait for their journal record, and of those that need an answer.
//! Bound: one entry per publish that is not durable yet; the journal's pending bytes bound those.
//! Spec: RabbitMQ's confirms; RELIABILITY section 1: a confirm leaves after the sync that covers it.

use std::collections::VecDeque;

use crate::broker::PublishOutcome;
use crate::journal::Lsn;

/// One answer to a publisher.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// `basic.ack`: taken; with `multiple` all up to this number.
    Ack { tag: u64, multiple: bool },
    /// `basic.nack`: at least one queue refused it; with `multiple` all up to this number that nothing
    /// was said of yet.
    Nack { tag: u64, multiple: bool },
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

    /// Gives a publish its number, and its answer as it came out; says whether it was refused.
    pub(super) fn published(&mut self, outcome: PublishOutcome) -> bool {
        let tag = self.next_tag();
        match outcome {
            PublishOutcome::Routed { wait_for } => self.wait(tag, wait_for),
            PublishOutcome::Unroutable => self.wait(tag, None),
            PublishOutcome::Rejected => {
                self.refuse(tag);
                return true;
            }
        }
        false
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

    /// Publishes without an answer.
    pub(super) fn unanswered_count(&self) -> usize {
        self.waiting.len() + self.acks.len() + self.nacks.len()
    }

    /// Publishes that [`Self::take_answers`] would acknowledge now.
    pub(super) fn confirmable_count(&self) -> u64 {
        self.acks.len() as u64
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

    /// Takes the answers that can be given now, grouped as RabbitMQ groups them: acknowledgements, then
    /// refusals; of each kind one frame for all that nothing else stands in front of, then one each.
    /// Only a single acknowledgement is never marked as `multiple`.
    pub(super) fn take_answers(&mut self, mut answer: impl FnMut(Answer)) {
        if self.acks.is_empty() && self.nacks.is_empty() {
            return;
        }
        self.acks.sort_unstable();
        self.nacks.sort_unstable();
        let first_waiting = self.waiting.front().map_or(u64::MAX, |(tag, _)| *tag);
        let first = |tags: &[u64]| tags.first().map_or(first_waiting, |tag| *tag);
        let before_ack = first_waiting.min(first(&self.nacks));
        let before_nack = first_waiting.min(first(&self.acks));
        if let [tag] = *self.acks {
            let multiple = false;
            answer(Answer::Ack { tag, multiple });
        } else {
            each(&self.acks, before_ack, |tag, multiple| {
                answer(Answer::Ack { tag, multiple });
            });
        }
        each(&self.nacks, before_nack, |tag, multiple| {
            answer(Answer::Nack { tag, multiple });
        });
        self.acks.clear();
        self.nacks.clear();
    }
}

/// Gives the last tag below `cutoff` for all of those, then each of the rest.
fn each(tags: &[u64], cutoff: u64, mut answer: impl FnMut(u64, bool)) {
    let (together, alone) = tags.split_at(tags.partition_point(|tag| *tag < cutoff));
    if let Some(last) = together.last() {
        answer(*last, true);
    }
    alone.iter().for_each(|tag| answer(*tag, false));
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

    fn ack(tag: u64, multiple: bool) -> Answer {
        Answer::Ack { tag, multiple }
    }

    fn nack(tag: u64, multiple: bool) -> Answer {
        Answer::Nack { tag, multiple }
    }

    fn refuse(confirms: &mut Confirms) {
        let refused = confirms.next_tag();
        confirms.refuse(refused);
    }

    /// An acknowledgement of several never covers a refused number, nor the other way round.
    #[test]
    fn answers_of_one_kind_do_not_cover_the_other() {
        let mut confirms = Confirms::default();
        publish(&mut confirms, None);
        refuse(&mut confirms);
        publish(&mut confirms, None);
        refuse(&mut confirms);
        let expected = [ack(1, true), ack(3, false), nack(2, false), nack(4, false)];
        assert_eq!(answers(&mut confirms), expected);
    }

    /// As in RabbitMQ, where the default of a flag and the grouping show: one refusal alone is marked as
    /// `multiple`, one acknowledgement alone is not.
    #[test]
    fn one_refusal_is_multiple() {
        let mut confirms = Confirms::default();
        refuse(&mut confirms);
        assert_eq!(answers(&mut confirms), [nack(1, true)]);
        publish(&mut confirms, None);
        assert_eq!(answers(&mut confirms), [ack(2, false)]);
        publish(&mut confirms, Some(7));
        refuse(&mut confirms);
        assert_eq!(answers(&mut confirms), [nack(4, false)]);
    }
}
