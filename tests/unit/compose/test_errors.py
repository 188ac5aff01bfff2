"""Several mistakes as one error."""

from __future__ import annotations

import pickle

import pytest

from pytest_sandbox_runtime.compose.nodes import Place, Source
from pytest_sandbox_runtime.compose.problems import Problems
from pytest_sandbox_runtime.errors import ComposeError, SandboxError

PLACE = Place(Source("a.yaml", "/"), 3, 5, "services.web")


def test_an_error_names_file_line_column_and_key_and_has_a_hint() -> None:
    error = PLACE.error("is wrong", "do it right")
    assert isinstance(error, SandboxError)
    assert str(error) == "a.yaml:3:5: services.web: is wrong\n  hint: do it right"
    assert (error.path, error.line, error.column, error.key, error.hint) == (
        "a.yaml",
        3,
        5,
        "services.web",
        "do it right",
    )
    assert error.problems == (error,)


def test_several_errors_are_one_in_the_order_of_their_places() -> None:
    problems = Problems()
    problems.check()
    problems.add(PLACE.error("second", "mend it"))
    with problems.collecting():
        raise Place(Source("a.yaml", "/"), 2, 1, "name").error("first")
    problems.add(PLACE.error("second", "mend it"))
    with pytest.raises(ComposeError) as caught:
        problems.check()
    error = caught.value
    assert str(error) == "a.yaml:2:1: name: first\na.yaml:3:5: services.web: second\n  hint: mend it"
    assert (error.line, error.key) == (2, "name")
    assert [problem.hint for problem in error.problems] == ["", "mend it"]


def test_an_error_pickles_with_all_that_it_has() -> None:
    error = ComposeError.of([PLACE.error("one", "hint"), PLACE.error("two")])
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert [str(problem) for problem in copy.problems] == [str(problem) for problem in error.problems]
    assert (copy.path, copy.line, copy.column, copy.key) == ("a.yaml", 3, 5, "services.web")
