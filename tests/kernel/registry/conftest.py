"""Registries on loopback, what stands before them, and images to push to them and pull."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.images.registry.client import Registries
from pytest_sandbox_runtime.images.registry.transport import Patience
from pytest_sandbox_runtime.images.store import Store
from tests.kernel.registry.images import Pushed, store_image
from tests.kernel.registry.proxies import Proxy
from tests.kernel.registry.registries import Authority, Registry, registry_running
from tests.kernel.registry.tokens import TokenServer

if TYPE_CHECKING:
    import http.server
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_sandbox_runtime.images.manifest import Descriptor

QUICK = Patience(tries=4, first=0.01, longest=2.0, connect=2.0, silence=0.5)


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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def encrypted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that speaks TLS, with a certificate that nobody knows."""
    tls = {"tls": {"certificate": authority.certificate, "key": authority.key}}
    with registry_running(tmp_path_factory.mktemp("encrypted"), http=tls) as running:
        yield running


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


@pytest.fixture
def put_image() -> Callable[..., Descriptor]:
    """Puts an image into a store as if it had been built there: ``put_image(store, "localhost:9/x:1", layers=1)``."""
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
