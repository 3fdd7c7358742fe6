"""Frames and channels at the edges: sizes, what may follow what, and the ends of channels and connections."""

import struct

from amqpwire import Typed, encode_header, encode_method, frame, shortstr
from driver import scenario

AREA = "wire"


@scenario(AREA)
def channel_zero_content(t):
    "A body frame on channel 0."
    connection = t.connect()
    connection.wire.send_frame(3, 0, b"abc")
    connection.recv()


@scenario(AREA)
def method_on_channel_never_opened(t):
    "Every kind of frame on a channel that was not opened."
    for kind, payload in ((1, encode_method("basic.qos")), (2, encode_header(0, {})), (3, b"abc")):
        connection = t.connect()
        channel = connection.channel(9, open=False)
        channel.frame(kind, payload)
        channel.recv()


@scenario(AREA)
def reuse_after_close(t):
    "A channel number is free again after close-ok; its confirms, transactions and queue name are forgotten."
    ch = t.channel()
    ch.queue(t.n("q"))
    ch.call("tx.select")
    ch.call("channel.close", reply_code=200)
    ch.open()
    ch.call("tx.commit")
    ch.after_close()
    ch.call("confirm.select")
    ch.call("queue.purge", queue="")


@scenario(AREA)
def close_with_content_open(t):
    "channel.close while a body is missing."
    ch = t.channel()
    ch.send("basic.publish", routing_key=t.n("q"))
    ch.header(10)
    ch.body("12345")
    ch.send("channel.close", reply_code=200, reply_text="", class_id=0, method_id=0)
    ch.recv()


@scenario(AREA)
def connection_close_with_content_open(t):
    "connection.close while a channel's body is missing."
    connection = t.connect()
    ch = connection.channel(1)
    ch.send("basic.publish", routing_key=t.n("q"))
    ch.header(10)
    connection.call("connection.close", reply_code=200, reply_text="bye")


@scenario(AREA)
def connection_close_behind_publishes(t):
    "What was published before connection.close in the same write arrives."
    connection = t.connect()
    ch = connection.channel(1)
    q = ch.queue(t.n("q"))
    out = b""
    for body in (b"a", b"b"):
        out += frame(1, 1, encode_method("basic.publish", routing_key=q))
        out += frame(2, 1, encode_header(1, {})) + frame(3, 1, body)
    out += frame(1, 0, encode_method("connection.close", reply_code=200))
    out += frame(1, 1, encode_method("basic.publish", routing_key=q))
    out += frame(2, 1, encode_header(1, {})) + frame(3, 1, b"c")
    connection.wire.raw(out)
    connection.recv()
    other = t.channel()
    other.depth(q, 2)
    for _ in range(3):
        other.get(q)


@scenario(AREA)
def frames_behind_connection_close(t):
    "Anything behind the client's own connection.close is ignored."
    connection = t.connect()
    ch = connection.channel(1)
    connection.wire.raw(frame(1, 0, encode_method("connection.close", reply_code=200))
                        + frame(1, 1, encode_method("queue.declare", queue=t.n("late"))))
    connection.recv()
    other = t.channel()
    other.call("queue.declare", queue=t.n("late"), passive=True)


@scenario(AREA)
def error_behind_good_methods(t):
    "Answers to what was right come before the error; what follows it is dropped."
    ch = t.channel()
    ch.client.wire.raw(
        frame(1, 1, encode_method("queue.declare", queue=t.n("a"), exclusive=True))
        + frame(1, 1, encode_method("queue.declare", queue=t.n("none"), passive=True))
        + frame(1, 1, encode_method("queue.declare", queue=t.n("b"), exclusive=True)))
    ch.recv()
    ch.recv()
    ch.after_close()
    ch.call("queue.declare", queue=t.n("b"), passive=True)


