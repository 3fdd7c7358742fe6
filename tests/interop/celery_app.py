"""The Celery application that both the worker process and the tests load."""

import os

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

_run = os.environ["INTEROP_RUN"]

app = Celery("interop", broker=os.environ["AMQP_URL"], backend="rpc://")
app.conf.update(
    task_serializer="json",
    result_persistent=False,
    task_default_queue=f"interop.celery.{_run}",
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_queues=[
        Queue(f"interop.celery.{_run}", Exchange(f"interop.celery.{_run}"), f"interop.celery.{_run}"),
        Queue(
            f"interop.celery.{_run}.topic",
            Exchange(f"interop.celery.{_run}.topic", type="topic"),
            routing_key="media.#",
        ),
        Broadcast(f"interop.celery.{_run}.broadcast"),
    ],
)


@app.task
def add(x, y):
    return x + y


@app.task
def echo(value):
    return value


@app.task(bind=True, max_retries=3)
def fails_twice(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def raises():
    raise ValueError("on purpose")


@app.task(bind=True)
def where(self):
    return self.request.delivery_info["routing_key"]


@app.task(ignore_result=True)
def touch(path):
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
