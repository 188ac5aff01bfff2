"""PYTEST_DONT_REWRITE. A Dockerfile's stages, their names, and which of them needs which."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_sandbox_runtime.errors import DockerfileError
from pytest_sandbox_runtime.images.dockerfile.expansion import expand
from pytest_sandbox_runtime.images.dockerfile.instructions import Instruction, located
from pytest_sandbox_runtime.images.dockerfile.mounts import parse_options
from pytest_sandbox_runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from pytest_sandbox_runtime.images.dockerfile.lexer import Source


@dataclass
class Stage:
    """What is between one FROM and the next."""

    index: int
    start: Instruction
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the stage is called after AS, or an empty string."""
        return self.start.args[1] if len(self.start.args) > 1 else ""

    def sources(self) -> Iterator[tuple[str, Instruction]]:
        """Yield the names of what the stage copies and mounts from, and where it says so."""
        for instruction in self.instructions:
            said = [instruction.flags.one("from")]
            said += [parse_options(mount).get("from") for mount in instruction.flags.all("mount")]
            yield from ((name, instruction) for name in said if name)


class Stages:
    """All stages of a Dockerfile. A name in ``contexts`` is no stage's, whatever the Dockerfile says."""

    def __init__(self, source: Source, variables: Mapping[str, str], contexts: Container[str]) -> None:
        self._source = source
        self._variables = variables
        self._contexts = contexts
        self._stages: list[Stage] = []

    def __getitem__(self, index: int) -> Stage:
        return self._stages[index]

    def start(self, instruction: Instruction) -> None:
        """Begin a stage with its FROM."""
        self._stages.append(Stage(len(self._stages), instruction))

    def follow(self, instruction: Instruction) -> None:
        """Add ``instruction`` to the last stage; raises DockerfileError where there is none yet."""
        if not self._stages:
            raise self.error("it stands before the first FROM", instruction, "only ARG can")
        self._stages[-1].instructions.append(instruction)

    def error(self, message: str, instruction: Instruction | None = None, hint: str = "") -> DockerfileError:
        """Return the error of ``instruction``, or of the whole file."""
        line, keyword = (instruction.line, instruction.keyword) if instruction is not None else (0, "")
        return DockerfileError(message, path=self._source.path, line=line, instruction=keyword, hint=hint)

    def target(self, name: str | None) -> Stage:
        """Return the stage called ``name``, or with that number, or the last one."""
        if not self._stages:
            raise self.error("there is no FROM in it")
        if name is None:
            return self._stages[-1]
        for stage in reversed(self._stages):
            if stage.name == name.lower() or str(stage.index) == name:
                return stage
        names = [stage.name for stage in self._stages if stage.name]
        hint = did_you_mean(name, names, f"there are {', '.join(names) or 'none with a name'}")
        raise self.error(f"there is no stage {name!r}", hint=hint)

    def base_name(self, stage: Stage) -> str:
        """Return what the stage starts from, variables expanded."""
        word = stage.start.args[0]
        with located(self._source.path, stage.start.line, "FROM"):
            name = expand(word, self._variables, escape=self._source.escape)
        if not name:
            raise self.error(f"{word} is empty", stage.start, "give the ARG before it a value")
        return name

    def base_of(self, stage: Stage) -> int | None:
        """Return the stage that ``stage`` starts from; None where it starts from an image."""
        name = self.base_name(stage)
        return None if name in self._contexts else _last(self._called(name, range(stage.index)))

    def source_of(self, name: str, index: int, instruction: Instruction) -> int | None:
        """Return the stage that ``name`` in a --from of the stage ``index`` stands for; None where it is an image."""
        if name in self._contexts:
            return None
        before, later = _last(self._called(name, range(index))), None
        if before is None and name.isascii() and name.isdigit():
            before, later = (int(name), None) if int(name) < index else (None, int(name))
            if later is not None and later >= len(self._stages):
                raise self.error(f"there is no stage {name}", instruction, f"the last one is {len(self._stages) - 1}")
        elif before is None:
            later = _last(self._called(name, range(index, len(self._stages))))
        if later is not None:
            raise self._out_of_order(index, later, instruction)
        return before

    def needed(self, stage: Stage) -> list[int]:
        """Return the stages that ``stage`` is made of, itself among them, first those that others need."""
        found: set[int] = set()
        open_ = [stage.index]
        while open_:
            index = open_.pop()
            if index not in found:
                found.add(index)
                needed = [self.base_of(self[index])]
                needed += [self.source_of(name, index, instruction) for name, instruction in self[index].sources()]
                open_ += [other for other in needed if other is not None]
        return sorted(found)

    def _called(self, name: str, places: Iterable[int]) -> list[int]:
        return [index for index in places if self[index].name and self[index].name == name.lower()]

    def _out_of_order(self, index: int, later: int, instruction: Instruction) -> DockerfileError:
        first, second = (self[place].name or str(place) for place in (index, later))
        if index not in self._reach(later):
            return self.error(f"the stage {second} is defined only below", instruction, "move it above this one")
        way = f"{first} needs {second}, which needs {first}" if index != later else f"{first} needs itself"
        hint = "let each stage copy from those above it, or from an image"
        return self.error(f"a cycle of stages: {way}", instruction, hint)

    def _reach(self, start: int) -> set[int]:
        """Return the stages that ``start`` needs, whatever their order, itself among them."""
        found: set[int] = set()
        open_ = [start]
        while open_:
            index = open_.pop()
            if index in found:
                continue
            found.add(index)
            base = self.base_of(self[index])
            names = {name.lower() for name, _ in self[index].sources()}
            open_ += [other.index for other in self._stages if {other.name, str(other.index)} & names]
            open_ += [] if base is None else [base]
        return found


def _last(indices: list[int]) -> int | None:
    return indices[-1] if indices else None
