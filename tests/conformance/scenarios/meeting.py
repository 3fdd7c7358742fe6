"""Limits, expiry, priorities and kinds of queues, where one meets another."""

from amqpwire import Typed
from driver import scenario

AREA = "meeting"


@scenario(AREA)
def length_and_bytes_of_one_message(t):
    "A message larger than x-max-length-bytes, in each overflow."
    ch = t.channel()
    ch.call("confirm.select")
    for number, overflow in enumerate(("drop-head", "reject-publish", "reject-publish-dlx")):
        q = ch.queue(t.n(overflow), arguments={"x-max-length-bytes": 3, "x-overflow": overflow})
        ch.publish("", q, "four")
        ch.confirms(number + 1, first=number + 1)
        ch.depth(q)
        ch.get(q)


@scenario(AREA)
def length_zero(t):
    "x-max-length 0 with and without a consumer."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-length": 0})
    ch.call("confirm.select")
    ch.publish("", q, "gone")
    ch.confirms(1)
    ch.consume(q, "c", no_ack=True)
    ch.publish("", q, "delivered")
    ch.recv_sorted(2)


@scenario(AREA)
def length_zero_rejecting(t):
    "x-max-length 0 with reject-publish, with and without a consumer."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    ch.call("confirm.select")
    ch.publish("", q, "refused")
    ch.confirms(1)
    ch.consume(q, "c", no_ack=True)
    ch.publish("", q, "second")
    ch.confirms(2, first=2)


@scenario(AREA)
def requeue_into_full_rejecting_queue(t):
    "What comes back to a full queue that refuses publishes stays."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    ch.call("confirm.select")
    ch.publish("", q, "a")
    ch.confirms(1)
    ch.get(q, no_ack=False)
    ch.publish("", q, "b")
    ch.confirms(2, first=2)
    ch.send("basic.nack", delivery_tag=1, requeue=True)
    ch.depth(q, 2)
    ch.publish("", q, "c")
    ch.confirms(3, first=3)
    for _ in range(3):
        ch.get(q)


@scenario(AREA)
def ttl_of_queue_and_message_with_dead_letters(t):
    "Which of two times killed it does not show; the property does."
    ch = t.channel()
    dead = ch.queue(t.n("dead"))
    q = ch.queue(t.n("q"), arguments={"x-message-ttl": 20, "x-dead-letter-exchange": "",
                                      "x-dead-letter-routing-key": dead})
    ch.publish("", q, "m", {"expiration": "60000"})
    ch.depth(dead, 1)
    ch.get(dead)


@scenario(AREA)
def ttl_zero_dead_letters(t):
    "x-message-ttl 0 without a consumer dead-letters at once; mandatory is routed."
    ch = t.channel()
    dead = ch.queue(t.n("dead"))
    q = ch.queue(t.n("q"), arguments={"x-message-ttl": 0, "x-dead-letter-exchange": "",
                                      "x-dead-letter-routing-key": dead})
    ch.call("confirm.select")
    ch.publish("", q, "m", mandatory=True)
    ch.confirms(1)
    ch.depth(dead, 1)
    ch.get(dead)


@scenario(AREA)
def expired_while_out(t):
    "A message whose time passes while it is out dies when it comes back."
    ch = t.channel()
    dead = ch.queue(t.n("dead"))
    q = ch.queue(t.n("q"), arguments={"x-message-ttl": 60, "x-dead-letter-exchange": "",
                                      "x-dead-letter-routing-key": dead})
    ch.publish("", q, "m")
    ch.get(q, no_ack=False)
    t.sleep(0.15)
    ch.send("basic.reject", delivery_tag=1, requeue=True)
    ch.depth(dead, 1)
    ch.get(dead)
    ch.get(q)


@scenario(AREA)
def purge_of_priorities(t):
    "Purging a queue of priorities, with something out."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-priority": 4})
    for priority in (0, 4, 2):
        ch.publish("", q, "p%d" % priority, {"priority": priority})
    ch.depth(q, 3)
    ch.get(q, no_ack=False)
    ch.call("queue.purge", queue=q)
    ch.send("basic.reject", delivery_tag=1, requeue=True)
    ch.depth(q, 1)
    ch.get(q)


