"""Consumers: their arguments, cancelling, single active ones, direct reply-to."""

from amqpwire import Typed
from driver import scenario

AREA = "consuming"


@scenario(AREA)
def cancel_unknown_and_again(t):
    "Cancelling what does not exist, twice, and with nowait."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("basic.cancel", consumer_tag="none")
    ch.call("basic.cancel", consumer_tag="")
    ch.consume(q, "c")
    ch.call("basic.cancel", consumer_tag="c")
    ch.call("basic.cancel", consumer_tag="c")
    ch.send("basic.cancel", consumer_tag="c", nowait=True)
    ch.sync()


@scenario(AREA)
def cancel_of_another_channel(t):
    "A tag of another channel is unknown here."
    connection = t.connect()
    one, two = connection.channel(1), connection.channel(2)
    q = one.queue(t.n("q"))
    one.consume(q, "c")
    two.call("basic.cancel", consumer_tag="c")
    one.publish("", q, "still there")
    one.recv()


@scenario(AREA, limit=6)
def argument_types(t):
    "Consumer arguments of every type."
    for arguments in ({"x-priority": Typed("b", 1)}, {"x-priority": Typed("l", -5)}, {"x-priority": 1.5},
                      {"x-priority": "1"}, {"x-priority": True}, {"x-priority": None}, {"x-priority": Typed("T", 1)},
                      {"x-priority": Typed("D", (0, 1))}, {"x-priority": Typed("i", 2 ** 32 - 1)},
                      {"x-cancel-on-ha-failover": True}, {"x-cancel-on-ha-failover": 1},
                      {"x-stream-offset": "first"}, {"x-unknown": [1]}):
        ch = t.channel()
        q = ch.queue(t.n("q"))
        ch.call("basic.consume", queue=q, consumer_tag="c", arguments=arguments)


@scenario(AREA)
def priorities(t):
    "The highest priority is served until it is full."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("basic.qos", prefetch_count=1)
    ch.consume(q, "low", arguments={"x-priority": -1})
    ch.consume(q, "none")
    ch.consume(q, "high", arguments={"x-priority": 10})
    for body in "abcd":
        ch.publish("", q, body)
    ch.recv_n(3)
    ch.quiet()
    ch.ack(1)
    ch.recv()


@scenario(AREA)
def exclusive_then_other(t):
    "After an exclusive consumer left others may come."
    ch, other = t.channel(), t.channel()
    q = ch.queue(t.n("q"))
    ch.consume(q, "c", exclusive=True)
    other.call("basic.consume", queue=q, consumer_tag="d")
    other.after_close()
    ch.call("basic.cancel", consumer_tag="c")
    other.call("basic.consume", queue=q, consumer_tag="d")
    ch.call("basic.consume", queue=q, consumer_tag="c", exclusive=True)


@scenario(AREA)
def tag_of_255_octets(t):
    "A tag as long as it can be."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("basic.consume", queue=q, consumer_tag="t" * 255)
    ch.publish("", q, "m")
    ch.recv()


@scenario(AREA)
def reserved_tag(t):
    "A client may choose a tag that looks generated."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("basic.consume", queue=q, consumer_tag="amq.mine")
    ch.call("basic.cancel", consumer_tag="amq.mine")


@scenario(AREA)
def queue_deleted_with_unacked(t):
    "basic.cancel from the server; acks of what was out are taken."
    ch, other = t.channel(), t.channel()
    q = ch.queue(t.n("q"))
    ch.consume(q, "c")
    ch.publish("", q, "m")
    ch.recv()
    other.call("queue.delete", queue=q)
    ch.recv()
    ch.ack(1)
    ch.call("basic.cancel", consumer_tag="c")
    ch.queue(q)
    ch.call("basic.consume", queue=q, consumer_tag="c")


@scenario(AREA)
def expired_queue_cancels_get(t):
    "A queue that expired is gone for everybody."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-expires": 50})
    t.sleep(0.4)
    ch.get(q)


@scenario(AREA)
def single_active_with_priorities_of_messages(t):
    "Priorities of messages hold with a single active consumer."
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-single-active-consumer": True, "x-max-priority": 5})
    for priority in (1, 5, 3):
        ch.publish("", q, "p%d" % priority, {"priority": priority})
    ch.depth(q, 3)
    ch.consume(q, "a", no_ack=True)
    ch.recv_n(3)


@scenario(AREA)
def single_active_handover_requeues(t):
    "The channel of the active one closes: its messages go to the next, marked, in order."
    one, two = t.channel(), t.channel()
    q = one.queue(t.n("q"), arguments={"x-single-active-consumer": True})
    one.consume(q, "a")
    two.consume(q, "b")
    for body in "abc":
        one.publish("", q, body)
    one.recv_n(3)
    one.ack(2)
    one.call("channel.close", reply_code=200)
    two.recv_n(2)


