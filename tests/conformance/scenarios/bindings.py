"""Which bindings are the same, and reserved names."""

from amqpwire import Typed
from driver import scenario

AREA = "bindings"


@scenario(AREA)
def order_of_arguments(t):
    "The order of arguments does not matter; is it the same binding?"
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("x"), "fanout", auto_delete=True)
    ch.bind(q, t.n("x"), "k", {"a": 1, "b": 2})
    ch.bind(q, t.n("x"), "k", {"b": 2, "a": 1})
    ch.call("queue.unbind", queue=q, exchange=t.n("x"), routing_key="k", arguments={"b": 2, "a": 1})
    ch.call("exchange.declare", exchange=t.n("x"), type="fanout", passive=True)


@scenario(AREA)
def types_of_arguments(t):
    "The same number in another type: is it the same binding?"
    for other in (Typed("l", 1), Typed("b", 1), Typed("s", 1), Typed("d", 1.0), Typed("i", 1)):
        ch = t.channel()
        name = t.n("x" + other.tag)
        q = ch.queue(t.n("q"))
        ch.exchange(name, "fanout", auto_delete=True)
        ch.bind(q, name, "k", {"a": Typed("I", 1)})
        ch.call("queue.unbind", queue=q, exchange=name, routing_key="k", arguments={"a": other})
        ch.call("exchange.declare", exchange=name, type="fanout", passive=True)


@scenario(AREA)
def string_and_binary_argument(t):
    "A string against a byte array of the same octets."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("x"), "fanout", auto_delete=True)
    ch.bind(q, t.n("x"), "k", {"a": "one"})
    ch.call("queue.unbind", queue=q, exchange=t.n("x"), routing_key="k", arguments={"a": b"one"})
    ch.call("exchange.declare", exchange=t.n("x"), type="fanout", passive=True)


@scenario(AREA)
def key_case_and_space(t):
    "Keys are octets."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for key in ("K", "k ", ""):
        ch.call("queue.unbind", queue=q, exchange="amq.topic", routing_key=key)
    ch.bind(q, "amq.direct", t.n("k"))
    ch.publish("amq.direct", t.n("K"), "m", mandatory=True)
    ch.recv()
    ch.publish("amq.direct", t.n("k") + " ", "m", mandatory=True)
    ch.recv()


@scenario(AREA)
def bind_same_twice_unbind_once(t):
    "A binding made twice is one."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("x"), "direct")
    ch.bind(q, t.n("x"), "k")
    ch.bind(q, t.n("x"), "k")
    ch.call("queue.unbind", queue=q, exchange=t.n("x"), routing_key="k")
    ch.publish(t.n("x"), "k", "m", mandatory=True)
    ch.recv()


@scenario(AREA)
def bind_empty_queue_name(t):
    "An empty queue name means the last one; with an empty key, too, the key is its name."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("x"), "direct")
    ch.call("queue.bind", queue="", exchange=t.n("x"), routing_key="")
    ch.publish(t.n("x"), q, "by name")
    ch.publish(t.n("x"), "", "by nothing", mandatory=True)
    ch.recv()
    ch.get(q)
    ch.call("queue.unbind", queue="", exchange=t.n("x"), routing_key="")
    ch.publish(t.n("x"), q, "by name", mandatory=True)
    ch.recv()


@scenario(AREA)
def bind_empty_name_with_key(t):
    "An empty queue name with a key of its own."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("x"), "direct")
    ch.call("queue.bind", queue="", exchange=t.n("x"), routing_key="key")
    ch.publish(t.n("x"), "key", "m")
    ch.get(q)


@scenario(AREA)
def bind_without_last_queue(t):
    "An empty queue name when none was declared."
    ch = t.channel()
    ch.call("queue.bind", queue="", exchange="amq.direct", routing_key="k")
    ch.after_close()
    ch.call("queue.unbind", queue="", exchange="amq.direct", routing_key="k")


@scenario(AREA)
def default_exchange_operations(t):
    "Everything that may not be done with the default exchange, for queues."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.bind(q, "", q)
    ch.after_close()
    ch.call("queue.unbind", queue=q, exchange="", routing_key=q)
    ch.after_close()
    ch.call("exchange.declare", exchange="", type="direct", durable=True)
    ch.after_close()
    ch.call("exchange.delete", exchange="", if_unused=True)
    ch.after_close()
    ch.call("exchange.bind", destination="amq.fanout", source="", routing_key="")
    ch.after_close()
    ch.call("exchange.unbind", destination="", source="amq.fanout", routing_key="")


