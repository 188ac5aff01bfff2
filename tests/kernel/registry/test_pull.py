"""Images that are pulled from Debian's docker-registry, where skopeo and podman have pushed them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.errors import ImageError, RegistryNotFoundError
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.manifest import DOCKER_LIST, OCI_INDEX, Index
from pytest_sandbox_runtime.images.platforms import Platform
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.registry.images import Pushed
    from tests.kernel.registry.proxies import Proxy, Sent
    from tests.kernel.registry.registries import Registry

    Push = Callable[..., Pushed]
    Podman = Callable[..., str]

pytestmark = pytest.mark.needs("docker-registry", "skopeo")


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_pushes_is_pulled(
    registry: Registry, push: Push, images: Images, store: Store, kind: str, form: str
) -> None:
    if (kind, form) == ("zstd", "v2s2"):
        form = "oci"  # Docker's documents know no zstd
    name = f"{registry.host}/pull/{kind}-{form}:1"
    push(name, "--format", form, "--dest-compress=false" if kind == "none" else "--preserve-digests=false", kind=kind)
    built = images.pull(name)
    said = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
    )
    assert built.digest == json.loads(said.stdout)["Digest"]
    assert str(built) == name
    roots = images.roots_of(name)
    assert [sorted(os.listdir(f"{root}/data")) for root in roots] == [["2"], ["1"], ["0"]]
    assert [one.reference for one in images.list()] == [built.reference]


def test_what_is_there_is_asked_for_by_one_request(
    registry: Registry, proxy: Proxy, push: Push, images: Images
) -> None:
    push(f"{registry.host}/pull/again:1")
    first = images.pull(f"{proxy.host}/pull/again:1")
    assert proxy.requests("GET /v2/.*/blobs")
    proxy.seen.clear()
    assert images.pull(f"{proxy.host}/pull/again:1") == first
    assert [line for line, _ in proxy.seen] == ["HEAD /v2/pull/again/manifests/1"]


def test_a_tag_that_has_moved_is_pulled_anew(registry: Registry, push: Push, images: Images) -> None:
    name = f"{registry.host}/pull/moved:1"
    push(name)
    first = images.pull(name)
    second = push(name)
    assert images.pull(name).digest == second.digest != first.digest
    assert images.get(name).digest == second.digest


def test_what_has_a_digest_and_is_there_is_not_asked_for(
    registry: Registry, proxy: Proxy, push: Push, images: Images
) -> None:
    pushed = push(f"{registry.host}/pull/digest:1")
    name = f"{proxy.host}/pull/digest:1@{pushed.digest}"
    assert images.pull(name).digest == pushed.digest
    proxy.seen.clear()
    assert images.pull(name).digest == pushed.digest
    assert images.pull_missing(name).digest == pushed.digest
    assert proxy.seen == []
    (listed,) = images.list()
    assert str(listed.reference) == f"{proxy.host}/pull/digest@{pushed.digest}"


def test_what_has_lost_a_part_is_pulled_again(registry: Registry, push: Push, images: Images, store: Store) -> None:
    pushed = push(f"{registry.host}/pull/lost:1")
    for name in (f"{registry.host}/pull/lost:1", f"{registry.host}/pull/lost@{pushed.digest}"):
        images.pull(name)
        store.images.delete(pushed.layers[1])
        assert images.pull(name).digest == pushed.digest
        assert store.images.size(pushed.layers[1])


def test_what_the_store_lacks_is_pulled_once(registry: Registry, proxy: Proxy, push: Push, images: Images) -> None:
    push(f"{registry.host}/pull/missing:latest")
    built = images.pull_missing(f"{proxy.host}/pull/missing")
    assert str(built) == f"{proxy.host}/pull/missing:latest"
    proxy.seen.clear()
    assert images.pull_missing(f"{proxy.host}/pull/missing").digest == built.digest
    assert proxy.seen == []


def test_what_is_there_needs_no_client(registry: Registry, push: Push, images: Images, store: Store) -> None:
    pushed = push(f"{registry.host}/pull/lazy:1")
    images.pull(f"{registry.host}/pull/lazy:1")
    images.pull(f"{registry.host}/pull/lazy@{pushed.digest}")
    program = """
