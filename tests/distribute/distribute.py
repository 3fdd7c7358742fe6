"""Files to nodes in processes of their own: see `run`. One function for each scenario."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pika

from lab import WARREN, Lab, RABBITMQ, digest, field, until

PAYLOAD_BYTES = int(os.environ.get("PAYLOAD_MB", "300")) * 1_000_000
NODES = ["n1", "n2", "n3", "n4"]
VICTIM = "n3"
KILL_AT = 0.5

passed = failed = 0


def claim(words, is_so, more=""):
    global passed, failed
    if is_so:
        passed += 1
        print(f"ok {words}", flush=True)
    else:
        failed += 1
        print(f"FAILED {words} {more}", flush=True)


def plain_consumer(port, got):
    """An ordinary consumer with a queue of its own; puts the whole body's digest into `got`."""
    import hashlib
    parameters = pika.ConnectionParameters("127.0.0.1", port, heartbeat=0)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.queue_declare("ordinary", durable=True)
    channel.queue_bind("ordinary", "warren.files", "sites")
    got["bound"] = True
    for method, properties, body in channel.consume("ordinary"):
        got["digest"] = hashlib.sha256(body).hexdigest()
        got["content_type"] = properties.content_type
        channel.basic_ack(method.delivery_tag)
        break
    connection.close()


def kill_half_way(lab, piece_count):
    """Kills the victim when a part of its pieces is verified; gives how many it had recorded."""
    wanted = int(piece_count * KILL_AT)
    until(f"{wanted} pieces on {VICTIM}", lambda: lab.verified_pieces(VICTIM) >= wanted)
    lab.nodes[VICTIM].stop(signal.SIGKILL)
    return lab.verified_pieces(VICTIM)


def check_resume(lab, engine):
    """The victim starts again and fetches only what it had not verified."""
    victim = lab.node(VICTIM)
    victim.until_prints("payload complete")
    text = victim.text()
    resumed = field(text, "resumed", "pieces_verified")
    count = field(text, "resumed", "piece_count")
    fetched = field(text, "payload complete", "pieces_fetched")
    claim(f"{engine}: the killed node kept its verified pieces ({resumed} of {count})", 0 < resumed < count)
    claim(f"{engine}: it fetched only the {count - resumed} others", fetched == count - resumed, f"it fetched {fetched}")


def check_inboxes(lab, engine, name, wanted):
    for node in NODES:
        path = lab.inbox(node) / name
        until(f"{path}", path.exists)
    same = [digest(lab.inbox(node) / name) == wanted for node in NODES]
    claim(f"{engine}: all {len(NODES)} inboxes hold {name}", all(same), str(same))


def pika_payload():
    """A large body by basic_publish reaches nodes as a swarm and an ordinary consumer whole."""
    lab = Lab("warren")
    try:
        for node in NODES:
            lab.node(node)
        got = {}
        consumer = threading.Thread(target=plain_consumer, args=(lab.port, got), daemon=True)
        consumer.start()
        until("the ordinary consumer is bound", lambda: got.get("bound"))
        source = lab.make_file("big.bin", PAYLOAD_BYTES)
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", lab.port, heartbeat=0))
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            message_id="big.bin", content_type="application/x-big", delivery_mode=2)
        channel.basic_publish("warren.files", "sites", source.read_bytes(), properties, mandatory=True)
        connection.close()
        lab.nodes[VICTIM].until_prints("fetching")
        count = field(lab.nodes[VICTIM].text(), "fetching", "piece_count")
        kill_half_way(lab, count)
        check_resume(lab, "pika through Warren")
        check_inboxes(lab, "pika through Warren", "big.bin", digest(source))
        consumer.join(240)
        claim("pika through Warren: the ordinary consumer got the whole body", got.get("digest") == digest(source))
        claim("pika through Warren: with its own content type", got.get("content_type") == "application/x-big")
    finally:
        lab.close()


def send_payload(engine):
    """The same with `warren send`: the sender is the origin."""
    lab = Lab(engine)
    try:
        for node in NODES:
            lab.node(node)
        source = lab.make_file("big.bin", PAYLOAD_BYTES)
        outcome = {}

        def send():
            more = ["--wait", "--nodes", len(NODES), "--timeout", "4m"]
            outcome["code"], outcome["report"] = lab.send(source, more=more)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        lab.nodes[VICTIM].until_prints("fetching")
        count = field(lab.nodes[VICTIM].text(), "fetching", "piece_count")
        kill_half_way(lab, count)
        check_resume(lab, f"send through {engine}")
        sender.join(240)
        check_inboxes(lab, f"send through {engine}", "big.bin", digest(source))
        report = outcome.get("report")
        claim(f"send through {engine}: exit code 0 and complete", outcome.get("code") == 0 and report["complete"], str(outcome))
        copies = report["files"][0]["uploaded_bytes"] / PAYLOAD_BYTES
        claim(f"send through {engine}: the origin uploaded {copies:.2f} copies, fewer than nodes", copies < len(NODES))
    finally:
        lab.close()


