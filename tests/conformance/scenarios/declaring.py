"""Declaring queues and exchanges: arguments of every type, equivalence, passive and nowait."""

from amqpwire import Typed
from driver import scenario

AREA = "declaring"

WIDTHS = [Typed("b", 5), Typed("B", 5), Typed("s", 5), Typed("u", 5), Typed("I", 5), Typed("i", 5),
          Typed("l", 5), Typed("T", 5), Typed("f", 5.0), Typed("d", 5.0), Typed("D", (0, 5)), "5", True, None]


def every_type(t, argument, **more):
    "Declares with the value 5 in every type of number and in others, and again as a long."
    ch = t.channel()
    for number, value in enumerate(WIDTHS):
        q = t.n("q%d" % number)
        event = ch.call("queue.declare", queue=q, arguments=dict(more, **{argument: value}))
        if event["method"] == "channel.close":
            ch.after_close()
            continue
        event = ch.call("queue.declare", queue=q, arguments=dict(more, **{argument: Typed("I", 5)}))
        if event["method"] == "channel.close":
            ch.after_close()


def for_argument(argument):
    def run(t):
        every_type(t, argument)
    run.__name__ = "types_of_" + argument.replace("-", "_")
    run.__doc__ = "Which types %s may have, and which equal each other." % argument
    scenario(AREA, limit=6)(run)


for _argument in ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority",
                  "x-single-active-consumer", "x-dead-letter-exchange", "x-overflow", "x-queue-type",
                  "x-queue-mode", "x-queue-version", "x-unknown", "x-max-in-memory-length", "x-quorum-initial-group-size",
                  "x-delivery-limit"):
    for_argument(_argument)


@scenario(AREA, limit=6)
def bounds_of_numbers(t):
    "The least, the largest and what is beyond."
    ch = t.channel()
    cases = [("x-message-ttl", [0, 2 ** 32 - 1, 2 ** 32, 2 ** 62]),
             ("x-expires", [0, 1, 2 ** 32 - 1, 2 ** 32, -1]),
             ("x-max-length", [0, 2 ** 31, 2 ** 62, -1]),
             ("x-max-length-bytes", [0, 2 ** 62, -1]),
             ("x-max-priority", [0, 1, 255, 256, -1])]
    for argument, values in cases:
        for value in values:
            q = t.n("%s.%d" % (argument, value))
            event = ch.call("queue.declare", queue=q, exclusive=True, arguments={argument: Typed("l", value)})
            if event["method"] == "channel.close":
                ch.after_close()


