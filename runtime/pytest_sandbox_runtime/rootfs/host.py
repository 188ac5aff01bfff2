"""The very machine that tests run on, as a root file system: what is copied on write, and what nobody gets to see.

As root one overlay on "/" does, and one more for each other file system below it. Without root "/" cannot be a lower
directory, as its submounts are locked: there each top-level directory is overlaid by itself, and where it has
submounts, the directories in it.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import glob
import os
import pwd
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.accounts import home_of
from pytest_sandbox_runtime.rootfs.layer import ThinLayer, write_fixed_files, write_own_places
from pytest_sandbox_runtime.rootfs.plan import Overlay, Tree
from pytest_sandbox_runtime.specs import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What keys, tokens and sessions are kept in, relative to a home directory.
SECRETS = (
    ".ssh", ".gnupg", ".pki", ".password-store", ".local/share/keyrings", ".netrc", "_netrc", ".authinfo",
    ".authinfo.gpg", ".git-credentials", ".config/git/credentials", ".config/gh", ".config/glab-cli", ".config/hub",
    ".docker", ".config/containers", ".config/helm", ".kube", ".aws", ".azure", ".config/gcloud", ".boto", ".s3cfg",
    ".config/doctl", ".config/hcloud", ".config/fly", ".fly", ".oci", ".bluemix", ".aliyun", ".terraform.d",
    ".terraformrc", ".vault-token", ".config/op", ".config/Bitwarden CLI", ".databrickscfg", ".snowflake",
    ".config/rclone", ".rclone.conf", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".config/pypoetry/auth.toml",
    ".config/uv/credentials", ".local/share/uv/credentials", ".cargo/credentials", ".cargo/credentials.toml",
    ".gem/credentials", ".bundle/config", ".composer/auth.json", ".config/composer/auth.json", ".m2/settings.xml",
    ".m2/settings-security.xml", ".gradle/gradle.properties", ".nuget/NuGet", ".pgpass", ".my.cnf", ".mylogin.cnf",
    ".config/sops", ".config/age", ".config/netlify", ".huggingface", ".cache/huggingface/token", ".config/heroku",
    ".mozilla", ".thunderbird", ".config/google-chrome", ".config/chromium", ".config/BraveSoftware", ".Xauthority",
    ".ICEauthority", ".bash_history", ".zsh_history", ".python_history", ".psql_history", ".mysql_history",
    ".rediscli_history", ".lesshst", ".viminfo",
)  # fmt: skip
_SYSTEM_SECRETS = (
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/var/lib/docker",
    "/var/lib/kubelet",
)
# Ordinary accounts, as login.defs(5) of every distribution has them.
_FIRST_USER, _NOBODY = 1000, 65534
# The file systems that hold files of this machine; the others are the kernel's own views, or cannot be a lower layer.
_REAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "overlay", "nfs", "nfs4", "virtiofs", "9p"}
_LARGEST_COPY = 16 << 20
# Fresh in every sandbox, so neither copied nor looked into.
OWN = ("/proc", "/sys", "/dev", "/run", "/tmp")


@dataclass(frozen=True, kw_only=True)
class HostView:
    """What a test may see of the host. ``show`` names what would be hidden; ``needed`` what must stay reachable."""

    hostname: str
    host_network: bool = False
    nameservers: tuple[str, ...] = ()
    extra_hosts: str = ""
    show: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    hide: tuple[str, ...] = field(default=())


def host_tree(directory: str, seen: str, view: HostView, *, user_namespace: bool) -> Tree:
    """Return the tree of this machine; the thin layers that it needs are written below ``directory``.

    ``seen`` is where this process reaches ``directory``, which lies in the supervisor's mount namespace.
    """
    mounts = read_mounts()
    shown = _shown_in_tmp((*view.show, *view.needed))
    if user_namespace:
        prefixes = ["/", *(path for top in ("/", *shown) for path in _cover(top, mounts))]
    else:
        prefixes = ["/", *_other_file_systems(mounts), *shown]
    hidden = list(_hidden(view))
    overlays = []
    for index, prefix in enumerate(prefixes):
        mine = [path for path in hidden if _owner(path, prefixes) == prefix]
        alone = prefix == "/" and user_namespace
        layer = ThinLayer(f"{seen}/{index}", prefix, user_namespace=user_namespace)
        _fill(layer, prefix, mine, prefixes, view, alone=alone)
        thin = f"{directory}/{index}"
        lowers = (thin,) if alone else (thin, prefix)
        overlays.append(Overlay(prefix, lowers, index))
    return Tree(tuple(overlays))


def mounts_for(show: Iterable[str]) -> tuple[Mount, ...]:
    """Return the mounts that what is shown needs: a socket works only as itself, and /run and /dev are not overlaid."""
    paths = [path for path in show if os.path.exists(path)]
    sockets = [path for path in paths if stat.S_ISSOCK(os.stat(path).st_mode)]
    others = [path for path in paths if path not in sockets and _below_any(os.path.realpath(path), ("/run", "/dev"))]
    return tuple(
        [Mount(source=path, target=path, read_only=False) for path in sockets]
        + [Mount(source=path, target=path) for path in others]
    )


def _shown_in_tmp(paths: Iterable[str]) -> list[str]:
    """Return the outermost of ``paths`` that lie in /tmp, which a sandbox otherwise has to itself."""
    inside = {path for path in map(os.path.realpath, paths) if path.startswith("/tmp/") and os.path.isdir(path)}
    return sorted(path for path in inside if not any(path != other and _is_below(path, other) for other in inside))


def _fill(
    layer: ThinLayer, prefix: str, hidden: list[str], prefixes: list[str], view: HostView, *, alone: bool
) -> None:
    if prefix == "/":
        if alone:
            _root_of_its_own(layer, prefixes, hidden)
        write_own_places(layer)
        write_fixed_files(
            layer,
            view.hostname,
            host_network=view.host_network,
            nameservers=view.nameservers,
            extra_hosts=view.extra_hosts,
        )
        _write_shadow(layer)
    for name in prefixes:
        if name != prefix and _owner(os.path.dirname(name), prefixes) == prefix:
            layer.make_directory(os.path.relpath(name, prefix))
    if layer.user_namespace and not alone:
        for name in _writable_by_leave(prefix):
            layer.make_directory(name)
    for name in hidden:
        layer.hide(os.path.relpath(name, prefix))


def _writable_by_leave(prefix: str) -> Iterator[str]:
    """Yield what in ``prefix`` this user may write to without owning it, /var/tmp for one.

    Overlayfs would copy such a directory up with its owner, who has no number in the user namespace: EOVERFLOW.
    """
    with os.scandir(prefix) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and entry.stat().st_uid != os.getuid() and os.access(entry, os.W_OK):
                yield entry.name


def _root_of_its_own(layer: ThinLayer, prefixes: list[str], hidden: list[str]) -> None:
    """Make what an ordinary user cannot have as a lower directory: the top level, and an /etc that is theirs."""
    with os.scandir("/") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                layer.link(entry.name, os.readlink(entry.path))
            elif entry.is_dir() and entry.path not in prefixes and entry.name != "etc":
                layer.make_directory(entry.name)
    layer.copy("/etc", "etc")
    # What has other file systems below it cannot be one either: its directories are layers each, and its files copies.
    for path in sorted({above for prefix in prefixes for above in _above(prefix)} - {"/", *OWN}):
        layer.copy_files(path, path[1:], hidden, _LARGEST_COPY)


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _write_shadow(layer: ThinLayer) -> None:
    # Programs that add users need the file; nobody needs the hashes.
    for name in ("shadow", "shadow-", "gshadow", "gshadow-"):
        try:
            with open(f"/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.split(":") for line in file.read().splitlines()]
        except OSError:
            continue
        text = "".join(":".join([user, "*", *rest]) + "\n" for user, _, *rest in lines)
        layer.write(f"etc/{name}", text, 0o640)


def _hidden(view: HostView) -> Iterator[str]:
    show = [os.path.realpath(path) for path in view.show]
    for path in _all_hidden(view):
        if not any(_is_below(path, other) or _is_below(other, path) for other in show):
            yield path
        elif any(_is_below(other, path) and other != path for other in show):
            yield from _siblings(path, show)


def _all_hidden(view: HostView) -> Iterator[str]:
    home = os.path.realpath(home_of(os.geteuid()))
    yield from view.hide
    for name in SECRETS:
        yield os.path.join(home, name)
    for pattern in _SYSTEM_SECRETS:
        yield from glob.glob(pattern)
    needed = [os.path.realpath(path) for path in view.needed]
    for other in _other_homes(home):
        yield from _siblings(other, needed)
    yield from _sockets()


def _other_homes(home: str) -> list[str]:
    homes = {"/root", *(user.pw_dir for user in pwd.getpwall() if _FIRST_USER <= user.pw_uid < _NOBODY)}
    if os.path.isdir("/home"):
        homes |= {entry.path for entry in os.scandir("/home") if entry.is_dir()}
    real = {os.path.realpath(path) for path in homes}
    # Some accounts live in "/" or another directory that is nobody's own.
    return sorted(path for path in real if path.count("/") > 1 or path == "/root" if not _is_below(home, path))


def _siblings(path: str, needed: list[str]) -> Iterator[str]:
    """Yield ``path``, or, where something needed lies below it, all in it that is not on the way there."""
    if path in needed:
        return
    if not any(_is_below(one, path) for one in needed):
        yield path
        return
    try:
        names = os.listdir(path)
    except OSError:
        return
    for name in names:
        yield from _siblings(os.path.join(path, name), needed)


def _sockets() -> Iterator[str]:
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line.rstrip("\n").partition("/")[2]
            if path and "@" not in line[: line.find("/")]:
                full = os.path.realpath("/" + path)
                if not _below_any(full, OWN) and os.path.lexists(full) and stat.S_ISSOCK(os.lstat(full).st_mode):
                    yield full


def read_mounts(path: str = "/proc/self/mountinfo") -> dict[str, str]:
    """Return the file system type of every mount point that can be seen, as in proc_pid_mountinfo(5)."""
    mounts = {}
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            mounts[_unescape(left.split(" ")[4])] = right.split(" ")[0]
    return mounts


def _unescape(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _other_file_systems(mounts: dict[str, str]) -> list[str]:
    return sorted(
        path
        for path, kind in mounts.items()
        if path != "/" and kind in _REAL and not _below_any(path, (*OWN, "/var/lib/docker")) and os.path.isdir(path)
    )


def _cover(directory: str, mounts: dict[str, str]) -> Iterator[str]:
    """Yield the directories that can each be a lower layer and that together hold what is below ``directory``."""
    if directory != "/" and not any(_is_below(mount, directory) and mount != directory for mount in mounts):
        yield directory
        return
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = entry.path
            if (
                path in (*OWN, "/etc")
                or not entry.is_dir(follow_symlinks=False)
                or not os.access(path, os.R_OK | os.X_OK)
            ):
                continue
            if path in mounts and mounts[path] not in _REAL:
                continue
            yield from _cover(path, mounts)


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _below_any(path: str, directories: Iterable[str]) -> bool:
    return any(_is_below(path, directory) for directory in directories)


def _owner(path: str, prefixes: list[str]) -> str:
    return max((prefix for prefix in prefixes if _is_below(path, prefix)), key=len, default="/")
