# Sourced by suites in Python, in the folder of the project: python_environment FOLDER WORK NAME
# makes an environment in WORK/venv with what FOLDER/requirements.txt names, kept for the next run. Where PyPI cannot be
# reached the suite of that name ends here, skipped, and says so. Another suite of the same WORK waits until this one has ended.
python_environment() {
    local requirements=$1/requirements.txt work=$2 name=$3
    mkdir -p "$work"
    exec 8>"$work/lock"
    flock 8
    ! cmp -s "$requirements" "$work/installed.txt" || return 0
    echo "installing the packages of $name"
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    if ! "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >"$work/pip.log" 2>&1; then
        cat "$work/pip.log" >&2
        if grep -qE "NewConnectionError|ConnectTimeout|Temporary failure in name resolution|Connection refused|ProxyError|Network is unreachable" "$work/pip.log"; then
            echo "SKIPPED: 1 suite ($name): PyPI cannot be reached" >&2
            exit 0
        fi
        exit 1
    fi
    cp "$requirements" "$work/installed.txt"
}
