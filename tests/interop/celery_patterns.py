"""Celery's patterns against one worker process: tasks, results, routing, broadcast, remote control."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from patterns import pattern, run

os.environ["INTEROP_RUN"] = secrets.token_hex(4)

from celery import chain, group  # noqa: E402  the application reads the environment

import celery_app  # noqa: E402
from celery_app import add, app, echo, fails_twice, raises, touch, where  # noqa: E402

QUEUE = app.conf.task_default_queue
SECONDS = 30


@pattern
def work_queue():
    """Many tasks through one queue; each result belongs to its task."""
    results = [add.delay(number, number) for number in range(50)]
    assert [result.get(timeout=SECONDS) for result in results] == [2 * n for n in range(50)]


@pattern
def rpc_results():
    """Results come through the client's own reply queue, whatever they hold."""
    for value in ({"a": [1, None, "ä"]}, "x" * 200_000, []):
        assert echo.delay(value).get(timeout=SECONDS) == value
    try:
        raises.delay().get(timeout=SECONDS)
    except ValueError as error:
        assert str(error) == "on purpose"
    else:
        raise AssertionError("the task's error did not come back")


@pattern
def chains_and_groups():
    """The result of one task is the argument of the next; a group gives all results in order."""
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=SECONDS) == 10
    assert group(add.s(n, 1) for n in range(10))().get(timeout=SECONDS) == list(range(1, 11))


@pattern
def retries():
    """A task that asks to be tried again is, with its count."""
    assert fails_twice.delay().get(timeout=SECONDS) == 2


@pattern
def routing():
    """A task sent to one queue by its name arrives by that routing key."""
    assert where.apply_async(queue=QUEUE).get(timeout=SECONDS) == QUEUE


@pattern
def topics():
    """A task published to a topic exchange reaches the queue whose pattern matches."""
    options = {"exchange": f"{QUEUE}.topic", "routing_key": "media.video.encode"}
    assert where.apply_async(**options).get(timeout=SECONDS) == "media.video.encode"


@pattern
def publish_subscribe():
    """A broadcast task runs once on each worker: there is one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "touched"
        touch.apply_async(args=[str(path)], queue=f"{QUEUE}.broadcast")
        deadline = time.monotonic() + SECONDS
        while not path.exists():
            assert time.monotonic() < deadline, "the broadcast did not arrive"
            time.sleep(0.05)
        assert add.delay(1, 1).get(timeout=SECONDS) == 2
        assert len(path.read_text(encoding="utf-8").splitlines()) == 1


@pattern
def confirms():
    """Publishes are confirmed (`confirm_publish`), and nothing is lost while the worker is busy."""
    results = [echo.apply_async((number,), delivery_mode=2) for number in range(100)]
    assert [result.get(timeout=SECONDS) for result in results] == list(range(100))


@pattern
def remote_control():
    """Ping and inspect go through fanout and reply queues of their own."""
    (answer,) = app.control.ping(timeout=5)
    ((worker, reply),) = answer.items()
    assert reply == {"ok": "pong"}
    registered = app.control.inspect(timeout=5).registered()
    assert "celery_app.add" in registered[worker]


def main():
    here = Path(__file__).parent
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker"]
    command += ["--loglevel", "warning", "--pool", "threads", "--concurrency", "2"]
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(command, cwd=here, stdout=log, stderr=subprocess.STDOUT)
        try:
            run(os.environ.get("INTEROP_CLIENT", "celery"))
        finally:
            worker.terminate()
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
            log.seek(0)
            sys.stdout.write(log.read().decode(errors="replace"))
            delete_queues()


def delete_queues():
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for name in (QUEUE, f"{QUEUE}.topic"):
            channel.queue_delete(name)
        for name in (QUEUE, f"{QUEUE}.topic", f"{QUEUE}.broadcast"):
            channel.exchange_delete(name)


if __name__ == "__main__":
    main()
