"""Celery's documented features against real workers, each as an assertion.

Workers: `main` (two processes, late acknowledgement), `priorities` (one at a time), `scaled` (autoscale), `quorum`.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

_folder = tempfile.TemporaryDirectory()
os.environ["CELERY_RUN"] = secrets.token_hex(4)
os.environ["CELERY_RUN_FOLDER"] = _folder.name
sys.path.insert(0, str(Path(__file__).parent.parent / "interop"))

from celery import chain, chord, group  # noqa: E402  the applications read the environment
from celery.events.state import State  # noqa: E402
from celery.exceptions import ChordError, TaskRevokedError, TimeLimitExceeded  # noqa: E402

import tasks  # noqa: E402
from patterns import pattern, run, unique  # noqa: E402
from tasks import app, noted, queue_name  # noqa: E402

#: Longest wait for one result, in seconds.
SECONDS = 40
WORKERS = {
    "main": ["--pool", "prefork", "--concurrency", "2", "--events"],
    "priorities": ["--pool", "solo"],
    "scaled": ["--pool", "prefork", "--autoscale", "4,1"],
    "quorum": ["--pool", "threads", "--concurrency", "2"],
}
MAIN = "main@celery-test"


def until(condition, what):
    """Waits until something holds, and gives it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def main_only():
    """Asks the worker `main` alone."""
    return app.control.inspect(destination=[MAIN], timeout=10)


@pattern
def retry_with_countdown():
    """A retried task comes back after its countdown, with its count."""
    name = unique("retry")
    assert tasks.succeeds_at_third.delay(name, 0.6).get(timeout=SECONDS) == 2
    times = [float(line) for line in noted(name)]
    assert len(times) == 3
    assert all(later - earlier >= 0.55 for earlier, later in zip(times, times[1:])), times


@pattern
def retry_gives_up():
    """After max_retries the task's own error is its result."""
    name = unique("retries")
    result = tasks.never_succeeds.delay(name)
    try:
        result.get(timeout=SECONDS)
        raise AssertionError("it did not fail")
    except ValueError as error:
        assert str(error) == "still not"
    assert noted(name) == ["0", "1", "2"]
    name = unique("auto")
    try:
        tasks.retries_by_itself.delay(name).get(timeout=SECONDS)
        raise AssertionError("it did not fail")
    except KeyError:
        assert len(noted(name)) == 3


@pattern
def chords():
    """A chord's body runs once with all results in order, also of chains and other chords."""
    header = [tasks.add.s(number, number) for number in range(10)]
    assert chord(header)(tasks.total.s()).get(timeout=SECONDS) == 90
    nested = chord([chain(tasks.add.s(1, 1), tasks.add.s(1)), tasks.add.s(2, 2)], tasks.total.s())
    assert chain(nested, tasks.add.s(100))().get(timeout=SECONDS) == 107
    assert chain(group(tasks.add.s(n, 1) for n in range(4)), tasks.total.s())().get(timeout=SECONDS) == 10


@pattern
def chord_with_a_failure():
    """A failed header fails the chord, and its errback is called."""
    name = unique("errback")
    body = tasks.total.s().on_error(tasks.noted_failure.s(name))
    result = chord([tasks.add.s(1, 1), tasks.fails.s()])(body)
    try:
        # Asked by its id: the result itself would raise its header's error.
        app.AsyncResult(result.id).get(timeout=SECONDS)
        raise AssertionError("it did not fail")
    except ChordError as error:
        assert "on purpose" in str(error)
    until(lambda: noted(name), "the errback")


@pattern
def eta_and_countdown():
    """Nothing runs before its time, and what waits does not hold up what can run."""
    name, began = unique("eta"), time.time()
    later = [tasks.say_when.apply_async((name,), countdown=6) for _ in range(20)]
    at = datetime.now(timezone.utc) + timedelta(seconds=5)
    exact = tasks.say_when.apply_async((name,), eta=at)
    assert tasks.add.delay(1, 2).get(timeout=SECONDS) == 3
    ran = noted(name)
    # On a machine that is slow enough, their time has come.
    assert not ran or time.time() >= at.timestamp(), "something ran before its time"
    waiting = (main_only().scheduled() or {}).get(MAIN) or []
    assert waiting or time.time() >= at.timestamp(), "nothing is scheduled"
    assert all(entry["eta"] for entry in waiting)
    assert exact.get(timeout=SECONDS) >= at.timestamp()
    assert all(result.get(timeout=SECONDS) >= began + 6 for result in later)
    assert len(noted(name)) == 21