@scenario(AREA)
def dead_letter_arguments(t):
    "Dead-letter exchange and key in their combinations."
    ch = t.channel()
    for number, arguments in enumerate([
            {"x-dead-letter-exchange": ""}, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": ""},
            {"x-dead-letter-routing-key": "k"}, {"x-dead-letter-exchange": t.n("none")},
            {"x-dead-letter-exchange": "a", "x-dead-letter-routing-key": 5},
            {"x-dead-letter-exchange": b"bytes"}, {"x-dead-letter-exchange": "a\nb"}]):
        event = ch.call("queue.declare", queue=t.n("q%d" % number), arguments=arguments)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def overflow_values(t):
    "The values of x-overflow."
    ch = t.channel()
    for value in ("drop-head", "reject-publish", "reject-publish-dlx", "drop-tail", "", b"drop-head"):
        q = t.n("q" + (value if isinstance(value, str) else "bytes"))
        event = ch.call("queue.declare", queue=q, arguments={"x-overflow": value})
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def master_locators(t):
    "The values of x-queue-master-locator."
    ch = t.channel()
    for value in ("client-local", "min-masters", "random"):
        event = ch.call("queue.declare", queue=t.n("q" + value), arguments={"x-queue-master-locator": value})
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def queue_modes(t):
    "The values of x-queue-mode and x-queue-version."
    ch = t.channel()
    for number, arguments in enumerate([
            {"x-queue-mode": "default"}, {"x-queue-mode": "lazy"}, {"x-queue-mode": "quick"},
            {"x-queue-version": 1}, {"x-queue-version": 2}, {"x-queue-version": 3},
            {"x-queue-type": ""}, {"x-queue-type": "Classic"}, {"x-queue-type": b"classic"}]):
        event = ch.call("queue.declare", queue=t.n("q%d" % number), arguments=arguments)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def explicit_defaults(t):
    "An argument with its default value against none."
    ch = t.channel()
    for number, arguments in enumerate([
            {"x-overflow": "drop-head"}, {"x-queue-mode": "default"}, {"x-queue-type": "classic"},
            {"x-max-priority": 0}, {"x-single-active-consumer": False}, {"x-queue-version": 1}]):
        q = t.n("q%d" % number)
        ch.call("queue.declare", queue=q, arguments=arguments)
        event = ch.call("queue.declare", queue=q)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def first_difference_told(t):
    "With several differing arguments: which of them is told?"
    ch = t.channel()
    q = ch.queue(t.n("q"), arguments={"x-expires": 60000, "x-message-ttl": 1000, "x-max-length": 5,
                                      "x-max-length-bytes": 50, "x-max-priority": 5, "x-overflow": "drop-head",
                                      "x-dead-letter-exchange": "a", "x-dead-letter-routing-key": "b",
                                      "x-single-active-consumer": True, "x-queue-mode": "lazy"})
    for arguments in ({}, {"x-expires": 60000}, {"x-expires": 60000, "x-message-ttl": 1000},
                      {"x-expires": 60000, "x-message-ttl": 1000, "x-dead-letter-exchange": "a"},
                      {"x-message-ttl": 1000, "x-dead-letter-exchange": "a", "x-dead-letter-routing-key": "b",
                       "x-expires": 60000, "x-max-length": 5}):
        ch.call("queue.declare", queue=q, arguments=arguments)
        ch.after_close()


@scenario(AREA)
def first_invalid_told(t):
    "With several invalid arguments: which of them is told?"
    ch = t.channel()
    bad = {"x-expires": -1, "x-message-ttl": -1, "x-max-length": -1, "x-max-length-bytes": -1, "x-max-priority": -1,
           "x-overflow": "bad", "x-dead-letter-exchange": 1, "x-dead-letter-routing-key": 1,
           "x-single-active-consumer": 1, "x-queue-mode": "bad", "x-queue-version": 9}
    while bad:
        event = ch.call("queue.declare", queue=t.n("q"), arguments=bad)
        if event["method"] != "channel.close":
            return
        ch.after_close()
        text = event["args"]["reply_text"]
        told = [name for name in bad if "'%s'" % name in text]
        if not told:
            return
        del bad[told[0]]


@scenario(AREA)
def flags_before_arguments(t):
    "Durability, exclusivity and auto-delete against arguments that are invalid or differ."
    ch = t.channel()
    q = ch.queue(t.n("q"), durable=True, auto_delete=True, arguments={"x-max-length": 5})
    for flags in ({"durable": True}, {"auto_delete": True}, {"exclusive": True, "durable": True, "auto_delete": True},
                  {"arguments": {"x-max-length": -5}}, {}):
        ch.call("queue.declare", queue=q, **flags)
        ch.after_close()


@scenario(AREA)
def passive_with_everything_wrong(t):
    "A passive declare does not even look at invalid arguments."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("queue.declare", queue=q, passive=True, durable=True, auto_delete=True,
            arguments={"x-message-ttl": -1, "x-queue-type": "none"})
    ch.call("queue.declare", queue=t.n("missing"), passive=True, arguments={"x-message-ttl": -1})
    ch.after_close()
    ch.call("queue.declare", queue="", passive=True)


@scenario(AREA)
def passive_empty_name_after_declare(t):
    "A passive declare of the empty name: the last queue?"
    ch = t.channel()
    ch.queue(t.n("q"))
    ch.call("queue.declare", queue="", passive=True)


