//! A stream driven by hand: its index, its tail, its readers and what it forgets.

use bytes::Bytes;

use super::super::super::message::{Body, MessageTraits, Persistence};
use super::*;

const BODY_BYTES: usize = 1_000;

fn kept(number: u64) -> Kept {
    let traits = MessageTraits {
        persistence: Persistence::Persistent,
        priority: 0,
        expiration: None,
    };
    let body = Body::Inline(Bytes::from(vec![b'x'; BODY_BYTES]));
    Kept {
        // Other queues' records lie in between.
        lsn: Lsn(10 * number + 10),
        unix_ms: 1_000_000 + number,
        message: Message::new(b"", b"s", &[0, 0], traits, body),
    }
}

/// A stream with messages 0 to `count`, all on disk.
fn filled(count: u64, segment_bytes: u64) -> Stream {
    let mut stream = Stream::new(0);
    for number in 0..count {
        stream.push(kept(number), segment_bytes);
        stream.trim_tail(Lsn(u64::MAX));
    }
    stream
}

fn id(slot: u32) -> ConsumerId {
    ConsumerId { slot, serial: 1 }
}

fn start(stream: &mut Stream, offset: StreamOffset) -> u64 {
    stream.add_reader(id(7), offset, Filter::default(), 2_000_000);
    let next = match stream.next_for(id(7)) {
        Next::Message { offset, .. } => offset,
        Next::Read(read) => read.offset,
        Next::Nothing => stream.next,
    };
    stream.remove_reader(id(7));
    next
}

// req: STREAM-7
#[test]
fn the_tail_is_bounded_and_the_rest_is_found_by_marks() {
    let count = 5_000;
    let stream = filled(count, u64::MAX);
    assert!(stream.tail_bytes <= STREAM_TAIL_BYTES_MAX);
    assert!(stream.tail.len() > 100);
    assert_eq!(stream.len(), count);
    for offset in [0, 1, 255, 256, 257, 4_999] {
        let (after, skip_count) = stream.find(offset).expect("it is there");
        // So many messages lie between the number and the one that is sought.
        assert_eq!(after.0 + 1 + 10 * skip_count, 10 * offset + 10, "{offset}");
        assert!(skip_count < MARK_EVERY);
    }
    let marks: usize = stream
        .segments
        .iter()
        .map(|segment| segment.marks.len())
        .sum();
    assert_eq!(marks as u64, count.div_ceil(MARK_EVERY));
}

/// What is not on disk stays in memory, however much it is.
#[test]
fn what_is_not_on_disk_stays_in_memory() {
    let mut stream = Stream::new(0);
    for number in 0..3_000 {
        stream.push(kept(number), u64::MAX);
        stream.trim_tail(Lsn(0));
    }
    assert_eq!(stream.tail.len(), 3_000);
    stream.trim_tail(kept(10).lsn);
    assert_eq!(stream.tail_first(), 11);
}

#[test]
fn readers_begin_where_they_say() {
    let mut stream = filled(4_000, 500_000);
    assert_eq!(start(&mut stream, StreamOffset::First), 0);
    assert_eq!(start(&mut stream, StreamOffset::Last), 3_999);
    assert_eq!(start(&mut stream, StreamOffset::Next), 4_000);
    assert_eq!(start(&mut stream, StreamOffset::Number(77)), 77);
    assert_eq!(start(&mut stream, StreamOffset::Number(9_000)), 4_000);
    // In memory the exact place is found at once.
    assert_eq!(start(&mut stream, StreamOffset::UnixMs(1_003_990)), 3_990);
    assert_eq!(start(&mut stream, StreamOffset::UnixMs(9_000_000)), 4_000);
    let ago = StreamOffset::Ago(Duration::from_millis(1_000_000 - 3_995));
    assert_eq!(start(&mut stream, ago), 3_995);
    // On disk it is a place before it, less than a mark away.
    let near = start(&mut stream, StreamOffset::UnixMs(1_000_700));
    assert!((700 - MARK_EVERY..=700).contains(&near), "{near}");
}

/// A page is asked for once, used up, and followed by the tail without a gap.
#[test]
fn a_reader_goes_from_pages_to_the_tail() {
    let mut stream = filled(3_000, u64::MAX);
    stream.add_reader(id(0), StreamOffset::First, Filter::default(), 0);
    let mut expected = 0;
    let mut page_count = 0;
    while expected < 3_000 {
        match stream.next_for(id(0)) {
            Next::Message { offset, .. } => {
                assert_eq!(offset, expected);
                expected += 1;
                stream.readers.get_mut(&id(0)).expect("it reads").advance();
            }
            Next::Read(read) => {
                assert!(stream.is_reading(id(0)));
                assert!(matches!(stream.next_for(id(0)), Next::Nothing));
                assert_eq!(read.offset, expected);
                assert!(read.skip_count == 0, "it goes on behind what it read");
                page_count += 1;
                let page = (read.offset..read.offset + 100).map(kept).collect();
                stream.give_page(&read, page);
            }
            Next::Nothing => panic!("nothing comes at {expected}"),
        }
    }
    assert!(page_count > 5);
    assert!(matches!(stream.next_for(id(0)), Next::Nothing));
}

/// Whole segments go while the stream is too large; who read in them goes on at the new beginning.
#[test]
fn retention_by_size_takes_whole_segments() {
    let mut stream = filled(100, 10_000);
    stream.add_reader(id(0), StreamOffset::First, Filter::default(), 0);
    let truncated = stream.retain(Some(35_000), None, 0).expect("too large");
    assert_eq!(truncated.first, stream.first());
    assert_eq!(truncated.first % 10, 0);
    assert_eq!(truncated.up_to, kept(truncated.first - 1).lsn);
    assert!(stream.bytes() <= 35_000);
    assert!(stream.retain(Some(35_000), None, 0).is_none());
    match stream.next_for(id(0)) {
        Next::Message { offset, .. } => assert_eq!(offset, truncated.first),
        other => panic!("{other:?}"),
    }
    // The last segment stays, whatever it holds.
    stream.retain(Some(0), None, 0);
    assert!(stream.len() > 0);
}

#[test]
fn retention_by_age_takes_what_is_older() {
    let mut stream = filled(100, 10_000);
    let age_max = Duration::from_millis(50);
    assert!(stream.retain(None, Some(age_max), 1_000_000).is_none());
    let ends = stream.ends_unix_ms(age_max).expect("segments wait for it");
    assert_eq!(ends, 1_000_009 + 50 + 1);
    let truncated = stream.retain(None, Some(age_max), ends).expect("too old");
    assert_eq!(truncated.first, 10);
}

/// A page that retention overtook is dropped, and the reader goes on at the beginning.
#[test]
fn a_page_that_retention_overtook_is_dropped() {
    let mut stream = filled(3_000, 100_000);
    stream.add_reader(id(0), StreamOffset::First, Filter::default(), 0);
    let Next::Read(read) = stream.next_for(id(0)) else {
        panic!("the beginning is on disk");
    };
    stream.retain(Some(2_000_000), None, 0).expect("too large");
    stream.give_page(&read, (0..100).map(kept).collect());
    match stream.next_for(id(0)) {
        Next::Read(read) => assert_eq!(read.offset, stream.first()),
        other => panic!("{other:?}"),
    }
}
