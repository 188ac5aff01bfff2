"""Debian's docker-registry on loopback, and the authority that its certificates are from."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Registry:
    """A docker-registry that listens at ``host``; ``said`` are the lines of its log."""

    host: str
    said: list[str] = field(default_factory=list)

    def requests(self, pattern: str) -> int:
        """Return how many of the requests that it got are like ``pattern``."""
        return sum(1 for line in self.said if re.search(pattern, line))


@contextlib.contextmanager
def registry_running(place: Path, **settings: Any) -> Iterator[Registry]:
    place.mkdir(parents=True, exist_ok=True)
    config = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        **settings,
        "http": {"addr": "127.0.0.1:0", "secret": "x", **settings.get("http", {})},
    }
    (place / "config.yml").write_text(json.dumps(config))
    argv = ["docker-registry", "serve", str(place / "config.yml")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said: list[str] = []
        listening: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"listening on ([0-9.]+:\d+)", line):
                    listening.append(found[1])
                    ready.set()
            ready.set()

        reader = threading.Thread(target=listen)
        reader.start()
        try:
            ready.wait(30)
            assert listening, "".join(said)
            yield Registry(listening[0], said)
        finally:
            process.terminate()
            reader.join()


@dataclass(frozen=True)
class Authority:
    """A certificate and its key, by which ``localhost`` and 127.0.0.1 are known."""

    certificate: str
    key: str

    @classmethod
    def make(cls, place: Path) -> Authority:
        certificate, key = str(place / "ca.crt"), str(place / "ca.key")
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run([*argv, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return cls(certificate, key)
