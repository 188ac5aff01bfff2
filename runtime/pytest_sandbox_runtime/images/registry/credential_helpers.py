"""PYTEST_DONT_REWRITE. Programs that keep credentials: the protocol of docker-credential-helpers."""

from __future__ import annotations

import json
import subprocess
from typing import NamedTuple

from pytest_sandbox_runtime.errors import RegistryError

_PATIENCE = 60
_NOTHING = "credentials not found in native keychain"


class Said(NamedTuple):
    """What a helper knows; ``trouble`` is why it said nothing, empty where it just does not know."""

    username: str = ""
    secret: str = ""
    trouble: str = ""

    def __repr__(self) -> str:
        return f"Said({self.username!r}, trouble={self.trouble!r})"


def ask(helper: str, server: str) -> Said:
    """Return what ``docker-credential-HELPER`` knows of ``server``."""
    try:
        done = _run(helper, "get", server)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Said(trouble=_trouble(error))
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        return Said(
            trouble="" if _NOTHING in said else f"which failed: {said.splitlines()[-1] if said else 'in silence'}"
        )
    try:
        fields = json.loads(done.stdout)
        return Said(str(fields.get("Username", "")), str(fields.get("Secret", "")))
    except (ValueError, AttributeError):
        return Said(trouble="which did not answer in JSON")


def store(helper: str, server: str, username: str, secret: str) -> None:
    """Give a credential to the helper; raises RegistryError where it does not take it."""
    _tell(helper, "store", json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))


def erase(helper: str, server: str) -> None:
    """Have the helper forget what it knows of ``server``; raises RegistryError."""
    _tell(helper, "erase", server)


def _tell(helper: str, verb: str, said: str) -> None:
    try:
        done = _run(helper, verb, said)
        trouble = (done.stdout + done.stderr).strip() or "it said nothing" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = _trouble(error)
    if trouble and _NOTHING not in trouble:
        raise RegistryError(f"docker-credential-{helper} could not {verb} the credential: {trouble}")


def _run(helper: str, verb: str, said: str) -> subprocess.CompletedProcess[str]:
    argv = [f"docker-credential-{helper}", verb]
    return subprocess.run(argv, input=said, capture_output=True, text=True, timeout=_PATIENCE, check=False)


def _trouble(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, FileNotFoundError):
        return "which is not installed"
    return "which did not answer" if isinstance(error, subprocess.TimeoutExpired) else f"which cannot run: {error}"
