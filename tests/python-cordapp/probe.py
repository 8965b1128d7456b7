"""probe: flows in Python that show what a flow in another language than Rust gets from its host."""

import datetime
import os
import random
import secrets
import threading
import time
import traceback
import uuid

import cbor2
import wit_world
from componentize_py_types import Err
from wit_world.imports import flow
from wit_world.imports.types import Descriptor, Failure, FailureKind, FlowDescriptor


def told():
    """Whatever Python asks the system for."""
    return [
        random.randint(1, 1_000_000_000),
        secrets.token_hex(8),
        str(uuid.uuid4()),
        list({"red", "green", "blue", "white"}),
        time.time_ns(),
        datetime.datetime.now(datetime.UTC).isoformat(),
    ]


def same_again(_):
    """Is told everything, thrice, with a sleep in between."""
    first = told()
    flow.progress(first[1])
    time.sleep(0.05)
    second = told()
    time.sleep(0.05)
    return [first, second, told()]


def long_pause(milliseconds):
    """Draws a number, pauses, and returns the number and how long the pause was by the flow's clock."""
    number = random.randint(1, 1_000_000_000)
    flow.progress(f"drew {number}")
    began = time.monotonic()
    time.sleep(milliseconds / 1000)
    return {"number": number, "paused_ms": round((time.monotonic() - began) * 1000)}


def outside(_):
    """Tries what a flow cannot do; returns what Python says of each."""
    attempts = {
        "read": lambda: open("/etc/passwd"),
        "write": lambda: open("kept.txt", "w"),
        "list": lambda: os.listdir("/"),
        "thread": lambda: threading.Thread(target=print).start(),
        "environment": lambda: os.environ["PATH"],
        "process": lambda: os.system("true"),
        "late-import": lambda: __import__("wave"),
    }

    def refusal(attempt):
        try:
            return f"it works: {attempt()!r}"
        except Exception as error:
            return type(error).__name__

    return {name: refusal(attempt) for name, attempt in attempts.items()}


def wrong(_):
    """Makes a mistake, and does not catch it."""
    return {"known": 1}["unknown"]


def caught(_):
    """Makes a mistake, and tells the client."""
    try:
        return wrong(None)
    except KeyError as error:
        traceback.print_exc()
        text = f"KeyError: {error}"
        raise Err(Failure(FailureKind.UNEXPECTED, text, None, None, None, None, None))


def eat(mebibytes):
    """Takes so much memory, and returns how much that was."""
    return len(b"x" * (mebibytes << 20)) >> 20


FLOWS = {function.__name__: function for function in (same_again, long_pause, outside, wrong, caught, eat)}


class WitWorld(wit_world.WitWorld):
    def describe(self):
        flows = [
            FlowDescriptor(name, function.__doc__, True, False, None, 1, "true", "true") for name, function in FLOWS.items()
        ]
        return Descriptor("probe", "0.1.0", "maxhost", flows)

    def run(self, invocation):
        return cbor2.dumps(FLOWS[invocation.flow](cbor2.loads(invocation.arguments)))
