"""The applications that the workers and the tests load: one for each kind of worker.

Everything that tasks do is written down in files under CELERY_RUN_FOLDER, so that what happened can be asked
without the broker. Results are files too: Celery's `rpc` backend knows no chords, the file system's does.
"""

import os
import threading
import time
from pathlib import Path

from celery import Celery
from celery.backends.filesystem import FilesystemBackend
from celery.exceptions import SoftTimeLimitExceeded
from kombu import Exchange, Queue

RUN = os.environ["CELERY_RUN"]
FOLDER = Path(os.environ["CELERY_RUN_FOLDER"])
(FOLDER / "results").mkdir(exist_ok=True)


def queue_name(kind):
    """The queue of one kind of worker."""
    return f"celery.{RUN}.{kind}"


class Files(FilesystemBackend):
    """Celery's results as files, each of them whole at any time: its own may be read while they are written."""

    def __init__(self, app=None, url=None, **more):
        super().__init__(url=f"file://{FOLDER}/results", app=app, **more)

    def set(self, key, value):
        path = FOLDER / "results" / key.decode()
        written = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        written.write_bytes(value.encode() if isinstance(value, str) else value)
        written.rename(path)


def make(kind, **settings):
    """An application whose queue is that of the kind."""
    made = Celery(f"celery-{kind}", broker=os.environ["AMQP_URL"], set_as_current=False)
    made.conf.update(
        result_backend="tasks.Files",
        task_default_queue=queue_name(kind),
        task_default_exchange=queue_name(kind),
        task_default_routing_key=queue_name(kind),
        broker_transport_options={"confirm_publish": True},
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        control_exchange=f"celery.{RUN}.control",
        event_exchange=f"celery.{RUN}.events",
        event_queue_prefix=f"celery.{RUN}.events",
        result_chord_join_timeout=20,
        result_chord_retry_interval=0.2,
        **settings,
    )
    return made


#: Several processes, acknowledged late: what most installations run.
app = make("main", task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1,
           task_send_sent_event=True, task_track_started=True)

#: One task at a time, from a queue with priorities.
priorities = make("priorities", task_acks_late=True, worker_prefetch_multiplier=1)
priorities.conf.task_queues = [
    Queue(queue_name("priorities"), Exchange(queue_name("priorities")), queue_name("priorities"),
          queue_arguments={"x-max-priority": 10})]

#: As many processes as there is work for; acknowledged early, as by default.
scaled = make("scaled")

#: Quorum queues; tasks for later wait in the broker (Celery's native delayed delivery).
quorum = make("quorum", task_default_queue_type="quorum", worker_detect_quorum_queues=True,
              task_default_exchange_type="topic", broker_native_delayed_delivery_queue_type="classic")
quorum.conf.update(result_backend="rpc://", result_persistent=False)


def note(name, what):
    """Adds a line to a file of the run."""
    with open(FOLDER / name, "a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def noted(name):
    """The lines of a file of the run."""
    path = FOLDER / name
    return path.read_text(encoding="utf-8").split() if path.exists() else []


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fails():
    raise ValueError("on purpose")


@app.task
def noted_failure(request, error, _traceback, name):
    note(name, f"{type(error).__name__}")


@app.task(bind=True, max_retries=3)
def succeeds_at_third(self, name, countdown):
    note(name, time.time())
    if self.request.retries < 2:
        raise self.retry(countdown=countdown)
    return self.request.retries


@app.task(bind=True, max_retries=2)
def never_succeeds(self, name):
    note(name, self.request.retries)
    raise self.retry(exc=ValueError("still not"), countdown=0.05)


@app.task(autoretry_for=(KeyError,), retry_backoff=False, max_retries=2, default_retry_delay=0.05)
def retries_by_itself(name):
    note(name, "tried")
    raise KeyError(name)


@app.task
def say(name, what):
    note(name, what)
    return what


@app.task
def say_when(name):
    now = time.time()
    note(name, now)
    return now


@app.task
def wait(name, seconds):
    note(name, "began")
    time.sleep(seconds)
    note(name, "ended")
    return seconds


@app.task(soft_time_limit=1, time_limit=20)
def stopped_softly(name):
    try:
        time.sleep(15)
    except SoftTimeLimitExceeded:
        note(name, "soft")
        return "soft"
    return "late"


@app.task(time_limit=1)
def stopped_hard():
    time.sleep(15)


@app.task(rate_limit="4/s")
def limited(name):
    note(name, time.time())


@app.task(bind=True)
def dies_once(self, name):
    """Kills its own process the first time, as the kernel would when memory is short."""
    note(name, self.request.delivery_info["redelivered"])
    if len(noted(name)) == 1:
        os.kill(os.getpid(), 9)
    return len(noted(name))


@priorities.task
def in_turn(name, what, seconds=0.0):
    note(name, what)
    time.sleep(seconds)


@scaled.task
def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


@quorum.task
def quorum_when(name):
    now = time.time()
    note(name, now)
    return now


@quorum.task(bind=True, max_retries=2)
def quorum_retry(self):
    if self.request.retries < 1:
        raise self.retry(countdown=1)
    return self.request.retries
