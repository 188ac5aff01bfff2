"""Registries, and what stands before them, that do what they should not: the store stays whole, and errors say what it was."""

from __future__ import annotations

import email.utils
import pickle
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError, RegistryError, RegistryUnreachableError
from pytest_sandbox_runtime.images.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.images.images import Images
    from pytest_sandbox_runtime.images.store import Store
    from tests.kernel.registry.images import Pushed
    from tests.kernel.registry.proxies import Proxy, Sent
    from tests.kernel.registry.registries import Registry

    Push = Callable[..., Pushed]

pytestmark = pytest.mark.needs("docker-registry", "skopeo")


@pytest.fixture
def pushed(registry: Registry, push: Push, request: pytest.FixtureRequest) -> Pushed:
    return push(f"{registry.host}/faults:1")


@pytest.fixture
def name(pushed: Pushed, proxy: Proxy) -> str:
    return f"{proxy.host}/faults:1"


def status(number: int, **headers: str) -> Callable[[Sent], None]:
    def change(sent: Sent) -> None:
        sent.status, sent.body = number, b"busy"
        sent.headers = {"Content-Length": "4", **{key.replace("_", "-"): value for key, value in headers.items()}}

    return change


def cut(after: int) -> Callable[[Sent], None]:
    def change(sent: Sent) -> None:
        sent.cut = after

    return change


def flip(sent: Sent) -> None:
    sent.body = sent.body[:-1] + bytes([sent.body[-1] ^ 1])


def assert_whole(store: Store, remains: Callable[[Store], list[str]]) -> None:
    """Nothing is there by name, and what is there is what it should be."""
    from pytest_sandbox_runtime.images.digest import digest_of

    assert store.images.index().manifests == ()
    for digest in store.images.digests():
        with open(store.images.blob_path(digest), "rb") as blob:
            assert digest_of(blob.read()) == digest


# What passes


@pytest.mark.parametrize("number", [429, 500, 502, 503, 504])
def test_who_is_busy_is_asked_again(proxy: Proxy, name: str, pushed: Pushed, images: Images, number: int) -> None:
    for pattern in ("HEAD .*/manifests/", "GET .*/manifests/", f"GET .*/{pushed.layers[0]}"):
        proxy.fault(pattern, status(number), times=2)
    assert images.pull(name).digest == pushed.digest


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_says_when_to_ask_again(proxy: Proxy, name: str, pushed: Pushed, images: Images, form: str) -> None:
    began = time.time()
    # A date has whole seconds, and so may be up to one sooner.
    said = "1" if form == "seconds" else email.utils.formatdate(began + 2, usegmt=True)
    proxy.fault("HEAD .*/manifests/", status(429, Retry_After=said), times=1)
    assert images.pull(name).digest == pushed.digest
    assert time.time() - began >= 0.9


def test_a_server_that_wants_hours_is_not_waited_for(proxy: Proxy, name: str, images: Images) -> None:
    proxy.fault("/manifests/", status(429, Retry_After="3600"))
    with pytest.raises(RegistryError, match=f"{proxy.host} is busy, and wants to be asked again in 3600 s"):
        images.pull(name)


def test_a_server_that_stays_busy_is_named(proxy: Proxy, name: str, images: Images) -> None:
    proxy.fault("/manifests/", status(503))
    with pytest.raises(
        RegistryError, match=f"{proxy.host}/faults does not give the manifest 1: 503 Service Unavailable"
    ) as caught:
        images.pull(name)
    assert caught.value.status == 503
    assert len(proxy.requests("GET .*/manifests/1")) == 4


