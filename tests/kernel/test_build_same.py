"""The same declaration gives the same layers: for every user, Python, time zone, mask, and number of builders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime import Engine, EngineSettings, Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Aside, Bench

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")

# Whoever changes these throws away everybody's layers. They are of no user, day, machine or Python.
LAYERS = [
    "sha256:37dbfc4bf9c9292544383ab0bd6ef0585cacf73c643926447dafcb138e298cc5",
    "sha256:8b7cbfe4d9edd989d8ace65e20520874e41031c4b81966a5934ba69b75507dd5",
    "sha256:141a9bf322f40d1e60c29d1aa50087ae879a5a4f748bd7bcadfa36b94154bc95",
    "sha256:77888b702e2785ef87f0ff21a93b699c7860245cac622251dfab54825ca02198",
    "sha256:4d920a74c9e4ae1a20dc1d5251f39be8a34125b08b218f2fcd60a5cf1c5d5946",
    "sha256:ca665d823e14ce76aa73f9538e7ede0dc605777e96b268413ac34a590b4128e4",
    "sha256:30dd864b016d8e202c7f1030cc2acd22361dc9b0dd44dd3d079ab98e8674b8dd",
    "sha256:443c6b8dac887a0a7ba6147138ffc45283f37519c8e58aa0aab309d9d1bb23c5",
    "sha256:397f4c7f33eed794f9b9ecfd5220cc345374f9bfb4925627af8f76378d9bec9a",
]
OWNED = [
    "sha256:96d831732accc2b0515e0df29f879df9925b3fef6b1a2d19051338ef41eda8b8",
    "sha256:d6629e864e1f9652565acc2c2e219eeb1fa9bd1600c2a533f3ef9fd2ea112c83",
    "sha256:cfa927a572f667531ffd0466da0d6beeece7ac24945472f116897442698d6bb3",
    "sha256:67a522beb344183a69992477206e0d41e96a9553c004c49dd475fa9f3b73616d",
]
WHO = "while read name rest; do case $name in Uid:|Gid:|Groups:) echo $rest;; esac; done < /proc/self/status"


def write_context(place: Path, mtime: int) -> None:
    """Write the same files, in another order than they are sorted, with times that say when."""
    files = {"z.txt": 0o644, "a.sh": 0o755, "conf/main.conf": 0o640, "conf/deep/x": 0o600, "skipped.log": 0o644}
    for name, mode in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}\n")
        path.chmod(mode)
    (place / "link").symlink_to("conf/main.conf")
    (place / ".dockerignore").write_text("*.log\n.dockerignore\n")
    for directory, names, inner in os.walk(place):
        Path(directory).chmod(0o755)
        for name in (*names, *inner):
            os.utime(os.path.join(directory, name), (mtime, mtime), follow_symlinks=False)


def declared(base: Image, context: Path) -> Image:
    return (
        base.env(GREETING="hello", LANG="C.UTF-8")
        .workdir("/srv/app")
        .copy(".", "/srv/app/", context=context)
        .copy(["z.txt", "a.sh"], "/owned/", context=context, chown="app", chmod="u+s")
        .file("/etc/app.conf", "x = 1\n", chmod=0o640, chown="12:34")
        .run("mkdir -p d/e; for i in 3 1 2; do echo $i > d/$i; done; ln d/1 d/hard; ln -s 1 d/soft; chmod 2750 d/e")
        .run("rm -r conf /etc/group; touch -d '2001-01-01 00:00:00' d/2; mv d/3 d/4; echo $GREETING > said")
        .run(f"(env; {WHO}; umask; hostname; pwd; date +%Z; cat /etc/hosts /etc/resolv.conf) > /seen")
        .run("(ls -a / /dev; stat -c '%a %u:%g %n' / /etc /dev /dev/pts /dev/shm /tmp /run) > /looks")
        .user("app")
        .run(f"({WHO}; umask; env; echo ~) > /tmp/mine")
    )


def layers_of(store: str, image: Image) -> list[str]:
    """Return the diff ids of all layers but the base's, which is of this machine."""
    with Engine.open(EngineSettings(store=store)) as engine:
        return [layer.diff_id for layer in engine.images.inspect(engine.images.build(image)).layers[1:]]


