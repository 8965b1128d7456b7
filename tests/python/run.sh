#!/usr/bin/env bash
# Runs the Python client's test: an environment and generated stubs under target/python, both kept for the next run.
# Without PyPI the test is skipped, and says so. With the word "environment" nothing is run: only the environment is made.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/python-environment.sh
work=target/python
python_environment tests/python "$work" "the Python client"

[[ ${1:-} != environment ]] || exit 0

rm -rf "$work/stubs"
mkdir -p "$work/stubs"
"$work/venv/bin/python" -m grpc_tools.protoc -I host/rpc/proto --python_out="$work/stubs" --grpc_python_out="$work/stubs" \
    host/rpc/proto/maxhost/v1/*.proto
PYTHONPATH="$work/stubs" PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" -m unittest discover -s tests/python -p 'test_*.py'
