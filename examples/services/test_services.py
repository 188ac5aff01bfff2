"""Each ready-made service, asked in its own language by a client on this machine."""

import socket
import urllib.request

import psycopg
import pytest

from pytest_sandbox import ready, sandbox_service
from pytest_sandbox.services import mariadb, memcached, nginx, postgres, rabbitmq, redis, valkey

redis_server = sandbox_service(redis())
valkey_server = sandbox_service(valkey())
memcached_server = sandbox_service(memcached())
web_server = sandbox_service(nginx(site="server { listen 80; return 200 'welcome'; }"))
postgres_server = sandbox_service(postgres(database="app", user="ada"))
mariadb_server = sandbox_service(mariadb())
broker = sandbox_service(rabbitmq())


def ask(address, question):
    with socket.create_connection(address, 10) as connection:
        connection.sendall(question)
        return connection.recv(100)


@pytest.mark.parametrize("name", ["redis_server", "valkey_server"])
def test_redis_and_valkey(request, name):
    server = request.getfixturevalue(name)
    assert ask(server.address(), b"PING\r\n") == b"+PONG\r\n"
    assert server.url().startswith("redis://127.0.0.1:")


def test_memcached(memcached_server):
    assert ask(memcached_server.address(), b"version\r\n").startswith(b"VERSION ")


def test_nginx(web_server):
    assert urllib.request.urlopen(web_server.url()).read() == b"welcome"
    # It writes that behind its answer.
    web_server.wait(ready.log(r'"GET / HTTP/1.1" 200'))


def test_postgres(postgres_server):
    with psycopg.connect(postgres_server.url()) as connection:
        assert connection.execute("SELECT current_user::text, current_database()::text").fetchone() == ("ada", "app")


def test_mariadb(mariadb_server):
    query = ["mariadb", "-uapp", "-papp", "-h", "127.0.0.1", "-Ne", "SELECT database()", "app"]
    assert mariadb_server.run(query, check=True).stdout == "app\n"
    # It speaks first: its protocol is 10, its name behind that.
    with socket.create_connection(mariadb_server.address(), 10) as connection:
        assert b"MariaDB" in connection.recv(100)


def test_rabbitmq(broker):
    # Connection.Start is a frame of kind 1 on channel 0.
    assert ask(broker.address(), b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")
