//! Small made-up histories: the judge finds what is wrong with each bad one and nothing in a good one.

use super::*;

/// Two queues; route 0 leads to the first, route 1 to both; a session and a consumer in life 1.
const BEGIN: &str =
    "queue 0 a\nqueue 1 b\nroute 0 0\nroute 1 0 1\nlife 1\nsession 1 1\nconsumer 1 0 1";

fn judge(lines: &str) -> Verdict {
    let mut judge = Judge::default();
    for line in BEGIN.lines().chain(lines.lines()) {
        let line = line.trim();
        judge.take(&Event::parse(line).unwrap_or_else(|| panic!("no event: {line}")));
    }
    judge.finish()
}

/// Judges the lines, then a drain, and compares the kinds found with `expected`.
fn check(lines: &str, expected: &[Finding]) {
    let verdict = judge(&format!("{lines}\ndrained"));
    let found: Vec<Finding> = verdict.found.keys().copied().collect();
    assert_eq!(found, expected, "{verdict}");
}

/// What is confirmed, delivered once and acked is as it should be.
#[test]
fn plain_life_of_a_message_is_good() {
    check(
        "attempt 1.1 1 0 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 5 aa\nacked 1 1\nsettled 1\nremaining 0 0",
        &[],
    );
}

/// A confirmed message that never comes is lost, in each queue on its own.
#[test]
fn confirmed_and_never_delivered_is_lost() {
    check("attempt 1.1 1 0 5 aa\nconfirm 1.1", &[Finding::Lost]);
    let one_of_two = "attempt 1.1 1 1 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 5 aa\nacked 1 1";
    check(one_of_two, &[Finding::Lost]);
    let both = format!("{one_of_two}\nconsumer 2 1 1\ndeliver 2 1 1.1 0 5 aa\nacked 2 1");
    check(&both, &[]);
}

/// A transaction of unknown outcome is there whole or not at all, in all of its queues.
#[test]
fn part_of_a_transaction_is_torn() {
    let begin = "attempt 1.1 1 0 5 aa\nattempt 1.2 1 1 5 bb\ntransaction 1.1 1.2\nend 1 killed\nlife 2\nconsumer 2 0 2\nconsumer 3 1 2";
    check(begin, &[]);
    let first = format!("{begin}\ndeliver 2 1 1.1 1 5 aa\nacked 2 1");
    check(&first, &[Finding::TornTransaction]);
    let second = format!("{first}\ndeliver 2 2 1.2 1 5 bb\nacked 2 2");
    check(&second, &[Finding::TornTransaction]);
    let whole = format!("{second}\ndeliver 3 1 1.2 1 5 bb\nacked 3 1");
    check(&whole, &[]);
    // Handed out before the crash, and gone with it: all of it may be.
    let early = begin.replace("end 1 killed", "deliver 1 1 1.1 0 5 aa\nend 1 killed");
    check(&early, &[]);
    // What was published again may be there for that reason.
    let again = format!(
        "{begin}\nsession 2 2\nattempt 1.1 2 0 5 aa\nconfirm 1.1\ndeliver 2 1 1.1 1 5 aa\nacked 2 1"
    );
    check(&again, &[]);
}

/// A transaction that was taken back is nowhere.
#[test]
fn delivery_of_what_was_rolled_back_is_found() {
    check(
        "attempt 1.1 1 0 5 aa\nnack 1.1\ndeliver 1 1 1.1 0 5 aa\nacked 1 1",
        &[Finding::NackedAndDelivered],
    );
}

/// A message without an answer may be there or not.
#[test]
fn unknown_outcome_may_be_either() {
    check("attempt 1.1 1 0 5 aa\nend 1 killed\nlife 2", &[]);
    check(
        "attempt 1.1 1 0 5 aa\nend 1 killed\nlife 2\nconsumer 2 0 2\ndeliver 2 1 1.1 1 5 aa\nacked 2 1",
        &[],
    );
}

/// Delivered but not acked, then killed: it must come back.
#[test]
fn unacked_message_that_a_crash_swallows_is_lost_after_delivery() {
    let before = "attempt 1.1 1 0 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 5 aa\nend 1 killed\nlife 2\nconsumer 2 0 2";
    check(before, &[Finding::LostAfterDelivery]);
    check(&format!("{before}\ndeliver 2 1 1.1 1 5 aa\nacked 2 1"), &[]);
}

