"""PYTEST_DONT_REWRITE. Users and groups as the sandbox's own passwd(5) and group(5) have them."""

from __future__ import annotations

import pwd
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import FileAccessError, SpecError
from pytest_sandbox_runtime.supervisor.init import become

if TYPE_CHECKING:
    from pytest_sandbox_runtime.files import Files


@dataclass(frozen=True)
class Account:
    """Who a command runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"

    def become(self) -> None:
        """Make this process run as the account: setresuid(2) and its kin. Raises PermissionError."""
        become(self.uid, self.gid, self.groups)


def find_account(files: Files, user: str | int) -> Account:
    """Return the account that ``user`` names as Docker reads it: a name or a uid, with ":group" behind it or not.

    A uid that passwd does not have is taken as it is; a name that it does not have raises SpecError.
    """
    name, _, group = str(user).partition(":")
    found = _find_user(_table(files, "/etc/passwd"), name)
    groups = [line for line in _table(files, "/etc/group") if len(line) > 2 and _is_number(line[2])]
    if found is None:
        if not _is_number(name):
            known = ", ".join(line[0] for line in _table(files, "/etc/passwd")[:12]) or "none"
            raise SpecError(f"user {name!r} does not exist in the sandbox", hint=f"its /etc/passwd has: {known} ...")
        account = Account(int(name), 0)
    else:
        login = found[0]
        members = tuple(int(line[2]) for line in groups if len(line) > 3 and login in line[3].split(","))
        account = Account(int(found[2]), int(found[3]), members, found[5])
    if not group:
        return account
    return Account(account.uid, _find_group(groups, group), (), account.home)


def home_of(uid: int) -> str:
    """Return the home directory of a user of this machine."""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_dir
    return "/"


def _find_user(users: list[list[str]], name: str) -> list[str] | None:
    users = [line for line in users if len(line) >= 7 and _is_number(line[2]) and _is_number(line[3])]
    by_name = [line for line in users if line[0] == name]
    return next(iter(by_name or [line for line in users if line[2] == name]), None)


def _find_group(groups: list[list[str]], name: str) -> int:
    for line in groups:
        if name in (line[0], line[2]):
            return int(line[2])
    if _is_number(name):
        return int(name)
    raise SpecError(f"group {name!r} does not exist in the sandbox", hint="see its /etc/group")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _table(files: Files, path: str) -> list[list[str]]:
    try:
        text = files.read_text(path, errors="replace")
    except FileAccessError:
        return []
    return [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