def small_and_absent(engine):
    """Small files, several groups, a node off line, exit codes, names that are refused."""
    lab = Lab(engine)
    try:
        lab.node("n1", "sites")
        lab.node("n2", "labs.#")
        absent = lab.node("n3", "sites")
        absent.stop()
        small = lab.make_file("small.txt", 12_345)
        code, report = lab.send(small, more=["--wait", "--timeout", "30s"])
        claim(f"{engine}: a small file to those on line", code == 0 and (lab.inbox("n1") / "small.txt").exists(), str(report))
        code, _ = lab.send(small, group="labs.a.b", more=["--wait", "--timeout", "30s"])
        claim(f"{engine}: a group by pattern", code == 0 and (lab.inbox("n2") / "small.txt").exists())
        claim(f"{engine}: and nobody else", not (lab.inbox("n3") / "small.txt").exists())
        lab.node("n3", "sites")
        until("the absent node has it", (lab.inbox("n3") / "small.txt").exists, 60)
        claim(f"{engine}: the node that was away has it", digest(lab.inbox("n3") / "small.txt") == digest(small))
        code, report = lab.send(small, more=["--wait", "--nodes", "9", "--timeout", "2s"])
        claim(f"{engine}: exit code 3 when too few nodes have it", code == 3 and not report["complete"], str(report))
        code, words = lab.send(small, group="nobody")
        claim(f"{engine}: a group without nodes is an error that says so", code == 1 and "nobody" in words, str(words))
        code, words = lab.send(lab.folder / "missing.bin")
        claim(f"{engine}: a missing file is an error that names it", code == 1 and "missing.bin" in words, str(words))
    finally:
        lab.close()


def watched_folder(engine):
    """`warren watch` sends what appears, once, also over a restart."""
    lab = Lab(engine)
    try:
        lab.node("n1")
        folder = lab.folder / "outbox"
        folder.mkdir()
        command = [WARREN, "watch", folder, "--broker", lab.uri, "--group", "sites", "--interval", "300ms"]
        first = lab.start("watch1", command)
        first.until_prints("Watching")
        (folder / "a.txt").write_bytes(b"a" * 1_000)
        first.until_prints('complete "a.txt" on n1')
        (lab.make_file("big", 3_000_000)).rename(folder / "big.bin")
        first.until_prints('complete "big.bin" on n1')
        first.stop()
        (lab.inbox("n1") / "a.txt").unlink()
        (folder / "b.txt").write_bytes(b"b")
        second = lab.start("watch2", command)
        second.until_prints('complete "b.txt" on n1')
        time.sleep(1)
        claim(f"{engine}: a watch sends new files", (lab.inbox("n1") / "big.bin").exists())
        claim(f"{engine}: and none twice", 'sent "a.txt"' not in second.text(), second.text())
        claim(f"{engine}: what was placed and taken away stays away", not (lab.inbox("n1") / "a.txt").exists())
    finally:
        lab.close()


def full_inbox_disk():
    """A full inbox disk fails the file with a reason, and the next file is placed."""
    lab = Lab("warren")
    mount = lab.folder / "tiny"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True)
    try:
        if mounted.returncode != 0:
            print("not run: full_inbox_disk needs to mount a small file system")
            return
        lab.node("n1", inbox=mount)
        large, small = lab.make_file("large.bin", 3_000_000), lab.make_file("small.txt", 1_000)
        code, report = lab.send(large, more=["--wait", "--timeout", "30s"])
        reason = report["files"][0]["nodes"][0]["reason"] or ""
        claim("a full inbox disk is exit code 3 with the reason", code == 3 and "full" in reason, str(report))
        code, _ = lab.send(small, more=["--wait", "--timeout", "30s"])
        claim("and the next file is placed", code == 0 and [p.name for p in mount.iterdir()] == ["small.txt"])
    finally:
        lab.nodes and lab.nodes["n1"].stop()
        if mounted.returncode == 0:
            subprocess.run(["umount", str(mount)])
        lab.close()


SCENARIOS = {
    "pika_payload": pika_payload,
    "send_payload_rabbitmq": lambda: send_payload("rabbitmq"),
    "send_payload_warren": lambda: send_payload("warren"),
    "small_rabbitmq": lambda: small_and_absent("rabbitmq"),
    "small_warren": lambda: small_and_absent("warren"),
    "watch_rabbitmq": lambda: watched_folder("rabbitmq"),
    "watch_warren": lambda: watched_folder("warren"),
    "full_inbox_disk": full_inbox_disk,
}


def main():
    global failed
    has_rabbitmq = os.path.exists("/usr/lib/rabbitmq/bin/rabbitmq-server")
    for name in sys.argv[1:] or SCENARIOS:
        if "rabbitmq" in name and not has_rabbitmq:
            print(f"not run: {name} needs RabbitMQ (Debian package rabbitmq-server)")
            if os.environ.get("WARREN_TEST_RABBITMQ") == "required":
                failed += 1
            continue
        try:
            SCENARIOS[name]()
        except Exception:
            failed += 1
            print(f"FAILED {name}: {traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0 or passed == 0)


main()
