#!/bin/bash
# Asks a process inside its container how it is: healthcheck [port] [path]. Without arguments: is it ready?
#
# bash opens the connection itself, because the image has no HTTP client and needs none otherwise.
set -u
port=${1:-${ADMIN_LISTEN##*:}}
path=${2:-/readyz}

exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$path" >&3
read -r -t 2 _ status _ <&3 || exit 1
[ "$status" = 200 ]
