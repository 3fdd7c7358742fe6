"""Sizes at the edge of what was negotiated, and openings that go wrong late."""

import struct

from amqpwire import Typed, encode_header, encode_method, frame, plain_response
from driver import scenario

AREA = "edges"


@scenario(AREA)
def method_frame_at_frame_max(t):
    "Methods whose payload is around frame-max: eight less, just it, and more."
    for size in (4088, 4096, 4097):
        ch = t.channel(frame_max=4096)
        empty = len(encode_method("queue.declare", queue=t.n("q"), exclusive=True, arguments={"a": ""}))
        ch.client.wire.send_frame(1, 1, encode_method("queue.declare", queue=t.n("q"), exclusive=True,
                                                      arguments={"a": "x" * (size - empty)}))
        event = ch.wait()
        shown = {"method": event.get("method"), "code": event.get("args", {}).get("reply_code")}
        t.value("payload of %d" % size, shown)
        ch.client.wire.close_socket()


@scenario(AREA)
def header_frame_over_frame_max(t):
    "A content header larger than frame-max."
    ch = t.channel(frame_max=4096)
    ch.client.wire.send(1, "basic.publish", routing_key=t.n("q"))
    ch.client.wire.send_frame(2, 1, encode_header(0, {"headers": {"a": "x" * 5000}}))
    event = ch.wait()
    t.value("answer", {"method": event.get("method"), "code": event.get("args", {}).get("reply_code")})


@scenario(AREA)
def body_frames_of_every_size_below(t):
    "A body in frames of different sizes comes back in the receiver's."
    ch = t.channel(frame_max=4096)
    q = ch.queue(t.n("q"))
    ch.client.wire.send(1, "basic.publish", routing_key=q)
    ch.client.wire.send_header(1, 4088 * 2 + 1)
    for size in (1, 4087, 4088, 1):
        ch.client.wire.send_body(1, b"x" * size)
    ch.get(q)


@scenario(AREA)
def tune_ok_twice(t):
    "A second tune-ok instead of open."
    c = t.tcp()
    c.raw(b"AMQP\x00\x00\x09\x01", "header")
    c.wait(0)
    c.wire.send(0, "connection.start-ok", client_properties={}, mechanism="PLAIN",
                response=plain_response("guest", "guest"), locale="en_US")
    c.wait(0)
    c.wire.send(0, "connection.tune-ok", channel_max=2047, frame_max=131072, heartbeat=0)
    c.send("connection.open", virtual_host="/")
    c.recv()
    c.send("connection.tune-ok", channel_max=2047, frame_max=131072, heartbeat=0)
    c.recv()


@scenario(AREA)
def start_ok_when_running(t):
    "start-ok, secure-ok and open on an open connection."
    for method, fields in (("connection.start-ok", {"mechanism": "PLAIN", "response": b"", "locale": "en_US",
                                                    "client_properties": {}}),
                           ("connection.secure-ok", {"response": b"x"}),
                           ("connection.open", {"virtual_host": "/"}),
                           ("connection.tune", {"channel_max": 1, "frame_max": 4096, "heartbeat": 0}),
                           ("connection.blocked", {"reason": "x"}), ("connection.unblocked", {})):
        c = t.connect()
        c.send(method, **fields)
        c.recv()


@scenario(AREA)
def methods_in_one_write(t):
    "Opening of connection and channel, a declare and a publish in one write."
    c = t.tcp()
    q = t.n("q")
    c.wire.raw(b"AMQP\x00\x00\x09\x01"
               + frame(1, 0, encode_method("connection.start-ok", client_properties={}, mechanism="PLAIN",
                                           response=plain_response("guest", "guest"), locale="en_US"))
               + frame(1, 0, encode_method("connection.tune-ok", channel_max=2047, frame_max=131072, heartbeat=0))
               + frame(1, 0, encode_method("connection.open", virtual_host="/"))
               + frame(1, 1, encode_method("channel.open"))
               + frame(1, 1, encode_method("queue.declare", queue=q))
               + frame(1, 1, encode_method("basic.publish", routing_key=q)) + frame(2, 1, encode_header(1, {}))
               + frame(3, 1, b"m"))
    for number in (0, 0, 0, 1, 1):
        event = c.wait(number)
        t.value("then", event.get("method"))
    other = t.channel()
    other.depth(q, 1)
    other.get(q)
    other.call("queue.delete", queue=q)


@scenario(AREA)
def connection_close_twice(t):
    "A second close behind the first."
    c = t.connect()
    c.call("connection.close", reply_code=200)
    c.wire.send(0, "connection.close", reply_code=200)
    t.sleep(0.2)
    c.drop()


@scenario(AREA)
def close_ok_unasked(t):
    "connection.close-ok that nobody waits for."
    c = t.connect()
    c.send("connection.close-ok")
    c.recv()


@scenario(AREA)
def update_secret_variants(t):
    "update-secret with nothing, on an ordinary login."
    c = t.connect()
    c.call("connection.update-secret", new_secret=b"", reason="")
    c.call("connection.update-secret", new_secret=b"\x00\xff", reason="x" * 255)


