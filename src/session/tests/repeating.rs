//! Publishes that repeat themselves go a shorter way: with the same outcome as those that are looked at one by one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::amqp::field::FieldValue;

/// What a client does next.
#[derive(Clone, Debug)]
enum Step {
    /// The same message so many times, with growing bodies.
    Publish {
        channel: u16,
        how: How,
        count: usize,
    },
    /// Of all that was delivered on channel 2.
    AckAll,
    /// Of what was delivered on channel 2, the oldest.
    AckOne,
    DeleteOther,
    DeclareOther,
    ClosePublisher,
}

/// How a message is published.
#[derive(Clone, Copy, Debug)]
struct How {
    key: &'static str,
    exchange: &'static str,
    mandatory: bool,
    body_bytes: usize,
    properties: u8,
}

fn how() -> impl Strategy<Value = How> {
    let key =
        prop_oneof![4 => Just("q"), 2 => Just("full"), 1 => Just("other"), 1 => Just("nowhere")];
    let exchange = prop_oneof![4 => Just(""), 2 => Just("amq.fanout"), 1 => Just("missing")];
    let body_bytes = prop_oneof![
        6 => 0..40_usize,
        1 => 4_000..4_200_usize,
        1 => Just(THRESHOLD_BYTES - 1),
    ];
    (key, exchange, any::<bool>(), body_bytes, 0..7_u8).prop_map(
        |(key, exchange, mandatory, body_bytes, properties)| How {
            key,
            exchange,
            mandatory,
            body_bytes,
            properties,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let publish = (1..3_u16, how(), 1..12_usize).prop_map(|(channel, how, count)| Step::Publish {
        channel,
        how,
        count,
    });
    prop_oneof![
        8 => publish,
        1 => Just(Step::AckAll),
        2 => Just(Step::AckOne),
        1 => Just(Step::DeleteOther),
        1 => Just(Step::DeclareOther),
        1 => Just(Step::ClosePublisher),
    ]
}

impl How {
    fn properties(self) -> Properties {
        let table = |name, value: FieldValue| Some(FieldTable::from([(name, value)]));
        let cc = FieldValue::Array(
            [FieldValue::LongString(Bytes::from_static(b"other"))]
                .into_iter()
                .collect(),
        );
        let mut properties = Properties::default();
        match self.properties {
            1 => properties.delivery_mode = Some(2),
            2 => properties.user_id = Some(short("somebody else")),
            3 => properties.headers = table("x-number", FieldValue::from(7_i64)),
            4 => properties.headers = table("CC", cc),
            5 => properties.expiration = Some(short("60000")),
            6 => properties.expiration = Some(short("soon")),
            _ => {}
        }
        properties
    }

    fn frames(self, channel: u16, number: usize) -> BytesMut {
        let publish = basic::Publish {
            exchange: short(self.exchange),
            routing_key: short(self.key),
            mandatory: self.mandatory,
            ..basic::Publish::default()
        };
        let body_bytes = (self.body_bytes + number % 3).min(THRESHOLD_BYTES - 1);
        let header = ContentHeader::new(body_bytes as u64, &self.properties());
        let body = vec![number as u8; body_bytes];
        let mut output = BytesMut::new();
        frame::put_method_with_content(&mut output, channel, &publish, &header, &body, 4_096);
        output
    }
}

/// A session that publishes with confirms on channel 1, without on channel 2, and consumes on channel 2.
fn opened() -> Driven {
    let mut driven = Driven::opened(0);
    driven.declare(
        "full",
        &[
            ("x-max-length", FieldValue::from(3_i64)),
            ("x-overflow", FieldValue::from("reject-publish")),
        ],
    );
    driven.declare("other", &[]);
    for queue in ["q", "other"] {
        let bind = queue::Bind {
            queue: short(queue),
            exchange: short("amq.fanout"),
            ..queue::Bind::default()
        };
        driven.method(1, bind);
    }
    driven.method(1, confirm::Select::default());
    let qos = basic::Qos {
        prefetch_count: 5,
        ..basic::Qos::default()
    };
    driven.method(2, qos);
    driven.method(2, consume(false));
    driven.octets();
    driven
}

impl Driven {
    fn declare(&mut self, name: &'static str, arguments: &[(&'static str, FieldValue)]) {
        let declare = queue::Declare {
            queue: short(name),
            arguments: arguments
                .iter()
                .map(|(name, value)| (short(name), value.clone()))
                .collect(),
            ..queue::Declare::default()
        };
        self.method(3, channel::Open {});
        self.method(3, declare);
        self.method(3, channel::Close::default());
    }

    /// Lets a client do all steps; `feed` brings what it sends to the session. Gives all that was sent to it.
    fn do_all(&mut self, steps: &[Step], feed: fn(&mut Self, &[u8])) -> Vec<Sent> {
        let mut all = Vec::new();
        let mut delivered = Vec::new();
        for step in steps {
            match step {
                Step::Publish {
                    channel,
                    how,
                    count,
                } => {
                    let frames: Vec<_> = (0..*count)
                        .map(|number| how.frames(*channel, number))
                        .collect();
                    feed(self, &frames.concat());
                }
                Step::AckAll | Step::AckOne => {
                    let tag = match step {
                        Step::AckOne => delivered.first().copied(),
                        _ => delivered.last().copied(),
                    };
                    let Some(tag) = tag else { continue };
                    delivered.retain(|other| *other > tag);
                    self.method(
                        2,
                        basic::Ack {
                            delivery_tag: tag,
                            multiple: true,
                        },
                    );
                }
                Step::DeleteOther => {
                    let delete = queue::Delete {
                        queue: short("other"),
                        ..queue::Delete::default()
                    };
                    self.method(2, delete);
                }
                Step::DeclareOther => self.declare("other", &[]),
                Step::ClosePublisher => {
                    self.method(1, channel::Close::default());
                    self.method(1, channel::Open {});
                    self.method(1, confirm::Select::default());
                }
            }
            self.session.handle_wake(self.now);
            let octets = self.octets();
            self.session.handle_transmitted(self.now);
            let sent = frames_of(&octets);
            for frame in &sent {
                match frame {
                    Sent::Method(2, Method::BasicDeliver(deliver)) => {
                        delivered.push(deliver.delivery_tag)
                    }
                    Sent::Method(number, Method::ChannelClose(_)) => {
                        delivered.clear();
                        self.method(*number, channel::CloseOk {});
                        self.method(*number, channel::Open {});
                    }
                    _ => {}
                }
            }
            all.extend(sent);
        }
        all
    }
}