@pytest.mark.parametrize("how", ["plain", "strange"])
def test_layers_have_the_digests_that_they_always_had(
    aside: type[Aside], base: Image, tmp_path: Path, how: str
) -> None:
    store = str(tmp_path / "store")

    def build() -> list[str]:
        if how == "strange":
            os.umask(0o077)
            os.environ.update(
                TZ="Pacific/Kiritimati", LC_ALL="C", HOME="/nowhere", PYTHONHASHSEED="7", HOSTNAME="other"
            )
            os.environ.update(SOURCE_DATE_EPOCH="1", GREETING="leaked", DOCKER_BUILDKIT="1")
            os.chdir("/")
        context = tmp_path / how / "context"
        write_context(context, {"plain": 946684800, "strange": 4102444800}[how])
        return layers_of(store, declared(base, context))

    assert aside(build).result() == LAYERS


@pytest.mark.parametrize(
    "user",
    [
        pytest.param("root", marks=pytest.mark.needs("root")),
        pytest.param("user", marks=pytest.mark.needs("newuidmap")),
    ],
)
def test_so_have_those_with_files_of_other_owners(base: Image, tmp_path: Path, user: str) -> None:
    image = (
        base.run("mkdir /home; echo > /home/app; ln -s app /home/link; mkdir /home/staff; mkdir -m 1777 /shared")
        .run("chown app /home/app; chown -h 7:8 /home/link; chown 9:1001 /home/staff; chmod 4755 /home/app")
        .user("app:staff")
        .run("echo mine > /shared/mine; mkdir /shared/deep")
        .user("root")
        .run("rm /home/link; chown -R 65534:65534 /shared/deep; touch /home/staff/new")
    )
    assert layers_of(str(tmp_path / user), image) == OWNED


# However many build at once


@pytest.mark.parametrize("joined", [True, False], ids=["workers of one run", "runs"])
def test_each_layer_is_made_once_by_however_many_builders(
    open_bench: Callable[..., Bench], aside: type[Aside], base: Image, tmp_path: Path, joined: bool
) -> None:
    bench, builders = open_bench(), 4
    bench.digest(base.run("true", cache=["/log"]))
    (log,) = Path(bench.engine.store.path, "caches").iterdir()
    # The first step takes until all the others wait for it.
    all_wait = f"while set -- /log/here-*; test $# -lt {builders - 1}; do sleep 0.02; done"
    image = base.run(f"{all_wait}; echo one >> /log/made", cache=["/log"])
    for step in ("two", "three"):
        image = image.run(f"echo {step} >> /log/made; echo {step} > /{step}", cache=["/log"])
    address = bench.engine.listen()

    def work() -> tuple[str, list[str]]:
        said: list[str] = []

        def report(line: str) -> None:
            said.append(line)
            if line.startswith("step 1/") and line.endswith("another process makes it; waiting"):
                (log / f"here-{os.getpid()}").touch()

        settings = EngineSettings(store=bench.engine.store.path, report=report)
        with Engine.join(address, settings) if joined else Engine.open(settings) as engine:
            return engine.images.build(image).digest, said

    ends = [worker.result() for worker in [aside(work) for _ in range(builders)]]
    assert {digest for digest, _ in ends} == {bench.digest(image)}
    assert (log / "made").read_text().split() == ["one", "two", "three"]
    assert len(list(log.glob("here-*"))) == builders - 1
    made = [line for _, said in ends for line in said if "waiting" not in line]
    assert sorted(line.split()[1] for line in made) == ["1/3", "2/3", "3/3"]
