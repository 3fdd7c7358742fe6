#!/usr/bin/env python3
"""Definitions of a real RabbitMQ move into Warren and back, and nothing is lost or changed on the way.

    definitions.py RABBITMQ-SCRIPT WARREN FOLDER

Starts RabbitMQ (Debian's, by tests/check/rabbitmq) with its management plugin, gives it 1,000 queues of every kind with
exchanges, bindings, policies, users and all the rest, and takes its export. That goes into Warren once by `warren ctl`
and once by POST /api/definitions; Warren's exports must say the same, also after a restart, and go back into an empty
RabbitMQ by `rabbitmqctl` and by its API. Prints a line for each check and `N passed, N failed` at the end.
"""

import base64
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

RABBITMQCTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
QUEUES = 1000
VHOSTS = ["/", "orders", "a b/c"]
#: Longest wait for a start or an import, in seconds.
SECONDS = 240

passed = failed = 0
checked_at = time.monotonic()


def check(name, problem):
    """Counts a check; `problem` is empty if it holds."""
    global passed, failed, checked_at
    began, checked_at = checked_at, time.monotonic()
    if problem:
        failed += 1
        print(f"FAILED: {name}: {problem}", flush=True)
    else:
        passed += 1
        print(f"ok: {name} ({checked_at - began:.2f} s)", flush=True)


def free_port(ports=range(20_000, 30_000)):
    """A port below those that the system hands out, so that nobody takes it meanwhile."""
    while True:
        port = random.choice(ports)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) != 0:
                return port


