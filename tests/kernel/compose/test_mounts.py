"""``tmpfs`` and ``volumes`` as they are in a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
