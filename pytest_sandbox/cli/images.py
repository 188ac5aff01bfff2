"""``pytest-sandbox images|load|save|tag|rmi|inspect|history|prune``: Docker's words and tables, on our store.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from pytest_sandbox.cli.watching import is_offline, watched
from pytest_sandbox_runtime.errors import SpecError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pytest_sandbox_runtime.images.images import Images
    from pytest_sandbox_runtime.images.summaries import HistoryStep, ImageSummary

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Work = Callable[[Images, argparse.Namespace], int]

_UNITS = ("B", "kB", "MB", "GB", "TB")
_AGES = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SHORT = 12
_WIDTH = 45


def adder(commands: Commands) -> Callable[[str, str, Work], argparse.ArgumentParser]:
    """Return what adds a command, by its name, a line of help, and what it does with the images in the store."""

    def add(name: str, text: str, work: Work) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=lambda options: _with_images(work, options))
        return command

    return add


def add_commands(commands: Commands) -> None:
    """Add the commands that deal with images."""
    add = adder(commands)
    images = add("images", "list the images in the store", _images)
    images.add_argument("-q", "--quiet", action="store_true", help="ids only")
    images.add_argument("--digests", action="store_true", help="show digests")
    images.add_argument("--no-trunc", action="store_true", help="do not shorten ids")
    load = add("load", "load images from an archive, or a layout's directory", _load)
    load.add_argument(
        "-i", "--input", required=True, metavar="FILE", help="an OCI or Docker archive or a root file system"
    )
    load.add_argument("-q", "--quiet", action="store_true", help="ids only")
    load.add_argument("--platform", help="for example linux/arm64, where an image is for several")
    load.add_argument("--max-bytes", metavar="SIZE", help="what one file in it may hold at most (default: 64g)")
    load.add_argument(
        "--max-ratio", type=int, metavar="N", help="how many times what it is packed into that may be (default: 2000)"
    )
    _add_save(add("save", "write images into an archive", _save))
    tag = add("tag", "give an image one more name", _tag)
    tag.add_argument("image")
    tag.add_argument("name")
    add("rmi", "remove images", _remove).add_argument("image", nargs="+")
    add("inspect", "show all that is known of images, as JSON", _inspect).add_argument("image", nargs="+")
    history = add("history", "show how an image came to be", _history)
    history.add_argument("--no-trunc", action="store_true", help="do not shorten anything")
    history.add_argument("image")
    _add_prune(add("prune", "remove what is not needed and not in use", _prune))


def _add_save(save: argparse.ArgumentParser) -> None:
    save.add_argument("-o", "--output", metavar="FILE", help="where to (default: standard output)")
    save.add_argument("--format", choices=("oci", "docker"), default="docker", help="default: docker")
    save.add_argument("--compression", choices=("none", "gzip", "zstd"), default="none")
    save.add_argument("image", nargs="+")


def _add_prune(prune: argparse.ArgumentParser) -> None:
    prune.add_argument("-a", "--all", action="store_true", help="also images with a name that nothing uses")
    prune.add_argument("--until", metavar="AGE", help="only what was not used for so long, for example 24h or 7d")
    prune.add_argument(
        "--keep-storage", metavar="SIZE", help="the largest size that the store shall keep, for example 10g"
    )


def _with_images(work: Work, options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.images.building.telling import teller
    from pytest_sandbox_runtime.images.home import default_store
    from pytest_sandbox_runtime.images.images import Images
    from pytest_sandbox_runtime.images.store import Store

    with Store(default_store(os.environ)) as store:
        return work(Images(store, offline=is_offline(), telling=teller(watched())), options)


def _images(images: Images, options: argparse.Namespace) -> int:
    found = images.list()
    if options.quiet:
        for one in dict.fromkeys(_id(one.id, whole=options.no_trunc) for one in found):
            print(one)
        return 0
    columns = ["REPOSITORY", "TAG", *(["DIGEST"] if options.digests else []), "IMAGE ID", "CREATED", "SIZE"]
    _print_table(columns, [_row(one, options) for one in found])
    return 0


def _row(one: ImageSummary, options: argparse.Namespace) -> list[str]:
    name, tag = (one.reference.familiar_name, one.reference.tag) if one.reference else ("<none>", None)
    digest = [one.digest] if options.digests else []
    return [name, tag or "<none>", *digest, _id(one.id, whole=options.no_trunc), age(one.created), size(one.size)]


def _load(images: Images, options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.images.platforms import Platform
    from pytest_sandbox_runtime.specs import parse_size

    platform = Platform.parse(options.platform) if options.platform else None
    most = parse_size(options.max_bytes) if options.max_bytes else None
    for one in images.load(options.input, platform=platform, max_bytes=most, max_ratio=options.max_ratio):
        words = "" if options.quiet else "Loaded image: " if one.reference else "Loaded image ID: "
        print(f"{words}{one if one.reference else images.inspect(one).id}")
    return 0


def _save(images: Images, options: argparse.Namespace) -> int:
    if options.output is None and sys.stdout.isatty():
        raise SpecError("an archive is nothing for a terminal", hint="name a file with -o, or redirect the output")
    target = sys.stdout.buffer if options.output is None else options.output
    images.save(options.image, target, format=options.format, compression=options.compression)
    return 0


def _tag(images: Images, options: argparse.Namespace) -> int:
    images.tag(options.image, options.name)
    return 0


def _remove(images: Images, options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.images.reference import Reference

    for image in options.image:
        for gone in images.remove(image):
            is_digest = gone.startswith("sha256:")
            print(f"Deleted: {gone}" if is_digest else f"Untagged: {Reference.parse(gone).familiar}")
    return 0


def _inspect(images: Images, options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.images.summaries import as_docker_json

    print(json.dumps([as_docker_json(images.inspect(image)) for image in options.image], indent=4))
    return 0


def _history(images: Images, options: argparse.Namespace) -> int:
    steps = images.history(options.image)
    _print_table(
        ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], [_step(one, whole=options.no_trunc) for one in steps]
    )
    return 0


def _step(one: HistoryStep, *, whole: bool) -> list[str]:
    by = " ".join(one.created_by.split())
    by = by if whole or len(by) <= _WIDTH else by[: _WIDTH - 1] + "…"
    return [_id(one.id, whole=whole) if one.id else "<missing>", age(one.created), by, size(one.size), one.comment]


def _prune(images: Images, options: argparse.Namespace) -> int:
    from pytest_sandbox_runtime.specs import parse_size

    kept = parse_size(options.keep_storage) if options.keep_storage else None
    gone = images.prune(older_than=_seconds(options.until), max_bytes=kept, tagged=options.all)
    for name in gone.images:
        print(f"Deleted: {name}")
    print(f"Total reclaimed space: {size(gone.freed)}")
    return 0


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise SpecError(f"{text!r} is no time", hint="a number with s, m, h, d or w behind it, for example 24h")
    return float(match[1]) * _SECONDS[match[2]]


def _id(digest: str, *, whole: bool) -> str:
    return digest if whole else digest.partition(":")[2][:_SHORT]


def size(number: float) -> str:
    """Return a size as Docker writes it: powers of 1000, three digits."""
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g}{_UNITS[unit]}"


def age(created: str, now: datetime | None = None) -> str:
    """Return how long ago ``created`` was, as Docker writes it; "N/A" where it is no time."""
    from datetime import datetime, timezone

    try:
        # Nine digits of a second are more than Python before 3.11 reads.
        then = datetime.fromisoformat(re.sub(r"\.\d+", "", created).replace("Z", "+00:00"))
    except ValueError:
        return "N/A"
    then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
    seconds = int(((now or datetime.now(timezone.utc)) - then).total_seconds())
    for length, word in _AGES:
        if seconds >= 2 * length or (seconds >= length and word in ("minute", "hour")):
            count = seconds // length
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return "Less than a minute ago" if seconds >= 0 else "N/A"


def _print_table(head: list[str], rows: Sequence[Any]) -> None:
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    for line in (head, *rows):
        print("   ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