import sys
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.store import Store

with Store(sys.argv[1]) as store:
    for name in sys.argv[2:]:
        print(Images(store).pull_missing(name).digest)
print("urllib3" in sys.modules)
"""
    names = [f"{registry.host}/pull/lazy:1", f"{registry.host}/pull/lazy@{pushed.digest}"]
    argv = [sys.executable, "-c", program, store.path, *names]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert said.split() == [pushed.digest, pushed.digest, "False"]


def test_what_has_lost_its_name_is_pulled_again(registry: Registry, push: Push, images: Images) -> None:
    name = f"{registry.host}/pull/renamed:1"
    push(name)
    first = images.pull_missing(name)
    images.tag(first, "kept:1")
    images.remove(name)
    second = push(name)
    assert images.pull_missing(name).digest == second.digest != first.digest


def test_a_layer_that_is_there_is_not_fetched(registry: Registry, proxy: Proxy, push: Push, images: Images) -> None:
    pushed = push(f"{registry.host}/pull/shared:1")
    source = f"docker://{registry.host}/pull/shared:1"
    images.pull(f"{proxy.host}/pull/shared:1")
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            source,
            f"docker://{registry.host}/pull/other:1",
        ],
        check=True,
    )
    proxy.seen.clear()
    assert images.pull(f"{proxy.host}/pull/other:1").digest == pushed.digest
    assert not proxy.requests("/blobs/")


def put(registry: Registry, path: str, kind: str, body: bytes) -> None:
    import http.client

    connection = http.client.HTTPConnection(registry.host)
    connection.request("PUT", f"/v2/{path}", body, {"Content-Type": kind})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 201, said


@pytest.fixture
def several(registry: Registry, push: Push, store: Store, tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Pushes an index of two platforms; returns the digest of each, and under "" the index's."""

    def pushing(repository: str, kind: str) -> dict[str, str]:
        host = f"{registry.host}/{repository}"
        names = (str(Platform.host()), "linux/s390x")
        digests = {
            name: push(f"{host}:{name.replace('/', '-')}", platform=Platform.parse(name)).digest for name in names
        }
        with Store(str(tmp_path / "pushed")) as pushed:
            found = {one.digest: one for one in pushed.images.index().manifests}
            entries = [
                {**found[digest].bare().as_dict(), "platform": Platform.parse(name).as_dict()}
                for name, digest in digests.items()
            ]
        index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
        put(registry, f"{repository}/manifests/all", kind, index)
        from pytest_sandbox_runtime.images.digest import digest_of

        return {**digests, "": digest_of(index)}

    return pushing


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_of_several_platforms_the_machines_is_pulled_or_the_named_one(
    registry: Registry, several: Callable[[str, str], dict[str, str]], images: Images, proxy: Proxy, kind: str
) -> None:
    repository = f"pull/several-{'oci' if kind == OCI_INDEX else 'docker'}"
    digests = several(repository, kind)
    name = f"{proxy.host}/{repository}"
    here = str(Platform.host())
    assert images.pull(f"{name}:all").digest == digests[here]
    assert images.pull(f"{name}@{digests['']}").digest == digests[here]
    proxy.seen.clear()
    assert images.pull(f"{name}@{digests['']}").digest == digests[here]
    assert images.pull_missing(f"{name}@{digests['']}").digest == digests[here]
    assert proxy.seen == []
    with pytest.raises(ImageError, match=f"the image is not for linux/arm/v5, but for {here}, linux/s390x"):
        images.pull(f"{name}:all", platform="linux/arm/v5")


