"""Images that are pushed to Debian's docker-registry, from where skopeo and podman take them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError, RegistryAuthError, RegistryError, RegistryUnreachableError
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.registry.client import Registries
from pytest_sandbox_runtime.images.registry.login import remember
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_sandbox_runtime.images.manifest import Descriptor
    from tests.kernel.registry.images import Pushed
    from tests.kernel.registry.proxies import Proxy, Sent
    from tests.kernel.registry.registries import Registry
    from tests.kernel.registry.tokens import TokenServer

    Push = Callable[..., Pushed]
    Podman = Callable[..., str]
    PutImage = Callable[..., Descriptor]

pytestmark = pytest.mark.needs("docker-registry", "skopeo")


@pytest.fixture
def made(images: Images, put_image: PutImage, store: Store) -> str:
    """An image in the store."""
    return put_image(store, "made:1").digest


@pytest.mark.parametrize("kind", ["none", "gzip", "zstd"])
def test_what_is_pushed_others_and_we_pull(
    registry: Registry, images: Images, put_image: PutImage, store: Store, tmp_path: Path, kind: str
) -> None:
    image = put_image(store, "made:1", kind=kind)
    name = f"{registry.host}/push/{kind}:1"
    assert str(images.push("made:1", name)) == f"{name}@{image.digest}"
    said = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
    )
    assert json.loads(said.stdout)["Digest"] == image.digest
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/copy"], check=True
    )
    with Store(str(tmp_path / "other")) as other:
        assert Images(other).pull(name).digest == image.digest


@pytest.mark.needs("podman", "root")
def test_what_is_pushed_podman_pulls(registry: Registry, images: Images, made: str, podman: Podman) -> None:
    name = f"{registry.host}/push/podman:1"
    images.push(made, name)
    podman("pull", "-q", "--tls-verify=false", name)
    assert podman("image", "inspect", "--format", "{{.Digest}}", name).strip() == made


def test_an_image_is_pushed_by_its_own_name(registry: Registry, images: Images, made: str) -> None:
    images.tag(made, f"{registry.host}/push/own")
    assert images.push(f"{registry.host}/push/own").tag == "latest"
    assert images.tags(f"{registry.host}/push/own") == ("latest",)
    with pytest.raises(ImageError, match=f"{made} has no name to be pushed under"):
        images.push(made)
    with pytest.raises(ImageError, match="has a digest, which nobody can give to an image"):
        images.push(made, f"{registry.host}/push/own@{made}")


def test_what_is_there_is_not_sent(proxy: Proxy, images: Images, made: str) -> None:
    images.push(made, f"{proxy.host}/push/twice:1")
    assert len(proxy.requests("PUT .*/blobs/")) == 4
    proxy.seen.clear()
    images.push(made, f"{proxy.host}/push/twice:2")
    assert not proxy.requests("^(POST|PATCH|PUT .*/blobs/)")
    assert len(proxy.requests("PUT .*/manifests/2")) == 1


def test_what_another_repository_has_is_mounted(proxy: Proxy, images: Images, made: str) -> None:
    images.push(made, f"{proxy.host}/push/from:1")
    images.tag(made, f"{proxy.host}/push/from:1")
    proxy.seen.clear()
    images.push(made, f"{proxy.host}/push/to:1")
    assert len(proxy.requests("POST .*mount=.*from=push%2Ffrom")) == 4
    assert not proxy.requests("PUT .*/blobs/")


def test_what_only_the_store_thinks_is_elsewhere_is_sent(proxy: Proxy, images: Images, made: str) -> None:
    images.tag(made, f"{proxy.host}/push/never:1")
    images.push(made, f"{proxy.host}/push/sent:1")
    assert len(proxy.requests("PUT .*/blobs/")) == 4


@pytest.mark.parametrize("number", [429, 500, 503])
def test_who_is_busy_is_sent_it_again(proxy: Proxy, images: Images, made: str, number: int) -> None:
    def busy(sent: Sent) -> None:
        sent.status, sent.body, sent.headers = number, b"", {"Content-Length": "0"}

    for pattern in ("HEAD .*/blobs/", "POST .*/uploads/", "PUT .*/blobs/", "PUT .*/manifests/"):
        proxy.fault(pattern, busy, times=1)
    images.push(made, f"{proxy.host}/push/busy-{number}:1")
    assert images.tags(f"{proxy.host}/push/busy-{number}") == ("1",)


def test_who_does_not_answer_is_sent_it_again_and_named_in_the_end(proxy: Proxy, images: Images, made: str) -> None:
    def drop(sent: Sent) -> None:
        raise ConnectionResetError

    proxy.fault("PUT .*/blobs/", drop, times=2)
    images.push(made, f"{proxy.host}/push/dropped:1")
    proxy.fault("PUT .*/manifests/", drop)
    with pytest.raises(RegistryUnreachableError, match=f"the connection with {proxy.host} broke"):
        images.push(made, f"{proxy.host}/push/dropped:2")


def test_a_registry_that_takes_it_for_something_else_is_told(proxy: Proxy, images: Images, made: str) -> None:
    def other(sent: Sent) -> None:
        sent.headers["Docker-Content-Digest"] = "sha256:" + "a" * 64

    proxy.fault("PUT .*/manifests/", other)
    with pytest.raises(RegistryError, match=f"took the manifest {made} for sha256:aaaa"):
        images.push(made, f"{proxy.host}/push/other:1")


def test_a_registry_that_says_no_is_quoted(proxy: Proxy, images: Images, made: str) -> None:
    def no(sent: Sent) -> None:
        sent.status, sent.body = 400, b'{"errors": [{"code": "MANIFEST_INVALID", "message": "we do\\nnot like it"}]}'
        sent.headers = {"Content-Length": str(len(sent.body))}

    proxy.fault("PUT .*/manifests/", no)
    with pytest.raises(RegistryError, match=f"does not take the manifest {made}: 400 we do not like it"):
        images.push(made, f"{proxy.host}/push/no:1")


# Who may


@pytest.mark.needs("htpasswd")
def test_credentials_are_shown_for_a_push(guarded: Registry, images: Images, made: str, home: dict[str, str]) -> None:
    with pytest.raises(RegistryAuthError, match="there are no credentials for it"):
        images.push(made, f"{guarded.host}/push/guarded:1")
    remember(home, guarded.host, "me", "pass:word")
    allowed = Images(images._store, registries=lambda: Registries(home))
    assert allowed.push(made, f"{guarded.host}/push/guarded:1")
    assert allowed.tags(f"{guarded.host}/push/guarded") == ("1",)


@pytest.mark.needs("openssl")
def test_a_push_asks_for_a_token_for_it(
    tokened: Registry, tokens: TokenServer, images: Images, made: str, home: dict[str, str]
) -> None:
    remember(home, tokened.host, "me", "pass:word")
    images.tag(made, f"{tokened.host}/private/from:1")
    images.push(made, f"{tokened.host}/private/from:1")
    asked = {tuple(fields["scope"]) for _, fields, _ in tokens.asked}
    assert asked == {("repository:private/from:pull,push",)}
    tokens.asked.clear()
    images.push(made, f"{tokened.host}/private/to:1")
    asked = {tuple(fields["scope"]) for _, fields, _ in tokens.asked}
    assert asked == {
        ("repository:private/to:pull,push",),
        ("repository:private/to:pull,push", "repository:private/from:pull"),
    }


@pytest.mark.needs("openssl")
def test_who_may_only_read_may_not_push(tokened: Registry, images: Images, made: str) -> None:
    with pytest.raises(RegistryAuthError, match=f"{tokened.host}/public/a refuses: 401 authentication required"):
        images.push(made, f"{tokened.host}/public/a:1")
