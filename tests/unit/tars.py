"""Tars as bytes: of files that are named, or of members with all that a header can say."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Member = tuple[tarfile.TarInfo, bytes]


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """Return a tar of ``files``; one whose content is a string is a symbolic link."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for folder in sorted({str(above) for name in files for above in Path(name).parents if ".." not in name}):
            header = tarfile.TarInfo(folder)
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(header)
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.mode = 0o644
            if isinstance(content, str):
                header.type, header.linkname = tarfile.SYMTYPE, content
                tar.addfile(header)
            else:
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return sink.getvalue()


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Member:
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def directory(name: str, mode: int = 0o755, **fields: Any) -> Member:
    return member(name, kind=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, kind=tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str) -> Member:
    return member(name, kind=tarfile.LNKTYPE, linkname=target)


def archive(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    return stream_of(*members, form=form).getvalue()


def stream_of(*members: Member, form: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """Return an archive of ``members``, to be read from its beginning."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for header, data in members:
            tar.addfile(header, io.BytesIO(data))
    stream.seek(0)
    return stream
