#!/usr/bin/env python3
"""Compares the pages of /metrics with what RabbitMQ's plugin gave.

    compare.py AMQP-PORT HTTP-PORT PROMETHEUS-PORT

Makes some traffic on queues of each kind, then reads every page and checks: each family that RabbitMQ has is there,
with its kind, help text and labels (those of Warren's own are allowed beside them where RabbitMQ 4 has them); the
format is right to the letter; what the overview dashboard asks for has values; and the numbers are those of the traffic.
"""

import re
import sys
import time
import urllib.request
from pathlib import Path

import pika

AMQP, HTTP, PROMETHEUS = (int(port) for port in sys.argv[1:4])
HERE = Path(__file__).parent
#: Labels that RabbitMQ 4 has and 3.10 has not.
NEWER_LABELS = {"rabbitmq_endpoint", "product_name", "product_version"}
#: Families of queues that RabbitMQ's Raft has; nothing here has a Raft.
RAFT = re.compile(r"rabbitmq_(detailed_)?raft_")
FAMILIES = [
    "connection_churn_metrics", "node_coarse_metrics", "node_metrics", "node_persister_metrics", "auth_attempt_metrics",
    "queue_coarse_metrics", "queue_consumer_count", "queue_metrics", "channel_metrics", "channel_exchange_metrics",
    "channel_process_metrics", "channel_queue_metrics", "channel_queue_exchange_metrics", "connection_coarse_metrics",
    "connection_metrics", "ra_metrics", "vhost_status", "exchange_bindings", "exchange_names",
]
#: What the panels of the public dashboard "RabbitMQ-Overview" are made of.
DASHBOARD = """
build_info identity_info erlang_uptime_seconds connections channels queues consumers connections_opened_total
connections_closed_total channels_opened_total channels_closed_total queues_declared_total queues_created_total
queues_deleted_total queue_messages_ready queue_messages_unacked process_resident_memory_bytes resident_memory_limit_bytes
process_open_fds process_max_fds process_open_tcp_sockets process_max_tcp_sockets disk_space_available_bytes
disk_space_available_limit_bytes message_size_bytes_bucket message_size_bytes_sum message_size_bytes_count global_publishers
global_consumers global_messages_received_total global_messages_received_confirm_total global_messages_confirmed_total
global_messages_routed_total global_messages_unroutable_dropped_total global_messages_unroutable_returned_total
global_messages_delivered_total global_messages_delivered_consume_auto_ack_total
global_messages_delivered_consume_manual_ack_total global_messages_delivered_get_auto_ack_total
global_messages_delivered_get_manual_ack_total global_messages_get_empty_total global_messages_redelivered_total
global_messages_acknowledged_total global_messages_dead_lettered_expired_total
global_messages_dead_lettered_rejected_total global_messages_dead_lettered_maxlen_total
global_messages_dead_lettered_delivery_limit_total global_messages_dead_lettered_confirmed_total
alarms_memory_used_watermark alarms_free_disk_space_watermark channel_messages_published_total
""".split()

passed = failed = 0


def check(name, is_so, detail=""):
    global passed, failed
    if is_so:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {name}: {detail}", flush=True)


def page(path, port=PROMETHEUS):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        kind = answer.headers["content-type"]
        check(f"{path} says what it is", kind == "text/plain; version=0.0.4", kind)
        return answer.read().decode()


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$')