@scenario(AREA)
def two_channels_interleaved(t):
    "Contents of two channels, frame by frame in turn."
    connection = t.connect()
    one, two = connection.channel(1), connection.channel(2)
    q = one.queue(t.n("q"))
    one.send("basic.publish", routing_key=q)
    two.send("basic.publish", routing_key=q)
    one.header(4)
    two.header(4)
    one.body("aa")
    two.body("bbbb")
    one.body("aa")
    one.depth(q, 2)
    one.get(q)
    one.get(q)


@scenario(AREA)
def error_on_one_channel_keeps_content_of_another(t):
    "A channel error in the middle of another channel's content."
    connection = t.connect()
    one, two = connection.channel(1), connection.channel(2)
    q = one.queue(t.n("q"))
    one.send("basic.publish", routing_key=q)
    one.header(4)
    two.call("queue.declare", queue=t.n("none"), passive=True)
    one.body("good")
    one.get(q)


@scenario(AREA)
def body_in_single_octets(t):
    "A body in frames of one octet, with empty ones between."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.publish", routing_key=q)
    ch.header(3)
    for part in ("", "a", "", "b", "", "c"):
        ch.body(part)
    ch.get(q)


@scenario(AREA)
def flags_beyond_properties(t):
    "A continuation bit in the property flags, with a second word of zero."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.publish", routing_key=q)
    ch.frame(2, struct.pack(">HHQHH", 60, 0, 0, 1, 0))
    ch.recv()


@scenario(AREA)
def unused_property_bit(t):
    "The property bit that has no property (bit 1)."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.publish", routing_key=q)
    ch.frame(2, struct.pack(">HHQH", 60, 0, 0, 2))
    ch.get(q)


@scenario(AREA)
def cluster_id_property(t):
    "The last property, cluster-id, comes back."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.publish", routing_key=q)
    ch.frame(2, struct.pack(">HHQH", 60, 0, 0, 4) + shortstr("cluster"))
    ch.get(q)


@scenario(AREA)
def headers_that_are_cut_off(t):
    "A headers table that claims more octets than there are."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.send("basic.publish", routing_key=q)
    ch.frame(2, struct.pack(">HHQH", 60, 0, 0, 0x2000) + struct.pack(">I", 100) + b"\x01aI\x00\x00\x00\x01")
    ch.recv()


@scenario(AREA)
def frame_max_of_4096_both_ways(t):
    "The smallest frame-max: bodies are cut to it."
    ch = t.channel(frame_max=4096)
    q = ch.queue(t.n("q"))
    ch.publish("", q, "x" * 10000)
    ch.get(q)


@scenario(AREA)
def frame_max_differs_between_connections(t):
    "Published in large frames, received in small ones, and back."
    large, small = t.channel(), t.channel(frame_max=4096)
    q = large.queue(t.n("q"))
    large.publish("", q, "x" * 9000)
    large.depth(q, 1)
    small.get(q)
    small.publish("", q, "y" * 9000)
    small.depth(q, 1)
    large.get(q)


@scenario(AREA)
def heartbeat_zero_stays(t):
    "With heartbeat 0 nothing comes, and heartbeats of the client are taken."
    connection = t.connect(heartbeat=0)
    connection.wire.keep_heartbeats = True
    connection.wire.send_frame(8, 0, b"")
    ch = connection.channel(1)
    ch.quiet(0.5)
    connection.wire.send_frame(8, 0, b"")
    ch.sync()


@scenario(AREA)
def heartbeat_between_contents(t):
    "A heartbeat in the middle of a content."
    connection = t.connect()
    ch = connection.channel(1)
    q = ch.queue(t.n("q"))
    ch.send("basic.publish", routing_key=q)
    connection.wire.send_frame(8, 0, b"")
    ch.header(3)
    connection.wire.send_frame(8, 0, b"")
    ch.body("abc")
    ch.get(q)


@scenario(AREA)
def ticket_is_ignored(t):
    "Any ticket is fine."
    ch = t.channel()
    ch.call("queue.declare", queue=t.n("q"), ticket=101)
    ch.call("queue.bind", queue=t.n("q"), exchange="amq.direct", routing_key="k", ticket=65535)


