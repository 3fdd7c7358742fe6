//! Queues that are far longer than what they keep in memory, on simulated disks, with and without a
//! restart. The pager takes its turns by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::amqp::header::Properties;
use crate::journal::JournalSettings;
use crate::payload::PayloadId;
use crate::testing::disk::{CrashVariant, SimDisk};

use super::super::*;
use super::kit::{Client, Flag, settings, text};

/// What a queue keeps in memory, in bytes: a few messages.
const QUEUE_BYTES_MAX: usize = 1_000;
/// Messages of a long queue.
const COUNT: usize = 300;

/// A broker with a journal, whose spill lies on a disk of its own.
pub(super) struct Paged {
    pub(super) broker: Arc<Broker>,
    journal: Journal,
    disk: SimDisk,
    pub(super) spill: SimDisk,
}

impl Paged {
    fn on(disk: SimDisk) -> Self {
        let journal_settings = JournalSettings {
            segment_bytes: 16 << 10,
            free_bytes_min: 0,
            ..JournalSettings::default()
        };
        let dir = Path::new("/journal");
        let opened = Journal::open(Arc::new(disk.clone()), dir, journal_settings);
        let (journal, recovered) = opened.expect("a whole journal");
        let spill = SimDisk::new();
        let settings = BrokerSettings {
            spill: Some(SpillSettings {
                disk: Arc::new(spill.clone()),
                dir: "/spill".into(),
                queue_bytes_max: QUEUE_BYTES_MAX,
                total_bytes_max: usize::MAX,
            }),
            ..settings()
        };
        let broker = Broker::open(settings, Some((journal.clone(), recovered)), None);
        Self {
            broker: broker.expect("records that were written"),
            journal,
            disk,
            spill,
        }
    }

    pub(super) fn new() -> Self {
        let paged = Self::on(SimDisk::new());
        let client = paged.client();
        client.declare("durable", &[Flag::Durable]).unwrap();
        client.declare("transient", &[]).unwrap();
        paged
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.broker)
    }

    /// Lets the pager read what it was asked for; how often that was.
    fn turn(&self, client: &Client) -> usize {
        let mut count = 0;
        while self.broker.pager().turn(client.now) {
            count += 1;
        }
        count
    }

    /// Whether all that is read must come from the disk.
    fn set_reads_wait(&self, reads_wait: bool) {
        for disk in [&self.spill, &self.disk] {
            disk.set_reads_wait(reads_wait);
        }
    }

    /// Stops as a server does, and starts again.
    pub(super) fn restart(self) -> Self {
        self.broker.note_for_stop().unwrap();
        self.journal.close().unwrap();
        Self::on(self.disk)
    }

    /// Waits for what was written so far, loses the power, and starts again.
    pub(super) fn crash(self) -> Self {
        let last = self.journal.put_definition(b"none", None).unwrap();
        self.journal.wait_durable(last).unwrap();
        Self::on(self.disk.crash(CrashVariant::LoseAll, 1))
    }

    fn damage_pages(&self) {
        for (path, len) in self.spill.files() {
            self.spill.flip_bit(&path, len * 4);
        }
    }
}

fn publish(client: &mut Client, queue: &str, count: usize) -> Vec<String> {
    let bodies: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    for body in &bodies {
        client.publish_persistent("", queue, body);
    }
    bodies
}

/// Consumes a long queue to its end, settling what came each time; gives the bodies, and how often the pager read.
fn consume_all(paged: &Paged, client: &mut Client, queue: &str) -> (Vec<String>, usize) {
    client.consume(queue, "c", 10).unwrap();
    let (mut got, mut turns) = (Vec::new(), 0);
    loop {
        turns += paged.turn(client);
        let mut seqs = Vec::new();
        for item in client.drain() {
            let OutboxItem::Deliver(deliveries) = item else {
                panic!("nothing is cancelled");
            };
            for delivery in &deliveries.messages {
                got.push(text(&delivery.message));
                seqs.push(delivery.seq);
            }
        }
        if seqs.is_empty() {
            return (got, turns);
        }
        let (now, queue) = (client.now, client.queue(queue));
        queue.settle(&seqs, Settle::Ack, now, &mut client.wakes);
    }
}

