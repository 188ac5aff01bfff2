"""What fixtures outside have made, and no fork of this process could use: told in place of what it would come to.

PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# By their definitions, the fixtures that were made before the fork and cannot be used in it, and why.
_STRANDED: pytest.StashKey[dict[pytest.FixtureDef[Any], str]] = pytest.StashKey()

# Of which classes, by their modules, values that are as the third says cannot be used, and why.
_KINDS: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    ("threading", "Thread", lambda it: it.is_alive(), "a thread, and a fork has but the one that forks"),
    ("subprocess", "Popen", lambda it: it.returncode is None, "a process of the machine outside"),
    ("multiprocessing.process", "BaseProcess", lambda it: it.is_alive(), "a process of the machine outside"),
    ("concurrent.futures", "Executor", lambda _: True, "a pool, whose threads or processes are outside"),
    ("asyncio", "AbstractEventLoop", lambda it: not it.is_closed(), "a loop, whose events both sides would take"),
    ("sqlite3", "Connection", lambda _: True, "a connection, which SQLite forbids to carry across a fork"),
)


def note(session: Any) -> None:
    """Note, before the fork, which of the values that there are cannot be used in it."""
    # Where nothing is set up there are none, and so many tests need not be asked.
    items = session.items if session._setupstate.stack else ()
    made = {one for item in items for one in _definitions(item) if one.cached_result is not None}
    why = {one: _why_stranded(one.cached_result[0]) for one in made if one.cached_result is not None}
    session.config.stash[_STRANDED] = {one: reason for one, reason in why.items() if reason}


def check(item: pytest.Item) -> None:
    """Fail, if the test uses what cannot be used here."""
    stranded = item.config.stash[_STRANDED]
    for one in _definitions(item) if stranded else ():
        if one in stranded:
            pytest.fail(
                f"the value of the fixture {one.argname!r} was made outside, by a test that ran before this one, and "
                f"cannot be used inside: it is {stranded[one]}. Let the tests that share it all run inside, or all "
                "outside (@pytest.mark.no_sandbox).",
                pytrace=False,
            )


def _definitions(item: Any) -> Iterator[pytest.FixtureDef[Any]]:
    """Yield the fixtures that a test uses, if it is one that has any."""
    if hasattr(item, "_fixtureinfo"):
        for chain in item._fixtureinfo.name2fixturedefs.values():
            yield from chain


def _why_stranded(value: Any) -> str:
    """Return what keeps a fork from using ``value``, or a part of it; nothing where nothing does that we know."""
    return next((f"a {type(part).__qualname__}, {why}" for part in _parts(value) if (why := _why(part))), "")


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list, set, frozenset)):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    else:
        yield value


def _why(value: Any) -> str:
    if _is_connected(value):
        return "a connection, of which both sides would read"
    for module, name, is_live, why in _KINDS:
        # What is of a class has imported it.
        if module in sys.modules and isinstance(value, getattr(sys.modules[module], name)) and is_live(value):
            return why
    return ""


def _is_connected(value: Any) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(value.fileno()).st_mode)
    except Exception:
        # Whatever a class of somebody else's raises: it has no fileno, is closed, or is a mock.
        return False