def password_hash(password, salt):
    """As RabbitMQ keeps it: the salt, then SHA-256 of salt and password."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def queue(number):
    """The numberth queue: each kind of argument comes again and again."""
    kinds = [
        {}, {"x-message-ttl": 60000}, {"x-expires": 86400000}, {"x-max-length": 1000}, {"x-max-length-bytes": 10**9},
        {"x-max-priority": 10}, {"x-overflow": "reject-publish"}, {"x-queue-mode": "lazy"}, {"x-queue-version": 2},
        {"x-single-active-consumer": True}, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
        {"x-dead-letter-exchange": "amq.topic", "x-overflow": "reject-publish-dlx", "x-max-length": 5},
        {"x-queue-type": "classic", "x-unknown": {"a": [1, "two", True]}},
    ]
    arguments = dict(kinds[number % len(kinds)])
    if number % 100 == 50:
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-dead-letter-exchange": "amq.fanout"}
    if number % 250 == 75:
        arguments = {"x-queue-type": "stream", "x-max-age": "7D", "x-stream-max-segment-size-bytes": 10**6}
    return {"name": f"queue ä.{number:04}", "vhost": VHOSTS[number % len(VHOSTS)], "durable": True,
            "auto_delete": number % 40 == 13 and "x-queue-type" not in arguments, "arguments": arguments}


def wanted():
    """What RabbitMQ is to have, in its own format."""
    exchanges, bindings, policies, users, permissions, topics = [], [], [], [], [], []
    for vhost in VHOSTS:
        for kind in ("direct", "fanout", "topic", "headers"):
            for number in range(10):
                exchanges.append({"name": f"{kind}.{number}", "vhost": vhost, "type": kind, "durable": True,
                                  "auto_delete": number == 3, "internal": number == 4,
                                  "arguments": {"alternate-exchange": "amq.fanout"} if number == 5 else {}})
        bindings.append({"source": "direct.0", "vhost": vhost, "destination": "topic.1", "destination_type": "exchange",
                         "routing_key": "a.b", "arguments": {"x": 1}})
        # So that the auto-delete ones are in use.
        for kind in ("direct", "fanout", "topic", "headers"):
            bindings.append({"source": f"{kind}.3", "vhost": vhost, "destination": f"{kind}.1",
                             "destination_type": "exchange", "routing_key": "", "arguments": {}})
        for number in range(12):
            policies.append({"name": f"policy {number}", "vhost": vhost, "pattern": rf"^p{number}\.(.*)$",
                             "apply-to": ("queues", "exchanges", "all")[number % 3], "priority": number - 3,
                             "definition": ({"max-length": number, "message-ttl": 1000, "dead-letter-exchange": "x"},
                                            {"alternate-exchange": "amq.direct"},
                                            {"max-length-bytes": 10**7} if number % 2 else {"expires": 3600000})[number % 3]})
    queues = [queue(number) for number in range(QUEUES)]
    for number, made in enumerate(queues):
        bind = {"vhost": made["vhost"], "destination": made["name"], "destination_type": "queue"}
        bindings.append({"source": "topic.0", "routing_key": f"key.{number}.#", "arguments": {}, **bind})
        bindings.append({"source": "headers.0", "routing_key": "", "arguments":
                         {"x-match": "any", "number": number, "text": "ü", "yes": True}, **bind})
    for number in range(40):
        name = f"user.{number}"
        tags = [[], ["management"], ["administrator"], ["monitoring", "own tag"]][number % 4]
        users.append({"name": name, "tags": tags, "limits": {"max-connections": 5} if number == 7 else {},
                      "password_hash": password_hash(f"secret {number}", bytes([1, 2, 3, number])),
                      "hashing_algorithm": "rabbit_password_hashing_sha256"})
        vhost = VHOSTS[number % len(VHOSTS)]
        permissions.append({"user": name, "vhost": vhost, "configure": f"^{name}\\.", "write": ".*", "read": ""})
        if number % 5 == 0:
            topics.append({"user": name, "vhost": vhost, "exchange": "amq.topic", "write": "^a", "read": ".*"})
    users.append({"name": "guest", "tags": ["administrator"], "limits": {}, "hashing_algorithm":
                  "rabbit_password_hashing_sha256", "password_hash": password_hash("guest", b"salt")})
    permissions += [{"user": "guest", "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"} for vhost in VHOSTS]
    parameters = [{"component": "operator_policy", "name": "limits", "vhost": "/", "value":
                   {"pattern": "^op", "definition": {"max-length": 10}, "priority": 1, "apply-to": "queues"}},
                  {"component": "vhost-limits", "name": "limits", "vhost": "orders", "value":
                   {"max-queues": 5000, "max-connections": 100}}]
    return {"rabbit_version": "3.10.8", "vhosts": [{"name": name} for name in VHOSTS], "users": users,
            "permissions": permissions, "topic_permissions": topics, "parameters": parameters, "policies": policies,
            "global_parameters": [{"name": "mine", "value": "text"}],
            "exchanges": exchanges, "queues": queues, "bindings": bindings}


def normal(definitions):
    """What of an export must be the same everywhere, in one order."""
    kept = {}
    for kind in ("vhosts", "users", "permissions", "topic_permissions", "parameters", "policies", "global_parameters",
                 "exchanges", "queues", "bindings"):
        entries = definitions[kind]
        if kind == "vhosts":
            entries = [{"name": entry["name"]} for entry in entries]
        if kind == "global_parameters":
            # RabbitMQ's own name and number.
            entries = [entry for entry in entries if entry["name"] not in ("cluster_name", "internal_cluster_id")]
        if kind == "exchanges":
            # rabbitmqctl leaves out internal exchanges, and says of no other that it is none; the API does both.
            entries = [dict({"internal": False}, **entry) for entry in entries]
        if kind == "queues":
            # The API leaves it to the arguments to say which type a queue has.
            entries = [dict({"type": entry["arguments"].get("x-queue-type", "classic")}, **entry) for entry in entries]
        if kind == "users":
            entries = [dict(entry, tags=sorted(entry["tags"])) for entry in entries]
        kept[kind] = sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True))
    return kept


def difference(expected, found):
    """The first difference of two exports, or nothing."""
    expected, found = normal(expected), normal(found)
    for kind, entries in expected.items():
        missing = [entry for entry in entries if entry not in found[kind]]
        surplus = [entry for entry in found[kind] if entry not in entries]
        if missing or surplus:
            return f"{kind}: missing {len(missing)} {missing[:2]}, too many {len(surplus)} {surplus[:2]}"
    return ""


def http(port, path, body=None, user="guest", password="guest"):
    """A call of a management API: the parsed answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", data,
                                     {"Content-Type": "application/json"}, method="GET" if body is None else "POST")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class RabbitMq:
    """Debian's RabbitMQ with its management plugin."""

    def __init__(self, script, folder):
        # Its nodes' link listens 20,000 above, which must lie below those that the system hands out, too.
        self.folder, self.port, self.http_port = folder, free_port(range(10_000, 12_000)), free_port()
        folder.mkdir()
        (folder / "plugins").write_text("[rabbitmq_management].")
        (folder / "rabbitmq.conf").write_text(
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.http_port}\n")
        out = open(folder / "out", "wb")
        self.process = subprocess.Popen([script, folder, str(self.port)], stdout=out, stderr=out, start_new_session=True)
        self.node = f"check{self.port}@localhost"
        deadline = time.monotonic() + SECONDS
        while not self.is_up():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"RabbitMQ did not start:\n{(folder / 'out').read_text()}")
            time.sleep(1)

    def is_up(self):
        try:
            return bool(http(self.http_port, "overview"))
        except (OSError, urllib.error.URLError):
            return False

    def ctl(self, *words):
        environment = dict(os.environ, HOME=str(self.folder / "home"), ERL_EPMD_ADDRESS="127.0.0.1")
        done = subprocess.run([RABBITMQCTL, "-q", "-n", self.node, "-t", str(SECONDS), *words], env=environment,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"rabbitmqctl {words[0]}: {done.stdout}{done.stderr}")

    def export(self, name):
        path = self.folder / name
        self.ctl("export_definitions", str(path))
        return json.loads(path.read_text())

    def empty(self):
        self.ctl("stop_app")
        self.ctl("reset")
        self.ctl("start_app")
        self.ctl("await_startup")
        while not self.is_up():
            time.sleep(0.5)

    def stop(self):
        self.ctl("stop")
        self.process.wait(SECONDS)


