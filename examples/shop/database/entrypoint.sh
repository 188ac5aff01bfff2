#!/bin/sh
# What the image of Docker's hub does, in short: a cluster, the database, and the files of docker-entrypoint-initdb.d.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
install -d -o postgres -g postgres "$data" /run/postgresql
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
as "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
echo "host all all all trust" >>"$data/pg_hba.conf"
as "$bin/pg_ctl" -D "$data" -o "-c listen_addresses=''" -w start >/dev/null
[ "$POSTGRES_DB" = postgres ] || "$bin/createdb" -U postgres "$POSTGRES_DB"
for file in /docker-entrypoint-initdb.d/*.sql; do
    "$bin/psql" -U postgres -q -v ON_ERROR_STOP=1 -f "$file" "$POSTGRES_DB"
done
as "$bin/pg_ctl" -D "$data" -m fast -w stop >/dev/null
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/postgres" -D "$data" -c listen_addresses='*'