@scenario(AREA)
def priority_of_one_level(t):
    "x-max-priority 1: two levels."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-priority": 1})
    for number, priority in enumerate((0, 1, 9, 0)):
        ch.publish("", q, "m%d" % number, {"priority": priority})
    ch.depth(q, 4)
    for _ in range(4):
        ch.get(q)


@scenario(AREA)
def priority_consumer_gets_requeued_first(t):
    "Priorities with a consumer of prefetch 1 that rejects."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-priority": 5})
    for priority in (1, 5, 3):
        ch.publish("", q, "p%d" % priority, {"priority": priority})
    ch.depth(q, 3)
    ch.call("basic.qos", prefetch_count=1)
    ch.consume(q, "c")
    ch.recv()
    ch.send("basic.reject", delivery_tag=1, requeue=True)
    ch.recv()
    ch.ack(2)
    ch.recv()
    ch.ack(3)
    ch.recv()


@scenario(AREA)
def quorum_rejected_to_dead_letters(t):
    "Rejections of a quorum queue, with what x-death says."
    ch = t.channel()
    dead = ch.queue(t.n("dead"))
    q = ch.queue(t.n("q"), durable=True, arguments={"x-queue-type": "quorum", "x-dead-letter-exchange": "",
                                                    "x-dead-letter-routing-key": dead})
    ch.call("confirm.select")
    ch.publish("", q, "m", {"headers": {"mine": 1}})
    ch.confirms(1)
    ch.get(q, no_ack=False)
    ch.send("basic.reject", delivery_tag=1, requeue=True)
    ch.sync()
    ch.get(q, no_ack=False)
    ch.send("basic.reject", delivery_tag=2, requeue=False)
    ch.depth(dead, 1)
    ch.get(dead)


@scenario(AREA)
def quorum_multiple_settling(t):
    "ack and nack multiple of a quorum queue."
    ch = t.channel()
    q = ch.queue(t.n("q"), durable=True, arguments={"x-queue-type": "quorum"})
    ch.call("confirm.select")
    for body in "abcd":
        ch.publish("", q, body)
    ch.confirms(4)
    ch.call("basic.qos", prefetch_count=4)
    ch.consume(q, "c")
    ch.recv_n(4)
    ch.ack(2, multiple=True)
    ch.call("basic.cancel", consumer_tag="c")
    ch.send("basic.nack", delivery_tag=4, multiple=True, requeue=True)
    ch.depth(q, 2)
    ch.get(q)
    ch.get(q)


@scenario(AREA)
def quorum_in_transaction(t):
    "Publishing to a quorum queue in a transaction."
    ch = t.channel()
    q = ch.queue(t.n("q"), durable=True, arguments={"x-queue-type": "quorum"})
    ch.call("tx.select")
    ch.publish("", q, "m")
    ch.call("tx.rollback")
    ch.publish("", q, "n")
    ch.call("tx.commit")
    ch.depth(q, 1)
    ch.get(q, no_ack=False)
    ch.ack(1)
    ch.call("tx.commit")
    ch.call("channel.close", reply_code=200)
    ch.after_close()
    ch.get(q)


@scenario(AREA)
def topic_words_of_every_shape(t):
    "Topic patterns and keys with empty words, wildcards next to each other and at every place."
    ch = t.channel()
    ch.exchange(t.n("x"), "topic")
    patterns = ["#.#", "*.#", "#.*", "#.a.#", "a.#.b", "*.*", "a.*.#.b", "", "#.#.a", ".a", "a.", "..", "*a", "a#", "**"]
    keys = ["", "a", "a.b", "a.b.c", "a.x.b", "a.x.y.b", ".a", "a.", ".", "..", "*", "#", "*a", "a#", "**", "b.a"]
    for number, pattern in enumerate(patterns):
        q = ch.queue(t.n("q%d" % number))
        ch.bind(q, t.n("x"), pattern)
    for key in keys:
        ch.publish(t.n("x"), key, key or "(empty)")
    for number, pattern in enumerate(patterns):
        got = []
        while True:
            ch.client.wire.send(1, "basic.get", queue=t.n("q%d" % number), no_ack=True)
            event = ch.wait()
            if event.get("method") != "basic.get-ok":
                break
            got.append(event["body"])
        t.value("matched by %s" % pattern, got)


