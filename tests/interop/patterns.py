"""Runs patterns one after the other, each within a time limit, and prints a line for each."""

import os
import secrets
import signal
import sys
import traceback

HOST = os.environ["HOST"]
PORT = int(os.environ["PORT"])
URL = os.environ["AMQP_URL"]

#: After this many seconds a pattern has failed, whatever it waits for.
SECONDS_MAX = 60

_patterns = []


def pattern(function):
    """Registers a pattern, a function without arguments that asserts."""
    _patterns.append(function)
    return function


def unique(name):
    """A name that no other run uses."""
    return f"interop.{name}.{secrets.token_hex(4)}"


def run(client):
    """Runs every registered pattern and prints `ok CLIENT PATTERN` or `FAILED CLIENT PATTERN`.

    All in the main thread, because Celery's result backend belongs to the thread that first used it.
    """
    signal.signal(signal.SIGALRM, _late)
    for function in _patterns:
        signal.alarm(SECONDS_MAX)
        try:
            function()
        except BaseException:  # a pattern may fail in any way
            traceback.print_exc(file=sys.stdout)
            print(f"FAILED {client} {function.__name__}", flush=True)
        else:
            print(f"ok {client} {function.__name__}", flush=True)
        finally:
            signal.alarm(0)


def _late(_signal, _frame):
    raise TimeoutError(f"not done after {SECONDS_MAX} s")