@pattern
def expired_tasks():
    """What expires before a worker takes it is revoked."""
    name = unique("expired")
    result = tasks.say.apply_async((name, "ran"), expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    try:
        result.get(timeout=SECONDS)
        raise AssertionError("it ran")
    except TaskRevokedError:
        assert not noted(name)


@pattern
def message_priorities():
    """While the worker is busy the highest priority comes to the front, equals in their order."""
    name = unique("priorities")
    tasks.in_turn.apply_async((name, "busy", 2))
    until(lambda: noted(name), "the task that keeps the worker busy")
    # The worker holds one more that it fetched ahead.
    tasks.in_turn.apply_async((name, "ahead"), priority=0)
    time.sleep(0.5)
    for number, priority in enumerate([1, 9, 5, 9, 0, 5]):
        tasks.in_turn.apply_async((name, f"{priority}.{number}"), priority=priority)
    until(lambda: len(noted(name)) == 8, "all of them")
    done = [what for what in noted(name) if what not in ("busy", "ahead")]
    assert done == ["9.1", "9.3", "5.2", "5.5", "1.0", "0.4"], done


@pattern
def rate_limits():
    """No more than the limit allows; remote control changes it."""
    name = unique("limited")
    for _ in range(9):
        tasks.limited.delay(name)
    until(lambda: len(noted(name)) == 9, "all of them")
    times = sorted(float(line) for line in noted(name))
    # A bucket of 4 for each second that may begin full.
    assert times[-1] - times[0] >= 0.9, times
    (answer,) = app.control.rate_limit("tasks.limited", "1/s", reply=True, destination=[MAIN], timeout=10)
    assert "ok" in answer[MAIN]
    name = unique("limited")
    for _ in range(3):
        tasks.limited.delay(name)
    until(lambda: len(noted(name)) == 3, "all of them")
    times = sorted(float(line) for line in noted(name))
    assert times[-1] - times[0] >= 0.9, times
    app.control.rate_limit("tasks.limited", "0", reply=True, destination=[MAIN], timeout=10)
    name = unique("unlimited")
    for _ in range(9):
        tasks.limited.delay(name)
    until(lambda: len(noted(name)) == 9, "all of them without a limit")


@pattern
def revoked_before_it_runs():
    """A task that waits is revoked; its result says so."""
    name = unique("revoked")
    busy = [tasks.wait.delay(unique("busy"), 1.5) for _ in range(2)]
    doomed = tasks.say.apply_async((name, "ran"), countdown=1)
    app.control.revoke(doomed.id, reply=True, timeout=10)
    assert doomed.id in main_only().revoked()[MAIN]
    try:
        doomed.get(timeout=SECONDS)
        raise AssertionError("it ran")
    except TaskRevokedError:
        assert doomed.state == "REVOKED" and not noted(name)
    assert [result.get(timeout=SECONDS) for result in busy] == [1.5, 1.5]


@pattern
def terminated_while_it_runs():
    """revoke with terminate ends the process; the worker goes on with another one."""
    name = unique("terminated")
    doomed = tasks.wait.delay(name, 30)
    until(lambda: noted(name), "its beginning")
    app.control.revoke(doomed.id, terminate=True, signal="SIGKILL")
    try:
        doomed.get(timeout=SECONDS)
        raise AssertionError("it ended")
    except TaskRevokedError:
        assert noted(name) == ["began"]
    assert tasks.add.delay(4, 4).get(timeout=SECONDS) == 8


@pattern
def time_limits():
    """The soft limit is an exception inside the task, the hard one ends its process."""
    name = unique("soft")
    assert tasks.stopped_softly.delay(name).get(timeout=SECONDS) == "soft"
    try:
        tasks.stopped_hard.delay().get(timeout=SECONDS)
        raise AssertionError("it ended")
    except TimeLimitExceeded:
        pass


@pattern
def lost_process_gives_back():
    """With late acknowledgement a task whose process was killed comes again, marked."""
    name = unique("lost")
    assert tasks.dies_once.delay(name).get(timeout=SECONDS) == 2
    assert noted(name) == ["False", "True"]


@pattern
def remote_control():
    """Everything that inspect and control ask, from all workers and from one."""
    answers = app.control.ping(timeout=10)
    assert {name for answer in answers for name in answer} >= {f"{kind}@celery-test" for kind in WORKERS}
    assert app.control.ping(destination=[MAIN], timeout=10) == [{MAIN: {"ok": "pong"}}]
    inspect = main_only()
    assert inspect.active()[MAIN] == []
    assert inspect.reserved()[MAIN] == []
    assert "tasks.add" in inspect.registered()[MAIN]
    assert [queue["name"] for queue in inspect.active_queues()[MAIN]] == [queue_name("main")]
    assert inspect.conf()[MAIN]["task_default_queue"] == queue_name("main")
    stats = inspect.stats()[MAIN]
    assert stats["total"]["tasks.add"] > 0 and stats["broker"]["transport"] == "amqp"
    assert "ok" in inspect.report()[MAIN]
    name = unique("active")
    running = tasks.wait.delay(name, 2)
    until(lambda: noted(name), "its beginning")
    assert [entry["id"] for entry in inspect.active()[MAIN]] == [running.id]
    state, entry = inspect.query_task(running.id)[MAIN][running.id]
    assert state == "active" and entry["name"] == "tasks.wait"
    running.get(timeout=SECONDS)


@pattern
def pool_grows_and_shrinks():
    """pool_grow and pool_shrink change what runs at once, and the prefetch count with it."""

    def processes():
        return len(main_only().stats()[MAIN]["pool"]["processes"])

    before = main_only().stats()[MAIN]["prefetch_count"]
    assert processes() == 2
    app.control.pool_grow(2, destination=[MAIN], reply=True, timeout=10)
    until(lambda: processes() == 4, "four processes")
    assert main_only().stats()[MAIN]["prefetch_count"] == before + 2
    names = [unique("grown") for _ in range(4)]
    results = [tasks.wait.delay(name, 2) for name in names]
    until(lambda: all(noted(name) == ["began"] for name in names), "four at once")
    for result in results:
        result.get(timeout=SECONDS)
    app.control.pool_shrink(2, destination=[MAIN], reply=True, timeout=10)
    until(lambda: processes() == 2, "two processes again")


@pattern
def consumers_added_and_cancelled():
    """add_consumer and cancel_consumer: another queue while the worker runs."""
    extra = queue_name("extra")
    app.control.add_consumer(extra, reply=True, destination=[MAIN], timeout=10)
    until(lambda: extra in [queue["name"] for queue in main_only().active_queues()[MAIN]], "the queue")
    assert tasks.add.apply_async((5, 6), queue=extra).get(timeout=SECONDS) == 11
    app.control.cancel_consumer(extra, reply=True, destination=[MAIN], timeout=10)
    until(lambda: extra not in [queue["name"] for queue in main_only().active_queues()[MAIN]], "its end")
    name = unique("extra")
    waiting = tasks.say.apply_async((name, "ran"), queue=extra)
    time.sleep(1)
    assert not noted(name)
    app.control.add_consumer(extra, reply=True, destination=[MAIN], timeout=10)
    assert waiting.get(timeout=SECONDS) == "ran"


@pattern
def autoscaled():
    """The pool grows with the work and shrinks without it."""

    def processes():
        stats = tasks.scaled.control.inspect(destination=["scaled@celery-test"], timeout=10).stats()
        return len(stats["scaled@celery-test"]["pool"]["processes"])

    assert processes() == 1
    results = [tasks.pid_after.delay(2.5) for _ in range(8)]
    assert until(lambda: processes() >= 3, "a larger pool")
    assert len({result.get(timeout=SECONDS) for result in results}) >= 3
    until(lambda: processes() == 1, "a pool of one again")
    (answer,) = tasks.scaled.control.autoscale(
        max=3, min=2, reply=True, destination=["scaled@celery-test"], timeout=10)
    assert "ok" in answer["scaled@celery-test"]
    until(lambda: processes() >= 2, "the new least size")


@pattern
def events():
    """A task's life and the workers' heartbeats, as monitors see them."""
    state, ready, done = State(), threading.Event(), threading.Event()
    seen, wanted = {}, {}

    def take(event):
        state.event(event)
        seen.setdefault(event["type"], []).append(event)
        mine = [event["type"] for events in seen.values() for event in events if event.get("uuid") == wanted.get("id")]
        if "task-succeeded" in mine and "worker-heartbeat" in seen:
            done.set()

    def listen():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": take})
            listening = receiver.on_consume_ready

            def on_consume_ready(*arguments, **more):
                listening(*arguments, **more)
                ready.set()

            receiver.on_consume_ready = on_consume_ready
            for _ in receiver.consume(limit=None, timeout=None, wakeup=True):
                receiver.should_stop = done.is_set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert ready.wait(SECONDS)
    result = tasks.add.delay(20, 22)
    wanted["id"] = result.id
    assert result.get(timeout=SECONDS) == 42
    assert done.wait(SECONDS), f"only {sorted(seen)}"
    listener.join(SECONDS)
    mine = {event["type"] for events in seen.values() for event in events if event.get("uuid") == result.id}
    assert mine == {"task-sent", "task-received", "task-started", "task-succeeded"}, mine
    task = state.tasks[result.id]
    assert task.state == "SUCCESS" and task.result == "42" and task.worker.hostname == MAIN
    assert state.workers[MAIN].alive


@pattern
def events_switched_off_and_on():
    """disable_events and enable_events answer."""
    for command in (app.control.disable_events, app.control.enable_events):
        (answer,) = command(destination=[MAIN], reply=True, timeout=10)
        assert "ok" in answer[MAIN]


@pattern
def quorum_queues_with_delayed_delivery():
    """Quorum queues: no global qos, what is for later waits in the broker, and results come by `rpc`."""
    name, began = unique("quorum"), time.time()
    later = [tasks.quorum_when.apply_async((name,), countdown=seconds) for seconds in (3, 1, 2)]
    assert tasks.quorum_when.delay(unique("now")).get(timeout=SECONDS) < began + SECONDS
    for result, seconds in zip(later, (3, 1, 2)):
        assert result.get(timeout=SECONDS) >= began + seconds - 1
    times = [float(line) for line in noted(name)]
    assert len(times) == 3 and times[0] >= began
    assert tasks.quorum_retry.delay().get(timeout=SECONDS) == 1


@pattern
def flower_shows_queues_and_workers():
    """Flower, unmodified: its page of the broker has the queues' lengths from the management API, its list the workers."""
    page = free_port()
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", "--address=127.0.0.1", f"--port={page}",
               f"--broker-api={os.environ['HTTP_URL'].replace('://', '://guest:guest@')}/api/"]
    environment = dict(os.environ, FLOWER_UNAUTHENTICATED_API="true")
    log = _logs.setdefault("flower", tempfile.TemporaryFile())
    flower = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def ask(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{page}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    name = queue_name("main")
    try:
        until(lambda: MAIN in ask("/api/workers?refresh=1"), "the worker is listed")
        # Two processes have one each, and acknowledge it when it is done.
        waiting = [tasks.wait.delay(unique("flower"), 8) for _ in range(2)]

        def shown():
            queues = json.loads(ask("/api/queues/length") or "{}").get("active_queues", [])
            return {queue["name"]: (queue["messages"], queue["consumers"]) for queue in queues}.get(name)

        until(lambda: shown() == (2, 1), "two tasks are out")
        row = re.search(rf'<tr id="{re.escape(name)}">(.*?)</tr>', ask("/broker"), re.S)
        cells = [cell.strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.S)]
        assert cells[0] == name and cells[1:5].count("2") == 2 and cells[4] == "1", cells
        for result in waiting:
            result.get(timeout=SECONDS)
    finally:
        flower.terminate()
        flower.wait(30)