@scenario(AREA)
def channel_errors_on_many_channels(t):
    "Errors on several channels before any close-ok."
    c = t.connect()
    channels = [c.channel(number) for number in (1, 2, 3)]
    for channel in channels:
        channel.send("queue.declare", queue=t.n("none"), passive=True)
    for channel in channels:
        channel.recv()
    for channel in channels:
        channel.open()


@scenario(AREA)
def connection_error_ends_every_channel(t):
    "A connection error while other channels have consumers: their messages go back."
    c = t.connect()
    one, two = c.channel(1), c.channel(2)
    q = one.queue(t.n("q"))
    one.publish("", q, "m")
    one.depth(q, 1)
    one.consume(q, "c")
    one.recv()
    two.send("basic.publish", routing_key=q, immediate=True)
    two.header(0)
    two.recv()
    other = t.channel()
    other.depth(q, 1)
    other.get(q)


@scenario(AREA)
def error_during_content_of_same_channel(t):
    "The exchange is looked for when the content is complete, not before."
    ch = t.channel()
    ch.send("basic.publish", exchange=t.n("later"), routing_key="k", mandatory=True)
    other = t.channel()
    other.exchange(t.n("later"), "fanout")
    ch.header(1)
    ch.body("m")
    ch.recv()


BAD = b"a\xffb"

SHORT_STRINGS = [
    ("queue.declare", {"queue": BAD, "exclusive": True}), ("queue.declare", {"queue": BAD, "passive": True}),
    ("queue.bind", {"queue": BAD, "exchange": "amq.direct"}), ("queue.bind", {"queue": "none", "exchange": BAD}),
    ("queue.bind", {"queue": "none", "exchange": "amq.direct", "routing_key": BAD}),
    ("queue.unbind", {"queue": BAD, "exchange": "amq.direct"}), ("queue.unbind", {"queue": "none", "exchange": BAD}),
    ("queue.unbind", {"queue": "none", "exchange": "amq.direct", "routing_key": BAD}),
    ("queue.purge", {"queue": BAD}), ("queue.delete", {"queue": BAD}), ("basic.get", {"queue": BAD}),
    ("basic.consume", {"queue": BAD}), ("basic.consume", {"queue": "none", "consumer_tag": BAD}),
    ("basic.cancel", {"consumer_tag": BAD}),
    ("exchange.declare", {"exchange": BAD, "type": "fanout", "passive": True}),
    ("exchange.declare", {"exchange": "none", "type": BAD}), ("exchange.delete", {"exchange": BAD}),
    ("exchange.bind", {"destination": BAD, "source": "amq.direct"}),
    ("exchange.bind", {"destination": "amq.fanout", "source": BAD}),
    ("exchange.unbind", {"destination": "none", "source": "none", "routing_key": BAD}),
    ("channel.close", {"reply_code": 200, "reply_text": BAD}), ("access.request", {"realm": BAD}),
]


@scenario(AREA, limit=8)
def short_strings_that_are_not_utf8(t):
    "Names, keys, tags and texts of octets that are no UTF-8, field by field."
    for method, fields in SHORT_STRINGS:
        t.channel().call(method, **fields)


@scenario(AREA, limit=6)
def contents_that_are_not_utf8(t):
    "The same in a publish and in its properties and header names."
    ch = t.channel()
    ch.client.wire.publish(1, "", BAD, "m", mandatory=True)
    ch.recv()
    for name in ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id"):
        ch = t.channel()
        ch.publish("", t.n("none"), "m", {name: BAD}, mandatory=True)
        ch.recv()
    ch = t.channel()
    ch.publish("", t.n("none"), "m", {"headers": {BAD.decode("latin-1"): 1}}, mandatory=True)
    ch.recv()


@scenario(AREA)
def connection_strings_that_are_not_utf8(t):
    "Virtual hosts and close texts."
    c = t.tcp()
    event = c.wire.handshake(t.deadline, vhost=BAD)
    t.note_event(c.name + ".0", event or {"timeout": True})
    c = t.connect()
    c.call("connection.close", reply_code=200, reply_text=BAD)
    c = t.connect()
    c.call("connection.update-secret", new_secret=b"x", reason=BAD)


@scenario(AREA)
def exchange_name_of_255_octets(t):
    "The longest exchange name and routing key."
    ch = t.channel()
    name = t.n("x" * (254 - len(t.n(""))))
    ch.exchange(name, "direct")
    q = ch.queue(t.n("q"))
    ch.bind(q, name, "k" * 255)
    ch.publish(name, "k" * 255, "m")
    ch.get(q)


@scenario(AREA)
def server_properties_stay(t):
    "Nothing of what the client says of itself matters: odd properties are taken."
    c = t.connect(properties={"product": 5, "version": None, "platform": [1], "information": {"a": Typed("D", (1, 5))},
                              "capabilities": "none"})
    c.channel(1).sync()