/// A message that the checker gave back must come again too.
#[test]
fn requeued_message_that_stays_away_is_lost_after_delivery() {
    check(
        "attempt 1.1 1 0 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 5 aa\nrequeued 1 1",
        &[Finding::LostAfterDelivery],
    );
}

/// What nobody published, what was routed elsewhere and what carries a foreign name is unexpected.
#[test]
fn delivery_of_what_was_not_published_there_is_unexpected() {
    check("deliver 1 1 9.9 0 5 aa", &[Finding::Unexpected]);
    check("foreign 1", &[Finding::Unexpected]);
    check(
        "attempt 1.1 1 0 5 aa\nconsumer 2 1 1\ndeliver 2 1 1.1 0 5 aa",
        &[Finding::Unexpected],
    );
}

/// A nack with one target queue says that the message is in no queue; with two it says less.
#[test]
fn nacked_message_must_not_come_from_its_only_queue() {
    let deliver = "deliver 1 1 1.1 0 5 aa\nacked 1 1";
    check("attempt 1.1 1 0 5 aa\nnack 1.1", &[]);
    check(
        &format!("attempt 1.1 1 0 5 aa\nnack 1.1\n{deliver}"),
        &[Finding::NackedAndDelivered],
    );
    check(&format!("attempt 1.1 1 1 5 aa\nnack 1.1\n{deliver}"), &[]);
    check(
        &format!("attempt 1.1 1 0 5 aa\nnack 1.1\nconfirm 1.1\n{deliver}"),
        &[Finding::BrokenProtocol],
    );
}

/// A second delivery carries the flag, unless the message was published twice.
#[test]
fn second_delivery_without_flag_needs_a_second_publish() {
    let twice = |flag| {
        format!(
            "confirm 1.1\ndeliver 1 1 1.1 0 5 aa\nrequeued 1 1\ndeliver 1 2 1.1 {flag} 5 aa\nacked 1 2"
        )
    };
    let attempt = "attempt 1.1 1 0 5 aa";
    check(&format!("{attempt}\n{}", twice(1)), &[]);
    check(
        &format!("{attempt}\n{}", twice(0)),
        &[Finding::DuplicateUnmarked],
    );
    check(&format!("{attempt}\n{attempt}\n{}", twice(0)), &[]);
}

/// What two consumers of one queue write down need not be in the order in which it was sent: the one whose connection
/// ended, whose message went to the other with the flag, may read it later. Not so if it was put back on request.
#[test]
fn deliveries_of_two_consumers_may_be_written_down_in_any_order() {
    let before = "attempt 1.1 1 0 5 aa\nconfirm 1.1\nconsumer 2 0 1\ndeliver 2 1 1.1 1 5 aa";
    let after = "deliver 1 1 1.1 0 5 aa\nacked 1 1";
    check(&format!("{before}\n{after}"), &[]);
    check(
        &format!("{before}\nrequeued 2 1\n{after}"),
        &[Finding::DuplicateUnmarked],
    );
    check(
        &format!("{before}\n{after}\ndeliver 2 2 1.1 0 5 aa\nacked 2 2"),
        &[Finding::DuplicateUnmarked],
    );
}

/// After a crash, too, a message that somebody has had comes with the flag.
#[test]
fn recovered_message_that_was_delivered_before_needs_the_flag() {
    check(
        "attempt 1.1 1 0 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 5 aa\nend 1 killed\nlife 2\nconsumer 2 0 2\n\
         deliver 2 1 1.1 0 5 aa\nacked 2 1",
        &[Finding::DuplicateUnmarked, Finding::RecoveredUnmarked],
    );
}

/// What survives a kill comes with the flag even if the checker has not seen it before.
#[test]
fn message_that_survives_a_kill_needs_the_flag() {
    for (how, flag, expected) in [
        ("killed", 0, &[Finding::RecoveredUnmarked][..]),
        ("killed-starting", 0, &[Finding::RecoveredUnmarked]),
        ("killed", 1, &[]),
        ("clean", 0, &[]),
        ("clean", 1, &[]),
    ] {
        check(
            &format!(
                "attempt 1.1 1 0 5 aa\nconfirm 1.1\nend 1 {how}\nlife 2\nconsumer 2 0 2\n\
                 deliver 2 1 1.1 {flag} 5 aa\nacked 2 1"
            ),
            expected,
        );
    }
    check(
        "attempt 1.1 1 0 5 aa\nconfirm 1.1\nend 1 clean\nlife 2\nend 2 killed-starting\nlife 3\n\
         consumer 3 0 3\ndeliver 3 1 1.1 0 5 aa\nacked 3 1",
        &[],
    );
}

