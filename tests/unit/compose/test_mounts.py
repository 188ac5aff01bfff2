"""``volumes``, ``tmpfs``, ``configs`` and ``secrets`` of a service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.compose import BindUse, FileUse, TmpfsUse, VolumeUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService

VOLUMES = "volumes: {data: , other: }\n"


def bind(source: str, target: str, **more: Any) -> BindUse:
    return BindUse(source=source, target=target, **more)


def volume(source: str | None, target: str, **more: Any) -> VolumeUse:
    return VolumeUse(source=source, target=target, **more)


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("/cache", volume(None, "/cache")),
        ("data:/x", volume("data", "/x")),
        ("'data:/x/./y//:ro'", volume("data", "/x/y", read_only=True)),
        ("data:/x:rw", volume("data", "/x")),
        ("'data:/x:ro,nocopy,z'", volume("data", "/x", read_only=True, nocopy=True)),
        ("/a/../b:/x", bind("/b", "/x")),
        ("'/b:/x:ro,Z,rprivate,cached'", bind("/b", "/x", read_only=True)),
        ("{type: volume, target: /x}", volume(None, "/x")),
        ("{type: volume, source: data, target: /x, read_only: true, volume: {nocopy: true, subpath: a/b}}", volume("data", "/x", read_only=True, nocopy=True, subpath="a/b")),
        ("{type: bind, source: /b, target: /x}", bind("/b", "/x")),
        ("{type: bind, source: /b, target: /x, bind: {create_host_path: false, propagation: rprivate, selinux: z}, consistency: cached}", bind("/b", "/x", create_host_path=False)),
        ("{type: tmpfs, target: /x}", TmpfsUse(target="/x")),
        ("{type: tmpfs, target: /x, tmpfs: {size: 64m, mode: 01777}}", TmpfsUse(target="/x", size=64 << 20, mode=0o1777)),
        ("{type: tmpfs, target: /x, read_only: true, tmpfs: {size: 1000, mode: '755'}}", TmpfsUse(target="/x", size=1000, mode=0o755, read_only=True)),
    ],
)  # fmt: skip
def test_a_mount_has_all_its_forms(service: Callable[..., ComposeService], text: str, use: object) -> None:
    assert service(f"volumes: [{text}]", VOLUMES).volumes == (use,)


def test_paths_of_the_host_become_absolute(service: Callable[..., ComposeService], directory: Path) -> None:
    text = "volumes: ['./a:/a', '../b:/b', '.:/c', '~/d:/d', {type: bind, source: e, target: /e}]"
    assert [getattr(use, "source", None) for use in service(text).volumes] == [
        f"{directory}/a",
        f"{directory.parent}/b",
        f"{directory}",
        os.path.expanduser("~/d"),
        f"{directory}/e",
    ]


HINT = '\n  hint: for example "./src:/app:ro", "data:/var/lib/data" or "/cache"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'a:/b:ro:x'", "volumes[0]: 'a:/b:ro:x' is no volume" + HINT),
        ("':/b'", "volumes[0]: ':/b' is no volume" + HINT),
        ("''", "volumes[0]: '' is no volume" + HINT),
        ("data:x", "volumes[0]: 'x' is no absolute path without ..\n  hint: paths in a sandbox begin with /"),
        ("data:/../x", "volumes[0]: '/../x' is no absolute path without ..\n  hint: paths in a sandbox begin with /"),
        ("data:/x:wr", "volumes[0]: 'data:/x:wr' has the option 'wr'\n  hint: there are ro, rw and nocopy"),
        ("data:/x:rshared", "volumes[0]: 'data:/x:rshared' has the option 'rshared'\n  hint: there are ro, rw and nocopy"),
        ("dta:/x", "volumes[0]: there is no volume 'dta'\n  hint: did you mean data?"),
        ("src/app:/x", "volumes[0]: 'src/app' is no name of a volume\n  hint: a path of the host begins with ., / or ~"),
        ("{type: volume, source: data}", "volumes[0]: lacks target\n  hint: the path in the sandbox"),
        ("{type: volume, source: no, target: /x}", "volumes[0].source: there is no volume 'no'\n  hint: declare it under volumes, beside services"),
        ("{type: bind, target: /x}", "volumes[0]: lacks source\n  hint: the path of the host"),
        ("{type: npipe, source: x, target: /x}", "volumes[0].type: 'npipe' is not supported\n  hint: there are bind, volume, tmpfs"),
        ("{type: image, source: x, target: /x}", "volumes[0].type: 'image' is not supported\n  hint: there are bind, volume, tmpfs"),
        ("{type: bind, source: /x, target: /x, volume: {nocopy: true}}", "volumes[0].volume: says nothing about a mount of type bind\n  hint: leave it out"),
        ("{type: bind, source: /x, target: /x, bind: {propagation: shared}}", "volumes[0].bind.propagation: 'shared' is not supported\n  hint: mounts of a sandbox stay in it"),
        ("{type: bind, source: /x, target: /x, bind: {recursive: disabled}}", "volumes[0].bind.recursive: 'disabled' is not supported\n  hint: what is mounted below comes along"),
        ("{type: volume, source: data, target: /x, volume: {subpath: ../a}}", "volumes[0].volume.subpath: '../a' leads out of the volume"),
        ("{type: volume, source: data, target: /x, volume: {subpath: /a}}", "volumes[0].volume.subpath: '/a' leads out of the volume"),
        ("{type: volume, target: /x, volume: {subpath: a}}", "volumes[0].volume.subpath: is a part of a volume that begins empty\n  hint: name another service's volume under source"),
        ("{type: tmpfs, source: data, target: /x}", "volumes[0].source: memory has no source\n  hint: leave it out"),
        ("{type: tmpfs, target: /x, tmpfs: {size: much}}", "volumes[0].tmpfs.size: 'much' is no size\n  hint: write bytes, or for example \"256m\""),
    ],
)  # fmt: skip
def test_what_is_no_mount_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(f"volumes: [{text}]", VOLUMES) == said


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("/run", [TmpfsUse(target="/run")]),
        ("[/run, /tmp]", [TmpfsUse(target="/run"), TmpfsUse(target="/tmp")]),
        ("['/data:mode=755,uid=1009,gid=1009']", [TmpfsUse(target="/data", mode=0o755, uid=1009, gid=1009)]),
        ("['/tmp:rw,noexec,nosuid,nodev,size=64m']", [TmpfsUse(target="/tmp", size=64 << 20)]),
        ("['/tmp:exec,suid']", [TmpfsUse(target="/tmp", executable=True)]),
        ("['/tmp:ro']", [TmpfsUse(target="/tmp", read_only=True)]),
        ("['/tmp:ro,exec,noexec,rw']", [TmpfsUse(target="/tmp")]),
        ("['/tmp:rw,noexec, exec,ro']", [TmpfsUse(target="/tmp", read_only=True, executable=True)]),
    ],
)
def test_memory_has_all_its_forms(service: Callable[..., ComposeService], text: str, uses: list[TmpfsUse]) -> None:
    assert service(f"tmpfs: {text}").volumes == tuple(uses)


def test_what_memory_does_not_know_is_said(mistake: Callable[..., str]) -> None:
    assert mistake("tmpfs: /tmp:sync") == (
        "tmpfs: '/tmp:sync' has the option 'sync'\n"
        "  hint: there are size, mode, uid, gid, ro, rw, exec, noexec, suid, nosuid and nodev"
    )
    assert mistake("tmpfs: [/run, '/tmp:ro,dev']") == (
        "tmpfs[1]: '/tmp:ro,dev' has the option 'dev'\n  hint: a device file in it is no device; leave it out"
    )
    assert mistake("tmpfs: /tmp:ro=1").startswith("tmpfs: '/tmp:ro=1' has the option 'ro'")
    assert mistake("tmpfs: ['/tmp:mode=9']") == "tmpfs[0]: '9' is no mode\n  hint: for example 0755"


def test_one_place_is_mounted_once(mistake: Callable[..., str]) -> None:
    said = mistake("tmpfs: /x\nvolumes: ['/b:/x']")
    assert said == "tmpfs: /x is among the volumes, too\n  hint: say it once"


FILES = "configs: {c: {content: c}}\nsecrets: {s: {environment: S}}\n"


def test_configs_and_secrets_are_files_in_their_folders(service: Callable[..., ComposeService]) -> None:
    text = """
