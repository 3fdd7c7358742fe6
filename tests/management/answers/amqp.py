"""Just enough of an AMQP 0-9-1 client to have something to look at: a connection with a channel that publishes and consumes."""

import socket
import struct


def short(text):
    data = text.encode()
    return bytes([len(data)]) + data


def long(data):
    return struct.pack(">I", len(data)) + data


def table(pairs):
    """Texts, flags and tables."""
    out = b""
    for name, value in pairs.items():
        out += short(name)
        if isinstance(value, bool):
            out += b"t" + bytes([value])
        elif isinstance(value, dict):
            out += b"F" + table(value)
        else:
            out += b"S" + long(value.encode())
    return long(out)


class Connection:
    """Logged in, with channel 1 open."""

    def __init__(self, port, vhost, user="guest", password="guest", name="answers"):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.buffer = b""
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        properties = {"product": "answers", "connection_name": name, "capabilities":
                      {"publisher_confirms": True, "consumer_cancel_notify": True, "basic.nack": True}}
        login = b"\0" + user.encode() + b"\0" + password.encode()
        self.send(0, 10, 11, table(properties) + short("PLAIN") + long(login) + short("en_US"))
        tune = self.expect(10, 30)
        self.send(0, 10, 31, tune[:2] + struct.pack(">IH", 131072, 60))
        self.send(0, 10, 40, short(vhost) + short("") + b"\0")
        self.expect(10, 41)
        self.send(1, 20, 10, short(""))
        self.expect(20, 11)

    def send(self, channel, class_id, method_id, arguments):
        self.frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)

    def frame(self, kind, channel, payload):
        self.socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def read(self):
        """The next frame: its kind and content."""
        while True:
            if len(self.buffer) >= 7:
                kind, _, size = struct.unpack(">BHI", self.buffer[:7])
                if len(self.buffer) >= size + 8:
                    payload, self.buffer = self.buffer[7:7 + size], self.buffer[size + 8:]
                    return kind, payload
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the broker closed the connection")
            self.buffer += more

    def expect(self, class_id, method_id):
        """The arguments of this method; others that come first are passed over."""
        while True:
            kind, payload = self.read()
            if kind == 1 and struct.unpack(">HH", payload[:4]) == (class_id, method_id):
                return payload[4:]
            if kind == 1 and payload[:4] in (b"\0\x0a\0\x32", b"\0\x14\0\x28"):
                raise EOFError(f"closed: {payload!r}")

    def confirms(self):
        self.send(1, 85, 10, b"\0")
        self.expect(85, 11)

    def publish(self, exchange, key, body, mandatory=False):
        self.send(1, 60, 40, b"\0\0" + short(exchange) + short(key) + bytes([mandatory]))
        # delivery-mode 2
        self.frame(2, 1, struct.pack(">HHQH", 60, 0, len(body), 0x1000) + b"\2")
        self.frame(3, 1, body)

    def consume(self, queue, tag, no_ack=False):
        self.send(1, 60, 20, b"\0\0" + short(queue) + short(tag) + bytes([no_ack * 2]) + table({}))
        self.expect(60, 21)

    def prefetch(self, count):
        self.send(1, 60, 10, struct.pack(">IHB", 0, count, 0))
        self.expect(60, 11)

    def deliveries(self, count):
        for _ in range(count):
            self.expect(60, 60)

    def ack(self, tag):
        self.send(1, 60, 80, struct.pack(">QB", tag, 0))

    def close(self):
        self.socket.close()