def test_a_blob_that_is_cut_goes_on_where_it_was(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    layer = pushed.layers[1]
    proxy.fault(f"GET .*/{layer}", cut(20_000), times=6)  # more often than there is patience, but each brings something
    assert images.pull(name).digest == pushed.digest
    ranges = [headers.get("Range") for headers in proxy.requests(f"GET .*/{layer}")]
    assert ranges == [None, *(f"bytes={20_000 * number}-" for number in range(1, 7))]


def test_a_manifest_that_is_cut_is_asked_for_again(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    proxy.fault("GET .*/manifests/1", cut(10), times=2)
    assert images.pull(name).digest == pushed.digest


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(
    proxy: Proxy, name: str, pushed: Pushed, images: Images
) -> None:
    layer = pushed.layers[1]
    whole: list[bytes] = []

    def first(sent: Sent) -> None:
        whole.append(sent.body)
        sent.cut = 20_000

    def ignore(sent: Sent) -> None:
        sent.status, sent.body = 200, whole[0]
        sent.headers = {"Content-Length": str(len(whole[0]))}

    proxy.fault(f"GET .*/{layer}", first, times=1)
    proxy.fault(f"GET .*/{layer}", ignore, times=1)
    assert images.pull(name).digest == pushed.digest
    assert len(proxy.requests(f"GET .*/{layer}")) == 2


def test_another_part_than_was_asked_for_is_not_taken(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    layer = pushed.layers[1]
    proxy.fault(f"GET .*/{layer}", cut(20_000), times=1)

    def shift(sent: Sent) -> None:
        sent.headers["Content-Range"] = sent.headers["Content-Range"].replace("20000-", "10000-")

    proxy.fault(f"GET .*/{layer}", shift, times=1)
    assert images.pull(name).digest == pushed.digest
    assert [one.get("Range") for one in proxy.requests(f"GET .*/{layer}")] == [None, "bytes=20000-", None]


def test_what_was_half_there_and_wrong_is_fetched_anew(
    proxy: Proxy, name: str, pushed: Pushed, images: Images, store: Store
) -> None:
    with store.images.resume(pushed.layers[0], store.lease) as blob:
        blob.write(b"not what it should be")
    assert images.pull(name).digest == pushed.digest
    assert [one.get("Range") for one in proxy.requests(f"GET .*/{pushed.layers[0]}")] == ["bytes=21-", None]


def test_a_server_that_falls_silent_is_asked_again(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    stall = threading.Event()

    def hold(sent: Sent) -> None:
        sent.cut, sent.stall = 30_000, stall

    proxy.fault(f"GET .*/{pushed.layers[2]}", hold, times=1)
    assert images.pull(name).digest == pushed.digest
    stall.set()
    assert [one.get("Range") for one in proxy.requests(f"GET .*/{pushed.layers[2]}")] == [None, "bytes=30000-"]


# What does not


def test_a_server_that_stays_silent_is_named(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    stall = threading.Event()

    def hold(sent: Sent) -> None:
        sent.cut, sent.stall = 0, stall

    proxy.fault("GET .*/blobs/", hold)
    with pytest.raises(RegistryUnreachableError, match=f"{proxy.host} does not answer"):
        images.pull(name)
    stall.set()


def test_a_blob_that_is_another_is_refused(
    proxy: Proxy, name: str, pushed: Pushed, images: Images, store: Store, remains: Callable[[Store], list[str]]
) -> None:
    proxy.fault(f"GET .*/{pushed.layers[1]}", flip, times=1)
    with pytest.raises(
        RegistryError,
        match=f"{proxy.host}/faults sent something else than the blob {pushed.layers[1]}: its digest is sha256:",
    ) as caught:
        images.pull(name)
    assert "pull again" in caught.value.hint
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert_whole(store, remains)
    assert images.pull(name).digest == pushed.digest
    assert remains(store) == []


def test_a_manifest_that_is_another_is_refused(
    proxy: Proxy, name: str, images: Images, pushed: Pushed, store: Store, remains: Callable[[Store], list[str]]
) -> None:
    def space(sent: Sent) -> None:
        sent.body += b" "
        sent.headers["Content-Length"] = str(len(sent.body))

    proxy.fault("GET .*/manifests/", space)
    with pytest.raises(
        RegistryError,
        match=f"the manifest 1 of {proxy.host}/faults has the digest sha256:.*, and should have {pushed.digest}",
    ):
        images.pull(name)
    with pytest.raises(RegistryError, match=f"and should have {pushed.digest}"):
        images.pull(f"{proxy.host}/faults@{pushed.digest}")
    assert_whole(store, remains)


def test_a_manifest_of_fifty_megabytes_is_not_read(proxy: Proxy, name: str, images: Images) -> None:
    def grow(sent: Sent) -> None:
        sent.body = bytes(50 << 20)
        sent.headers["Content-Length"] = str(len(sent.body))

    proxy.fault("GET .*/manifests/", grow)
    with pytest.raises(
        RegistryError, match=f"the manifest 1 of {proxy.host} holds more than the 4194304 bytes that it may"
    ):
        images.pull(name)


def test_a_blob_without_an_end_is_not_read_to_it(
    proxy: Proxy, name: str, pushed: Pushed, images: Images, store: Store, remains: Callable[[Store], list[str]]
) -> None:
    def grow(sent: Sent) -> None:
        sent.body = sent.body + bytes(32 << 20)
        sent.headers.pop("Content-Length")
        sent.headers["Connection"] = "close"
        sent.cut = len(sent.body)

    proxy.fault(f"GET .*/{pushed.layers[0]}", grow)
    with pytest.raises(
        RegistryError, match=f"{proxy.host} sends more than the \\d+ bytes of the blob {pushed.layers[0]}"
    ):
        images.pull(name)
    assert_whole(store, remains)


def test_a_length_that_is_a_lie_is_told(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    def shorten(sent: Sent) -> None:
        sent.body = sent.body[:100]
        sent.headers["Content-Length"] = "100"
        sent.headers.pop("Content-Range", None)
        sent.status = 200

    proxy.fault(f"GET .*/{pushed.layers[0]}", shorten)
    with pytest.raises(RegistryError, match=f"ends the blob {pushed.layers[0]} after 100 of \\d+ bytes"):
        images.pull(name)


def test_a_blob_that_is_not_there_is_named(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    proxy.fault(f"GET .*/{pushed.layers[1]}", status(404))
    with pytest.raises(
        RegistryError, match=f"{proxy.host}/faults lacks the blob {pushed.layers[1]}, which its manifest has"
    ):
        images.pull(name)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "the manifest sha256:.* of .*/faults is no JSON"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "is of Docker's schema 1, which is not read"),
        (b'{"schemaVersion": 2, "config": {}}', "config has no mediaType"),
        (b"", "is no JSON"),
    ],
)
def test_a_manifest_that_is_none_is_refused(proxy: Proxy, name: str, images: Images, body: bytes, why: str) -> None:
    def replace(sent: Sent) -> None:
        sent.body, sent.headers = body, {"Content-Length": str(len(body)), "Content-Type": "text/plain"}

    proxy.fault("GET .*/manifests/", replace)
    with pytest.raises(ImageError, match=why):
        images.pull(name)


def test_a_foreign_layer_is_refused_with_a_reason(proxy: Proxy, name: str, images: Images) -> None:
    foreign = Descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "sha256:" + "a" * 64, 1)
    manifest = Manifest(Descriptor(OCI_CONFIG, "sha256:" + "b" * 64, 1), (foreign,)).to_bytes()

    def replace(sent: Sent) -> None:
        sent.body, sent.headers = manifest, {"Content-Length": str(len(manifest)), "Content-Type": OCI_MANIFEST}

    proxy.fault("GET .*/manifests/", replace)
    with pytest.raises(
        ImageError, match="cannot be used: a layer is foreign .* its licence lets nobody but its maker"
    ) as caught:
        images.pull(name)
    assert "without such layers" in caught.value.hint
    assert not proxy.requests("/blobs/")


# Redirects


def test_a_blob_may_be_somewhere_else(
    registry: Registry, proxy: Proxy, name: str, pushed: Pushed, images: Images
) -> None:
    def lead(sent: Sent) -> None:
        sent.status = 307
        sent.headers["Location"] = f"http://{registry.host}/v2/faults/blobs/{pushed.layers[0]}"

    proxy.fault(f"GET .*/{pushed.layers[0]}", lead)
    assert images.pull(name).digest == pushed.digest


def test_who_leads_in_circles_is_not_followed(proxy: Proxy, name: str, pushed: Pushed, images: Images) -> None:
    def lead(sent: Sent) -> None:
        sent.status = 302
        sent.headers["Location"] = f"/v2/faults/blobs/{pushed.layers[0]}"

    proxy.fault(f"GET .*/{pushed.layers[0]}", lead)
    with pytest.raises(RegistryError, match="leads from one place to another, more than 5 times"):
        images.pull(name)


@pytest.mark.parametrize("there", ["ftp://a.example/x", "file:///etc/passwd", "https:///x"])
def test_who_leads_to_no_server_is_not_followed(
    proxy: Proxy, name: str, pushed: Pushed, images: Images, there: str
) -> None:
    def lead(sent: Sent) -> None:
        sent.status, sent.headers["Location"] = 302, there

    proxy.fault(f"GET .*/{pushed.layers[0]}", lead)
    with pytest.raises(RegistryError, match=f"{proxy.host} leads to .*, where nobody follows"):
        images.pull(name)


# Nobody there


def test_a_host_that_is_none_and_a_port_where_nobody_listens(images: Images) -> None:
    with pytest.raises(RegistryUnreachableError, match="there is no host registry.invalid, or no network") as caught:
        images.pull("registry.invalid/a:1")
    assert "before the first /" in caught.value.hint
    with pytest.raises(RegistryUnreachableError, match="127.0.0.1:1 refuses connections") as refused:
        images.pull("127.0.0.1:1/a:1")
    assert "is the port right" in refused.value.hint
    for error in (caught.value, refused.value):
        assert type(pickle.loads(pickle.dumps(error))) is RegistryUnreachableError


def test_what_is_no_registry_is_said(registry: Registry, proxy: Proxy, name: str, images: Images) -> None:
    proxy.fault("", status(200))
    with pytest.raises(ImageError, match="is no JSON"):
        images.pull(name)


# Mirrors


def test_a_mirror_is_asked_first_and_its_trouble_is_told_with_the_registrys(
    registry: Registry, proxy: Proxy, name: str, pushed: Pushed, images: Images, home: dict[str, str], tmp_path: object
) -> None:
    conf = f"{tmp_path}/registries.conf"
    home["CONTAINERS_REGISTRIES_CONF"] = conf
    with open(conf, "w", encoding="utf-8") as file:
        file.write(f'[[registry]]\nlocation = "{registry.host}"\n[[registry.mirror]]\nlocation = "{proxy.host}"\n')
    wanted = f"{registry.host}/faults:1"
    assert str(images.pull(wanted)) == wanted
    assert proxy.requests("GET .*/manifests/1")
    proxy.fault("", status(404))
    assert images.pull(wanted).digest == pushed.digest
    with pytest.raises(
        RegistryError, match=f"there is no repository {registry.host}/none\n  and its mirror: .*{proxy.host}/none"
    ):
        images.pull(f"{registry.host}/none:1")