@scenario(AREA)
def channel_flow_variants(t):
    "flow true twice, then flow-ok unasked."
    ch = t.channel()
    ch.call("channel.flow", active=True)
    ch.call("channel.flow", active=True)
    ch.send("channel.flow-ok", active=True)
    ch.recv()


@scenario(AREA)
def close_codes_are_free(t):
    "channel.close with any code and text is answered."
    ch = t.channel()
    for code, text in ((0, ""), (65535, "x" * 255), (404, "NOT_FOUND")):
        ch.call("channel.close", reply_code=code, reply_text=text, class_id=60, method_id=40)
        ch.open()


@scenario(AREA)
def largest_channel_number(t):
    "Channel 2047, and the one above the server's limit."
    connection = t.connect()
    last = connection.channel(2047)
    last.sync()
    beyond = connection.channel(2048, open=False)
    beyond.send("channel.open")
    beyond.recv()


@scenario(AREA)
def mandatory_to_nothing_of_every_size(t):
    "Returned bodies: empty, one frame, several frames."
    ch = t.channel(frame_max=4096)
    for size in (0, 1, 4088, 4089, 9000):
        ch.publish("", t.n("none"), "x" * size, {"headers": {"n": size}, "app_id": "a"}, mandatory=True)
        ch.recv()


@scenario(AREA)
def publish_with_missing_exchange_then_content(t):
    "The error comes after the content; what follows is dropped until close-ok."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    ch.client.reply_to_close = False
    ch.publish(t.n("none"), "k", "m")
    ch.recv()
    ch.publish("", q, "dropped")
    ch.send("queue.declare", queue=t.n("dropped"))
    ch.send("channel.close-ok")
    ch.open()
    ch.get(q)
    ch.call("queue.declare", queue=t.n("dropped"), passive=True)


@scenario(AREA)
def deep_tables_come_back(t):
    "Nested tables and arrays of every type, unchanged."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    value = {"t": True, "b": Typed("b", -1), "B": Typed("B", 255), "s": Typed("s", -2), "u": Typed("u", 65535),
             "I": Typed("I", -3), "i": Typed("i", 2 ** 32 - 1), "l": Typed("l", -2 ** 63), "f": Typed("f", 0.5),
             "d": 0.1, "D": Typed("D", (2, -314)), "S": "text", "x": b"\x00\xff", "T": Typed("T", 1), "V": None}
    ch.publish("", q, "m", {"headers": {"F": dict(value, F={"F": value}), "A": [value, [list(value.values())], {}]}})
    ch.get(q)


@scenario(AREA)
def array_length_wrong(t):
    "An array in a method's table that is longer than the table."
    ch = t.channel()
    inner = shortstr("a") + b"A" + struct.pack(">I", 50) + b"I\x00\x00\x00\x01"
    payload = struct.pack(">HHH", 50, 10, 0) + shortstr(t.n("q")) + b"\x00" + struct.pack(">I", len(inner)) + inner
    ch.frame(1, payload)
    ch.recv()


@scenario(AREA)
def table_with_boolean_two(t):
    "A boolean of octet 2 in headers."
    ch = t.channel()
    q = ch.queue(t.n("q"))
    inner = shortstr("a") + b"t\x02"
    ch.send("basic.publish", routing_key=q)
    ch.frame(2, struct.pack(">HHQH", 60, 0, 0, 0x2000) + struct.pack(">I", len(inner)) + inner)
    ch.get(q)


@scenario(AREA)
def start_of_vhost_names(t):
    "Vhosts that do not exist, with and without the slash."
    for name in ("none", "/none", "//", "%2F", "/ "):
        connection = t.tcp()
        event = connection.wire.handshake(t.deadline, vhost=name)
        t.note_event(connection.name + ".0", event)
