"""Compose files that run: what they say is how the sandboxes are."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import ComposeError, Engine, SandboxError, ServiceError, ready
from pytest_sandbox_runtime.compose import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_sandbox_runtime.compose.running import LiveProject

    Up = Callable[..., LiveProject]

pytestmark = pytest.mark.needs("overlayfs", "networks", "static-busybox")


def test_services_find_each_other_and_start_in_order(up: Up) -> None:
    project = up("""
        services:
          web:
            image: base
            command: sh -c "cat /etc/hosts; exec sleep 1000"
            depends_on:
              db: {condition: service_healthy}
              setup: {condition: service_completed_successfully}
            networks:
              front:
              back: {aliases: [website]}
          db:
            image: base
            command: sh -c "sleep 0.2; touch /ready; exec sleep 1000"
            healthcheck: {test: [CMD, test, -e, /ready]}
            networks: [back]
          setup:
            image: base
            command: sh -c "echo done"
            networks: [back]
        networks:
          front:
          back: {ipam: {config: [{subnet: 10.40.0.0/24}]}}
        """)
    web, db = project["web"], project["db"]
    web.wait(ready.log("db"))
    assert db.ip == "10.40.0.2"
    assert f"{db.ip} db" in web.logs()
    assert " website" in db.sandbox.read_text("/etc/hosts")
    assert len(web.sandbox.addresses) == 4
    assert project["setup"].process.returncode == 0


def test_what_a_service_says_is_how_its_sandbox_is(up: Up, tmp_path: Path) -> None:
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound/file").write_text("from the host")
    (tmp_path / "token").write_text("hush")
    (tmp_path / ".env").write_text("COLOUR=blue\n")
    project = up("""
        services:
          app:
            image: base
            entrypoint: [sh, -c]
            command: ["exec sleep 1000"]
            environment: {SHADE: "${COLOUR:-none}", LEVEL: 3}
            user: app
            working_dir: /tmp
            hostname: machine
            domainname: example.org
            read_only: true
            tmpfs: ["/scratch:size=1m,mode=700"]
            shm_size: 8m
            ulimits: {nofile: {soft: 100, hard: 200}}
            cap_drop: [ALL]
            extra_hosts: ["other.example:192.0.2.7"]
            volumes: ["./bound:/bound:ro", "data:/data"]
            configs: [{source: greeting, target: /etc/greeting, mode: 0440}]
            secrets: [token]
            stop_signal: SIGKILL
          peer:
            image: base
            command: sh -c "echo shared > /data/file; exec sleep 1000"
            volumes: ["data:/data"]
        volumes: {data: {}}
        configs: {greeting: {content: "hello ${COLOUR}"}}
        secrets: {token: {file: ./token}}
        """)
    app = project["app"]
    run = app.sandbox.run
    assert run("echo $SHADE $LEVEL; id -un; pwd; hostname").stdout == "blue 3\napp\n/tmp\nmachine.example.org\n"
    assert run("cat /bound/file /etc/greeting /run/secrets/token", user="root").stdout == "from the hosthello bluehush"
    assert "Read-only file system" in run("touch /bound/new", user="root").stderr
    assert "Read-only file system" in run("touch /etc/new", user="root").stderr
    assert run("stat -c %a /scratch; ulimit -n; cat /dev/shm/x 2>&1; stat -c %a /etc/greeting").stdout.split() == [
        *("700", "100", "cat:", "can't", "open", "'/dev/shm/x':", "No", "such", "file", "or", "directory", "440"),
    ]
    assert "192.0.2.7 other.example" in run("cat /etc/hosts").stdout
    assert run("cat /proc/self/status", user="root").stdout.count("CapBnd:\t0000000000000000") == 1
    project["peer"].wait(ready.file("/data/file"))
    assert run("cat /data/file").stdout == "shared\n"
    assert app.stop() == -9


def test_replicas_share_a_name(up: Up) -> None:
    project = up("""
        services:
          worker: {image: base, command: sleep 1000, scale: 3}
          client: {image: base, command: sleep 1000}
        """)
    assert len(project.services["worker"]) == 3
    hosts = project["client"].sandbox.read_text("/etc/hosts")
    assert all(f"{worker.ip} worker\n" in hosts for worker in project.services["worker"])


def test_an_image_is_built_from_its_context(up: Up, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text(
        'FROM base\nARG VERSION=1\nCOPY page /page\nRUN echo $VERSION > /version\nCMD ["sh", "-c", "cat /page; sleep 1000"]\n'
    )
    (tmp_path / "app/page").write_text("welcome\n")
    project = up("""
        services:
          web: {build: {context: app, args: {VERSION: 7}}}
          inline:
            build: {context: app, dockerfile_inline: "FROM base\\nCOPY page /inline\\n"}
            command: sleep 1000
        """)
    assert project["web"].sandbox.read_text("/version") == "7\n"
    project["web"].wait(ready.log("welcome"))
    assert project["inline"].sandbox.read_text("/inline") == "welcome\n"


def test_only_active_profiles_are_started(up: Up) -> None:
    text = """
        services:
          web: {image: base, command: sleep 1000}
          debug: {image: base, command: sleep 1000, profiles: [debug]}
        """
    assert list(up(text).services) == ["web"]
    assert sorted(up(text, profiles=["debug"]).services) == ["debug", "web"]


def test_a_published_port_is_on_this_machine(up: Up) -> None:
    serve = 'sh -c "mkdir /www; echo page > /www/index.html; exec busybox httpd -f -p 80 -h /www"'
    project = up(f"""
        services:
          web: {{image: base, command: '{serve}', ports: ["18093:80", "80"]}}
        """)
    for host, port in (("127.0.0.1", 18093), project["web"].address(80)):
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", "/index.html")
        assert connection.getresponse().read() == b"page\n"
        connection.close()


def test_one_that_fails_is_told_and_nothing_stays(up: Up) -> None:
    with pytest.raises(
        ServiceError, match=r"service setup: its process has ended with status 3, and web waits(.|\n)*oh no"
    ):
        up("""
            services:
              web:
                image: base
                command: sleep 1000
                depends_on: {setup: {condition: service_completed_successfully}}
              setup: {image: base, command: sh -c "echo oh no; exit 3"}
            """)


def test_one_that_is_not_healthy_is_told(up: Up) -> None:
    with pytest.raises(ServiceError, match="service db was not ready after .*waited for status 0 of false"):
        up("""
            services:
              db: {image: base, command: sh -c "sleep 0.3; exit 1", healthcheck: {test: "false"}}
            """)


def test_it_starts_again_as_it_is_to(up: Up) -> None:
    project = up("""
        services:
          flaky:
            image: base
            command: sh -c "echo x >> /tmp/starts; wc -l < /tmp/starts; test -e /fine || exit 1; sleep 1000"
            restart: on-failure:5
        """)
    project["flaky"].wait(ready.log("3"))
    assert project["flaky"].process.poll() is None


def test_a_shell_stays_on_a_terminal_or_an_open_input(up: Up) -> None:
    project = up("""
        services:
          box: {image: base, command: sh -c "busybox tty >/dev/stdout; echo $$TERM; exec sh", tty: true, restart: always, user: app}
          open: {image: base, command: sh, stdin_open: true}
          closed: {image: base, command: sh}
          after: {image: base, command: sleep 1000, depends_on: {closed: {condition: service_completed_successfully}}}
        """)
    project["box"].wait(ready.all_of(ready.log("xterm"), ready.log(r"/ \$ ")))
    assert project["box"].logs().startswith("/dev/pts/0\r\nxterm\r\n")
    assert project["closed"].process.returncode == 0
    assert [project[name].process.poll() for name in ("box", "open")] == [None, None]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("cap_add: [SYS_ADMIN]", r"services\.app\.cap_add: SYS_ADMIN would reach beyond the sandbox"),
        (
            "volumes: [{type: volume, source: d, target: /d, volume: {subpath: x/y}}]",
            r"compose\.yaml:5:62: services\.app\.volumes\[0\]\.volume\.subpath: the volume d has no x/y\n  hint: it has to be there before",
        ),
        ("tmpfs: /t:dev", r"compose\.yaml:5:5: services\.app\.tmpfs: '/t:dev' has the option 'dev'"),
        ("privileged: true", r"services\.app\.privileged: is not supported"),
    ],
)
def test_what_a_sandbox_cannot_be_is_an_error_at_its_place(up: Up, lines: str, said: str) -> None:
    with pytest.raises(ComposeError, match=said):
        up(f"services:\n  app:\n    image: base\n    command: sleep 1\n    {lines}\nvolumes: {{d: {{}}}}\n")


def test_a_service_that_is_not_there_is_told(up: Up) -> None:
    project = up("services: {web: {image: base, command: sleep 1000}}")
    with pytest.raises(KeyError, match="has no service 'db': there are web"):
        project["db"]


def test_an_image_that_nobody_knows_is_told(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: 'localhost:1/none', command: sleep 1}}")
    with pytest.raises(SandboxError, match="localhost:1"):
        engine.compose(load(str(tmp_path), environ={}))


def test_a_new_volume_begins_with_what_the_image_has(up: Up) -> None:
    project = up("""
        services:
          app: {build: {context: ., dockerfile_inline: "FROM base\\nRUN mkdir /data && echo first > /data/file"}, command: sleep 1000, volumes: ["kept:/data"]}
          peer: {image: base, command: sleep 1000, volumes: ["kept:/seen", "fresh:/fresh"], depends_on: [app]}
        volumes: {kept: {}, fresh: {}}
        """)
    assert project["app"].sandbox.read_text("/data/file") == "first\n"
    assert project["peer"].sandbox.read_text("/seen/file") == "first\n"
    assert project["peer"].sandbox.files.listdir("/fresh") == []
