"""The tutorials' patterns with pika's blocking connection, and what an ordinary program does beside."""

import hashlib
import threading

import pika
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from patterns import URL, pattern, run, unique


def connect():
    return pika.BlockingConnection(pika.URLParameters(URL))


def take(channel, queue, count, auto_ack=True, seconds=20):
    """The next `count` messages of a queue as (method, properties, body)."""
    taken = []
    for method, properties, body in channel.consume(
        queue, auto_ack=auto_ack, inactivity_timeout=seconds
    ):
        assert method is not None, f"only {len(taken)} of {count} messages came"
        taken.append((method, properties, body))
        if len(taken) == count:
            break
    channel.cancel()
    return taken


def depth(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


@pattern
def work_queue():
    """Two workers share a durable queue; what one leaves unacknowledged, the other gets."""
    queue = unique("work")
    producer = connect()
    channel = producer.channel()
    channel.queue_declare(queue, durable=True)

    done, lock, all_done = [], threading.Lock(), threading.Event()
    left = threading.Event()

    def worker(name):
        connection = connect()
        work = connection.channel()
        work.basic_qos(prefetch_count=1)
        seen = 0
        for method, properties, body in work.consume(queue, inactivity_timeout=0.2):
            if method is None:
                if all_done.is_set():
                    break
                continue
            assert properties.delivery_mode == 2
            seen += 1
            if name == "leaves" and seen == 3:
                # Dies with this one in its hands: it must come again, marked.
                break
            if name == "stays" and seen == 20:
                # However slow the other one is, some are left for it.
                assert left.wait(30)
            with lock:
                done.append((body, method.redelivered))
                if len(done) == 40:
                    all_done.set()
            work.basic_ack(method.delivery_tag)
        connection.close()
        left.set()

    threads = [threading.Thread(target=worker, args=(name,)) for name in ("leaves", "stays")]
    for thread in threads:
        thread.start()
    for number in range(40):
        channel.basic_publish(
            "", queue, f"task {number}".encode(), pika.BasicProperties(delivery_mode=2)
        )
    assert all_done.wait(30), f"{len(done)} of 40 tasks done"
    for thread in threads:
        thread.join(10)
    assert sorted(body for body, _ in done) == sorted(
        f"task {number}".encode() for number in range(40)
    )
    assert sum(redelivered for _, redelivered in done) == 1
    assert depth(channel, queue) == 0
    channel.queue_delete(queue)
    producer.close()


@pattern
def publish_subscribe():
    """Every subscriber of a fanout exchange gets everything, in order."""
    exchange = unique("logs")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "fanout")
    queues = []
    for _ in range(3):
        queue = channel.queue_declare("", exclusive=True).method.queue
        assert queue.startswith("amq.gen-"), queue
        channel.queue_bind(queue, exchange)
        queues.append(queue)
    expected = [f"line {number}".encode() for number in range(100)]
    for body in expected:
        channel.basic_publish(exchange, "ignored", body)
    for queue in queues:
        assert [body for _, _, body in take(channel, queue, 100)] == expected
    channel.exchange_delete(exchange)
    connection.close()


@pattern
def routing():
    """A direct exchange gives each queue the severities that it asked for."""
    exchange = unique("severities")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "direct")
    wanted = {"errors": ["error"], "all": ["info", "warning", "error"]}
    queues = {}
    for name, severities in wanted.items():
        queues[name] = channel.queue_declare("", exclusive=True).method.queue
        for severity in severities:
            channel.queue_bind(queues[name], exchange, severity)
    sent = [("info", b"1"), ("error", b"2"), ("debug", b"3"), ("warning", b"4"), ("error", b"5")]
    for severity, body in sent:
        channel.basic_publish(exchange, severity, body)
    for name, severities in wanted.items():
        expected = [(key, body) for key, body in sent if key in severities]
        got = take(channel, queues[name], len(expected))
        assert [(method.routing_key, body) for method, _, body in got] == expected
        assert all(method.exchange == exchange for method, _, _ in got)
        assert depth(channel, queues[name]) == 0
    channel.exchange_delete(exchange)
    connection.close()