/// What a client was told, apart from how confirms were grouped: which publishes, and in what sense.
fn without_grouping(sent: &[Sent]) -> Vec<Sent> {
    let is_confirm = |sent: &Sent| {
        matches!(
            sent,
            Sent::Method(1, Method::BasicAck(_) | Method::BasicNack(_))
        )
    };
    sent.iter()
        .filter(|sent| !is_confirm(sent))
        .cloned()
        .collect()
}

/// Numbers that were confirmed on channel 1, and those that were refused.
fn confirmed(sent: &[Sent]) -> (Vec<u64>, Vec<u64>) {
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let mut answered = std::collections::BTreeSet::new();
    for frame in sent {
        let (tag, multiple, list) = match frame {
            Sent::Method(1, Method::BasicAck(ack)) => (ack.delivery_tag, ack.multiple, &mut taken),
            Sent::Method(1, Method::BasicNack(nack)) => {
                (nack.delivery_tag, nack.multiple, &mut refused)
            }
            Sent::Method(1, Method::ConfirmSelectOk(_) | Method::ChannelClose(_)) => {
                answered.clear();
                continue;
            }
            _ => continue,
        };
        let first = if multiple { 1 } else { tag };
        list.extend((first..=tag).filter(|tag| answered.insert(*tag)));
    }
    (taken, refused)
}

/// Brings one frame at a time, so that none is known together with the next.
fn one_by_one(driven: &mut Driven, octets: &[u8]) {
    let mut rest = octets;
    while let Some(frame) = frame::parse(rest, u32::MAX).expect("whole frames") {
        let (first, others) = rest.split_at(frame.frame_bytes);
        driven.bytes(first);
        rest = others;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_run_does_what_single_publishes_do(steps in vec(step(), 1..24)) {
        let (mut together, mut single) = (opened(), opened());
        let of_runs = together.do_all(&steps, Driven::bytes);
        let of_singles = single.do_all(&steps, one_by_one);
        prop_assert_eq!(without_grouping(&of_runs), without_grouping(&of_singles));
        prop_assert_eq!(confirmed(&of_runs), confirmed(&of_singles));
        for name in [&b"q"[..], b"full", b"other"] {
            let depth = |driven: &Driven| {
                let vhost = driven.broker.vhost(b"/").expect("never deleted");
                vhost.queue(name).map(|queue| (queue.depth(), queue.counts()))
            };
            prop_assert_eq!(depth(&together), depth(&single));
        }
    }
}

/// The shorter way is gone, not only faster: the tests above would pass without it.
#[test]
fn what_repeats_itself_is_known() {
    let mut driven = opened();
    let how = How {
        key: "q",
        exchange: "",
        mandatory: false,
        body_bytes: 10,
        properties: 1,
    };
    assert_eq!(driven.session.repeats.channel(), None);
    let frames: Vec<_> = (0..3).map(|number| how.frames(1, number)).collect();
    driven.bytes(&frames.concat());
    assert_eq!(driven.session.repeats.channel(), Some(1));
    assert!(driven.session.repeats.knows(&how.frames(1, 0)));
    let other = How {
        key: "other",
        ..how
    };
    assert!(!driven.session.repeats.knows(&other.frames(1, 0)));
    assert!(!driven.session.repeats.knows(&how.frames(2, 0)));
}
