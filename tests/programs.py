#!/usr/bin/env python3
"""Runs the test programs of the workspace, which `cargo test --no-run` has compiled, some beside each other.

cargo runs one program after the other, and in the tail of each of them one test waits for servers while the machine has nothing
to do. Arguments are commands that are run beside them, as programs of their own. What one says is shown when it ends, so that
no two mix. The exit code is 1 if one of them failed.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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


def programs():
    """Asks cargo, which compiles what is not there yet: (name, folder of its package, executable) of each."""
    # Not the examples: none is a test, and the lints compile them.
    words = ["cargo", "test", "--release", "--workspace", "--tests", "--no-run"]
    words += ["--message-format", "json-render-diagnostics"]
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
    if cargo.returncode != 0:
        sys.exit(cargo.returncode)
    return sorted(found, key=lambda program: program[0])


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
    """Runs one to its end, in a folder, and shows what it said; answers whether it passed."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        surroundings = {**os.environ, **more}
        files = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        try:
            code = subprocess.run(words, cwd=folder, env=surroundings, timeout=LONGEST_RUN, **files).returncode
        except subprocess.TimeoutExpired:
            code = "no end"
        output.seek(0)
        said = output.read().decode(errors="replace")
    passed = code == 0
    how = "passed" if passed else f"FAILED with {code}"
    sys.stdout.write(f"\n-- {name}: {how} in {time.monotonic() - began:.0f} s\n{said}")
    sys.stdout.flush()
    return passed


def test(program):
    """Runs a test program as cargo does."""
    name, folder, executable = program
    threads = max(2, round(TESTS_A_PROCESSOR * (os.cpu_count() or 1)))
    return run(name, [executable], folder, {"CARGO_MANIFEST_DIR": str(folder), "RUST_TEST_THREADS": str(threads)})


def main():
    found = programs()
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
        passed = list(pool.map(test, first + others)) + [command.result() for command in told]
    passed += [test(program) for program in alone]
    names = [program[0] for program in first + others] + commands + [program[0] for program in alone]
    failed = [name for name, good in zip(names, passed) if not good]
    room.ended.set()
    print(f"\nthe least room that was left: {room}")
    print(f"\n{len(names)} programs in {time.monotonic() - began:.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
