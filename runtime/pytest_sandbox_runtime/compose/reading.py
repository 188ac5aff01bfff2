"""PYTEST_DONT_REWRITE. Texts of files, with a reason in words where there is none to have."""

from __future__ import annotations


class UnreadableError(Exception):
    """A file that gives no text; the message is the reason, and the file is for who wanted it to say."""


def read_text(path: str) -> str:
    """Return the text of ``path``, which is UTF-8; raises UnreadableError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not UTF-8") from error
    except ValueError as error:
        raise UnreadableError("there is a null byte in its name") from error
