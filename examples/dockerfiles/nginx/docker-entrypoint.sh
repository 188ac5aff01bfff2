#!/bin/sh
set -e

if [ "$1" = nginx ]; then
    find /docker-entrypoint.d/ -follow -type f -name '*.sh' -print | sort -V | while read -r script; do
        echo "$0: running $script"
        "$script"
    done
    echo "$0: configuration complete; ready for start up"
fi

exec "$@"
