"""Registries on loopback, Debian's docker-registry, and a proxy before one that does what registries should not."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import io
import json
import os
import re
import ssl
import subprocess
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pytest_sandbox_runtime.images.digest import digest_of
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.manifest import Descriptor, ImageConfig, layer_type
from pytest_sandbox_runtime.images.packed import packing
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.registry.client import Registries
from pytest_sandbox_runtime.images.registry.transport import Patience
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager


QUICK = Patience(tries=4, first=0.01, longest=2.0, connect=2.0, silence=0.5)


# Registries


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


@pytest.fixture
def run_registry() -> Callable[..., AbstractContextManager[Registry]]:
    """Runs one more registry: ``with run_registry(place, auth=...) as registry``."""
    return registry_running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without authentication, and without TLS."""
    with registry_running(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that lets in ``me`` with the password ``pass:word``."""
    place = tmp_path_factory.mktemp("guarded")
    subprocess.run(["htpasswd", "-Bbc", place / "htpasswd", "me", "pass:word"], check=True, capture_output=True)
    with registry_running(place, auth={"htpasswd": {"realm": "x", "path": str(place / "htpasswd")}}) as running:
        yield running


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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def encrypted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that speaks TLS, with a certificate that nobody knows."""
    tls = {"tls": {"certificate": authority.certificate, "key": authority.key}}
    with registry_running(tmp_path_factory.mktemp("encrypted"), http=tls) as running:
        yield running


# Tokens


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives out tokens: to read what is ``public/``, and to ``me`` for all; ``asked`` is what it was asked."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        super().__init__(("127.0.0.1", 0), _Tokens)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"

    def token(self, scopes: Sequence[str], *, is_known: bool) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            given = [one for one in actions.split(",") if is_known or (one == "pull" and name.startswith("public/"))]
            access.append({"type": kind, "name": name, "actions": given})
        now = int(time.time())
        claims = {"iss": "tests", "sub": "", "aud": "tests", "exp": now + 60, "nbf": now - 60, "iat": now, "jti": "x"}
        der = "".join(Path(self.authority.certificate).read_text().splitlines()[1:-1])
        parts = {"typ": "JWT", "alg": "RS256", "x5c": [der]}, {**claims, "access": access}
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in parts)
        argv = ["openssl", "dgst", "-sha256", "-sign", self.authority.key]
        signature = subprocess.run(argv, input=signed, check=True, capture_output=True).stdout
        return (signed + b"." + _encoded(signature)).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class _Tokens(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "")
        is_known = said == "Basic " + base64.b64encode(b"me:pass:word").decode()
        self._answer(parse_qs(urlsplit(self.path).query), said, is_known=is_known)

    def do_POST(self) -> None:
        fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        fields["scope"] = fields.get("scope", [""])[0].split()
        self._answer(fields, "POST", is_known=fields.get("refresh_token") == ["refresh me"])

    def _answer(self, fields: dict[str, list[str]], said: str, *, is_known: bool) -> None:
        self.server.asked.append((self.command, fields, said))
        body = b'{"details": "incorrect username or password"}'
        if is_known or not said:
            token = self.server.token(fields.get("scope", []), is_known=is_known)
            body = json.dumps({"access_token" if self.command == "POST" else "token": token}).encode()
        self.send_response(200 if is_known or not said else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_said: object) -> None:
        pass


