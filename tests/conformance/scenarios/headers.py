"""Headers exchanges: what equals what."""

from amqpwire import Typed
from driver import scenario

AREA = "headers"


def table(t, bindings, publishes):
    "One queue for each binding; what each of them got, by the number of the message."
    ch = t.channel()
    ch.exchange(t.n("x"), "headers")
    names = []
    for number, arguments in enumerate(bindings):
        q = ch.queue(t.n("q%d" % number))
        event = ch.bind(q, t.n("x"), "", arguments)
        if event.get("method") != "queue.bind-ok":
            return
        names.append(q)
    for number, headers in enumerate(publishes):
        props = None if headers is None else {"headers": headers}
        ch.publish(t.n("x"), "", "m%d" % number, props)
    for q, arguments in zip(names, bindings):
        got = []
        while True:
            ch.client.wire.send(1, "basic.get", queue=q, no_ack=True)
            event = ch.wait()
            if event.get("method") != "basic.get-ok":
                break
            got.append(event["body"])
        t.value("matched by %s" % (t.norm(arguments),), got)


NUMBERS = [Typed("b", 1), Typed("B", 1), Typed("s", 1), Typed("u", 1), Typed("I", 1), Typed("i", 1),
           Typed("l", 1), Typed("f", 1.0), Typed("d", 1.0), Typed("T", 1), Typed("D", (0, 1)),
           Typed("D", (1, 10)), True, "1", b"1", None, Typed("d", 1.5), 2, -1]


def each_value(name, value):
    def run(t):
        table(t, [{"a": value}], [{"a": other} for other in NUMBERS])
    run.__name__ = "equals_" + name
    run.__doc__ = "What a binding with %r matches among values of every type." % (value,)
    scenario(AREA)(run)


for _name, _value in [("octet", Typed("b", 1)), ("unsigned_octet", Typed("B", 1)),
                      ("short", Typed("s", 1)), ("unsigned_short", Typed("u", 1)),
                      ("long", Typed("I", 1)), ("unsigned_long", Typed("i", 1)),
                      ("longlong", Typed("l", 1)), ("float", Typed("f", 1.0)),
                      ("double", Typed("d", 1.0)), ("timestamp", Typed("T", 1)),
                      ("decimal", Typed("D", (0, 1))), ("true", True), ("string", "1"),
                      ("binary", b"1"), ("void", None)]:
    each_value(_name, _value)


@scenario(AREA)
def large_numbers(t):
    "Where a double cannot tell neighbours apart."
    big = 2 ** 53
    table(t, [{"a": Typed("l", big)}, {"a": Typed("l", big + 1)}, {"a": Typed("d", float(big))}],
          [{"a": Typed("l", big)}, {"a": Typed("l", big + 1)}, {"a": Typed("d", float(big))},
           {"a": Typed("l", -big)}])


@scenario(AREA)
def zeros(t):
    "Zero and minus zero, false and void."
    values = [0, Typed("d", 0.0), Typed("d", -0.0), Typed("f", -0.0), False, None, ""]
    table(t, [{"a": value} for value in values], [{"a": value} for value in values])


@scenario(AREA)
def floats(t):
    "A float is compared by its value as a double."
    values = [Typed("f", 0.5), Typed("d", 0.5), Typed("f", 0.1), Typed("d", 0.1)]
    table(t, [{"a": value} for value in values], [{"a": value} for value in values])


@scenario(AREA)
def tables(t):
    "Tables: the order of their keys, the types of their values, nesting."
    values = [{"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": Typed("l", 1), "y": 2}, {"x": 1}, {},
              {"x": {"z": 1}}, {"x": {"z": Typed("b", 1)}}]
    table(t, [{"a": value} for value in values], [{"a": value} for value in values])


@scenario(AREA)
def arrays(t):
    "Arrays: order, types, length."
    values = [[1, 2], [2, 1], [Typed("l", 1), 2], [1], [], ["1", "2"], [b"1", "2"], [[1], 2]]
    table(t, [{"a": value} for value in values], [{"a": value} for value in values])


@scenario(AREA)
def strings(t):
    "Strings by their octets."
    values = ["a", "A", "", " a", "\u00e4", b"\xe4", b"\xc3\xa4", b"\x00"]
    table(t, [{"a": value} for value in values], [{"a": value} for value in values])