/// The last deliveries of a killed life may be written down after those of the next one.
#[test]
fn late_lines_of_an_earlier_life_are_no_duplicates() {
    check(
        "attempt 1.1 1 0 5 aa\nconfirm 1.1\nend 1 killed\nlife 2\nconsumer 2 0 2\ndeliver 2 1 1.1 1 5 aa\n\
         acked 2 1\ndeliver 1 1 1.1 0 5 aa",
        &[],
    );
}

/// An ack is not waited for, so a crash may undo it; without a crash it holds.
#[test]
fn acked_message_may_return_only_after_a_crash() {
    let acked = "attempt 1.1 1 0 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 5 aa\nacked 1 1\nsettled 1";
    let again = "deliver 2 1 1.1 1 5 aa\nacked 2 1";
    check(
        &format!("{acked}\nend 1 killed\nlife 2\nconsumer 2 0 2\n{again}"),
        &[],
    );
    check(
        &format!("{acked}\nconsumer 2 0 1\n{again}"),
        &[Finding::ReturnedAfterAck],
    );
    check(
        &format!("{acked}\nend 1 clean\nlife 2\nconsumer 2 0 2\n{again}"),
        &[Finding::ReturnedAfterAck],
    );
    let not_settled = acked.replace("\nsettled 1", "");
    check(&format!("{not_settled}\nconsumer 2 0 1\n{again}"), &[]);
}

/// Two messages of one channel reach one consumer in publish order.
#[test]
fn first_deliveries_keep_the_order_of_their_channel() {
    let attempts = "attempt 1.1 1 0 5 aa\nattempt 1.2 1 0 5 bb";
    let one = "deliver 1 1 1.1 0 5 aa\nacked 1 1";
    let two = "deliver 1 2 1.2 0 5 bb\nacked 1 2";
    check(&format!("{attempts}\n{one}\n{two}"), &[]);
    check(&format!("{attempts}\n{two}\n{one}"), &[Finding::Order]);
    let other_session = "attempt 1.1 1 0 5 aa\nsession 2 1\nattempt 1.2 2 0 5 bb";
    check(&format!("{other_session}\n{two}\n{one}"), &[]);
    let two_consumers = two
        .replace("deliver 1", "deliver 2")
        .replace("acked 1", "acked 2");
    check(
        &format!("{attempts}\nconsumer 2 0 1\n{two_consumers}\n{one}"),
        &[],
    );
}

/// Recovered messages keep their order as well, until something goes back into the queue.
#[test]
fn recovered_messages_keep_their_order_until_one_is_requeued() {
    let attempts = "attempt 1.1 1 0 5 aa\nattempt 1.2 1 0 5 bb\nattempt 1.3 1 0 5 cc\nend 1 killed\nlife 2\nconsumer 2 0 2";
    let one = "deliver 2 1 1.1 1 5 aa\nacked 2 1";
    let two = "deliver 2 2 1.2 1 5 bb\nacked 2 2";
    check(&format!("{attempts}\n{one}\n{two}"), &[]);
    check(&format!("{attempts}\n{two}\n{one}"), &[Finding::Order]);
    check(
        &format!("{attempts}\nconsumer 3 0 2\ndropped 3\n{two}\n{one}"),
        &[],
    );
    check(
        &format!(
            "{attempts}\ndeliver 2 9 1.3 1 5 cc\nrequeued 2 9\n{one}\n{two}\ndeliver 2 10 1.3 1 5 cc\nacked 2 10"
        ),
        &[],
    );
}

/// A requeued message comes out of order, and may.
#[test]
fn redelivery_out_of_order_is_allowed() {
    check(
        "attempt 1.1 1 0 5 aa\nattempt 1.2 1 0 5 bb\ndeliver 1 1 1.1 0 5 aa\nrequeued 1 1\n\
         deliver 1 2 1.2 0 5 bb\nacked 1 2\ndeliver 1 3 1.1 1 5 aa\nacked 1 3",
        &[],
    );
}