@scenario(AREA)
def server_named_twice(t):
    "Two empty names are two queues; the last one is what the empty name means."
    ch = t.channel()
    first = ch.call("queue.declare", queue="", exclusive=True)["args"]["queue"]
    second = ch.call("queue.declare", queue="", exclusive=True)["args"]["queue"]
    t.value("are they different", first != second)
    ch.publish("", first, "first")
    ch.publish("", second, "second")
    ch.get("")
    ch.call("queue.purge", queue="")
    ch.call("queue.delete", queue=second)
    ch.get("")


@scenario(AREA)
def passive_sets_last_name(t):
    "A passive declare changes what the empty name means."
    ch = t.channel()
    a, b = ch.queue(t.n("a")), ch.queue(t.n("b"))
    ch.publish("", a, "in a")
    ch.depth(a, 1)
    ch.get("")
    ch.call("basic.consume", queue="", no_ack=True, consumer_tag="c")


@scenario(AREA)
def nowait_declares(t):
    "No answer, and an error all the same."
    ch = t.channel()
    ch.send("queue.declare", queue=t.n("q"), nowait=True)
    ch.send("exchange.declare", exchange=t.n("x"), type="topic", nowait=True)
    ch.send("queue.bind", queue=t.n("q"), exchange=t.n("x"), routing_key="#", nowait=True)
    ch.publish(t.n("x"), "any", "m")
    ch.get(t.n("q"))
    ch.send("queue.purge", queue=t.n("q"), nowait=True)
    ch.send("queue.delete", queue=t.n("q"), nowait=True)
    ch.send("exchange.delete", exchange=t.n("x"), nowait=True)
    ch.quiet()
    ch.send("queue.declare", queue=t.n("missing"), passive=True, nowait=True)
    ch.recv()
    ch.after_close()
    ch.send("queue.bind", queue=t.n("missing"), exchange="amq.direct", nowait=True)
    ch.recv()
    ch.after_close()
    ch.send("queue.declare", queue="amq.reserved", nowait=True)
    ch.recv()


@scenario(AREA)
def nowait_more_errors(t):
    "Errors of nowait methods of exchanges, consumers and deletes."
    ch = t.channel()
    ch.send("exchange.declare", exchange=t.n("x"), type="direct", passive=True, nowait=True)
    ch.recv()
    ch.after_close()
    ch.send("exchange.bind", destination=t.n("x"), source="amq.fanout", nowait=True)
    ch.recv()
    ch.after_close()
    ch.send("basic.consume", queue=t.n("missing"), nowait=True)
    ch.recv()
    ch.after_close()
    q = ch.queue(t.n("q"))
    ch.publish("", q, "m")
    ch.depth(q, 1)
    ch.send("queue.delete", queue=q, if_empty=True, nowait=True)
    ch.recv()
    ch.after_close()
    ch.send("exchange.delete", exchange="amq.direct", nowait=True)
    ch.recv()


@scenario(AREA)
def server_named_nowait(t):
    "A server-named queue without an answer is known only as the last one."
    ch = t.channel()
    ch.send("queue.declare", queue="", exclusive=True, nowait=True)
    ch.call("queue.bind", queue="", exchange="amq.fanout")
    ch.publish("amq.fanout", "", "m")
    ch.get("")


@scenario(AREA)
def exclusive_from_other_connection(t):
    "Everything another connection may not do with an exclusive queue, and what it may."
    owner = t.channel()
    q = owner.queue(t.n("q"), exclusive=True)
    other = t.channel()
    for method, fields in (("queue.declare", {"passive": True}), ("queue.declare", {"exclusive": True}),
                           ("queue.declare", {}),
                           ("queue.bind", {"exchange": "amq.direct", "routing_key": t.n("k")}),
                           ("queue.unbind", {"exchange": "amq.direct", "routing_key": t.n("k")}),
                           ("queue.purge", {}), ("queue.delete", {}), ("basic.consume", {"consumer_tag": "c"}),
                           ("basic.get", {})):
        event = other.call(method, queue=q, **fields)
        if event["method"] == "channel.close":
            other.after_close()
    other.publish("", q, "allowed", mandatory=True)
    other.sync()
    owner.depth(q, 1)
    owner.get(q)


