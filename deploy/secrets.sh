#!/bin/sh
# Writes the secret files that docker-compose.yml names, with random content, where they are not there yet.
#
# The folder is closed to others; the files in it are readable, because the processes in the containers are another user.
set -eu
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/secrets
mkdir -p "$folder"
chmod 0700 "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
write() {
    [ -e "$folder/$1" ] && return 0
    printf '%s\n' "$2" >"$folder/$1"
    chmod 0444 "$folder/$1"
    echo "deploy/secrets/$1"
}

write stream_secret "$(random)"
write whatsapp_app_secret "$(random)"
write webhook_verify_token "$(random)"
write graph_token "$(random)"
write api_tokens "{\"$(random)\": \"acme\"}"
write operator_tokens "{\"$(random)\": \"operator\"}"
