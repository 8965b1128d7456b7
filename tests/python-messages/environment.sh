#!/usr/bin/env bash
# Makes an environment with the packages of the Python client of docs/messages.md under target/python-messages, kept for the next
# run. A test of the suite `hosts` runs that client. Where PyPI cannot be reached, it says so and makes nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/python-environment.sh
python_environment tests/python-messages target/python-messages "the Python client that sends messages"
