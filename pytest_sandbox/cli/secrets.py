"""``--secret`` of ``pytest-sandbox build``, as docker buildx has it. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import csv
import os

from pytest_sandbox_runtime.errors import SpecError

_NAMES = {"id": "id", "src": "src", "source": "src", "env": "env", "type": "type"}
_FOR_EXAMPLE = "for example --secret id=token,src=token.txt or --secret id=token,env=TOKEN"


def secrets_of(texts: list[str]) -> dict[str, str]:
    """Return the files of all ``--secret`` by their ids; raises SpecError, which never has a secret's value."""
    return dict(map(_secret, texts))


def _secret(text: str) -> tuple[str, str]:
    words = _words(text)
    name = words.get("id", "")
    if not name:
        raise SpecError(f"--secret {text} has no id", hint=_FOR_EXAMPLE)
    kind = words.get("type") or _kind(words, name)
    if kind == "env":
        return name, _file_of(name, words.get("env") or words.get("src") or name)
    if kind != "file":
        raise SpecError(f"--secret {text} has the type {kind}", hint="there are file and env")
    file = words.get("src") or name
    if not os.path.isfile(file):
        raise SpecError(f"the secret {name}: there is no file {file}", hint=_FOR_EXAMPLE)
    return name, file


def _words(text: str) -> dict[str, str]:
    words = {}
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        if not equals or name.lower() not in _NAMES:
            raise SpecError(f"--secret {text} cannot be read at {field!r}", hint=_FOR_EXAMPLE)
        words[_NAMES[name.lower()]] = value
    return words


def _kind(words: dict[str, str], name: str) -> str:
    is_variable = "env" in words or ("src" not in words and name in os.environ)
    return "env" if is_variable else "file"


def _file_of(name: str, variable: str) -> str:
    """Return a file with the value of a variable, which is in memory only and goes with this process."""
    value = os.environ.get(variable)
    if value is None:
        raise SpecError(f"the secret {name}: there is no variable {variable}", hint=_FOR_EXAMPLE)
    fd = os.memfd_create(f"secret-{name}", os.MFD_CLOEXEC)
    os.write(fd, os.fsencode(value))
    return f"/proc/{os.getpid()}/fd/{fd}"
