#!/usr/bin/env python3
"""Runs the test programs of the workspace, which `cargo test --no-run` has compiled, some beside each other.

cargo runs one program after the other, and in the tail of each of them one test waits for servers while the machine has nothing
to do. Arguments are commands that are run beside them, as programs of their own. What one says is shown when it ends, so that
no two mix. The exit code is 1 if one of them failed. At the end stands what took most of the processors: time in programs and in
those that they started and waited for, in user and system. A server that nobody waited for is not in it.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# Those that take longest begin first. All others follow by name; a new one need not be told here.
LONGEST = ["docs", "hosts", "maxhost-tests/postgres", "amqp", "maxhost-tests/ledger", "lifecycle", "crash", "chaos", "reports"]
# The first two measure memory, processor time or the pace of flows; the third builds what the tests of a sample build, too.
ALONE = ["bounds", "hostile", "contracts"]
# So many programs at once; and so many tests of each, on each processor, because most tests wait most of the time.
BESIDE = 2
TESTS_A_PROCESSOR = 1.5
# What the tests write at once beside what is compiled, bytes: databases, brokers' journals, CorDapps that readers of docs/ build.
ROOM = 4_000_000_000
# No program takes longer, also on a machine that is busy, seconds.
LONGEST_RUN = 3600
# So many programs are told at the end.
TOLD = 20


@dataclass
class Run:
    """How a program or command ended, and what it took, seconds."""

    name: str
    passed: bool
    took: float
    processor: float


def wait(child):
    """Waits for a child's end: its exit code, and the time of processors that it and those took that it has waited for, seconds."""
    _, status, usage = os.wait4(child.pid, 0)
    # Nobody needs to wait for it again.
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_utime + usage.ru_stime


def programs():
    """Asks cargo, which compiles what is not there yet: (name, folder of its package, executable) of each, and what that took."""
    # Not the examples: none is a test, and the lints compile them.
    words = ["cargo", "test", "--release", "--workspace", "--tests", "--no-run"]
    words += ["--message-format", "json-render-diagnostics"]
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as cargo:
        found = []
        for line in cargo.stdout:
            message = json.loads(line)
            if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
                folder = Path(message["manifest_path"]).parent
                package = message["package_id"].split("#")[-1].split("@")[0]
                if package[0].isdigit():
                    package = folder.name
                found.append((f"{package}/{message['target']['name']}", folder, message["executable"]))
        code, processor = wait(cargo)
    if code != 0:
        sys.exit(code)
    return sorted(found, key=lambda program: program[0]), Run("cargo test --no-run", True, time.monotonic() - began, processor)


class Room:
    """How much room is left on the disks that tests write to: looked at before the first, and all the while."""

    def __init__(self):
        folders = [Path(os.environ.get("CARGO_TARGET_DIR", "target")), Path(tempfile.gettempdir())]
        self.least = {folder: shutil.disk_usage(folder).free for folder in folders}
        self.ended = threading.Event()
        for folder, free in self.least.items():
            if free < ROOM:
                sys.exit(f"the tests need {ROOM / 1e9:.0f} GB of room in {folder}, and there are {free / 1e9:.1f}")

    def watch(self):
        while not self.ended.wait(2):
            self.least = {folder: min(least, shutil.disk_usage(folder).free) for folder, least in self.least.items()}

    def __str__(self):
        return ", ".join(f"{free / 1e9:.1f} GB in {folder}" for folder, free in self.least.items())


def is_one_of(program, names):
    """Whether the name, with its package or without, is among these."""
    return program[0] in names or program[0].split("/")[-1] in names


def run(name, words, folder, more):
    """Runs one to its end, in a folder, and shows what it said."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        surroundings = {**os.environ, **more}
        child = subprocess.Popen(
            words, cwd=folder, env=surroundings, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        # It kills nobody who was waited for: the timer is ended first, and a child that has ended keeps its number until then.
        ending = threading.Timer(LONGEST_RUN, os.kill, [child.pid, signal.SIGKILL])
        ending.daemon = True
        ending.start()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        late = not ending.is_alive()
        ending.cancel()
        ending.join()
        code, processor = wait(child)
        output.seek(0)
        said = output.read().decode(errors="replace")
    took = time.monotonic() - began
    how = "passed" if code == 0 else f"FAILED with {'no end' if late else code}"
    sys.stdout.write(f"\n-- {name}: {how} in {took:.0f} s, {processor:.0f} s of processors\n{said}")
    sys.stdout.flush()
    return Run(name, code == 0, took, processor)


def test(program):
    """Runs a test program as cargo does."""
    name, folder, executable = program
    threads = max(2, round(TESTS_A_PROCESSOR * (os.cpu_count() or 1)))
    return run(name, [executable], folder, {"CARGO_MANIFEST_DIR": str(folder), "RUST_TEST_THREADS": str(threads)})


def table(runs):
    """What took most of the processors."""
    most = sorted(runs, key=lambda run: run.processor, reverse=True)[:TOLD]
    lines = [f"{run.processor:10.0f} {run.took:10.0f}  {run.name}" for run in most]
    total = f"{sum(run.processor for run in runs):10.0f}             all {len(runs)}"
    return "\n".join(["processors          s  of", *lines, total])


def main():
    found, compiled = programs()
    missing = [name for name in LONGEST + ALONE if not any(is_one_of(program, [name]) for program in found)]
    if missing:
        sys.exit(f"tests/programs.py names programs that are not there: {', '.join(missing)}")
    alone = [program for program in found if is_one_of(program, ALONE)]
    first = [program for name in LONGEST for program in found if is_one_of(program, [name])]
    others = [program for program in found if program not in alone + first]
    commands = sys.argv[1:]
    room = Room()
    threading.Thread(target=room.watch, daemon=True).start()
    began = time.monotonic()
    with ThreadPoolExecutor(len(commands) or 1) as aside, ThreadPoolExecutor(BESIDE) as pool:
        told = [aside.submit(run, command, shlex.split(command), Path.cwd(), {}) for command in commands]
        runs = list(pool.map(test, first + others)) + [command.result() for command in told]
    runs += [test(program) for program in alone]
    failed = [run.name for run in runs if not run.passed]
    room.ended.set()
    print(f"\nthe least room that was left: {room}")
    print(f"\n{table([compiled, *runs])}")
    print(f"\n{len(runs)} programs in {time.monotonic() - began:.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
