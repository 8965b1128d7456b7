#!/usr/bin/env bash
# Looks at the Helm chart, with packages in target/helm that are kept for the next run. Without PyPI this is skipped, and says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/python-environment.sh
work=target/helm
python_environment tests/helm "$work" "the Helm chart"

PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" tests/helm/check.py
