"""Dockerfiles as popular projects write them: each is built, and what it is for is asked of it."""

import glob
import http.client
import json
import signal
import socket
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pytest_sandbox import Image

HERE = Path(__file__).parent


def trusting(image: Image) -> Image:
    """Return ``image`` with the certificate authorities that were added to this machine: of a proxy, for example."""
    added = sorted(glob.glob("/usr/local/share/ca-certificates/*.crt"))
    return image.copy(added, "/usr/local/share/ca-certificates/").run("update-ca-certificates") if added else image


BASE = {"debian:bookworm-slim": trusting(Image.debian("bookworm", packages=["ca-certificates"]))}


def project(name: str, **words) -> Image:
    return Image.dockerfile(HERE / name, contexts={**BASE, **words.pop("contexts", {})}, **words)


class Machine:
    """A sandbox of an image, and what the image's configuration says is to be run in it."""

    def __init__(self, sandbox, config: dict) -> None:
        self.sandbox = sandbox
        self.config = config

    @contextmanager
    def started(self, line: bytes, *args: str, **env: str):
        """Run the image's own command, or its entrypoint with ``args``, until the block ends; enter it at ``line``."""
        argv = [*self.config.get("Entrypoint", ()), *(args or self.config.get("Cmd", ()))]
        with self.sandbox.popen(argv, env=env, stderr=subprocess.STDOUT) as process:
            said = []
            for one in process.stdout:
                said.append(one.decode())
                if line in one:
                    break
            else:
                pytest.fail(f"{argv} ended with {process.wait()}: {''.join(said)}")
            yield process

    def stop(self, process) -> int:
        """Stop the image's command as the image says, and return its exit status."""
        process.send_signal(signal.Signals[self.config["StopSignal"]])
        process.communicate(timeout=30)
        return process.wait()

    def is_healthy(self) -> bool:
        kind, *words = self.config["Healthcheck"]["Test"]
        return self.sandbox.run(words[0] if kind == "CMD-SHELL" else words).returncode == 0

    def get(self, port: int, path: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("sandbox")) as client:
            client.sock = self.sandbox.connect(port)
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def machine(sandbox_engine, sandbox_factory):
    """Start a sandbox of an image, made where it is not yet."""

    def start(image: Image, **words) -> Machine:
        return Machine(sandbox_factory(image=image, **words), sandbox_engine.images.config(image))

    return start


def talk(connection: socket.socket, line: str, end: bytes) -> str:
    connection.sendall(f"{line}\r\n".encode())
    with connection.makefile("rb") as answer:
        return b"".join(iter(answer.readline, end)).decode()


def test_redis(machine) -> None:
    redis = machine(project("redis"))
    with redis.started(b"eady to accept connections"):
        assert redis.is_healthy()
        assert redis.sandbox.run(["redis-cli", "set", "colour", "blue"]).stdout == "OK\n"
        assert redis.sandbox.run(["redis-cli", "get", "colour"]).stdout == "blue\n"
        assert redis.sandbox.run("stat -c %U /proc/$(pidof redis-server)").stdout == "redis\n"
    assert not redis.is_healthy()


def test_memcached(machine) -> None:
    memcached = machine(project("memcached"))
    sandbox = memcached.sandbox
    assert sandbox.run(["id", "-un"]).stdout == "memcache\n"
    assert sandbox.run("command -v gcc make").returncode != 0, "what built it is gone"
    with memcached.started(b"server listening", "-l", "127.0.0.1", "-vv"), sandbox.connect(11211) as connection:
        assert talk(connection, "set colour 0 0 4\r\nblue", b"STORED\r\n") == ""
        assert talk(connection, "get colour", b"END\r\n") == "VALUE colour 0 4\r\nblue\r\n"


def test_postgres(machine) -> None:
    postgres = machine(project("postgres").copy("init.sql", "/docker-entrypoint-initdb.d/", context=HERE / "postgres"))
    with postgres.started(b"the cluster is made", POSTGRES_PASSWORD="s3cret") as server:
        # The server is started only now.
        up = ["sh", "-c", "until pg_isready -qh 127.0.0.1; do :; done"]
        postgres.sandbox.run(up, check=True, timeout=60)
        psql = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-qAtc", "SELECT name FROM colours"]
        asked = postgres.sandbox.run(psql, env={"PGPASSWORD": "s3cret"}, check=True)
        assert asked.stdout == "blue\n"
        assert postgres.sandbox.run(psql, env={"PGPASSWORD": "wrong"}).returncode != 0
        assert postgres.stop(server) == 0


def test_nginx(machine) -> None:
    nginx = machine(project("nginx"), env={"NGINX_PORT": "8081"})
    assert not nginx.sandbox.files.exists("/etc/nginx/old.bak")
    with nginx.started(b"start worker processes") as server:
        assert nginx.get(8081, "/some/where") == (200, "you asked for /some/where\n")
        assert nginx.stop(server) == 0


def test_haproxy(machine) -> None:
    haproxy = machine(project("haproxy", args={"HAPROXY_UID": "4242"}))
    assert haproxy.sandbox.run("id -u; id -g").stdout == "4242\n4242\n"
    with haproxy.started(b"Loading success"):
        assert haproxy.get(8080, "/") == (200, "through the front")
        assert haproxy.get(8080, "/elsewhere")[0] == 503


def test_httpbin(machine) -> None:
    httpbin = machine(project("httpbin"))
    with httpbin.started(b"Listening at"):
        status, body = httpbin.get(8080, "/get?colour=blue")
        assert (status, '"colour":"blue"' in body.replace(" ", "")) == (200, True)
        assert httpbin.get(8080, "/status/418")[0] == 418
        assert httpbin.is_healthy()


def test_json_server(machine) -> None:
    server = machine(project("json-server"))
    with server.started(b"JSON Server listens on 3000"):
        status, body = server.get(3000, "/posts/1")
        assert (status, json.loads(body)) == (200, {"id": 1, "title": "Hello"})
        assert server.get(3000, "/posts/2")[0] == 404


def test_whoami(machine) -> None:
    image = project("whoami", args={"VERSION": "1.2.3"})
    whoami = machine(image, hostname="tester")
    with whoami.started(b"whoami 1.2.3 listens"):
        status, body = whoami.get(8080, "/api?x=1")
        assert status == 200
        assert body.startswith("Hostname: tester\nUser: 65534\nGET /api?x=1 HTTP/1.1\n")


def test_java(machine) -> None:
    java = machine(project("java"))
    with java.started(b"Started Clinic on Java 17"):
        assert java.get(8080, "/pets") == (200, "Leo,Basil,Rosy")


def test_mkdocs_builds_the_pages_of_whoever_starts_from_it(sandbox_factory) -> None:
    mkdocs = project("mkdocs")
    assert "version 1.6.1" in sandbox_factory(image=mkdocs).run(["mkdocs", "--version"], check=True).stdout
    site = Image.dockerfile(HERE / "mkdocs/site", target="pages", contexts={"mkdocs": mkdocs})
    pages = sandbox_factory(image=site)
    assert "That was all." in pages.read_text("/site/more/index.html")
    assert not pages.files.exists("/docs/Dockerfile")


def test_php(machine) -> None:
    php = machine(project("php"))
    with php.started(b"resuming normal operations") as server:
        assert php.get(80, "/") == (200, "Hello world!\n")
        assert php.get(80, "/?title=Second") == (200, "Second\n")
        assert php.stop(server) == 0