/// Who settles reads the next page, unless that waits for the disk: then the pager does. All comes once and in order
/// either way, of pages in the spill and of what the journal has after a start.
// req: SPILL-12
#[test]
fn a_page_in_the_cache_is_read_by_who_makes_room() {
    let turns = |is_restarted: bool, reads_wait: bool, queue: &str| {
        let mut paged = Paged::new();
        let expected = publish(&mut paged.client(), queue, COUNT);
        if is_restarted {
            paged = paged.restart();
        }
        paged.set_reads_wait(reads_wait);
        let mut client = paged.client();
        let (got, turns) = consume_all(&paged, &mut client, queue);
        assert_eq!(got, expected);
        turns
    };
    for (is_restarted, queue) in [(false, "durable"), (false, "transient"), (true, "durable")] {
        let from_disk = turns(is_restarted, true, queue);
        let from_cache = turns(is_restarted, false, queue);
        assert!(from_cache < from_disk, "{queue}: {from_cache}, {from_disk}");
    }
}

/// A consumer gets all of a long queue in order, once; files are there meanwhile and gone behind it.
// req: SPILL-2 SPILL-3 SPILL-4
#[test]
fn a_consumer_gets_all_of_a_long_queue_in_order() {
    for queue in ["durable", "transient"] {
        let paged = Paged::new();
        let mut client = paged.client();
        let expected = publish(&mut client, queue, COUNT);
        let depth = client.queue(queue).depth();
        assert_eq!(depth.ready_count, COUNT);
        let bytes: usize = expected.iter().map(String::len).sum();
        assert_eq!(depth.ready_bytes, bytes as u64);
        assert!(!paged.spill.files().is_empty(), "most of it is on disk");
        let (got, _) = consume_all(&paged, &mut client, queue);
        assert_eq!(got, expected);
        assert_eq!(
            client.queue(queue).depth(),
            QueueDepth {
                consumer_count: 1,
                ..QueueDepth::default()
            }
        );
        assert!(paged.spill.files().is_empty(), "{:?}", paged.spill.files());
    }
}

/// A look at a long queue sees its messages where they are, and takes none.
#[test]
fn a_look_reads_what_is_on_disk() {
    let paged = Paged::new();
    let mut client = paged.client();
    let expected = publish(&mut client, "durable", COUNT);
    let seen = client.queue("durable").peek(Peek::new(150, 20));
    let seen: Vec<_> = seen.iter().map(|seen| text(&seen.message)).collect();
    assert_eq!(seen, expected[150..170]);
    let paged = paged.restart();
    let client = paged.client();
    let seen = client.queue("durable").peek(Peek::new(150, 20));
    let seen: Vec<_> = seen.iter().map(|seen| text(&seen.message)).collect();
    assert_eq!(seen, expected[150..170]);
    assert_eq!(client.take_all("durable"), expected);
}

/// A look shows who was delivered before, cuts bodies and says their sizes, ends when it is long enough, and
/// changes nothing.
// req: PEEK-1
#[test]
fn a_look_shows_no_more_than_was_asked_for() {
    let paged = Paged::new();
    let mut client = paged.client();
    publish(&mut client, "durable", 30);
    let queue = client.queue("durable");
    let got = client.get("durable", AckMode::Manual).expect("it waits");
    queue.settle(&[got.seq], Settle::Requeue, client.now, &mut client.wakes);
    let before = (queue.depth(), queue.counts());
    let whole = queue.peek(Peek::new(0, 3));
    let cut = queue.peek(Peek {
        body_bytes_max: 1,
        ..Peek::new(0, 3)
    });
    for (whole, cut) in whole.iter().zip(&cut) {
        assert_eq!(text(&cut.message), &text(&whole.message)[..1]);
        assert_eq!(cut.size_bytes, whole.message.size_bytes());
        assert_eq!(cut.message.header(), whole.message.header());
    }
    let redelivered: Vec<bool> = whole.iter().map(|peeked| peeked.redelivered).collect();
    assert_eq!(redelivered, [true, false, false]);
    let short = queue.peek(Peek {
        answer_bytes_max: 1,
        ..Peek::new(5, 20)
    });
    assert_eq!(short.len(), 1, "the first one is more than enough");
    assert!(queue.peek(Peek::new(30, 5)).is_empty());
    assert_eq!((queue.depth(), queue.counts()), before);
}

