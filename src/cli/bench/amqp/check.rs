//! Whether each message arrives once, whole, and in order.
//!
//! Owns: the stamp that a body begins with, the bytes behind it, and the record of what one consumer saw.
//! Bound: a bit for each message of a lane that the consumer saw, grown no further than what was published.

use std::fmt;

use super::plan::Lane;

/// `sender u16 | sequence u48 | intended time u64`, at the start of each body.
pub(super) const STAMP_BYTES: usize = 16;
/// After so many bytes the filling of a body repeats; prime, so that no frame's or piece's size divides it.
const FILLING_PERIOD_BYTES: usize = 65_537;
/// Longest part of a filling that can be had at once, in bytes.
pub(super) const FILLING_PART_BYTES_MAX: usize = 256 * 1024;
/// Largest sequence number that a stamp holds.
const SEQUENCE_MAX: u64 = (1 << 48) - 1;

/// Who sent a message, which of his it is, and when it was to leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    pub(super) sender: u16,
    pub(super) sequence: u64,
    /// In nanoseconds since the start of the run.
    pub(super) intended_ns: u64,
}

impl Stamp {
    #[inline]
    pub(super) fn encode(self) -> [u8; STAMP_BYTES] {
        let head = u64::from(self.sender) << 48 | (self.sequence & SEQUENCE_MAX);
        (u128::from(head) << 64 | u128::from(self.intended_ns)).to_be_bytes()
    }

    #[inline]
    pub(super) fn decode(bytes: [u8; STAMP_BYTES]) -> Self {
        let [s1, s0, n5, n4, n3, n2, n1, n0, time @ ..] = bytes;
        Self {
            sender: u16::from_be_bytes([s1, s0]),
            sequence: u64::from_be_bytes([0, 0, n5, n4, n3, n2, n1, n0]),
            intended_ns: u64::from_be_bytes(time),
        }
    }
}

/// The bytes of every body behind its stamp: they tell at which offset they belong.
pub(super) struct Filling(Vec<u8>);

impl Default for Filling {
    fn default() -> Self {
        let byte =
            |at: usize| ((at % FILLING_PERIOD_BYTES) as u32).wrapping_mul(2_654_435_761) >> 24;
        let length = FILLING_PERIOD_BYTES + FILLING_PART_BYTES_MAX;
        Self((0..length).map(|at| byte(at) as u8).collect())
    }
}

impl Filling {
    /// The bytes from an offset of the body on.
    ///
    /// # Panics
    /// If they are more than [`FILLING_PART_BYTES_MAX`].
    pub(super) fn part(&self, offset: u64, length: usize) -> &[u8] {
        let start = (offset % FILLING_PERIOD_BYTES as u64) as usize;
        self.0
            .get(start..start + length)
            .expect("a part fits behind each of the period's bytes")
    }

    /// Whether a part of a body is as it was sent; the stamp is not looked at.
    pub(super) fn matches(&self, offset: u64, part: &[u8]) -> bool {
        let in_stamp = (STAMP_BYTES as u64).saturating_sub(offset);
        let skipped = usize::try_from(in_stamp).map_or(part.len(), |count| count.min(part.len()));
        let (mut offset, mut rest) = (offset + skipped as u64, part.split_at(skipped).1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(FILLING_PART_BYTES_MAX));
            if now != self.part(offset, now.len()) {
                return false;
            }
            offset += now.len() as u64;
            rest = later;
        }
        true
    }
}

/// What was wrong, and of the first fault, where.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// Of the wrong size or content, or of nobody's.
    pub(super) damaged: u64,
    first: Option<String>,
}

impl Faults {
    /// Counts a damaged message.
    pub(super) fn damage(&mut self, what: impl fmt::Display) {
        self.damaged += 1;
        self.note(what);
    }

    /// Holds what queues say that they keep against what went to them.
    pub(super) fn compare_held(&mut self, held: u64, expected: u64) {
        self.lost += expected.saturating_sub(held);
        self.duplicated += held.saturating_sub(expected);
        if held != expected {
            self.note(format_args!(
                "the queues hold {held} messages of {expected}"
            ));
        }
    }

    fn note(&mut self, what: impl fmt::Display) {
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// Adds what another consumer found.
    pub(super) fn merge(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.damaged += other.damaged;
        self.first = self.first.take().or(other.first);
    }

    /// One sentence of all that was wrong; `None` if nothing was.
    pub(super) fn sentence(&self) -> Option<String> {
        let counts = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.out_of_order, "out of order"),
            (self.damaged, "damaged"),
        ];
        let said: Vec<_> = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if said.is_empty() {
            return None;
        }
        let first = self.first.as_deref().unwrap_or("no more is known");
        Some(format!(
            "messages went wrong: {}; first: {first}",
            said.join(", ")
        ))
    }
}

/// What one consumer saw of one queue's messages from one sender.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) queue: usize,
    pub(super) sender: usize,
    lane: Lane,
    /// One bit for each index of the lane.
    bits: Vec<u64>,
    /// Indexes below it are what comes late.
    next: u64,
}

impl Seen {
    pub(super) fn new(queue: usize, sender: usize, lane: Lane) -> Self {
        Self {
            queue,
            sender,
            lane,
            bits: Vec::new(),
            next: 0,
        }
    }