def test_what_is_missing_for_another_platform_gets_no_tag(
    registry: Registry, several: Callable[[str, str], dict[str, str]], images: Images, proxy: Proxy
) -> None:
    digests = several("pull/platforms", OCI_INDEX)
    name, here = f"{proxy.host}/pull/platforms:all", str(Platform.host())
    assert images.pull_missing(name).digest == digests[here]
    assert images.pull_missing(name, platform="linux/s390x").digest == digests["linux/s390x"]
    proxy.seen.clear()
    assert images.pull_missing(name).digest == digests[here]
    assert images.pull_missing(name, platform="linux/s390x").digest == digests["linux/s390x"]
    assert images.pull_missing(name, platform=here).digest == digests[here]
    assert proxy.seen == []
    assert images.pull(name, platform="linux/s390x").digest == images.get(name).digest == digests["linux/s390x"]


def test_a_removed_image_leaves_nothing(registry: Registry, push: Push, images: Images, store: Store) -> None:
    name = f"{registry.host}/pull/removed:1"
    push(name)
    images.pull(name)
    store.close()
    images.remove(name)
    assert store.images.digests() == []
    assert os.listdir(store.layers.path) == []
    assert images.pull(name).digest == images.get(name).digest


def test_a_tag_that_is_not_there_is_answered_with_those_like_it(registry: Registry, push: Push, images: Images) -> None:
    for tag in ("1.25", "1.24", "old"):
        push(f"{registry.host}/pull/tags:{tag}", layers=1)
    with pytest.raises(RegistryNotFoundError, match=f"{registry.host}/pull/tags has no tag 1.26") as caught:
        images.pull(f"{registry.host}/pull/tags:1.26")
    assert re.match("it has 1.2[45], 1.2[45]; pytest-sandbox search-tags .*/pull/tags lists all 3", caught.value.hint)
    assert caught.value.status == 404
    with pytest.raises(RegistryNotFoundError, match=f"there is no repository {registry.host}/pull/nothing"):
        images.pull(f"{registry.host}/pull/nothing:1")
    with pytest.raises(RegistryNotFoundError, match="/pull/tags has no image sha256:aaaa"):
        images.pull(f"{registry.host}/pull/tags@sha256:{'a' * 64}")


def test_a_name_of_nobody_is_said_to_be_neither_here_nor_there(registry: Registry, images: Images) -> None:
    with pytest.raises(
        ImageError, match=r"the store has no image .*/pull/nobody:1, and it cannot be pulled: there is no repository"
    ):
        images.pull_missing(f"{registry.host}/pull/nobody:1")
    with pytest.raises(ImageError, match="^the store has no image 0123456789ab\n"):
        images.pull_missing("0123456789ab")


@pytest.mark.needs("podman", "root")
def test_what_podman_pushes_is_pulled(registry: Registry, push: Push, images: Images, podman: Podman) -> None:
    name = f"{registry.host}/pull/podman"
    push(f"{name}:1")
    podman("pull", "-q", "--tls-verify=false", f"{name}:1")
    podman("push", "-q", "--tls-verify=false", f"{name}:1", f"{name}:2")
    built = images.pull(f"{name}:2")
    assert [sorted(os.listdir(f"{root}/data")) for root in images.roots_of(built)] == [["2"], ["1"], ["0"]]


PULL = """
import os
import sys
from pytest_sandbox_runtime.images import ingest
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.store import Store

write = ingest.Ingest.write

def tell(self, data):
    write(self, data)
    os.write(1, b"%d\\n" % self.size)

ingest.Ingest.write = tell
with Store(sys.argv[1]) as store:
    Images(store).pull(sys.argv[2])
"""


def pulling(store: Path, name: str) -> subprocess.Popen[str]:
    """Start a process that pulls, and tells of each piece how much there is."""
    argv = [sys.executable, "-c", PULL, str(store), name]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_several_processes_pull_the_same_once(registry: Registry, proxy: Proxy, push: Push, tmp_path: Path) -> None:
    push(f"{registry.host}/pull/together:1")
    children = [pulling(tmp_path / "store", f"{proxy.host}/pull/together:1") for _ in range(4)]
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0] * 4
    assert len(proxy.requests("GET /v2/pull/together/blobs/")) == 4