def parse(text, name):
    """Families by name, and samples as (name, labels, value); what is not in the format is told."""
    families, samples, current, wrong = {}, [], None, []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ", 3)
            if family in families:
                wrong.append(f"twice: {line}")
            current = families[family] = {"kind": kind, "help": "", "labels": set(), "name": family}
        elif line.startswith("# HELP "):
            current["help"] = line.split(" ", 3)[3]
        else:
            found = SAMPLE.match(line)
            base = found and (current["name"] == found[1] or (
                current["kind"] == "histogram" and found[1].startswith(current["name"] + "_")))
            if not base:
                wrong.append(line)
                continue
            labels = dict(re.findall(r'([a-zA-Z_0-9]+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
            float(found[3])
            current["labels"].add(",".join(sorted(labels)))
            samples.append((found[1], labels, float(found[3])))
    check(f"{name} is in the format", not wrong, wrong[:3])
    series = [(sample, tuple(sorted(labels.items()))) for sample, labels, _ in samples]
    check(f"{name} has each series once", len(series) == len(set(series)))
    return families, samples


def compare(which, families):
    for line in (HERE / "families.tsv").read_text().splitlines():
        of, family, kind, labels, text = line.split("\t")
        if of != which:
            continue
        found = families.get(family)
        if found is None:
            check(f"{which} has {family}", False, "it is missing")
            continue
        check(f"{which}: kind of {family}", found["kind"] == kind, f"{found['kind']}, not {kind}")
        check(f"{which}: help of {family}", found["help"] == text, found["help"])
        wanted = set(labels.split(";"))
        got = {",".join(sorted(set(filter(None, each.split(","))) - NEWER_LABELS)) for each in found["labels"]}
        is_unknown = family.endswith("queue_head_message_timestamp") or RAFT.match(family)
        check(f"{which}: labels of {family}", is_unknown or got == wanted, f"{got}, not {wanted}")


def traffic():
    """A connection with publishers and consumers; it stays open."""
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", AMQP))
    channel = connection.channel()
    channel.confirm_delivery()
    for kind in ("classic", "quorum", "stream"):
        channel.queue_declare(f"m.{kind}", durable=True, arguments={"x-queue-type": kind})
    channel.queue_declare("m.full", arguments={"x-max-length": 2, "x-dead-letter-exchange": "amq.fanout"})
    channel.queue_declare("m.stamped")
    with urllib.request.urlopen(urllib.request.Request(
            f"http://127.0.0.1:{HTTP}/api/exchanges/%2F/amq.default/publish", method="POST",
            headers={"Authorization": "Basic Z3Vlc3Q6Z3Vlc3Q="},
            data=b'{"properties": {"timestamp": 12}, "routing_key": "m.stamped", "payload": "x", "payload_encoding": "string"}')) as done:
        check("a message with a timestamp", b"true" in done.read())
    channel.queue_declare("m.gone")
    channel.queue_delete("m.gone")
    for number in range(10):
        for kind in ("classic", "quorum", "stream", "full"):
            channel.basic_publish("", f"m.{kind}", b"x" * 500, pika.BasicProperties(delivery_mode=2))
    try:
        channel.basic_publish("amq.topic", "nowhere", b"", mandatory=True)
    except pika.exceptions.UnroutableError:
        pass
    channel.basic_publish("amq.topic", "nowhere", b"")
    fetched, _, _ = channel.basic_get("m.classic")
    channel.basic_nack(fetched.delivery_tag)
    channel.basic_get("m.classic", auto_ack=True)
    channel.basic_get("m.full", auto_ack=True)
    channel.basic_get("m.full", auto_ack=True)
    channel.basic_get("m.full", auto_ack=True)
    consumer = connection.channel()
    consumer.basic_qos(prefetch_count=5)
    taken = []
    consumer.basic_consume("m.classic", lambda *delivery: taken.append(delivery[1].delivery_tag))
    consumer.basic_consume("m.quorum", lambda *_: None, auto_ack=True)
    while len(taken) < 5:
        connection.process_data_events(1)
    for tag in taken[:3]:
        consumer.basic_ack(tag)
    end = time.time() + 10
    while len(taken) < 8 and time.time() < end:
        connection.process_data_events(0.1)
    return connection


def numbers(samples):
    def value(name, **labels):
        found = [v for n, of, v in samples if n == name and all(of.get(k) == l for k, l in labels.items())]
        return found[0] if len(found) == 1 else found

    classic = {"protocol": "amqp091", "queue_type": "rabbit_classic_queue"}
    expected = [
        ("rabbitmq_connections", {}, 1), ("rabbitmq_channels", {}, 2), ("rabbitmq_queues", {}, 5),
        ("rabbitmq_consumers", {}, 2), ("rabbitmq_global_publishers", {}, 1),
        ("rabbitmq_queues_created_total", {}, 6), ("rabbitmq_queues_deleted_total", {}, 1),
        ("rabbitmq_global_messages_received_total", {}, 42), ("rabbitmq_global_messages_received_confirm_total", {}, 42),
        ("rabbitmq_global_messages_confirmed_total", {}, 42), ("rabbitmq_global_messages_routed_total", {}, 40),
        ("rabbitmq_global_messages_unroutable_returned_total", {}, 1),
        ("rabbitmq_global_messages_unroutable_dropped_total", {}, 1),
        ("rabbitmq_global_messages_acknowledged_total", classic, 3),
        ("rabbitmq_global_messages_delivered_get_manual_ack_total", classic, 1),
        ("rabbitmq_global_messages_delivered_get_auto_ack_total", classic, 3),
        ("rabbitmq_global_messages_get_empty_total", classic, 1),
        ("rabbitmq_global_messages_delivered_consume_auto_ack_total",
         {"queue_type": "rabbit_quorum_queue"}, 10),
        ("rabbitmq_global_messages_dead_lettered_maxlen_total",
         {"queue_type": "rabbit_classic_queue", "dead_letter_strategy": "at_most_once"}, 8),
        ("rabbitmq_message_size_bytes_bucket", {"le": "1000"}, 42), ("rabbitmq_message_size_bytes_bucket", {"le": "100"}, 2),
        ("rabbitmq_message_size_bytes_count", {}, 42), ("rabbitmq_message_size_bytes_sum", {}, 20000),
        ("rabbitmq_channel_messages_unconfirmed", {}, 0), ("rabbitmq_queue_messages_unacked", {}, 5),
        ("rabbitmq_alarms_memory_used_watermark", {}, 0),
    ]
    for name, labels, wanted in expected:
        got = value(name, **labels)
        check(f"{name}{labels or ''}", got == wanted, f"{got}, not {wanted}")
    for name in ("rabbitmq_io_sync_ops_total", "rabbitmq_process_resident_memory_bytes", "rabbitmq_process_open_fds",
                 "rabbitmq_disk_space_available_bytes", "rabbitmq_connection_incoming_bytes_total",
                 "rabbitmq_erlang_uptime_seconds"):
        got = value(name)
        check(f"{name} is measured", isinstance(got, float) and got > 0, got)
    syncs = value("warren_disk_sync_seconds_count", area="journal")
    check("syncs of the journal are timed", isinstance(syncs, float) and syncs > 0, syncs)


#: What the traffic comes to by channel and exchange, by channel and queue, and by all three.
BY_OBJECT = [
    ("channel_messages_published_total", {"exchange": ""}, 40), ("channel_messages_published_total", {"exchange": "amq.topic"}, 2),
    ("channel_messages_confirmed_total", {"exchange": ""}, 40), ("channel_messages_confirmed_total", {"exchange": "amq.topic"}, 2),
    ("channel_messages_unroutable_returned_total", {"exchange": "amq.topic"}, 1),
    ("channel_messages_unroutable_dropped_total", {"exchange": "amq.topic"}, 1),
    ("channel_messages_unroutable_dropped_total", {"exchange": ""}, 0),
    ("queue_messages_published_total", {"queue": "m.stream", "exchange": ""}, 10),
    ("queue_messages_published_total", {"queue": "m.full", "exchange": ""}, 10),
    ("channel_messages_delivered_ack_total", {"queue": "m.classic"}, 8),
    ("channel_messages_acked_total", {"queue": "m.classic"}, 3),
    ("channel_messages_delivered_total", {"queue": "m.quorum"}, 10),
    ("channel_get_total", {"queue": "m.full"}, 2), ("channel_get_empty_total", {"queue": "m.full"}, 1),
]


def by_object(samples, is_open):
    """Sums over channels; those with a name as long as their channels are open, then what is of queues at none."""
    for name, labels, wanted in BY_OBJECT:
        found = [(of["channel"], v) for n, of, v in samples
                 if n == f"rabbitmq_{name}" and all(of[k] == value for k, value in labels.items())]
        if is_open:
            named = sum(v for channel, v in found if channel)
            check(f"{name}{labels} of channels", named == wanted, found)
        elif "queue" in labels:
            check(f"{name}{{{labels['queue']}}} outlives its channel", sum(v for _, v in found) == wanted, found)
            check(f"{name}{labels} is nobody's then", all(not channel for channel, _ in found), found)
        else:
            check(f"{name}{labels} goes with its channel", not found, found)


def main():
    connection = traffic()
    # What was counted is told at the end of a batch.
    time.sleep(0.2)
    families, samples = parse(page("/metrics"), "/metrics")
    compare("metrics", families)
    numbers(samples)
    names = {name for name, _, _ in samples}
    for name in DASHBOARD:
        check(f"the dashboard's {name}", f"rabbitmq_{name}" in names, "no sample")
    families, samples = parse(page("/metrics/per-object"), "/metrics/per-object")
    compare("per-object", families)
    depth = [v for n, of, v in samples if n == "rabbitmq_queue_messages_ready" and of.get("queue") == "m.stream"]
    check("a queue by its name", depth == [10], depth)
    by_object(samples, is_open=True)
    heads = [of["queue"] for n, of, _ in samples if n == "rabbitmq_queue_head_message_timestamp"]
    check("only who publishes with a timestamp has one", heads == ["m.stamped"], heads)
    query = "&".join(f"family={family}" for family in FAMILIES)
    families, _ = parse(page(f"/metrics/detailed?{query}"), "/metrics/detailed")
    compare("detailed", families)
    families, samples = parse(page("/metrics/detailed?family=queue_coarse_metrics&vhost=none"), "of no vhost")
    queues = [name for name, of, _ in samples if "queue" in of]
    check("another vhost's queues are not shown", not queues, queues[:3])
    _, samples = parse(page("/metrics/detailed?family=queue_coarse_metrics&family=channel_queue_metrics&queue=%5Em.s"), "of some queues")
    queues = {of["queue"] for _, of, _ in samples if "queue" in of}
    check("queues whose names match", queues == {"m.stream", "m.stamped"}, queues)
    families, _ = parse(page("/metrics/memory-breakdown"), "/metrics/memory-breakdown")
    check("kinds of memory", sum(name.startswith("rabbitmq_memory_") for name in families) == 26, set(families))
    families, _ = parse(page("/metrics/detailed"), "of no family")
    check("no family, no figures", set(families) == {"rabbitmq_build_info", "rabbitmq_identity_info"}, set(families))
    families, _ = parse(page("/metrics", HTTP), "/metrics of the HTTP listener")
    check("the HTTP listener has the page too", "rabbitmq_queues" in families)
    connection.close()
    time.sleep(0.2)
    _, samples = parse(page("/metrics"), "/metrics at the end")
    left = {n: v for n, _, v in samples if n in ("rabbitmq_connections", "rabbitmq_channels", "rabbitmq_global_publishers")}
    check("nobody is left", set(left.values()) == {0}, left)
    _, samples = parse(page("/metrics/per-object"), "/metrics/per-object at the end")
    by_object(samples, is_open=False)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
