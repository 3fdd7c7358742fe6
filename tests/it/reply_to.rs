//! Direct reply-to: answers without a queue, between two connections.

use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::amqp::method::{Method, basic, queue};

use crate::broker;
use crate::wire::{Client, Message, unique};

/// The pseudo-queue.
fn replies() -> ShortString {
    ShortString::from_static("amq.rabbitmq.reply-to")
}

/// A connection that waits for answers on channel 1.
fn asker() -> Client {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.consume(1, &replies(), "answers", true);
    client
}

/// A connection with a queue that it serves.
fn server() -> (Client, ShortString) {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let declare = queue::Declare {
        queue: unique("serves"),
        auto_delete: true,
        ..queue::Declare::default()
    };
    let queue = client.declare(1, declare);
    client.consume(1, &queue, "serves", true);
    (client, queue)
}

fn ask(client: &mut Client, queue: &ShortString, body: &[u8]) {
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    let properties = Properties {
        reply_to: Some(replies()),
        ..Properties::default()
    };
    client.publish_with(1, &publish, &properties, body);
}

/// Where a request wants its answer.
fn reply_to(request: &Message) -> ShortString {
    let properties = request.header.properties().expect("decodes");
    properties.reply_to.expect("it asks for an answer")
}

/// Each of many answers reaches the one who asked, on the channel that asked, and nobody else.
#[test]
fn answers_reach_who_asked() {
    let (mut serving, queue) = server();
    let mut askers = [asker(), asker()];
    for round in 0..20_u8 {
        for (number, asker) in askers.iter_mut().enumerate() {
            ask(asker, &queue, &[round, u8::try_from(number).expect("two")]);
        }
        for _ in 0..askers.len() {
            let request = serving.expect_message(1);
            let name = reply_to(&request);
            assert!(
                name.to_string().starts_with("amq.rabbitmq.reply-to."),
                "{name}"
            );
            serving.publish(1, &name, &request.body);
        }
        for (number, asker) in askers.iter_mut().enumerate() {
            let answer = asker.expect_message(1);
            assert_eq!(
                &answer.body[..],
                [round, u8::try_from(number).expect("two")]
            );
        }
    }
    for asker in &mut askers {
        asker.expect_quiet();
    }
}

/// An answer as large as those that go to the payload store arrives whole.
#[test]
fn a_large_answer_arrives_whole() {
    let (mut serving, queue) = server();
    let mut asker = asker();
    ask(&mut asker, &queue, b"much, please");
    let name = reply_to(&serving.expect_message(1));
    let body = crate::wire::pattern(3 << 20);
    serving.publish(1, &name, &body);
    assert!(asker.expect_message(1).body == body, "another body came");
}

/// Answers to who is gone are dropped, and the name stands for nothing any more.
#[test]
fn who_is_gone_gets_no_answer() {
    let (mut serving, queue) = server();
    let mut asker = asker();
    ask(&mut asker, &queue, b"bye");
    let name = reply_to(&serving.expect_message(1));
    let passive = queue::Declare {
        queue: name.clone(),
        passive: true,
        ..queue::Declare::default()
    };
    match serving.call(1, passive.clone()) {
        Method::QueueDeclareOk(declared) => assert_eq!(declared.consumer_count, 1),
        other => panic!("{} is not queue.declare-ok", other.name()),
    }
    let cancel = basic::Cancel {
        consumer_tag: ShortString::from_static("answers"),
        no_wait: false,
    };
    asker.call(1, cancel);
    serving.publish(1, &name, b"too late");
    asker.expect_quiet();
    serving.send(1, passive);
    let text = serving.expect_channel_close(1, 404);
    assert!(text.contains("no queue"), "{text}");
}

/// Without waiting for answers nobody can ask for one.
#[test]
fn asking_without_waiting_is_refused() {
    let (_serving, queue) = server();
    let mut client = Client::connect(broker::shared());
    client.open(1);
    ask(&mut client, &queue, b"hm");
    let text = client.expect_channel_close(1, 406);
    assert!(
        text.contains("fast reply consumer does not exist"),
        "{text}"
    );
}
