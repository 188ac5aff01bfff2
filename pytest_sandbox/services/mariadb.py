"""MariaDB, which speaks as MySQL does. PYTEST_DONT_REWRITE."""

from __future__ import annotations

from typing import Any

from pytest_sandbox_runtime import Image, Service

_DATA = "/var/lib/mysql"
_FAST = "--innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --sync-binlog=0 --skip-name-resolve"


def mariadb(
    *,
    name: str = "mariadb",
    user: str = "app",
    password: str = "app",  # noqa: S107  of a database that no other machine reaches
    database: str = "app",
    image: Image | None = None,
    suite: str = "bookworm",
    **words: Any,
) -> Service:
    """MariaDB; ``image`` is one like Docker's "mariadb:11" or "mysql:8"."""
    url = f"mysql://{user}:{password}@{{host}}:{{port}}/{database}"
    words = {"name": name, "ports": (3306,), "url": url, **words}
    if image is not None:
        env = {f"MYSQL_{key}": value for key, value in (("USER", user), ("PASSWORD", password), ("DATABASE", database))}
        env["MYSQL_ROOT_PASSWORD"] = password
        return Service(image, env={**env, **dict(words.pop("env", ()))}, **words)
    grant = (
        f"CREATE DATABASE IF NOT EXISTS {database};\n"
        f"CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON {database}.* TO '{user}'@'%';\n"
    )
    image = (
        Image.debian(suite)
        .apt("mariadb-server")
        .run("install -d -o mysql -g mysql /run/mysqld")
        .file("/etc/mysql/sandbox.sql", grant)
    )
    command = (
        f"exec mariadbd --user=mysql --datadir={_DATA} --bind-address=* --init-file=/etc/mysql/sandbox.sql {_FAST}"
    )
    return Service(image, command=command, **words)