/// After a start a backlog is counted and not read; then it is read as it is needed, after a clean stop
/// and after a crash.
// req: SPILL-7
#[test]
fn a_backlog_is_read_when_it_is_needed() {
    let paged = Paged::new();
    let mut client = paged.client();
    let mut expected = publish(&mut client, "durable", COUNT);
    let paged = paged.restart();
    let mut client = paged.client();
    assert_eq!(client.queue("durable").depth().ready_count, COUNT);
    assert_eq!(client.take("durable"), Some(("0".to_owned(), false)));
    client.publish_persistent("", "durable", "the last");
    expected.push("the last".to_owned());
    let paged = paged.crash();
    let client = paged.client();
    assert_eq!(client.queue("durable").depth().ready_count, COUNT);
    assert_eq!(client.take("durable"), Some(("1".to_owned(), true)));
    assert_eq!(client.take_all("durable"), expected[2..]);
    let client = paged.restart().client();
    assert_eq!(client.queue("durable").depth().ready_count, 0);
}

/// Payloads count with their size before and after they are read, also among small messages.
// req: SPILL-7
#[test]
fn payloads_in_a_backlog_count_with_their_size() {
    const PAYLOAD_BYTES: u64 = 10_000_000;
    let paged = Paged::new();
    let mut client = paged.client();
    for number in 0..COUNT {
        client.publish_persistent("", "durable", "four");
        if number % 100 == 50 {
            let id = PayloadId::from_bytes([number as u8; 32]);
            let body = Body::Payload(client.vhost().hold_payload(id, PAYLOAD_BYTES));
            let properties = Properties {
                delivery_mode: Some(2),
                ..Properties::default()
            };
            client
                .publish_with("", "durable", properties, body)
                .unwrap();
        }
    }
    let expected_bytes = 4 * COUNT as u64 + 3 * PAYLOAD_BYTES;
    assert_eq!(client.queue("durable").depth().ready_bytes, expected_bytes);
    let client = paged.crash().client();
    assert_eq!(client.queue("durable").depth().ready_bytes, expected_bytes);
    assert_eq!(client.take_all("durable").len(), COUNT + 3);
    assert_eq!(client.queue("durable").depth().ready_bytes, 0);
}

/// A purge reaches what is on disk and what recovery found: none of it comes back.
#[test]
fn what_was_purged_on_disk_does_not_come_back() {
    let paged = Paged::new();
    let mut client = paged.client();
    publish(&mut client, "durable", COUNT);
    let paged = paged.restart();
    let mut client = paged.client();
    publish(&mut client, "durable", COUNT);
    let out = client.get("durable", AckMode::Manual).unwrap();
    assert_eq!(text(&out.message), "0");
    let purged = client.vhost().queue_purge(&client.connection, b"durable");
    assert_eq!(purged.unwrap() as usize, 2 * COUNT - 1);
    assert!(paged.spill.files().is_empty());
    client.publish_persistent("", "durable", "new");
    let client = paged.crash().client();
    assert_eq!(client.take_all("durable"), ["0", "new"]);
}

/// A queue that drops from its front drops what is on disk.
#[test]
fn a_full_queue_drops_what_is_on_disk() {
    let paged = Paged::new();
    let mut client = paged.client();
    let bounded = FieldTable::from([("x-max-length", FieldValue::from(100_i64))]);
    client
        .declare_with("bounded", &[Flag::Durable], bounded)
        .unwrap();
    let expected = publish(&mut client, "bounded", COUNT);
    assert_eq!(client.queue("bounded").depth().ready_count, 100);
    assert_eq!(client.queue("bounded").counts().dropped, 200);
    let client = paged.crash().client();
    assert_eq!(client.take_all("bounded"), expected[200..]);
}

