"""PYTEST_DONT_REWRITE. Where the store is. This imports next to nothing, as every command waits for it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ELSEWHERE = "put the store elsewhere with PYTEST_SANDBOX_HOME"
# Below the store: what builds of the command have answered, to be said again if nothing has changed.
ANSWERS = "answers"


def default_store(environ: Mapping[str, str]) -> str:
    """Return where the store is: PYTEST_SANDBOX_HOME, or below the user's cache directory."""
    home = environ.get("PYTEST_SANDBOX_HOME")
    if home:
        return os.path.abspath(home)
    cache = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    return os.path.join(cache if os.path.isabs(cache) else _home_cache(environ), "pytest-sandbox")


def _home_cache(environ: Mapping[str, str]) -> str:
    import pwd

    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return os.path.join(home, ".cache")
    try:
        return os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".cache")
    except KeyError as error:
        from pytest_sandbox_runtime.errors import SandboxError

        msg = f"there is no place for the store: HOME is not set and user {os.geteuid()} has no passwd entry"
        raise SandboxError(msg, hint=ELSEWHERE) from error