/// Other bytes or another length than were published are found.
#[test]
fn changed_body_is_corrupted() {
    for body in ["5 ab", "6 aa"] {
        check(
            &format!("attempt 1.1 1 0 5 aa\nconfirm 1.1\ndeliver 1 1 1.1 0 {body}\nacked 1 1"),
            &[Finding::Corrupted],
        );
    }
}

/// A returned message shows a lost route; it is not counted as lost once more.
#[test]
fn returned_message_is_unroutable_and_not_lost() {
    check(
        "attempt 1.1 1 0 5 aa\nreturned 1.1\nconfirm 1.1",
        &[Finding::Unroutable],
    );
}

/// What was declared is there, what was deleted is not, what was only asked may be either.
#[test]
fn topology_known_before_a_crash_is_seen_after_it() {
    for (lines, good) in [
        ("ask+ queue:t\ndone+ queue:t\nprobe+ queue:t", true),
        ("ask+ queue:t\ndone+ queue:t\nprobe- queue:t", false),
        ("ask+ queue:t\nprobe- queue:t", true),
        ("ask+ queue:t\nprobe+ queue:t", true),
        ("ask+ queue:t\nprobe+ queue:t\nprobe- queue:t", false),
        ("ask- queue:t\ndone- queue:t\nprobe+ queue:t", false),
        (
            "ask+ queue:t\ndone+ queue:t\nask- queue:t\nprobe- queue:t",
            true,
        ),
        (
            "ask+ queue:t\ndone+ queue:t\nask- queue:t\nprobe+ queue:t",
            true,
        ),
        (
            "ask+ queue:t\ndone+ queue:t\nask+ queue:t\nprobe- queue:t",
            false,
        ),
        (
            "ask+ exchange:x\ndone+ exchange:x\nprobe- exchange:x",
            false,
        ),
    ] {
        check(lines, if good { &[] } else { &[Finding::Topology] });
    }
}

/// A binding goes with its queue or exchange, and with nothing else.
#[test]
fn binding_goes_with_its_ends() {
    let bound = "ask+ binding:x:t\ndone+ binding:x:t";
    check(
        &format!("{bound}\nprobe- binding:x:t"),
        &[Finding::Topology],
    );
    for end in ["queue:t", "exchange:x"] {
        check(&format!("{bound}\nask- {end}\nprobe- binding:x:t"), &[]);
        check(&format!("{bound}\nask- {end}\nprobe+ binding:x:t"), &[]);
        check(
            &format!(
                "{bound}\nask- {end}\ndone- {end}\nask+ {end}\ndone+ {end}\nprobe+ binding:x:t"
            ),
            &[Finding::Topology],
        );
    }
    check(
        &format!("{bound}\nask- queue:u\ndone- queue:u\nprobe- binding:x:t"),
        &[Finding::Topology],
    );
}

/// A queue that counts messages after the drain, and a broker that breaks the protocol, are found.
#[test]
fn leftovers_and_broken_protocol_are_found() {
    check("remaining 0 1", &[Finding::Remaining]);
    check(
        "broken confirm of an unknown tag",
        &[Finding::BrokenProtocol],
    );
}

/// Without a drain nothing is called lost, and the verdict is not good either.
#[test]
fn history_without_drain_is_no_evidence() {
    let verdict = judge("attempt 1.1 1 0 5 aa\nconfirm 1.1");
    let found: Vec<Finding> = verdict.found.keys().copied().collect();
    assert_eq!(found, [Finding::NotDrained]);
    assert!(!verdict.is_good());
}

/// The counts are those of the history.
#[test]
fn counts_are_of_messages_and_not_of_attempts() {
    let verdict = judge(
        "attempt 1.1 1 0 1048576 aa\nattempt 1.1 1 0 1048576 aa\nconfirm 1.1\nattempt 1.2 1 0 5 bb\nnack 1.2\n\
         attempt 1.3 1 0 5 cc\ndeliver 1 1 1.1 0 1048576 aa\nacked 1 1\nend 1 killed\nend 2 killed-starting\ndrained",
    );
    let expected = Counts {
        kills: 2,
        kills_starting: 1,
        messages: 3,
        attempts: 4,
        confirmed: 1,
        confirmed_large: 1,
        nacked: 1,
        unknown: 1,
        deliveries: 1,
        ..Counts::default()
    };
    assert_eq!(verdict.counts, expected);
    assert!(verdict.is_good(), "{verdict}");
}
