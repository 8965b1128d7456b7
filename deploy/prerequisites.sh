#!/usr/bin/env bash
# Makes sure that what building and testing need is there, and installs it where that can be done without asking.
set -euo pipefail

missing() {
    echo "missing: $1" >&2
    echo "try: $2" >&2
    exit 1
}

install_packages() {
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        echo "installing $*"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        # Files of configuration that are there already are kept, without a question.
        apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$@" >/dev/null
    else
        missing "$*" "install the packages: $*"
    fi
}

command -v cargo >/dev/null || missing "the Rust compiler" "install it from https://rustup.rs"

packages=()
command -v cc >/dev/null || packages+=(build-essential)
command -v python3 >/dev/null || packages+=(python3 python3-venv)
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
fi
# A Python client of the tests has a part in C, which pip compiles.
if ! command -v python3 >/dev/null || ! python3 -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; then
    packages+=(python3-dev)
fi
# The tests of ownership by ZooKeeper start servers of their own from these; the package starts none by itself.
if [[ ! -e /usr/share/java/zookeeper.jar || ! -e /usr/share/java/netty-all.jar ]] || ! command -v java >/dev/null; then
    packages+=(libzookeeper-java default-jre-headless)
fi
# Those of the AMQP broker fetch Apache Artemis with Maven and run it.
if ! command -v mvn >/dev/null || ! command -v java >/dev/null; then
    packages+=(maven default-jre-headless)
fi
# They start a RabbitMQ, too. Its package would start a server of its own, and one for names: not here.
if ! compgen -G '/usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server' >/dev/null; then
    packages+=(rabbitmq-server)
    if [[ $(id -u) == 0 ]]; then
        mkdir -p /etc/systemd/system
        for unit in rabbitmq-server.service epmd.service epmd.socket; do
            [[ -e /etc/systemd/system/$unit ]] || ln -s /dev/null "/etc/systemd/system/$unit"
        done
        if [[ ! -e /usr/sbin/policy-rc.d ]]; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
        fi
    fi
fi
# The tests of the database on PostgreSQL start servers, too. The package would make a database and start a server for it: not here.
if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    packages+=(postgresql)
    if [[ $(id -u) == 0 && ! -e /etc/postgresql-common/createcluster.conf ]]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
fi
# Hosts with a wrong clock get it from this.
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
[[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"

target=wasm32-wasip2
if [[ ! -d $(rustc --print target-libdir --target $target 2>/dev/null) ]]; then
    command -v rustup >/dev/null || missing "the compiler's target $target" "install it with your distribution's package manager"
    echo "installing the compiler's target $target"
    rustup target add $target
fi
