"""PYTEST_DONT_REWRITE. Which files a requirements file of pip(1) consists of: itself, and those that it names."""

from __future__ import annotations

import os
import re

_NAMED = re.compile(r"^[ \t]*(?:-[rc][ \t]*|--(?:requirement|constraint)(?:=|[ \t]+))([^\s#]+)", re.MULTILINE)


def files_of(path: str) -> list[str]:
    """Return ``path`` and the files that it, and each of them, names with -r or -c, sorted; those not there as well.

    Names with variables of pip's environment are left to pip.
    """
    found: set[str] = set()
    open_ = [path]
    while open_:
        file = open_.pop()
        if file not in found:
            found.add(file)
            beside = os.path.dirname(file)
            open_ += [os.path.normpath(os.path.join(beside, name)) for name in _NAMED.findall(_read(file))]
    return sorted(found)


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
            # Neither an address nor what has a variable in it names a file here.
            return re.sub(r"\S*(://|\$\{)\S*", "", lines.read())
    except OSError:
        return ""  # whoever copies it says that it is not there