class Warren:
    """A built Warren."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        folder.mkdir()
        self.start()

    def start(self):
        out = self.folder / "out"
        self.process = subprocess.Popen(
            [self.binary, "--log", "warn", "serve", "--data-dir", self.folder / "data", "--listen", "127.0.0.1:0",
             "--peer-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"], stdout=open(out, "wb"), stderr=subprocess.STDOUT)
        deadline = time.monotonic() + SECONDS
        while "Server startup complete" not in out.read_text():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"Warren did not start:\n{out.read_text()}")
            time.sleep(0.1)
        line = next(line for line in out.read_text().splitlines() if line.startswith("HTTP listening"))
        self.http_port = int(line.rsplit(":", 1)[1])

    def ctl(self, *words):
        environment = dict(os.environ, WARREN_HTTP_URL=f"http://127.0.0.1:{self.http_port}")
        return subprocess.run([self.binary, "ctl", *words], env=environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)

    def stop(self):
        """Ends it; what it says if that was not clean."""
        self.process.terminate()
        code = self.process.wait(SECONDS)
        said = (self.folder / "out").read_text()
        return f"exit code {code}: {said[-300:]}" if code or "panicked at" in said else ""


def main():
    script, binary, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rabbit, warrens = RabbitMq(script, folder / "rabbitmq"), []
    try:
        source = folder / "wanted.json"
        source.write_text(json.dumps(wanted()))
        rabbit.ctl("import_definitions", str(source))
        theirs = rabbit.export("export.json")
        check("RabbitMQ has all of it", "" if len(theirs["queues"]) == QUEUES else f"{len(theirs['queues'])} queues")
        export = rabbit.folder / "export.json"

        by_ctl = Warren(binary, folder / "by-ctl")
        warrens.append(by_ctl)
        done = by_ctl.ctl("import_definitions", str(export))
        check("warren ctl import_definitions", done.returncode and done.stdout + done.stderr)
        ours = folder / "ours.json"
        done = by_ctl.ctl("export_definitions", str(ours))
        check("warren ctl export_definitions", done.returncode and done.stdout + done.stderr)
        check("Warren's export says the same", difference(theirs, json.loads(ours.read_text())))
        done = by_ctl.ctl("import_definitions", str(export))
        check("importing it again changes nothing", difference(theirs, http(by_ctl.http_port, "definitions")))

        by_post = Warren(binary, folder / "by-post")
        warrens.append(by_post)
        theirs_by_api = http(rabbit.http_port, "definitions")
        http(by_post.http_port, "definitions", theirs_by_api)
        check("POST /api/definitions", difference(theirs_by_api, http(by_post.http_port, "definitions")))
        whoami = http(by_post.http_port, "whoami", user="user.2", password="secret 2")
        check("a user logs in by RabbitMQ's hash", "" if whoami["name"] == "user.2" else whoami)

        check("a clean stop", by_ctl.stop())
        by_ctl.start()
        check("a restart keeps it", difference(theirs, http(by_ctl.http_port, "definitions")))

        rabbit.empty()
        rabbit.ctl("import_definitions", str(ours))
        check("RabbitMQ takes Warren's export by rabbitmqctl", difference(theirs, rabbit.export("again.json")))
        rabbit.empty()
        http(rabbit.http_port, "definitions", http(by_post.http_port, "definitions"))
        check("RabbitMQ takes it by its API", difference(theirs_by_api, http(rabbit.http_port, "definitions")))
    finally:
        for warren in warrens:
            check("a clean stop", warren.stop())
        rabbit.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