@pattern
def topics():
    """Words, `*` and `#` of a topic exchange."""
    exchange = unique("topics")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic")
    wanted = {
        ("*.orange.*",): ["quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox"],
        ("*.*.rabbit", "lazy.#"): [
            "quick.orange.rabbit",
            "lazy.orange.elephant",
            "lazy.brown.fox",
            "lazy.pink.rabbit",
            "lazy",
        ],
        ("#",): None,
    }
    queues = {}
    for keys in wanted:
        queues[keys] = channel.queue_declare("", exclusive=True).method.queue
        for key in keys:
            channel.queue_bind(queues[keys], exchange, key)
    sent = [
        "quick.orange.rabbit",
        "lazy.orange.elephant",
        "quick.orange.fox",
        "lazy.brown.fox",
        "lazy.pink.rabbit",
        "quick.brown.fox",
        "lazy",
        "orange",
    ]
    for key in sent:
        channel.basic_publish(exchange, key, key.encode())
    for keys, expected in wanted.items():
        expected = sent if expected is None else expected
        got = [body.decode() for _, _, body in take(channel, queues[keys], len(expected))]
        assert got == expected, (keys, got)
        assert depth(channel, queues[keys]) == 0
    channel.exchange_delete(exchange)
    connection.close()


@pattern
def headers():
    """A headers exchange with `all` and `any`."""
    exchange = unique("headers")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "headers")
    queues = {}
    for match in ("all", "any"):
        queues[match] = channel.queue_declare("", exclusive=True).method.queue
        arguments = {"x-match": match, "format": "pdf", "pages": 3}
        channel.queue_bind(queues[match], exchange, arguments=arguments)
    for body, table in (
        (b"both", {"format": "pdf", "pages": 3}),
        (b"one", {"format": "pdf", "pages": 4}),
        (b"none", {"format": "zip"}),
    ):
        channel.basic_publish(exchange, "", body, pika.BasicProperties(headers=table))
    assert [body for _, _, body in take(channel, queues["all"], 1)] == [b"both"]
    assert [body for _, _, body in take(channel, queues["any"], 2)] == [b"both", b"one"]
    assert depth(channel, queues["all"]) == depth(channel, queues["any"]) == 0
    channel.exchange_delete(exchange)
    connection.close()


@pattern
def rpc():
    """Requests and replies with an exclusive reply queue and correlation ids."""
    queue = unique("rpc")
    ready = threading.Event()

    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    def server():
        connection = connect()
        channel = connection.channel()
        channel.queue_declare(queue)
        channel.basic_qos(prefetch_count=1)
        ready.set()
        for method, properties, body in channel.consume(queue, inactivity_timeout=20):
            if method is None or body == b"stop":
                break
            channel.basic_publish(
                "",
                properties.reply_to,
                str(fibonacci(int(body))).encode(),
                pika.BasicProperties(correlation_id=properties.correlation_id),
            )
            channel.basic_ack(method.delivery_tag)
        connection.close()

    thread = threading.Thread(target=server)
    thread.start()
    assert ready.wait(20)
    connection = connect()
    channel = connection.channel()
    replies = channel.queue_declare("", exclusive=True).method.queue
    for n in range(15):
        channel.basic_publish(
            "", queue, str(n).encode(), pika.BasicProperties(reply_to=replies, correlation_id=f"c{n}")
        )
    got = [
        (properties.correlation_id, int(body)) for _, properties, body in take(channel, replies, 15)
    ]
    assert got == [(f"c{n}", fibonacci(n)) for n in range(15)]
    channel.basic_publish("", queue, b"stop")
    thread.join(20)
    assert not thread.is_alive()
    channel.queue_delete(queue)
    connection.close()


