#!/usr/bin/env python3
"""How long a small payload takes to idle nodes: a broker and N `warren node` processes on loopback, one publish each round,
the time from the publish to the moment the last node has the verified file in its inbox, and the CPU time of all processes.

    python3 benches/swarm/latency.py --nodes 60 --size 2e6 --rounds 7 [--how amqp|send] [--dir /dev/shm] [--rate 20e6]

Prints one JSON object. `amqp` publishes as any client does, over a connection that stands; `send` starts `warren send`,
whose start and reading belong to the time. `--rate` lets the publisher send so many bytes a second only. The moment is the
change of the inbox's folder, which the system keeps to 4 ms or better, so that nothing polls while the time runs.
WARREN names the binary (default target/release/warren)."""

import argparse
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WARREN = os.environ.get("WARREN", os.path.join(TOP, "target", "release", "warren"))
GROUP = "bench"
FRAME_BYTES = 131_072 - 8
TICKS = os.sysconf("SC_CLK_TCK")


class Publisher:
    """As little of AMQP 0-9-1 as a publisher with confirms needs."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = b""
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.method(10, 10)
        plain = b"\0guest\0guest"
        self.call(0, 10, 11, struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(plain)) + plain + b"\x05en_US")
        self.method(10, 30)
        self.call(0, 10, 31, struct.pack(">HIH", 2047, FRAME_BYTES + 8, 0))
        self.call(0, 10, 40, b"\x01/\0\0")
        self.method(10, 41)
        self.call(1, 20, 10, b"\0")
        self.method(20, 11)
        self.call(1, 85, 10, b"\0")
        self.method(85, 11)

    def call(self, channel, class_id, method_id, arguments):
        self.socket.sendall(frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments))

    def method(self, class_id, method_id):
        """Waits for this method; anything else that comes is an error."""
        while True:
            kind, payload = self.frame()
            if kind == 8:
                continue
            if struct.unpack(">HH", payload[:4]) != (class_id, method_id):
                raise SystemExit(f"the broker said {payload!r}")
            return

    def frame(self):
        while True:
            if len(self.input) >= 7:
                kind, _, size = struct.unpack(">BHI", self.input[:7])
                if len(self.input) >= size + 8:
                    payload, self.input = self.input[7:7 + size], self.input[8 + size:]
                    return kind, payload
            more = self.socket.recv(65_536)
            if not more:
                raise SystemExit("the broker ended the connection")
            self.input += more

    def publish(self, name, body, rate=None):
        """Publishes to the group, and waits for the confirm. Answers when it began, had sent all, and was confirmed."""
        exchange, key, name = b"warren.files", GROUP.encode(), name.encode()
        publish = struct.pack(">HHH", 60, 40, 0) + short(exchange) + short(key) + b"\0"
        header = struct.pack(">HHQHB", 60, 0, len(body), 0x1080, 2) + short(name)
        began = time.time()
        self.socket.sendall(frame(1, 1, publish) + frame(2, 1, header))
        for at in range(0, len(body), FRAME_BYTES):
            if rate:
                time.sleep(max(0.0, began + at / rate - time.time()))
            self.socket.sendall(frame(3, 1, body[at:at + FRAME_BYTES]))
        sent = time.time()
        self.method(60, 80)
        return began, sent, time.time()


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def short(text):
    return bytes([len(text)]) + text


def cpu_seconds(processes):
    total = 0
    for process in processes:
        with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder, name, *arguments):
    log = open(os.path.join(folder, name + ".log"), "wb")
    command = [WARREN, "--log", os.environ.get("WLOG", "warn"), *arguments]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def until(folder, name, words, wait_s=60):
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        with open(os.path.join(folder, name + ".log"), "rb") as file:
            if words in file.read():
                return
        time.sleep(0.05)
    raise SystemExit(f"{name} did not print {words!r}")


def middle(values):
    values = sorted(values)
    return values[len(values) // 2]


def run(args, folder):
    port = free_port()
    broker = start(folder, "broker", "serve", "--data-dir", os.path.join(folder, "broker"), "--listen", f"127.0.0.1:{port}",
                   "--peer-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    processes = [broker]
    try:
        until(folder, "broker", b"Server startup complete")
        uri = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        names = [f"n{number}" for number in range(args.nodes)]
        for name in names:
            processes.append(start(folder, name, "node", "--broker", uri, "--name", name, "--group", GROUP, "--data-dir",
                                   os.path.join(folder, name, "state"), "--inbox", os.path.join(folder, name, "inbox"),
                                   "--peer-listen", "127.0.0.1:0", *args.node_flag))
        for name in names:
            until(folder, name, b"ready; peers listening")
        time.sleep(args.settle)
        publisher = Publisher(port)
        rounds = [one_round(args, folder, uri, publisher, names, processes, number) for number in range(args.rounds)]
        before, began = cpu_seconds(processes), time.monotonic()
        time.sleep(3)
        idle = (cpu_seconds(processes) - before) / (time.monotonic() - began)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    last = [one["last_ms"] for one in rounds]
    return {
        "nodes": args.nodes, "size_bytes": int(args.size), "how": args.how, "rate": args.rate, "load": os.getloadavg()[0],
        "last_ms": {"min": min(last), "middle": middle(last), "max": max(last)},
        "cpu_s": middle([one["cpu_s"] for one in rounds]), "idle_cpu_per_s": round(idle, 3), "rounds": rounds,
    }


def one_round(args, folder, uri, publisher, names, processes, number):
    body = random.Random(number).randbytes(int(args.size))
    name = f"round{number}"
    cpu = cpu_seconds(processes)
    confirmed, sent = None, None
    if args.how == "amqp":
        began, sent, confirmed = publisher.publish(name, body, args.rate)
    else:
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(body)
        began = time.time()
        subprocess.run([WARREN, "--log", "warn", "send", path, "--broker", uri, "--group", GROUP, "--peer-listen", "127.0.0.1:0",
                        "--data-dir", os.path.join(folder, "sender"), "--wait", "--nodes", str(args.nodes), "--timeout", "60s"],
                       check=True, stdout=subprocess.DEVNULL)
        os.remove(path)
    inboxes = [os.path.join(folder, node, "inbox") for node in names]
    end = time.monotonic() + args.patience
    while not all(os.path.exists(os.path.join(inbox, name)) for inbox in inboxes):
        if time.monotonic() > end:
            missing = [inbox for inbox in inboxes if not os.path.exists(os.path.join(inbox, name))]
            raise SystemExit(f"{len(missing)} nodes have no copy, as {missing[0]}")
        time.sleep(0.1)
    done = sorted(os.stat(inbox).st_mtime_ns / 1e9 - began for inbox in inboxes)
    for inbox in inboxes:
        with open(os.path.join(inbox, name), "rb") as file:
            if file.read() != body:
                raise SystemExit(f"{inbox} holds other bytes")
        os.remove(os.path.join(inbox, name))
    time.sleep(0.5)
    milliseconds = lambda seconds: round(seconds * 1000, 1)
    return {
        "sent_ms": sent and milliseconds(sent - began), "confirmed_ms": confirmed and milliseconds(confirmed - began),
        "first_ms": milliseconds(done[0]), "middle_ms": milliseconds(middle(done)), "last_ms": milliseconds(done[-1]),
        "cpu_s": round(cpu_seconds(processes) - cpu, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=60)
    parser.add_argument("--size", type=float, default=2e6)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--how", choices=["amqp", "send"], default="amqp")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--dir", default="/dev/shm")
    parser.add_argument("--settle", type=float, default=12, help="seconds between the last node's start and the first publish")
    parser.add_argument("--patience", type=float, default=120)
    parser.add_argument("--node-flag", action="append", default=[], help="one more argument for each node")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="warren-latency-", dir=args.dir)
    try:
        print(json.dumps(run(args, folder), indent=1))
    finally:
        if os.environ.get("KEEP"):
            print(folder, file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
