"""Processes of a distribution test: brokers and nodes in a temporary folder, ended with the test."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

WARREN = os.environ["WARREN"]
RABBITMQ = os.environ["RABBITMQ"]
WAIT_S = 240


def until(what, is_so, wait_s=WAIT_S):
    """Waits until something is so and gives what that was; fails if it never is."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"never so within {wait_s} s: {what}")


def free_port():
    """A port that is free, as is RabbitMQ's second one, 20,000 above it: below those the system hands out."""
    for _ in range(100):
        port = random.randrange(10_100, 12_700)
        with socket.socket() as listener, socket.socket() as second:
            try:
                listener.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 20_000))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


def digest(path):
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


class Process:
    """A process with its output in files."""

    def __init__(self, folder, name, command):
        self.name = name
        self.out = folder / f"{name}.out"
        self.log = folder / f"{name}.log"
        with open(self.out, "ab") as out, open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command], stdout=out, stderr=log, stdin=subprocess.DEVNULL,
                cwd=folder, start_new_session=True)

    def text(self):
        """What it printed, log included, without terminal colours."""
        both = self.out.read_text(errors="replace") + self.log.read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", both)

    def until_prints(self, words):
        def is_so():
            assert self.child.poll() is None or words in self.text(), f"{self.name} ended:\n{self.text()}"
            return words in self.text()
        until(f"{self.name} prints {words!r}", is_so)

    def stop(self, how=signal.SIGTERM):
        if self.child.poll() is None:
            os.killpg(self.child.pid, how)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
        return self.child.returncode


class Lab:
    """One broker and its nodes."""

    def __init__(self, engine):
        self.folder = Path(tempfile.mkdtemp(prefix="warren-distribute-"))
        self.processes = []
        self.nodes = {}
        port = free_port()
        self.port = port
        self.uri = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        if engine == "warren":
            # What is fetched before the manifest comes does not survive a kill: what a killed node keeps is counted without.
            self.broker = self.start("broker", [
                WARREN, "serve", "--data-dir", self.folder / "broker", "--listen", f"127.0.0.1:{port}",
                "--peer-listen", "0.0.0.0:0", "--http-listen", "127.0.0.1:0", "--set", "payload.early=false"])
            self.broker.until_prints("Server startup complete")
        else:
            self.broker = self.start("rabbitmq", [RABBITMQ, self.folder / "rabbitmq", port])
            until("RabbitMQ greets", self.greets)

    def greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
                connection.settimeout(2)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def start(self, name, command):
        process = Process(self.folder, name, command)
        self.processes.append(process)
        return process

    def inbox(self, name):
        return self.folder / name / "inbox"

    def node(self, name, group="sites", inbox=None):
        """Starts a node, or starts it again, and waits until it is ready."""
        inbox = inbox or self.inbox(name)
        log = self.folder / f"{name}.log"
        for old in (log, log.with_suffix(".out")):
            if old.exists():
                old.rename(old.with_suffix(old.suffix + ".before"))
        process = self.start(name, [
            WARREN, "node", "--broker", self.uri, "--name", name, "--group", group, "--inbox", inbox,
            "--data-dir", self.folder / name / "data", "--peer-listen", "127.0.0.1:0"])
        self.nodes[name] = process
        process.until_prints("ready")
        return process

    def send(self, *files, group="sites", more=()):
        """`warren send`; gives its exit code and its report."""
        command = [WARREN, "--log", "warn", "send", *files, "--broker", self.uri, "--group", group, "--json", *more]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=WAIT_S)
        assert done.stdout or done.returncode, done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    def make_file(self, name, size):
        path = self.folder / name
        with open(path, "wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
            file.write(os.urandom(size & ((1 << 20) - 1)))
        return path

    def verified_pieces(self, name):
        """Pieces that the node has recorded as verified: marks of four bytes, zero for what is missing."""
        count = 0
        for file in (self.folder / name / "data" / "payloads").glob("*/partial/*.have"):
            try:
                marks = file.read_bytes()
            except FileNotFoundError:
                continue
            count = max(count, sum(marks[at:at + 4] != bytes(4) for at in range(0, len(marks), 4)))
        return count

    def close(self):
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def field(text, message, name):
    """The number of a log line's field."""
    lines = [line for line in text.splitlines() if message in line]
    assert lines, f"no line with {message!r} in:\n{text}"
    return int(re.search(rf"\b{name}=(\d+)", lines[-1]).group(1))