    /// Takes one message, of `published` that the sender has sent so far; says whether it is a first.
    #[inline]
    pub(super) fn accept(&mut self, sequence: u64, published: u64, faults: &mut Faults) -> bool {
        let index = match self.lane.index(sequence) {
            Some(index) if sequence < published => index,
            _ => {
                faults.damage(format_args!(
                    "queue {} got message {sequence} of sender {}, which was never sent to it",
                    self.queue, self.sender
                ));
                return false;
            }
        };
        let (word, bit) = ((index / 64) as usize, 1 << (index % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let Some(word) = self.bits.get_mut(word) else {
            return false;
        };
        if *word & bit != 0 {
            faults.duplicated += 1;
            faults.note(format_args!(
                "queue {} delivered message {sequence} of sender {} twice",
                self.queue, self.sender
            ));
            return false;
        }
        *word |= bit;
        if index < self.next {
            faults.out_of_order += 1;
            faults.note(format_args!(
                "queue {} delivered message {sequence} of sender {} behind message {}",
                self.queue,
                self.sender,
                self.lane.sequence(self.next - 1)
            ));
        } else {
            self.next = index + 1;
        }
        true
    }

    /// Adds what another consumer of the same queue saw of the same sender.
    pub(super) fn merge(&mut self, other: &Self, faults: &mut Faults) {
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        for (mine, others) in self.bits.iter_mut().zip(&other.bits) {
            let both = *mine & others;
            if both != 0 {
                faults.duplicated += u64::from(both.count_ones());
                faults.note(format_args!(
                    "two consumers of queue {} got the same message of sender {}",
                    self.queue, self.sender
                ));
            }
            *mine |= others;
        }
    }

    /// Counts what is missing of the first `published` messages of the sender.
    pub(super) fn finish(&self, published: u64, faults: &mut Faults) {
        let expected = self.lane.count(published);
        let seen: u64 = self
            .bits
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum();
        let lost = expected.saturating_sub(seen);
        if lost == 0 {
            return;
        }
        faults.lost += lost;
        let is_seen = |index: &u64| {
            let word = self.bits.get((*index / 64) as usize).copied();
            word.is_some_and(|word| word & 1 << (*index % 64) != 0)
        };
        let first = (0..expected).find(|index| !is_seen(index)).unwrap_or(0);
        faults.note(format_args!(
            "message {} of sender {} never came from queue {}",
            self.lane.sequence(first),
            self.sender,
            self.queue
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane {
        first: 1,
        stride: 2,
    };

    /// Feeds sequence numbers of a lane 1, 3, 5 … of which `published` were sent, and gives the faults.
    fn check(sequences: &[u64], published: u64) -> Faults {
        let mut faults = Faults::default();
        let mut seen = Seen::new(7, 2, LANE);
        for sequence in sequences {
            seen.accept(*sequence, published, &mut faults);
        }
        seen.finish(published, &mut faults);
        faults
    }

    fn counts(faults: &Faults) -> [u64; 4] {
        [
            faults.lost,
            faults.duplicated,
            faults.out_of_order,
            faults.damaged,
        ]
    }

    /// All in order is no fault; each kind of fault is told by its name, with the first message that it befell.
    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(check(&[1, 3, 5], 6).sentence(), None);
        let cases: [(&[u64], [u64; 4], &str); 6] = [
            (
                &[1, 5],
                [1, 0, 0, 0],
                "message 3 of sender 2 never came from queue 7",
            ),
            (&[1, 3], [1, 0, 0, 0], "message 5 of sender 2 never came"),
            (
                &[1, 5, 3],
                [0, 0, 1, 0],
                "delivered message 3 of sender 2 behind message 5",
            ),
            (
                &[1, 3, 3, 5],
                [0, 1, 0, 0],
                "delivered message 3 of sender 2 twice",
            ),
            (
                &[1, 2, 3, 5],
                [0, 0, 0, 1],
                "message 2 of sender 2, which was never sent to it",
            ),
            (
                &[1, 3, 5, 7],
                [0, 0, 0, 1],
                "message 7 of sender 2, which was never",
            ),
        ];
        for (sequences, expected, words) in cases {
            let faults = check(sequences, 6);
            assert_eq!(counts(&faults), expected, "{sequences:?}");
            let sentence = faults.sentence().expect("a sentence");
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    /// Two consumers of a queue make up the whole between them; what both got is a duplicate.
    #[test]
    fn consumers_of_one_queue_are_taken_together() {
        let lane = Lane {
            first: 0,
            stride: 1,
        };
        let mut faults = Faults::default();
        let (mut one, mut other) = (Seen::new(0, 0, lane), Seen::new(0, 0, lane));
        for sequence in 0..200 {
            let seen = if sequence % 3 == 0 {
                &mut one
            } else {
                &mut other
            };
            assert!(seen.accept(sequence, 200, &mut faults));
        }
        let mut both = one.clone();
        both.merge(&other, &mut faults);
        both.finish(200, &mut faults);
        assert_eq!(faults, Faults::default());
        other.accept(3, 200, &mut faults);
        one.merge(&other, &mut faults);
        one.finish(201, &mut faults);
        assert_eq!(faults.duplicated, 1);
        assert_eq!(faults.lost, 1);
    }

    /// A stamp comes back as it was; a body's filling matches in any parts, and a changed or moved byte does not.
    #[test]
    fn bodies_prove_themselves() {
        let stamp = Stamp {
            sender: 0xfedc,
            sequence: SEQUENCE_MAX - 5,
            intended_ns: u64::MAX - 7,
        };
        assert_eq!(Stamp::decode(stamp.encode()), stamp);
        let filling = Filling::default();
        let mut body: Vec<u8> = (0..3)
            .flat_map(|part| filling.part(part * 100_000, 100_000).to_vec())
            .collect();
        body[3] ^= 1;
        for length in [7, 4_088, 131_064, 300_000] {
            let mut offset = 0;
            for part in body.chunks(length) {
                assert!(filling.matches(offset, part), "{length}: {offset}");
                offset += part.len() as u64;
            }
        }
        assert!(!filling.matches(1, &body));
        body[200_000] ^= 1;
        assert!(!filling.matches(0, &body));
    }
}