def test_a_killed_pull_is_resumed(
    registry: Registry, proxy: Proxy, push: Push, store: Store, images: Images, remains: Callable[[Store], list[str]]
) -> None:
    pushed = push(f"{registry.host}/pull/killed:1", layers=1)
    stall = threading.Event()

    def hold(sent: Sent) -> None:
        sent.cut, sent.stall = 100_000, stall

    proxy.fault("GET .*/blobs/" + pushed.layers[0], hold, times=1)
    with pulling(Path(store.path), f"{proxy.host}/pull/killed:1") as child:
        assert child.stdout is not None
        assert any(line == "100000\n" for line in child.stdout)
        child.kill()
    stall.set()
    assert images.list() == ()
    assert any(name.startswith(".cut-") for name in remains(store))
    proxy.seen.clear()
    assert images.pull(f"{proxy.host}/pull/killed:1").digest == pushed.digest
    assert [one.get("Range") for one in proxy.requests("GET .*/blobs/" + pushed.layers[0])] == ["bytes=100000-"]
    assert remains(store) == []


def test_who_is_interrupted_ends_soon(registry: Registry, proxy: Proxy, push: Push, tmp_path: Path) -> None:
    pushed = push(f"{registry.host}/pull/interrupted:1", layers=1)
    stall = threading.Event()

    def hold(sent: Sent) -> None:
        sent.cut, sent.stall = 100_000, stall

    proxy.fault("GET .*/blobs/" + pushed.layers[0], hold)
    with pulling(tmp_path / "store", f"{proxy.host}/pull/interrupted:1") as child:
        assert child.stdout is not None
        assert any(line == "100000\n" for line in child.stdout)
        child.send_signal(signal.SIGINT)
        # Of silence thirty seconds would be borne.
        assert child.wait(20) in (-signal.SIGINT, 130)
    stall.set()


def test_who_waits_for_another_one_is_interrupted_soon(registry: Registry, push: Push, store: Store) -> None:
    pushed = push(f"{registry.host}/pull/waiting:1", layers=1)
    name = f"{registry.host}/pull/waiting:1"
    with store.images.resume(pushed.layers[0], store.lease), pulling(Path(store.path), name) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(20) in (-signal.SIGINT, 130)


def test_what_is_half_written_goes_with_prune(
    registry: Registry, store: Store, images: Images, remains: Callable[[Store], list[str]]
) -> None:
    digest = "sha256:" + "a" * 64
    with store.images.resume(digest, store.lease) as blob:
        blob.write(b"half")
        images.prune()
        assert remains(store) == [".cut-" + "a" * 64]
    assert remains(store) == [".cut-" + "a" * 64]
    images.prune()
    assert remains(store) == []


def test_proxies_are_asked_and_loopback_is_not(
    images: Images, home: dict[str, str], registry: Registry, push: Push
) -> None:
    push(f"{registry.host}/pull/direct:1")
    home["HTTP_PROXY"] = home["https_proxy"] = "http://127.0.0.1:1"
    assert images.pull(f"{registry.host}/pull/direct:1")
    with pytest.raises(
        ImageError, match="the proxy does not let registry.example be reached: Connection refused"
    ) as caught:
        images.pull("registry.example/a:1")
    assert "NO_PROXY" in caught.value.hint


def test_indexes_are_read_with_suspicion(registry: Registry, images: Images) -> None:
    put(registry, "pull/empty/manifests/1", OCI_INDEX, Index().to_bytes())
    with pytest.raises(ImageError, match="but for none"):
        images.pull(f"{registry.host}/pull/empty:1")


def test_tags_come_on_several_pages(registry: Registry, proxy: Proxy, push: Push, images: Images) -> None:
    for tag in ("1.9", "1.10", "1.10-slim"):
        push(f"{registry.host}/pull/pages:{tag}", layers=1)

    def one(sent: Sent) -> None:
        sent.body = b'{"tags": ["1.10"]}'
        sent.headers = {"Content-Length": str(len(sent.body)), "Link": '</v2/pull/pages/tags/list?last=1>; rel="next"'}

    proxy.fault("GET /v2/pull/pages/tags/list.n=1000", one)
    assert images.tags(f"{proxy.host}/pull/pages") == ("1.9", "1.10", "1.10-slim")