@scenario(AREA)
def exclusive_queue_and_its_bindings(t):
    "An exclusive queue's end takes its bindings and an auto-delete exchange along."
    owner, other = t.channel(), t.channel()
    other.exchange(t.n("x"), "fanout", auto_delete=True)
    q = owner.queue(t.n("q"), exclusive=True)
    owner.bind(q, t.n("x"))
    owner.client.close()
    owner.client.wire.close_socket()
    t.sleep(0.2)
    other.call("exchange.declare", exchange=t.n("x"), type="fanout", passive=True)


@scenario(AREA)
def durable_exclusive_queue(t):
    "A durable exclusive queue goes with its connection too."
    owner, other = t.channel(), t.channel()
    q = owner.queue(t.n("q"), exclusive=True, durable=True)
    owner.client.close()
    owner.client.wire.close_socket()
    t.sleep(0.2)
    other.call("queue.declare", queue=q, passive=True)


@scenario(AREA)
def internal_property_types(t):
    "Timestamps, priorities and types of properties at their bounds."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for props in ({"timestamp": 0}, {"timestamp": 2 ** 63 - 1}, {"priority": 255}, {"delivery_mode": 1},
                  {"content_type": "x" * 255}, {"type": "", "app_id": "", "message_id": ""}, {"headers": {"": 1}}):
        ch.publish("", q, "m", props)
        ch.get(q)


@scenario(AREA)
def delivery_mode_zero(t):
    "delivery_mode 0 is none."
    ch = t.channel()
    ch.publish("", t.n("q"), "m", {"delivery_mode": 0})
    ch.recv()


@scenario(AREA)
def user_id_right(t):
    "user_id of the user itself comes back."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.publish("", q, "m", {"user_id": "guest"})
    ch.get(q)


@scenario(AREA)
def mandatory_to_rejecting_queue(t):
    "mandatory into a queue that refuses: a nack, no return."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    ch.call("confirm.select")
    ch.publish("", q, "a", mandatory=True)
    ch.confirms(1)
    ch.publish("", q, "b", mandatory=True)
    ch.confirms(2, first=2)


@scenario(AREA)
def fanout_to_mixed_queues(t):
    "One message to a queue that refuses, one that drops, one of another kind and one with a consumer."
    ch = t.channel()
    ch.exchange(t.n("x"), "fanout")
    refuses = ch.queue(t.n("refuses"), arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    drops = ch.queue(t.n("drops"), arguments={"x-max-length": 0})
    quorum = ch.queue(t.n("quorum"), durable=True, arguments={"x-queue-type": "quorum"})
    plain = ch.queue(t.n("plain"))
    for q in (refuses, drops, quorum, plain):
        ch.bind(q, t.n("x"))
    ch.call("confirm.select")
    ch.publish(t.n("x"), "", "m")
    ch.confirms(1)
    ch.depth(quorum, 1)
    ch.get(plain)
    ch.get(quorum)
    ch.get(drops)


@scenario(AREA)
def stream_publish_confirm_and_mandatory(t):
    "Confirms and returns with a stream."
    ch = t.channel()
    q = ch.queue(t.n("s"), durable=True, arguments={"x-queue-type": "stream"})
    ch.call("confirm.select")
    ch.publish("", q, "a", {"headers": {"n": 1}, "priority": 5, "expiration": "1"}, mandatory=True)
    ch.confirms(1)
    ch.call("basic.qos", prefetch_count=1)
    ch.call("basic.consume", queue=q, consumer_tag="c", arguments={"x-stream-offset": "first"})
    ch.recv()
    ch.send("basic.ack", delivery_tag=1)
    ch.call("basic.cancel", consumer_tag="c")
