#!/usr/bin/env bash
# Makes what CorDapps in Python are made with, under target/python-cordapp: wheels, an environment, and the component of
# probe.py. All of it is kept for the next run. Where PyPI cannot be reached, it says so and makes nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/python-cordapp
work=target/python-cordapp
mkdir -p "$work"
exec 9>"$work/lock"
flock 9

if ! cmp -s $here/requirements.txt "$work/installed.txt"; then
    rm -rf "$work/wheels" "$work/venv" "$work/lib" "$work/probe.wasm"
    python3 -m venv "$work/venv"
    pip() { "$work/venv/bin/pip" --quiet --disable-pip-version-check "$@" >>"$work/pip.log" 2>&1; }
    : >"$work/pip.log"
    # What goes into a component is plain Python; what makes one is a program for this machine.
    inside=$(grep cbor2 $here/requirements.txt)
    outside=$(grep componentize-py $here/requirements.txt)
    if ! { pip download --no-deps --dest "$work/wheels" "$outside" &&
        pip download --no-deps --dest "$work/wheels" --platform any --only-binary :all: "$inside"; }; then
        cat "$work/pip.log" >&2
        if grep -qE "NewConnectionError|ConnectTimeout|Temporary failure in name resolution|Connection refused|ProxyError|Network is unreachable" "$work/pip.log"; then
            echo "SKIPPED: CorDapps in Python: PyPI cannot be reached" >&2
            exit 0
        fi
        exit 1
    fi
    pip install --no-index --find-links "$work/wheels" "$outside"
    pip install --no-index --find-links "$work/wheels" --target "$work/lib" --no-deps "$inside"
    cp $here/requirements.txt "$work/installed.txt"
fi

made_of=$(cat $here/probe.py wit/cordapp.wit "$work/installed.txt" | sha256sum)
if [[ ! -f $work/probe.wasm || $(cat "$work/probe.made-of" 2>/dev/null) != "$made_of" ]]; then
    "$work/venv/bin/componentize-py" --quiet -d wit -w flows componentize -p $here -p "$work/lib" probe -o "$work/probe.new"
    mv "$work/probe.new" "$work/probe.wasm"
    echo "$made_of" >"$work/probe.made-of"
fi