@scenario(AREA)
def single_active_cancel_keeps_unacked(t):
    "A cancelled active consumer keeps what it has; the next gets what follows."
    one, two = t.channel(), t.channel()
    q = one.queue(t.n("q"), arguments={"x-single-active-consumer": True})
    one.call("basic.qos", prefetch_count=1)
    one.consume(q, "a")
    two.consume(q, "b")
    one.publish("", q, "a")
    one.recv()
    one.call("basic.cancel", consumer_tag="a")
    one.publish("", q, "b")
    two.recv()
    one.send("basic.reject", delivery_tag=1, requeue=True)
    two.recv()


@scenario(AREA)
def auto_delete_with_two_consumers(t):
    "The queue goes with the last consumer, whatever it holds."
    ch = t.channel()
    q = ch.queue(t.n("q"), auto_delete=True)
    ch.consume(q, "a")
    ch.consume(q, "b")
    ch.publish("", q, "m")
    ch.recv()
    ch.call("basic.cancel", consumer_tag="a")
    ch.call("queue.declare", queue=q, passive=True)
    ch.call("basic.cancel", consumer_tag="b")
    ch.call("queue.declare", queue=q, passive=True)


@scenario(AREA)
def reply_to_consume_variants(t):
    "The pseudo-queue with exclusive, nowait, a tag; cancelled and again."
    ch = t.channel()
    ch.call("basic.consume", queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True, exclusive=True)
    ch.call("basic.cancel", consumer_tag="r")
    ch.publish("", t.n("q"), "m", {"reply_to": "amq.rabbitmq.reply-to"})
    ch.recv()
    ch.after_close()
    ch.send("basic.consume", queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True, nowait=True)
    ch.sync()
    q = ch.queue(t.n("q"))
    ch.publish("", q, "m", {"reply_to": "amq.rabbitmq.reply-to"})
    ch.get(q)


@scenario(AREA)
def reply_to_operations(t):
    "get, purge, delete and bind of the pseudo-queue."
    ch = t.channel()
    for method, fields in (("basic.get", {}), ("queue.purge", {}), ("queue.delete", {}),
                           ("queue.bind", {"exchange": "amq.fanout"}), ("queue.declare", {"durable": True}),
                           ("queue.declare", {"passive": True})):
        event = ch.call(method, queue="amq.rabbitmq.reply-to", **fields)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def reply_to_other_exchange(t):
    "reply_to is replaced whatever the exchange, and in returned messages?"
    ch = t.channel()
    ch.call("basic.consume", queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True)
    q = ch.queue(t.n("q"))
    ch.bind(q, "amq.direct", t.n("k"))
    ch.publish("amq.direct", t.n("k"), "m", {"reply_to": "amq.rabbitmq.reply-to"})
    ch.get(q)
    ch.publish("amq.direct", t.n("none"), "m", {"reply_to": "amq.rabbitmq.reply-to"}, mandatory=True)
    ch.recv()


@scenario(AREA)
def reply_to_bad_names(t):
    "Answers to names that were never given."
    ch = t.channel()
    ch.call("confirm.select")
    for number, name in enumerate(("amq.rabbitmq.reply-to.x", "amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to")):
        ch.publish("", name, "m", mandatory=True)
        ch.confirms(number + 1, first=number + 1)


@scenario(AREA)
def stream_offsets(t):
    "Every form of x-stream-offset, good and bad."
    ch = t.channel()
    q = ch.queue(t.n("s"), durable=True, arguments={"x-queue-type": "stream"})
    ch.call("confirm.select")
    for number in range(3):
        ch.publish("", q, "m%d" % number)
    ch.confirms(3)
    for offset, count in (("first", 3), (0, 3), (1, 2), (Typed("l", 2), 1), (Typed("b", 2), 1),
                          (Typed("T", 1), 3), ("7D", 3), ("1h", 3)):
        other = t.channel()
        other.call("basic.qos", prefetch_count=10)
        other.call("basic.consume", queue=q, consumer_tag="c", arguments={"x-stream-offset": offset})
        other.recv_n(count)


@scenario(AREA)
def global_qos_and_quorum(t):
    "A global limit set after a consumer of a quorum queue began."
    ch = t.channel()
    q = ch.queue(t.n("q"), durable=True, arguments={"x-queue-type": "quorum"})
    ch.consume(q, "c")
    ch.call("basic.qos", prefetch_count=5, global_=True)
    ch.call("basic.consume", queue=q, consumer_tag="d")


@scenario(AREA)
def no_local_with_own_messages(t):
    "no_local does nothing, on another connection neither."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.consume(q, "c", no_local=True, no_ack=True)
    ch.publish("", q, "own")
    ch.recv()