@pattern
def confirms():
    """Publisher confirms: each publish waits for its own; what cannot be routed is returned."""
    queue = unique("confirms")
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True)
    for number in range(50):
        channel.basic_publish(
            "", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2), mandatory=True
        )
    assert depth(channel, queue) == 50
    assert [body for _, _, body in take(channel, queue, 50)] == [
        str(number).encode() for number in range(50)
    ]
    try:
        channel.basic_publish("", unique("nobody"), b"lost", mandatory=True)
    except UnroutableError as error:
        (returned,) = error.messages
        assert returned.body == b"lost"
        assert returned.method.reply_code == 312
        assert returned.method.reply_text == "NO_ROUTE"
    else:
        raise AssertionError("an unroutable mandatory message was taken")
    channel.queue_delete(queue)
    connection.close()


@pattern
def get_and_reject():
    """Polling, and putting back or dropping what was got."""
    queue = unique("get")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue)
    assert channel.basic_get(queue) == (None, None, None)
    for body in (b"one", b"two", b"three"):
        channel.basic_publish("", queue, body)
    method, _, body = channel.basic_get(queue)
    assert (body, method.message_count, method.redelivered) == (b"one", 2, False)
    channel.basic_reject(method.delivery_tag, requeue=True)
    method, _, body = channel.basic_get(queue)
    assert (body, method.redelivered) == (b"one", True)
    channel.basic_nack(method.delivery_tag, requeue=False)
    method, _, body = channel.basic_get(queue)
    assert (body, method.message_count) == (b"two", 1)
    channel.basic_ack(method.delivery_tag)
    assert channel.queue_purge(queue).method.message_count == 1
    channel.queue_delete(queue)
    connection.close()


@pattern
def properties_come_back():
    """All properties and table types, as they were sent."""
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "text": "ä",
            "bytes": b"\x00\xff",
            "int": -1,
            "big": 2**40,
            "true": True,
            "none": None,
            "list": [1, "two", [False]],
            "table": {"in": {"deep": 1}},
        },
        delivery_mode=1,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1_000_000_000,
        type="t",
        user_id="guest",
        app_id="a",
        cluster_id="cl",
    )
    channel.basic_publish("", queue, b"body", sent)
    ((_, got, body),) = take(channel, queue, 1)
    assert body == b"body"
    assert got == sent, (got, sent)
    connection.close()


@pattern
def large_bodies():
    """Bodies around every size at which something changes, to two queues, octet by octet."""
    exchange = unique("large")
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare(exchange, "fanout")
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(2)]
    for queue in queues:
        channel.queue_bind(queue, exchange)
    sizes = [0, 1, 131_064, 131_065, 1_048_575, 1_048_576, 1_048_577, 5_000_000]
    bodies = [hashlib.shake_128(str(size).encode()).digest(size) for size in sizes]
    for body in bodies:
        channel.basic_publish(exchange, "", body, pika.BasicProperties(message_id=str(len(body))))
    for queue in queues:
        for (_, properties, body), expected in zip(take(channel, queue, len(sizes)), bodies):
            assert properties.message_id == str(len(expected))
            assert body == expected, f"{len(body)} bytes differ from the {len(expected)} sent"
    channel.exchange_delete(exchange)
    connection.close()


@pattern
def channel_errors():
    """A channel that is closed for an error leaves the connection and other channels alone."""
    connection = connect()
    other = connection.channel()
    queue = other.queue_declare("", exclusive=True).method.queue
    for code, act in (
        (404, lambda channel: channel.queue_declare(unique("missing"), passive=True)),
        (406, lambda channel: channel.basic_ack(99)),
        (403, lambda channel: channel.exchange_declare("amq.mine", "direct")),
    ):
        channel = connection.channel()
        try:
            act(channel)
            channel.queue_declare("", exclusive=True)
        except ChannelClosedByBroker as error:
            assert error.reply_code == code, error
        else:
            raise AssertionError(f"no error {code}")
    other.basic_publish("", queue, b"still here")
    assert take(other, queue, 1)[0][2] == b"still here"
    connection.close()


if __name__ == "__main__":
    run("pika")
