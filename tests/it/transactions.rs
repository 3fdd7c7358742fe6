//! Transactions of a real server process that is killed: each is there as a whole or not at all.

use warren::amqp::field::ShortString;
use warren::amqp::method::{Method, basic, queue, tx};

use crate::process::{Process, serve};
use crate::wire::{Client, Event, persistent};

/// Transactions that are sent before the process is killed, more than it gets through.
const SENT_COUNT: u32 = 400;

/// Each transaction publishes to two queues. The process is killed after ever more answers, with the rest
/// under way: after each restart both queues hold the same, and at least what was answered.
// req: TX-2
#[test]
fn a_killed_server_keeps_whole_transactions() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["one", "two"].map(ShortString::from_static);
    let mut kept = 0;
    for answered in [1, 7, 40, 120] {
        let process = Process::start(serve(folder.path()));
        let process = process.unwrap_or_else(|ended| panic!("{}", ended.errors));
        let mut client = Client::connect(process.address());
        client.open(1);
        for name in &names {
            let declare = queue::Declare {
                queue: name.clone(),
                durable: true,
                ..queue::Declare::default()
            };
            client.call(1, declare);
        }
        let depths = names.clone().map(|name| client.depth(1, &name));
        assert_eq!(depths[0], depths[1], "a part of a transaction is there");
        assert!(depths[0] >= kept, "{depths:?}, {kept} were answered");
        client.call(1, tx::Select {});
        for _ in 0..SENT_COUNT {
            for name in &names {
                let publish = basic::Publish {
                    routing_key: name.clone(),
                    ..basic::Publish::default()
                };
                client.publish_with(1, &publish, &persistent(), &[b'x'; 500]);
            }
            client.send(1, tx::Commit {});
        }
        for _ in 0..answered {
            match client.next_on(1) {
                Event::Method(1, Method::TxCommitOk(_)) => {}
                other => panic!("expected tx.commit-ok, got {other:?}"),
            }
        }
        process.signal("KILL");
        process.wait();
        kept = depths[0] + answered;
    }
}