@scenario(AREA)
def exclusive_on_other_channel(t):
    "Another channel of the same connection may do everything."
    connection = t.connect()
    one, two = connection.channel(1), connection.channel(2)
    q = one.queue(t.n("q"), exclusive=True)
    two.call("queue.declare", queue=q, exclusive=True)
    two.call("queue.purge", queue=q)
    one.call("channel.close", reply_code=200)
    two.call("queue.delete", queue=q)


@scenario(AREA)
def exchange_equivalence(t):
    "Arguments of exchanges: only the alternate exchange is compared."
    ch = t.channel()
    x = t.n("x")
    ch.exchange(x, "direct", arguments={"alternate-exchange": "amq.fanout", "x-other": 1})
    ch.exchange(x, "direct", arguments={"alternate-exchange": "amq.fanout", "x-other": 2})
    for arguments in ({}, {"alternate-exchange": "amq.direct"}, {"alternate-exchange": b"amq.fanout"},
                      {"alternate-exchange": None}, {"alternate-exchange": 5}):
        event = ch.exchange(x, "direct", arguments=arguments)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def exchange_alternate_types(t):
    "An alternate-exchange that is no string."
    ch = t.channel()
    for number, value in enumerate([5, True, None, b"amq.fanout", ["a"], {"a": 1}, ""]):
        event = ch.exchange(t.n("x%d" % number), "direct", arguments={"alternate-exchange": value})
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def exchange_type_case(t):
    "Exchange types are written in small letters."
    t.channel().exchange(t.n("a"), "Direct")
    t.channel().exchange(t.n("b"), "fan out")
    t.channel().exchange(t.n("c"), "x-none")


@scenario(AREA)
def several_exchange_differences(t):
    "Type, durability, auto-delete, internal: in which order are they compared?"
    ch = t.channel()
    x = t.n("x")
    ch.exchange(x, "direct", durable=True, auto_delete=True, internal=True)
    for kind, flags in (("fanout", {}), ("direct", {}), ("direct", {"durable": True}),
                        ("direct", {"durable": True, "auto_delete": True})):
        ch.exchange(x, kind, **flags)
        ch.after_close()


@scenario(AREA)
def delete_conditions(t):
    "if-unused and if-empty, together and alone, with a consumer and with messages."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.consume(q, "c")
    ch.call("queue.delete", queue=q, if_unused=True)
    ch.after_close()
    ch.publish("", q, "m")
    ch.depth(q, 1)
    ch.call("queue.delete", queue=q, if_empty=True)
    ch.after_close()
    ch.consume(q, "d")
    ch.recv()
    ch.call("queue.delete", queue=q, if_empty=True, if_unused=True)
    ch.after_close()
    ch.depth(q, 1)
    ch.get(q, no_ack=False)
    ch.call("queue.delete", queue=q, if_empty=True, if_unused=True)
    ch.ack(1)
    ch.sync()


