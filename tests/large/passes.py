"""Publishes one huge body through ten queues and takes it out of one; standard library only."""
import hashlib
import os
import socket
import struct
import sys
import time

PORT, PID, STORE, SIZE = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
PEAK_BYTES_MAX = 128 << 20
FRAME_MAX = 131072
PIECE = FRAME_MAX - 8
BLOCK = os.urandom(1 << 20)
QUEUES = [f"large{index}" for index in range(10)]


def short(text):
    return bytes([len(text)]) + text.encode()


def long(data):
    return struct.pack(">I", len(data)) + data


class Client:
    """As much AMQP as the test needs."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 20)
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.expect(10, 10)
        self.method(0, 10, 11, long(b"") + short("PLAIN") + long(b"\0guest\0guest") + short("en_US"))
        self.expect(10, 30)
        self.method(0, 10, 31, struct.pack(">HIH", 2047, FRAME_MAX, 0))
        self.method(0, 10, 40, short("/") + short("") + b"\0")
        self.expect(10, 41)
        self.method(1, 20, 10, short(""))
        self.expect(20, 11)

    def frame(self, kind, channel, payload):
        return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"

    def method(self, channel, class_id, method_id, arguments=b""):
        payload = struct.pack(">HH", class_id, method_id) + arguments
        self.socket.sendall(self.frame(1, channel, payload))

    def read(self):
        kind, channel, size = struct.unpack(">BHI", self.file.read(7))
        payload = self.file.read(size)
        assert self.file.read(1) == b"\xce", "a frame ends with 0xCE"
        return kind, payload

    def expect(self, class_id, method_id):
        kind, payload = self.read()
        got = struct.unpack(">HH", payload[:4])
        assert kind == 1 and got == (class_id, method_id), (kind, got, payload[4:80])
        return payload[4:]

    def call(self, class_id, method_id, arguments, answer):
        self.method(1, class_id, method_id, arguments)
        return self.expect(class_id, answer)


def pieces():
    """The body, in frames' worths: the same block over and over, each time behind its number."""
    sent = 0
    number = 0
    while sent < SIZE:
        block = struct.pack(">Q", number) + BLOCK[8:]
        number += 1
        for start in range(0, len(block), PIECE):
            piece = block[start : start + PIECE][: SIZE - sent]
            if piece:
                yield piece
                sent += len(piece)


def publish(client, digest):
    client.method(1, 60, 40, struct.pack(">H", 0) + short("large") + short("") + b"\0")
    header = struct.pack(">HHQH", 60, 0, SIZE, 0x1000) + b"\x02"
    client.socket.sendall(client.frame(2, 1, header))
    for piece in pieces():
        digest.update(piece)
        client.socket.sendall(client.frame(3, 1, piece))


def peak_bytes():
    with open(f"/proc/{PID}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def stored_bytes():
    total = 0
    for folder, _, files in os.walk(STORE):
        total += sum(os.stat(os.path.join(folder, file)).st_blocks * 512 for file in files)
    return total


passed = failed = 0


def check(name, good, detail):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok' if good else 'FAILED'}: {name}: {detail}")


publisher = Client()
publisher.call(85, 10, b"\0", 11)
publisher.call(40, 10, struct.pack(">H", 0) + short("large") + short("fanout") + b"\x02" + long(b""), 11)
for queue in QUEUES:
    publisher.call(50, 10, struct.pack(">H", 0) + short(queue) + b"\x02" + long(b""), 11)
    bind = struct.pack(">H", 0) + short(queue) + short("large") + short("") + b"\0" + long(b"")
    publisher.call(50, 20, bind, 21)
digest, started = hashlib.blake2b(), time.time()
publish(publisher, digest)
publisher.expect(60, 80)
check("published and confirmed", True, f"{SIZE} bytes in {time.time() - started:.1f} s")
check("one copy for ten queues", SIZE <= stored_bytes() < SIZE * 1.1, f"{stored_bytes()} bytes on disk")

consumer, started = Client(), time.time()
consume = struct.pack(">H", 0) + short(QUEUES[0]) + short("c") + b"\0" + long(b"")
consumer.call(60, 20, consume, 21)
consumer.expect(60, 60)
kind, header = consumer.read()
size = struct.unpack(">Q", header[4:12])[0]
got, received = hashlib.blake2b(), 0
while received < size:
    kind, piece = consumer.read()
    assert kind == 3, kind
    got.update(piece)
    received += len(piece)
consumer.method(1, 60, 80, struct.pack(">QB", 1, 0))
check("consumed whole", (size, received) == (SIZE, SIZE), f"{received} bytes in {time.time() - started:.1f} s")
check("every byte is right", got.digest() == digest.digest(), got.hexdigest()[:16])
check("peak memory of the broker", peak_bytes() < PEAK_BYTES_MAX, f"{peak_bytes() / (1 << 20):.1f} MiB")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
