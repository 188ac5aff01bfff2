"""Texts of files, and why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_sandbox_runtime.compose.reading import UnreadableError, read_text


def test_a_mark_of_byte_order_is_no_text() -> None:
    Path("a").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_text("a") == "a: 1\n"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("latin", "it is not UTF-8"),
        ("a\0b", "there is a null byte in its name"),
    ],
)
def test_what_gives_no_text_is_said_with_the_reason(path: str, reason: str) -> None:
    Path("latin").write_bytes(b"\xe4")
    with pytest.raises(UnreadableError) as caught:
        read_text(path)
    assert str(caught.value) == reason
