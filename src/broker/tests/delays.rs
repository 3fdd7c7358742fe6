//! A delayed exchange whose order hardly has room in memory, against a plain map, over ends of every kind.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::amqp::header::Properties;

use super::kit::{Client, Flag, inline};
use super::paging::Paged;

fn declare(client: &Client) {
    let kind = FieldTable::from([("x-delayed-type", FieldValue::from("fanout"))]);
    client
        .exchange("later", "x-delayed-message", &[Flag::Durable], kind)
        .expect("a new exchange");
    client.declare("q", &[Flag::Durable]).expect("a new queue");
    client.bind("later", "q", "").expect("both there");
}

fn publish(client: &mut Client, delay_ms: u64, body: &str) {
    let delay = i64::try_from(delay_ms).expect("short");
    let headers = FieldTable::from([("x-delay", FieldValue::from(delay))]);
    let properties = Properties {
        headers: Some(headers),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    client
        .publish_with("later", "", properties, inline(body))
        .expect("the exchange is there");
}

/// Does all that is due by the client's clock.
fn run(paged: &Paged, client: &mut Client) {
    while paged
        .broker
        .poll_timeout()
        .is_some_and(|at| at <= client.now)
    {
        paged.broker.handle_timeout(client.now, &mut client.wakes);
    }
}

/// What has happened and what must be.
struct Model {
    paged: Paged,
    client: Client,
    /// Milliseconds since the start of the made-up calendar, which begins again with each broker.
    now_ms: u64,
    number_next: u64,
    /// By due time and number.
    waiting: BTreeMap<(u64, u64), String>,
    /// Due, in order, and not taken yet.
    due: Vec<String>,
}

impl Model {
    fn new() -> Self {
        let paged = Paged::new();
        let client = paged.client();
        declare(&client);
        Self {
            paged,
            client,
            now_ms: 0,
            number_next: 0,
            waiting: BTreeMap::new(),
            due: Vec::new(),
        }
    }

    fn publish(&mut self, delay_ms: u64) {
        let body = self.number_next.to_string();
        publish(&mut self.client, delay_ms, &body);
        self.waiting
            .insert((self.now_ms + delay_ms, self.number_next), body);
        self.number_next += 1;
    }

    fn pass(&mut self, ms: u64) {
        self.client.now += Duration::from_millis(ms);
        self.now_ms += ms;
        run(&self.paged, &mut self.client);
        let later = self.waiting.split_off(&(self.now_ms + 1, 0));
        let due = std::mem::replace(&mut self.waiting, later);
        self.due.extend(due.into_values());
    }

    /// Ends the broker and starts another.
    fn end(self, clean: bool) -> Self {
        let paged = match clean {
            true => self.paged.restart(),
            false => self.paged.crash(),
        };
        let mut next = Self {
            client: paged.client(),
            paged,
            now_ms: 0,
            ..self
        };
        next.pass(0);
        next
    }

    fn check(&self) {
        let exchange = self.client.vhost().exchange(b"later").expect("durable");
        assert_eq!(exchange.delayed_count(), self.waiting.len());
        assert_eq!(self.client.queue("q").depth().ready_count, self.due.len());
    }

    fn take(&mut self) {
        assert_eq!(self.client.take_all("q"), std::mem::take(&mut self.due));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Each message is in its queue from its time on, in order, and once: whether it waited in memory or on
    /// disk, and however often the broker ended meanwhile.
    // req: DELAY-2 req: DELAY-4 req: DELAY-5 req: SPILL-10
    #[test]
    fn each_message_comes_at_its_time_whatever_ends(
        steps in prop::collection::vec((0_u8..10, 0_u64..3_000, 0_u64..60), 1..40),
    ) {
        let mut model = Model::new();
        for (kind, ms, count) in steps {
            match kind {
                0..6 => for at in 0..count {
                    // Far and near ones, in no order, some at the same time.
                    model.publish(1 + (ms * 3 + at * 701) % 4_000);
                },
                6 | 7 => model.pass(ms / 3),
                8 => model.take(),
                _ => model = model.end(ms % 2 == 0),
            }
            model.check();
        }
        model.pass(10_000);
        model.check();
        model.take();
        prop_assert!(model.paged.spill.files().is_empty(), "all of it is gone");
    }
}

/// The order of what is far lies on disk, also after a start.
// req: SPILL-10
#[test]
fn what_is_far_lies_on_disk() {
    let mut model = Model::new();
    for at in 0..500 {
        model.publish(1_000 + at * 7 % 1_000);
    }
    model.check();
    assert!(!model.paged.spill.files().is_empty());
    model = model.end(true);
    model.check();
    assert!(!model.paged.spill.files().is_empty());
    model.pass(2_000);
    model.take();
    assert!(model.paged.spill.files().is_empty());
}
