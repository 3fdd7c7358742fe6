//! Streams whose messages stay on disk over a start.

use super::*;

const COUNT: usize = 400;

fn declare(client: &Client, more: &[(&'static str, FieldValue)]) {
    let mut arguments = FieldTable::from([("x-queue-type", FieldValue::from("stream"))]);
    for (name, value) in more {
        let name = crate::amqp::field::ShortString::from_static(name);
        arguments.insert(name, value.clone());
    }
    client
        .declare_with("s", &[Flag::Durable], arguments)
        .expect("a new stream");
}

fn body(number: usize) -> String {
    format!("{number:0800}")
}

fn publish(client: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        client.publish_persistent("", "s", &body(number));
    }
}

/// The bodies and offsets from the `from`th message on.
fn look(client: &Client, from: usize, count: usize) -> Vec<(String, u64)> {
    let peeked = client.queue("s").peek(Peek::new(from, count));
    let shown = peeked.iter().map(|peeked| {
        let headers = peeked.message.headers().expect("an offset");
        let offset = headers.get("x-stream-offset").expect("an offset");
        let offset = offset.as_integer().expect("a number");
        (
            text(&peeked.message),
            u64::try_from(offset).expect("not negative"),
        )
    });
    shown.collect()
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<(String, u64)> {
    numbers
        .map(|number| (body(number), number as u64))
        .collect()
}

/// Offsets are found over many segments of the journal, after either end, also where messages of
/// other queues lie between and are gone, and go on where they ended.
// req: STREAM-8
#[test]
fn offsets_are_found_after_every_end() {
    for clean in [true, false] {
        let mut durable = Durable::new();
        let mut client = durable.client();
        declare(&client, &[]);
        client
            .declare("other", &[Flag::Durable])
            .expect("a new queue");
        for round in 0..4 {
            publish(&mut client, round * COUNT / 4..(round + 1) * COUNT / 4);
            for _ in 0..60 {
                client.publish_persistent("", "other", &body(0));
            }
            client.take_all("other");
        }
        durable = match clean {
            true => durable.restart(),
            false => durable.crash(),
        };
        client = durable.client();
        let depth = client.queue("s").depth();
        assert_eq!(depth.ready_count, COUNT);
        assert!(depth.ready_bytes >= (COUNT * 800) as u64);
        for from in (0..COUNT).step_by(23).chain([COUNT - 1]) {
            let end = COUNT.min(from + 3);
            assert_eq!(look(&client, from, 3), expected(from..end), "from {from}");
        }
        publish(&mut client, COUNT..COUNT + 300);
        for from in [COUNT - 2, COUNT, COUNT + 299] {
            assert_eq!(look(&client, from, 1), expected(from..from + 1));
        }
        assert_eq!(look(&client, 0, usize::MAX), expected(0..COUNT + 300));
    }
}

/// A stream that keeps 100,000 octets in short segments.
fn declare_short(client: &Client) {
    let short = [
        ("x-max-length-bytes", FieldValue::from(100_000)),
        ("x-stream-max-segment-size-bytes", FieldValue::from(8_000)),
    ];
    declare(client, &short);
}

/// What retention takes is noted by a timer.
fn note_what_went(durable: &Durable, client: &mut Client) {
    durable.broker.handle_timeout(client.now, &mut client.wakes);
}

/// Retention goes on after a start with segments as short as it needs them.
// req: STREAM-8
#[test]
fn retention_goes_on_after_a_start() {
    let mut durable = Durable::new();
    let mut client = durable.client();
    declare_short(&client);
    publish(&mut client, 0..COUNT);
    let kept_count = client.queue("s").depth().ready_count;
    assert!((100..140).contains(&kept_count), "{kept_count}");
    note_what_went(&durable, &mut client);
    durable = durable.restart();
    client = durable.client();
    assert_eq!(client.queue("s").depth().ready_count, kept_count);
    publish(&mut client, COUNT..2 * COUNT);
    let again_count = client.queue("s").depth().ready_count;
    assert!((100..140).contains(&again_count), "{again_count}");
    note_what_went(&durable, &mut client);
    let first = 2 * COUNT - again_count;
    assert_eq!(look(&client, 0, usize::MAX), expected(first..2 * COUNT));
    durable = durable.crash();
    client = durable.client();
    let kept_count = client.queue("s").depth().ready_count;
    assert_eq!(
        look(&client, 0, 1),
        expected(2 * COUNT - kept_count..2 * COUNT - kept_count + 1)
    );
}

/// What retention took stays away after a clean stop that came before the timer; after a crash it is back,
/// and the start's first timer takes it again.
// req: STREAM-1
// req: STREAM-5
#[test]
fn what_retention_took_stays_away() {
    for clean in [true, false] {
        let mut durable = Durable::new();
        let mut client = durable.client();
        declare_short(&client);
        publish(&mut client, 0..COUNT);
        let kept_count = client.queue("s").depth().ready_count;
        durable = match clean {
            true => durable.restart(),
            false => durable.crash(),
        };
        client = durable.client();
        let found_count = client.queue("s").depth().ready_count;
        if clean {
            assert_eq!(found_count, kept_count);
        } else {
            assert!(found_count > kept_count);
            note_what_went(&durable, &mut client);
        }
        let again_count = client.queue("s").depth().ready_count;
        // Segments may begin elsewhere after a start.
        assert!((100..140).contains(&again_count), "{again_count}");
        let first = COUNT - again_count;
        assert_eq!(look(&client, 0, usize::MAX), expected(first..COUNT));
    }
}

/// A large message of a stream stays referred to over a start, until retention takes it.
#[test]
fn a_streams_payloads_are_held_after_a_start() {
    let mut durable = Durable::new();
    let mut client = durable.client();
    declare(&client, &[]);
    let id = PayloadId::from_bytes([7; 32]);
    publish(&mut client, 0..10);
    let payload = Body::Payload(client.vhost().hold_payload(id, 5_000_000));
    client
        .publish_with("", "s", Properties::default(), payload)
        .expect("the default exchange");
    publish(&mut client, 11..20);
    durable = durable.crash();
    assert_eq!(durable.counter.count(id), 1);
    client = durable.client();
    assert!(client.queue("s").depth().ready_bytes >= 5_000_000);
    let peeked = client.queue("s").peek(Peek::new(10, 1));
    assert_eq!(peeked[0].size_bytes, 5_000_000);
    drop(peeked);
    client.delete_queue("s").expect("it is there");
    assert_eq!(durable.counter.count(id), 0);
}