/// What was out and came back is known as delivered after a clean stop, also where it lies on disk; what
/// was not is not.
#[test]
fn a_clean_stop_knows_what_was_delivered() {
    let paged = Paged::new();
    let mut client = paged.client();
    publish(&mut client, "durable", COUNT);
    let get = |client: &Client| client.get("durable", AckMode::Manual).unwrap().seq;
    let seqs: Vec<_> = (0..100).map(|_| get(&client)).collect();
    let (now, queue) = (client.now, client.queue("durable"));
    queue.settle(&seqs, Settle::Requeue, now, &mut client.wakes);
    // And once more without anybody reading it in between.
    let client = paged.restart().restart().client();
    for number in 0..COUNT {
        let expected = (number.to_string(), number < 100);
        assert_eq!(client.take("durable"), Some(expected));
    }
}

/// Of a damaged page the transient messages are lost and counted, and the others go on in order. The
/// journal's are read there.
// req: SPILL-5
#[test]
fn a_damaged_page_loses_nothing_that_was_confirmed() {
    let paged = Paged::new();
    let mut client = paged.client();
    publish(&mut client, "transient", COUNT);
    paged.damage_pages();
    let got: Vec<usize> = client
        .take_all("transient")
        .iter()
        .map(|body| body.parse().unwrap())
        .collect();
    assert!(got.is_sorted());
    let lost = client.queue("transient").counts().lost;
    assert!(lost > 0 && got.len() < COUNT);
    assert_eq!(lost as usize + got.len(), COUNT);
    assert_eq!(client.queue("transient").depth(), QueueDepth::default());

    let expected = publish(&mut client, "durable", COUNT);
    paged.damage_pages();
    assert_eq!(client.take_all("durable"), expected);
    assert_eq!(client.queue("durable").depth(), QueueDepth::default());
    let client = paged.crash().client();
    assert_eq!(client.take("durable"), None);
}

/// With a full disk long queues stay in memory and work.
// req: SPILL-6
#[test]
fn a_full_disk_keeps_queues_in_memory() {
    let paged = Paged::new();
    paged.spill.set_capacity(Some(200));
    let mut client = paged.client();
    for queue in ["durable", "transient"] {
        let expected = publish(&mut client, queue, COUNT);
        assert_eq!(client.take_all(queue), expected);
    }
}

/// A page that a `basic.get` could not read is tried again for whoever waits: the queue does not stand still once
/// the disk can be read again.
// req: SPILL-11
#[test]
fn a_page_that_could_not_be_read_is_tried_again() {
    let paged = Paged::new();
    let mut client = paged.client();
    let mut expected = publish(&mut client, "durable", COUNT);
    for disk in [&paged.spill, &paged.disk] {
        disk.set_reads_fail(true);
    }
    let mut got = Vec::new();
    while let Some((body, _)) = client.take("durable") {
        got.push(body);
    }
    assert!(got.len() < COUNT, "most of it is on disk");
    for disk in [&paged.spill, &paged.disk] {
        disk.set_reads_fail(false);
    }
    client.consume("durable", "c", 0).unwrap();
    client.publish_persistent("", "durable", "more");
    expected.push("more".to_owned());
    let mut drain = |client: &mut Client| {
        paged.turn(client);
        let texts = client.drain_texts().into_iter();
        got.extend(texts.filter_map(|text| Some(text.strip_prefix("c:")?.to_owned())));
        got.len()
    };
    let later = client.now + Duration::from_secs(1);
    let pager = paged.broker.pager();
    pager.retry_due(later - Duration::from_millis(1));
    assert!(drain(&mut client) < COUNT, "not at once");
    pager.retry_due(later);
    let mut before = 0;
    loop {
        let count = drain(&mut client);
        if count == before {
            break;
        }
        before = count;
    }
    assert_eq!(got, expected);
}
