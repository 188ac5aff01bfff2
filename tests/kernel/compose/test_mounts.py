"""``tmpfs`` and ``volumes`` as they are in a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import ComposeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose.running import LiveProject

    Up = Callable[..., LiveProject]

pytestmark = pytest.mark.needs("overlayfs", "networks", "static-busybox")

PROGRAM = "#!/bin/sh\necho ran\n"


def test_memory_is_as_its_options_say(up: Up) -> None:
    app = up("""
        services:
          app:
            image: base
            command: sleep 1000
            tmpfs: [/plain, "/tools:exec,mode=700", "/fixed:ro", "/both:ro,exec,size=1m"]
            volumes: [{type: tmpfs, target: /long, read_only: true}]
        """)["app"]
    for place in ("plain", "tools"):
        app.sandbox.write_text(f"/{place}/program", PROGRAM)
        app.run(["chmod", "755", f"/{place}/program"], check=True)
    assert "Permission denied" in app.run("/plain/program").stderr
    assert app.run("/tools/program; stat -c %a /tools").stdout == "ran\n700\n"
    for place in ("fixed", "both", "long"):
        assert "Read-only file system" in app.run(["touch", f"/{place}/new"]).stderr
    mounts = {
        line.split()[1]: set(line.split()[3].split(","))
        for line in app.run(["cat", "/proc/mounts"]).stdout.splitlines()
    }
    always = {"nosuid", "nodev"}
    assert all(always < mounts[place] for place in ("/plain", "/tools", "/fixed", "/both", "/long"))
    assert {place for place, flags in mounts.items() if "noexec" in flags} >= {"/plain", "/fixed", "/long"}
    assert "noexec" not in mounts["/tools"] | mounts["/both"]


PARTS = """
    services:
      setup:
        image: base
        command: sh -c "{line}"
        volumes: ["data:/data"]
      app:
        image: base
        command: sleep 1000
        volumes:
          - {{type: volume, source: data, target: /part, volume: {{subpath: a/b}}}}
          - {{type: volume, source: data, target: /etc/file, read_only: true, volume: {{subpath: a/file}}}}
        depends_on: {{setup: {{condition: service_completed_successfully}}}}
      all: {{image: base, command: sleep 1000, volumes: ["data:/data"]}}
    volumes: {{data: {{}}}}
    """


def test_a_part_of_a_volume_is_seen_that_another_service_makes(up: Up) -> None:
    project = up(PARTS.format(line="mkdir -p /data/a/b /data/real && echo kept > /data/a/file && touch /data/a/b/here"))
    app, every = project["app"].sandbox, project["all"].sandbox
    assert app.files.listdir("/part") == ["here"]
    assert app.read_text("/etc/file") == "kept\n"
    assert "Read-only file system" in app.run("echo x > /etc/file").stderr
    app.run(["touch", "/part/new"], check=True)
    assert sorted(every.files.listdir("/data/a/b")) == ["here", "new"]


def test_a_link_within_a_volume_is_followed(up: Up) -> None:
    project = up(PARTS.format(line="mkdir -p /data/real/b && ln -s real /data/a && touch /data/a/file /data/a/b/here"))
    assert project["app"].sandbox.files.listdir("/part") == ["here"]


@pytest.mark.parametrize("to", ["/etc", "../../../..", "/proc/self/root"])
def test_no_link_leads_out_of_a_volume(up: Up, to: str) -> None:
    said = r"compose\.yaml:11:62: services\.app\.volumes\[0\]\.volume\.subpath: a/b leads out of the volume data by a link$"
    with pytest.raises(ComposeError, match=said):
        up(PARTS.format(line=f"mkdir /data/a && touch /data/a/file && ln -s {to} /data/a/b"))


def test_a_part_that_nobody_has_made_is_told(up: Up) -> None:
    said = r"compose\.yaml:12:83: services\.app\.volumes\[1\]\.volume\.subpath: the volume data has no a/file"
    with pytest.raises(ComposeError, match=said):
        up(PARTS.format(line="mkdir -p /data/a/b"))
