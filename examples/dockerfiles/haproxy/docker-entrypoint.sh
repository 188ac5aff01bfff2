#!/bin/sh
set -e

if [ "$1" = haproxy ]; then
	shift
	# -W: master and workers; -db: in the foreground
	set -- haproxy -W -db "$@"
fi

exec "$@"
