"""PYTEST_DONT_REWRITE. A layer made without a sandbox: an upper directory that files are written to as root would.

Owners that this process may not give are noted as the store's layers note them, so that the same declaration gives the
same layer whoever builds it.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import IO, TYPE_CHECKING

from pytest_sandbox_runtime.errors import ImageError
from pytest_sandbox_runtime.images.attributes import OVERRIDE, OWNERS, format_override, format_owners, parse_override
from pytest_sandbox_runtime.lowers import MergedTree, get_xattr, look_up

if TYPE_CHECKING:
    from pytest_sandbox_runtime.lowers import Seen

Owner = tuple[int, int]
ROOT: Owner = (0, 0)


class Staging:
    """The directory ``upper``, empty at first, over the directories ``lowers``, the topmost first."""

    def __init__(self, upper: str, lowers: tuple[str, ...]) -> None:
        self.upper = upper
        self._may_chown = os.geteuid() == 0
        self.tree = MergedTree((upper, *lowers))
        self._owners: dict[str, dict[bytes, Owner]] = {}
        # By path: its name, and the directories that are merged there. A tree of files asks for the same ones.
        self._directories: dict[str, tuple[str, tuple[str, ...]]] = {}

    def directory(self, path: str, owner: Owner = ROOT, mode: int = 0o755) -> str:
        """Return the name of the directory ``path``, made with all above it where it is not there."""
        return self._directory(path, owner, mode)[0]

    def _directory(self, path: str, owner: Owner, mode: int) -> tuple[str, tuple[str, ...]]:
        if path not in self._directories:
            name = self._make(path, owner, mode)
            found = self.tree.seen(name)
            assert found is not None
            self._directories[path] = name, found.merged
        return self._directories[path]

    def _make(self, path: str, owner: Owner, mode: int) -> str:
        name = self.tree.resolve(path)
        made = []
        at = name
        while at != "." and self.tree.seen(at) is None:
            made.append(at)
            at = os.path.dirname(at) or "."
        found = self.tree.seen(at)
        if found is not None and not stat.S_ISDIR(found.status.st_mode):
            hint = "copy to another place, or remove the file in a step before"
            raise ImageError(f"/{at} is a file, and {path} needs it to be a directory", hint=hint)
        self._copy_up(at)
        for new in reversed(made):
            os.mkdir(self._place(new))
            self._own(new, owner, stat.S_IFDIR | mode)
        return name

    def _copy_up(self, name: str) -> None:
        """Have the directory ``name``, which is seen, in the upper one too, as it is below."""
        if name == "." or os.path.isdir(self._place(name)):
            return
        self._copy_up(os.path.dirname(name) or ".")
        found = self.tree.seen(name)
        assert found is not None
        os.mkdir(self._place(name))
        owner, mode = owner_and_mode(found)
        self._own(name, owner, stat.S_IFDIR | mode)

    def file(self, path: str, content: IO[bytes], owner: Owner, mode: int) -> None:
        """Write a file; what was there, if it is no directory, is replaced."""
        name = self._room_for(path)
        with open(self._place(name), "xb") as target:
            shutil.copyfileobj(content, target, 1 << 20)
        self._own(name, owner, stat.S_IFREG | mode)

    def link(self, path: str, target: str, owner: Owner) -> None:
        """Make a symbolic link."""
        name = self._room_for(path)
        os.symlink(target, self._place(name))
        self._own(name, owner, stat.S_IFLNK | 0o777)

    def _room_for(self, path: str) -> str:
        above, merged = self._directory(os.path.dirname(path), ROOT, 0o755)
        last = os.path.basename(path)
        name = last if above == "." else f"{above}/{last}"
        found = look_up(merged, last)
        if found is not None and stat.S_ISDIR(found.status.st_mode):
            raise ImageError(
                f"{path} is a directory, and cannot become a file", hint="copy to another place, or remove it before"
            )
        if found is not None and stat.S_ISLNK(found.status.st_mode):
            # Paths that led through it lead elsewhere now.
            self._directories.clear()
        if os.path.lexists(self._place(name)):
            os.unlink(self._place(name))
        return name

    def _place(self, name: str) -> str:
        return os.path.join(self.upper, name)

    def _own(self, name: str, owner: Owner, mode: int) -> None:
        place = self._place(name)
        is_link = stat.S_ISLNK(mode)
        if self._may_chown:
            os.chown(place, *owner, follow_symlinks=False)
        if not is_link:
            os.chmod(place, stat.S_IMODE(mode))
        if self._may_chown:
            return
        if not is_link:
            os.setxattr(place, OVERRIDE, format_override(*owner, mode))
        elif owner != ROOT:
            above = os.path.dirname(place)
            owners = self._owners.setdefault(above, {})
            owners[os.fsencode(os.path.basename(place))] = owner
            os.setxattr(above, OWNERS, format_owners(owners))


def owner_and_mode(found: Seen) -> tuple[Owner, int]:
    """Return the owner and the mode bits that what is seen has in its image."""
    override = None if stat.S_ISLNK(found.status.st_mode) else parse_override(get_xattr(found.place, OVERRIDE))
    if override is not None:
        return (override.uid, override.gid), override.mode
    owner = (found.status.st_uid, found.status.st_gid) if os.geteuid() == 0 else ROOT
    return owner, stat.S_IMODE(found.status.st_mode)