@pattern
def shutdown():
    """The last one: remote control ends a worker, which gives its tasks back."""
    app.control.shutdown(destination=["priorities@celery-test"])
    worker = _running["priorities"]
    assert worker.wait(SECONDS) == 0
    name = unique("waits")
    tasks.in_turn.apply_async((name, "later"))
    _running["priorities"] = start("priorities")
    until(lambda: noted(name), "what waited for the worker")


_running = {}
_logs = {}


def start(kind):
    command = [sys.executable, "-m", "celery", "-A", "tasks" if kind == "main" else f"tasks:{kind}", "worker"]
    command += ["--loglevel", "warning", "--hostname", f"{kind}@celery-test", *WORKERS[kind]]
    log = _logs.setdefault(kind, tempfile.TemporaryFile())
    environment = dict(os.environ, AUTOSCALE_KEEPALIVE="1")
    return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=log, stderr=subprocess.STDOUT, env=environment)


def stop():
    for worker in _running.values():
        worker.terminate()
    for kind, worker in _running.items():
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            print(f"FAILED {CLIENT} stop: the worker {kind} does not end", flush=True)
            worker.kill()
    for kind, log in _logs.items():
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
        print(f"--- log of {kind}:", *lines[-40:], sep="\n")


CLIENT = os.environ.get("INTEROP_CLIENT", "celery")


def main():
    for kind in WORKERS:
        _running[kind] = start(kind)
    try:
        expected = {f"{kind}@celery-test" for kind in WORKERS}
        until(lambda: {name for answer in app.control.ping(timeout=3) for name in answer} >= expected, "all workers")
        run(CLIENT)
    finally:
        stop()
        _folder.cleanup()


if __name__ == "__main__":
    main()