configs: [c, {source: c, target: /etc/c, uid: "103", gid: "104", mode: 0640}]
secrets: [s, {source: s, target: other, mode: "0500"}]
"""
    web = service(text, FILES, environ={"S": "s"})
    assert web.configs == (
        FileUse(source="c", target="/c"),
        FileUse(source="c", target="/etc/c", uid=103, gid=104, mode=0o440),
    )
    assert web.secrets == (
        FileUse(source="s", target="/run/secrets/s"),
        FileUse(source="s", target="/run/secrets/other", mode=0o500),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("configs: [d]", "configs[0]: there is no config 'd'\n  hint: declare it under configs, beside services"),
        ("secrets: [{source: ss}]", "secrets[0].source: there is no secret 'ss'\n  hint: did you mean s?"),
        ("secrets: [{target: s}]", "secrets[0]: lacks source\n  hint: the name of one of those under secrets, beside services"),
        ("configs: [{source: c, mode: 99999}]", "configs[0].mode: 99999 is no mode\n  hint: for example 0755"),
        ("configs: [{source: c, uid: root}]", "configs[0].uid: 'root' is no whole number"),
    ],
)  # fmt: skip
def test_what_is_no_config_or_secret_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(text, FILES, environ={"S": "s"}) == said


def test_a_mount_that_a_later_file_replaces_needs_nothing(read: Callable[..., Any]) -> None:
    Path("d").mkdir()
    project = read(
        "services: {web: {image: x, volumes: ['data:/x']}}\nvolumes: {data: {external: true}}",
        "services: {web: {volumes: ['./d:/x']}}",
    )
    assert project.volumes == ()
