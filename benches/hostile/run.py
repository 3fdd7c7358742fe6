#!/usr/bin/env python3
"""An honest client beside 10,000 malformed connections and 2,000 slow ones: its round trips, and the broker's memory.

    benches/hostile/run.py [WARREN]      the program; default ./target/release/warren

Starts a broker, measures round trips of an honest client (publish to a queue, and the delivery back) alone, then while
malformed connections come and go and slow ones stand, then when they are gone. Hostile clients come from many addresses
(127.1.x.y), as elsewhere they would. Prints the figures; asserts nothing. Needs pika and room for 4,096 open files.
"""

import os
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pika

WARREN = sys.argv[1] if len(sys.argv) > 1 else "./target/release/warren"
MALFORMED, SLOW = 10_000, 2_000
#: Round trips of one measurement, and the pause between two, in seconds.
TRIPS, PAUSE = 1_500, 0.002
HEADER = b"AMQP\x00\x00\x09\x01"
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def start(folder):
    process = subprocess.Popen(
        [WARREN, "--log", "error", "serve", "--data-dir", folder, "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0",
         "--http-listen", "127.0.0.1:0", "--set", "prometheus.listen=127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ports = {}
    for line in process.stdout:
        found = re.match(r"(\w+) listening on .*:(\d+)$", line)
        if found:
            ports[found[1]] = int(found[2])
        if line.startswith("Server startup complete"):
            break
    threading.Thread(target=process.stdout.read, daemon=True).start()
    return process, ports


def resident_mib(process):
    with open(f"/proc/{process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(port):
    """Round-trip times in milliseconds: median, 99th percentile, longest."""
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    came = []
    channel.basic_consume(queue, lambda *_: came.append(time.perf_counter()), auto_ack=True)
    times = []
    for _ in range(TRIPS):
        begin = time.perf_counter()
        channel.basic_publish("", queue, b"x" * 100)
        while len(came) <= len(times):
            connection.process_data_events(1)
        times.append((came[len(times)] - begin) * 1000)
        time.sleep(PAUSE)
    connection.close()
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], times[-1]


def connect(port):
    stream = socket.socket()
    stream.bind((f"127.1.{random.randrange(256)}.{random.randrange(1, 255)}", 0))
    stream.settimeout(5)
    stream.connect(("127.0.0.1", port))
    return stream


def malformed(port, count):
    for number in range(count):
        try:
            with connect(port) as stream:
                kind = number % 4
                if kind == 0:
                    stream.sendall(random.randbytes(64))
                elif kind == 1:
                    stream.sendall(HEADER + random.randbytes(512))
                elif kind == 2:
                    stream.sendall(HEADER + b"\x01\x00\x00\x7f\xff\xff\xff")
                else:
                    stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
                stream.settimeout(0.05)
                try:
                    stream.recv(4096)
                except OSError:
                    pass
        except OSError:
            pass


def slow(ports, streams, stopping):
    """Connections that send an octet now and then, and come again when they are closed."""
    def fresh():
        return connect(ports[random.choice(["AMQP", "AMQP", "AMQP", "HTTP"])])
    while not stopping.is_set():
        for index in range(len(streams)):
            if stopping.is_set():
                return
            try:
                if streams[index] is None:
                    streams[index] = fresh()
                streams[index].sendall(b"A")
            except OSError:
                if streams[index] is not None:
                    streams[index].close()
                streams[index] = None
        time.sleep(0.5)


def show(name, process, ports):
    """Measures, and prints it with what the broker holds."""
    memory = resident_mib(process)
    times = measure(ports["AMQP"])
    memory = max(memory, resident_mib(process)) if name.startswith("beside") else memory
    print(f"{name:32}" + "".join(f"{value:7.2f} ms" for value in times) + f"{memory:8.1f} MiB", flush=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        process, ports = start(folder)
        try:
            print(f"{'':32}{'median':>10}{'p99':>10}{'longest':>10}{'resident':>12}", flush=True)
            measure(ports["AMQP"])
            show("honest client alone", process, ports)
            streams, stopping = [None] * SLOW, threading.Event()
            slow_one = threading.Thread(target=slow, args=(ports, streams, stopping))
            slow_one.start()
            while sum(stream is not None for stream in streams) < SLOW * 9 // 10:
                time.sleep(0.1)
            begin = time.time()
            # Another process, so that the honest client's clock runs on its own.
            children = []
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    malformed(ports["AMQP"], MALFORMED // 2)
                    os._exit(0)
                children.append(child)
            show("beside hostile ones", process, ports)
            for child in children:
                os.waitpid(child, 0)
            seconds = time.time() - begin
            stopping.set()
            slow_one.join()
            for stream in filter(None, streams):
                stream.close()
            time.sleep(15)
            show("when they are gone", process, ports)
            print(f"{MALFORMED} malformed connections took {seconds:.0f} s beside {SLOW} slow ones")
        finally:
            process.terminate()
            process.wait()


main()