@scenario(AREA)
def quorum_equivalence(t):
    "A quorum queue against other types and arguments."
    ch = t.channel()
    q = ch.queue(t.n("q"), durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
    for arguments in ({}, {"x-queue-type": "quorum"}, {"x-queue-type": "quorum", "x-delivery-limit": 4},
                      {"x-queue-type": "stream"}, {"x-queue-type": "classic", "x-delivery-limit": 3},
                      {"x-queue-type": "quorum", "x-delivery-limit": Typed("l", 3)}):
        event = ch.call("queue.declare", queue=q, durable=True, arguments=arguments)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def quorum_arguments(t):
    "Every argument on a quorum queue."
    ch = t.channel()
    for name, value in [("x-expires", 60000), ("x-message-ttl", 1000), ("x-max-length", 5), ("x-max-length-bytes", 5),
                        ("x-overflow", "reject-publish"), ("x-overflow", "reject-publish-dlx"),
                        ("x-dead-letter-exchange", ""), ("x-single-active-consumer", True), ("x-max-priority", 5),
                        ("x-queue-mode", "lazy"), ("x-queue-version", 2), ("x-delivery-limit", -1),
                        ("x-delivery-limit", 0), ("x-max-in-memory-length", 5), ("x-max-in-memory-bytes", 5),
                        ("x-quorum-initial-group-size", 0), ("x-quorum-initial-group-size", 1),
                        ("x-dead-letter-strategy", "at-most-once"), ("x-dead-letter-strategy", "bad"),
                        ("x-max-age", "1h"), ("x-unknown", 1)]:
        q = t.n("%s-%s" % (name, value))
        event = ch.call("queue.declare", queue=q, durable=True, arguments={"x-queue-type": "quorum", name: value})
        if event["method"] == "channel.close":
            ch.after_close()
        else:
            ch.call("queue.delete", queue=q)


@scenario(AREA)
def stream_arguments(t):
    "Every argument on a stream."
    ch = t.channel()
    for name, value in [("x-expires", 60000), ("x-message-ttl", 1000), ("x-max-length-bytes", 500),
                        ("x-overflow", "reject-publish"), ("x-dead-letter-exchange", ""),
                        ("x-single-active-consumer", True), ("x-max-priority", 5), ("x-queue-mode", "lazy"),
                        ("x-delivery-limit", 1), ("x-max-age", "1h"), ("x-max-age", "1H"), ("x-max-age", "0s"),
                        ("x-max-age", 60),
                        ("x-stream-max-segment-size-bytes", 1000), ("x-stream-max-segment-size-bytes", 3000000001),
                        ("x-stream-max-segment-size-bytes", -1), ("x-initial-cluster-size", 1),
                        ("x-queue-leader-locator", "client-local"), ("x-queue-leader-locator", "bad"),
                        ("x-unknown", 1)]:
        q = t.n("%s-%s" % (name, value))
        event = ch.call("queue.declare", queue=q, durable=True,
                        arguments={"x-queue-type": "stream", name: Typed("l", value) if type(value) is int else value})
        if event["method"] == "channel.close":
            ch.after_close()
        elif event["method"] == "queue.declare-ok":
            ch.call("queue.delete", queue=q)
        else:
            return


@scenario(AREA)
def last_name_after_delete(t):
    "What the empty name means once that queue is deleted: by its name, by the empty name, by its exclusive end."
    ch = t.channel()
    q = ch.queue(t.n("a"))
    ch.call("queue.delete", queue=q)
    ch.get("")
    ch.after_close()
    ch.queue(t.n("b"))
    ch.call("queue.delete", queue="")
    ch.get("")
    ch.after_close()
    ch.queue(t.n("c"))
    other = t.channel()
    other.call("queue.delete", queue=t.n("c"))
    ch.call("queue.purge", queue="")
    ch.after_close()
    ch.queue(t.n("d"))
    ch.call("queue.declare", queue=t.n("none"), passive=True)
    ch.after_close()
    ch.get("")


@scenario(AREA)
def last_name_after_failed_declare(t):
    "A declare that fails does not change what the empty name means."
    connection = t.connect()
    one, two = connection.channel(1), connection.channel(2)
    q = one.queue(t.n("q"))
    two.queue(t.n("other"))
    one.call("queue.declare", queue=q, passive=True)
    one.get("")
    two.call("queue.declare", queue="", passive=True)


@scenario(AREA)
def stream_age_without_number(t):
    "x-max-age with a unit and no number, and empty."
    for value in ("h", ""):
        ch = t.channel()
        ch.call("queue.declare", queue=t.n("q" + value), durable=True,
                arguments={"x-queue-type": "stream", "x-max-age": value})