@scenario(AREA)
def reserved_exchange_names(t):
    "Declaring, deleting and binding what is predeclared or only looks so."
    ch = t.channel()
    for name in ("amq.", "amq.x", "amq.rabbitmq.x", "AMQ.x", "amqx"):
        event = ch.call("exchange.declare", exchange=name, type="fanout", auto_delete=True)
        if event["method"] == "channel.close":
            ch.after_close()
        else:
            ch.call("exchange.delete", exchange=name)


@scenario(AREA)
def reserved_exchanges_deleted(t):
    "Deleting predeclared exchanges, and an amq. name that does not exist."
    ch = t.channel()
    for name in ("amq.topic", "amq.rabbitmq.trace", "amq.no-such"):
        event = ch.call("exchange.delete", exchange=name)
        if event["method"] == "channel.close":
            ch.after_close()


@scenario(AREA)
def reserved_queue_names(t):
    "Queue names with the reserved prefix."
    ch = t.channel()
    for name in ("amq.", "amq.x", "amq.gen-x", "amq.rabbitmq.x"):
        ch.call("queue.declare", queue=name, exclusive=True)
        ch.after_close()
    ch.call("queue.delete", queue="amq.none")
    ch.call("queue.purge", queue="amq.none")


@scenario(AREA)
def publish_to_trace(t):
    "amq.rabbitmq.trace takes messages of clients."
    ch = t.channel()
    ch.publish("amq.rabbitmq.trace", "k", "m", mandatory=True)
    ch.recv()


@scenario(AREA)
def bind_missing_both(t):
    "Neither queue nor exchange exists: which is told?"
    ch = t.channel()
    ch.call("queue.bind", queue=t.n("q"), exchange=t.n("x"), routing_key="")
    ch.after_close()
    ch.call("exchange.bind", destination=t.n("d"), source=t.n("s"), routing_key="")
    ch.after_close()
    ch.call("queue.unbind", queue=t.n("q"), exchange=t.n("x"), routing_key="")
    ch.call("exchange.unbind", destination=t.n("d"), source=t.n("s"), routing_key="")


@scenario(AREA)
def durable_mix(t):
    "A durable exchange with a transient queue and the other way round."
    ch = t.channel()
    d, q = ch.queue(t.n("d"), durable=True), ch.queue(t.n("q"))
    ch.exchange(t.n("dx"), "fanout", durable=True)
    ch.exchange(t.n("x"), "fanout")
    for queue in (d, q):
        for exchange in (t.n("dx"), t.n("x")):
            ch.bind(queue, exchange)


@scenario(AREA)
def names_with_line_ends(t):
    "Line ends in names."
    ch = t.channel()
    ch.call("queue.declare", queue=t.n("a\r\nb"))
    ch.call("queue.declare", queue=t.n("ab"), passive=True)
    ch.exchange(t.n("x\ny"), "fanout")
    ch.call("exchange.declare", exchange=t.n("xy"), type="fanout", passive=True)
    ch.bind(t.n("a\nb"), t.n("x\r\ny"), "k")
    ch.publish(t.n("xy"), "k", "m", mandatory=True)
    ch.get(t.n("ab"))


@scenario(AREA)
def unbind_exclusive_of_other(t):
    "Unbinding another connection's exclusive queue: a binding that is there, and one that is not."
    owner, other = t.channel(), t.channel()
    q = owner.queue(t.n("q"), exclusive=True)
    owner.bind(q, "amq.direct", t.n("k"))
    other.call("queue.unbind", queue=q, exchange="amq.direct", routing_key=t.n("none"))
    other.call("queue.unbind", queue=q, exchange="amq.direct", routing_key=t.n("k"))


@scenario(AREA)
def delete_of_reserved_names(t):
    "Exchanges that look predeclared, if-unused and nowait included."
    ch = t.channel()
    for name, flags in (("amq.", {}), ("amq.none", {"if_unused": True}), ("amq.none", {"nowait": True})):
        ch.send("exchange.delete", exchange=name, **flags)
        ch.recv()
        ch.after_close()