@contextlib.contextmanager
def serving(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def tokens(authority: Authority) -> Iterator[TokenServer]:
    server = TokenServer(authority)
    with serving(server):
        yield server


@pytest.fixture
def tokened(tokens: TokenServer, authority: Authority, tmp_path: Path) -> Iterator[Registry]:
    """A registry that wants the tokens of ``tokens``."""
    token = {"realm": tokens.url, "service": "tests", "issuer": "tests", "rootcertbundle": authority.certificate}
    with registry_running(tmp_path / "tokened", auth={"token": token}) as running:
        yield running


# Faults


@dataclass
class Sent:
    """An answer on its way through the proxy; ``cut`` is after how many bytes of the body the connection breaks."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None
    stall: threading.Event | None = None


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the registry ``upstream``; each of ``faults``, for a request like its pattern, changes the answer."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: list[tuple[str, int, Callable[[Sent], None]]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Forwarding)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def fault(self, pattern: str, change: Callable[[Sent], None], times: int = 1 << 30) -> None:
        """Have ``change`` spoil the answers to the next ``times`` requests ``METHOD PATH`` like ``pattern``."""
        self.faults.append((pattern, times, change))

    def requests(self, pattern: str) -> list[dict[str, str]]:
        """Return the headers of the requests like ``pattern``."""
        return [headers for line, headers in list(self.seen) if re.search(pattern, line)]

    def spoil(self, line: str, sent: Sent) -> None:
        for number, (pattern, times, change) in enumerate(self.faults):
            if times > 0 and re.search(pattern, line):
                self.faults[number] = pattern, times - 1, change
                change(sent)
                return

    def handle_error(self, *_said: object) -> None:
        pass  # who was cut off goes away


class _Forwarding(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def forward(self) -> None:
        line = f"{self.command} {self.path}"
        self.server.seen.append((line, dict(self.headers)))
        sent = self._upstream()
        self.server.spoil(line, sent)
        self.send_response(sent.status)
        for name, value in sent.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent.body if sent.cut is None else sent.body[: sent.cut])
        if sent.stall is not None:
            self.wfile.flush()
            sent.stall.wait()
        self.close_connection = sent.cut is not None or sent.stall is not None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.forward
        raise AttributeError(name)

    def _upstream(self) -> Sent:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(self.server.upstream)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body or None, {**self.headers, "Host": self.headers["Host"]})
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name != "Transfer-Encoding"}
            data = answer.read()
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(data))
            return Sent(answer.status, headers, data)

    def log_message(self, *_said: object) -> None:
        pass


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    server = Proxy(registry.host)
    with serving(server):
        yield server


@pytest.fixture
def behind_tls(registry: Registry, authority: Authority) -> Iterator[Proxy]:
    """A proxy that speaks TLS for a registry that does not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.certificate, authority.key)
    server = Proxy(registry.host)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server


# Images


@dataclass(frozen=True)
class Pushed:
    """An image that another tool has pushed: its digest, and that of each of its layers."""

    digest: str
    layers: tuple[str, ...]


def layer_tar(number: int, size: int = 300_000) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in (("bin/sh", b"#!"), (f"data/{number}", os.urandom(size // 2) + bytes(size // 2))):
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o755
            tar.addfile(header, io.BytesIO(content))
    return sink.getvalue()


def store_image(
    store: Store, name: str, *, layers: int = 3, kind: str = "gzip", platform: Platform | None = None
) -> Descriptor:
    """Put an image of random layers into ``store``."""
    descriptors, diff_ids = [], []
    for number in range(layers):
        tar, packed = layer_tar(number), io.BytesIO()
        with packing(packed, kind) as stream:
            stream.write(tar)
        descriptors.append(Descriptor(layer_type(kind), *store.images.add(io.BytesIO(packed.getvalue()), store.lease)))
        diff_ids.append(digest_of(tar))
    config = ImageConfig(platform=platform or Platform.host(), diff_ids=tuple(diff_ids))
    image = store.add_image(config, descriptors)
    store.images.tag(Reference.parse(name), image, store.lease)
    return image


@pytest.fixture
def put_image() -> Callable[..., Descriptor]:
    """Puts an image into a store as if it had been built there: ``put_image(store, "localhost:9/x:1", layers=1)``."""
    return store_image


@pytest.fixture
def make_image() -> Callable[..., Descriptor]:
    return store_image


@pytest.fixture
def push(tmp_path: Path) -> Callable[..., Pushed]:
    """Pushes an image of random layers by skopeo: ``push("127.0.0.1:5000/x:1", kind="gzip")``."""

    def pushing(name: str, *options: str, **image: Any) -> Pushed:
        with Store(str(tmp_path / "pushed")) as store:
            made = store_image(store, name, **image)
            source = f"oci:{store.images.path}:{Reference.parse(name).canonical}"
            argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options, source, f"docker://{name}"]
            subprocess.run(argv, check=True)
            _, manifest = store.images.manifest_of(made)
            return Pushed(made.digest, tuple(layer.digest for layer in manifest.layers))

    return pushing


@pytest.fixture
def podman() -> Iterator[Callable[..., str]]:
    """Runs podman on a store of its own, below /tmp, as it takes no longer paths."""
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as place:
        words = ("podman", f"--root={place}/root", f"--runroot={place}/run", "--storage-driver=vfs")

        def run(*argv: str) -> str:
            return subprocess.run([*words, *argv], check=True, stdout=subprocess.PIPE, text=True).stdout

        yield run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which there are no credentials, no mirrors and no proxies."""
    (tmp_path / "run").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.fixture
def images(store: Store, home: dict[str, str]) -> Images:
    """The images of ``store``, with little patience."""
    return Images(store, registries=lambda: Registries(home, QUICK))


@pytest.fixture
def remains() -> Callable[[Store], list[str]]:
    """Tells what of a store is half written."""
    return lambda store: [name for name in os.listdir(store.images.path) if name.startswith(".")]
