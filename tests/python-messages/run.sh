#!/usr/bin/env bash
# Runs the Python client of docs/messages.md against real hosts and a real broker, which a test of the suite `hosts` starts: an
# environment with the client's packages under target/python-messages, kept for the next run. Without PyPI the test is skipped,
# and says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/python-environment.sh
work=target/python-messages
python_environment tests/python-messages "$work" "the Python client that sends messages"

MAXHOST_MESSAGES_PYTHON=$PWD/$work/venv/bin/python \
    cargo test --release --workspace --test hosts -- --ignored --exact messages::the_python_client_of_the_page_runs
