#!/usr/bin/env bash
set -Eeo pipefail

if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chown -R postgres "$PGDATA"
	chmod 00700 "$PGDATA"
	exec gosu postgres "$BASH_SOURCE" "$@"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	: "${POSTGRES_PASSWORD:?a new cluster needs the superuser\'s password in POSTGRES_PASSWORD}"
	initdb --no-sync --username="${POSTGRES_USER:-postgres}" --auth-host=scram-sha-256 --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
	printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
	pg_ctl -w start -o "-c listen_addresses=''"
	for script in /docker-entrypoint-initdb.d/*.sql; do
		[ ! -f "$script" ] || psql -v ON_ERROR_STOP=1 --no-psqlrc -f "$script"
	done
	pg_ctl -m fast -w stop
	echo 'the cluster is made; ready for start up'
fi

exec "$@"