@scenario(AREA)
def void_among_others(t):
    "A void argument beside others, with all and any."
    table(t, [{"x-match": "all", "a": None, "b": 1}, {"x-match": "any", "a": None, "b": 1}],
          [{"a": 5, "b": 1}, {"a": 5}, {"b": 1}, {"a": None, "b": 2}, {"c": 1}, {}])


@scenario(AREA)
def any_needs_one_equal(t):
    "any: a header with another value does not count."
    table(t, [{"x-match": "any", "a": 1, "b": 2, "c": 3}],
          [{"a": 9, "b": 9, "c": 3}, {"a": 9, "b": 9, "c": 9}, {"d": 1}, {"a": 1}, None])


@scenario(AREA)
def any_with_only_x(t):
    "any with nothing but x- arguments."
    table(t, [{"x-match": "any", "x-a": 1}, {"x-match": "all", "x-a": 1},
              {"x-match": "any-with-x", "x-a": 1}, {"x-match": "all-with-x", "x-a": 1},
              {"x-match": "any-with-x"}, {"x-match": "all-with-x"}],
          [{"x-a": 1}, {"x-a": 2}, {"b": 1}, {}, None])


@scenario(AREA)
def match_is_no_header(t):
    "x-match itself is no argument to compare, with-x or not."
    table(t, [{"x-match": "all-with-x", "a": 1}, {"x-match": "any-with-x", "a": 1}],
          [{"a": 1}, {"x-match": "all-with-x"}, {"x-match": "any-with-x"}, {"x-match": "other", "a": 1}])


@scenario(AREA)
def match_as_binary(t):
    "x-match as a byte array."
    table(t, [{"x-match": b"any", "a": 1, "b": 2}], [{"a": 1}])


@scenario(AREA)
def match_case(t):
    "x-match in capitals."
    table(t, [{"x-match": "ALL", "a": 1}], [{"a": 1}])


@scenario(AREA)
def match_empty(t):
    "An empty x-match."
    table(t, [{"x-match": "", "a": 1}], [{"a": 1}])


@scenario(AREA)
def match_void(t):
    "A void x-match."
    table(t, [{"x-match": None, "a": 1}], [{"a": 1}])


@scenario(AREA)
def bad_match_at_unbind(t):
    "An unbind is not asked for a valid x-match."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.call("queue.unbind", queue=q, exchange="amq.headers", arguments={"x-match": "some"})


@scenario(AREA)
def bad_match_at_other_exchanges(t):
    "Only a headers exchange looks at x-match."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    for exchange in ("amq.direct", "amq.topic", "amq.fanout"):
        ch.bind(q, exchange, t.n("k"), {"x-match": "some"})


@scenario(AREA)
def bad_match_for_an_exchange(t):
    "exchange.bind with an invalid x-match."
    ch = t.channel()
    ch.exchange(t.n("f"), "fanout")
    ch.call("exchange.bind", destination=t.n("f"), source="amq.headers", routing_key="",
            arguments={"x-match": "some"})


@scenario(AREA)
def header_name_case(t):
    "Names of headers are compared with their case."
    table(t, [{"Name": 1}, {"name": 1}], [{"Name": 1}, {"name": 1}, {"NAME": 1}])


@scenario(AREA)
def duplicate_header(t):
    "A header twice in the message: does the first or the last count?"
    from amqpwire import encode_value, shortstr
    import struct
    ch = t.channel()
    ch.exchange(t.n("x"), "headers")
    for number in (1, 2):
        q = ch.queue(t.n("q%d" % number))
        ch.bind(q, t.n("x"), "", {"a": number})
    inner = b"".join(shortstr("a") + encode_value(number) for number in (1, 2))
    ch.send("basic.publish", exchange=t.n("x"))
    ch.frame(2, struct.pack(">HHQH", 60, 0, 0, 0x2000) + struct.pack(">I", len(inner)) + inner)
    for number in (1, 2):
        ch.get(t.n("q%d" % number))


@scenario(AREA)
def key_is_ignored(t):
    "The routing key means nothing, but tells bindings apart."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.exchange(t.n("x"), "headers")
    ch.bind(q, t.n("x"), "one", {"a": 1})
    ch.bind(q, t.n("x"), "two", {"a": 1})
    ch.publish(t.n("x"), "three", "m", {"headers": {"a": 1}})
    ch.call("queue.unbind", queue=q, exchange=t.n("x"), routing_key="one", arguments={"a": 1})
    ch.publish(t.n("x"), "three", "n", {"headers": {"a": 1}})
    for _ in range(3):
        ch.get(q)
