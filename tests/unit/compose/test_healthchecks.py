"""``healthcheck``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose import Healthcheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("{test: [CMD, curl, -f, 'http://x']}", Healthcheck(test=("curl", "-f", "http://x"))),
        ("{test: [CMD-SHELL, 'curl || exit 1']}", Healthcheck(test="curl || exit 1")),
        ("{test: 'curl || exit 1'}", Healthcheck(test="curl || exit 1")),
        ("{test: [NONE]}", Healthcheck(disable=True)),
        ("{disable: true, test: [CMD, x]}", Healthcheck(disable=True)),
        ("{disable: false, test: [CMD, x]}", Healthcheck(test=("x",))),
        ("{test: []}", Healthcheck()),
        ("{interval: 1m30s, timeout: 10s, retries: 3, start_period: 40s, start_interval: 500ms}", Healthcheck(interval=90, timeout=10, retries=3, start_period=40, start_interval=0.5)),
        ("{interval: 0s, retries: '5'}", Healthcheck(interval=0, retries=5)),
    ],
)  # fmt: skip
def test_a_check_has_all_its_forms(service: Callable[..., ComposeService], text: str, check: Healthcheck) -> None:
    assert service(f"healthcheck: {text}").healthcheck == check


def test_without_one_it_is_the_images(service: Callable[..., ComposeService]) -> None:
    assert service("").healthcheck is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{test: [curl, x]}", "healthcheck.test: a list begins with CMD, CMD-SHELL or NONE, and not with 'curl'\n  hint: put CMD before it"),
        ("{test: [CMD]}", "healthcheck.test: nothing follows CMD\n  hint: name the command"),
        ("{interval: soon}", "healthcheck.interval: 'soon' is no duration\n  hint: write for example \"10s\" or \"1m30s\""),
        ("{interval: '5'}", "healthcheck.interval: '5' is no duration\n  hint: write for example \"10s\" or \"1m30s\""),
        ("{timeout: 1us}", "healthcheck.timeout: the duration '1us' is less than a millisecond\n  hint: write for example \"10s\" or \"1m30s\""),
        ("{retries: -1}", "healthcheck.retries: -1 is less than 0"),
        ("{retries: x}", "healthcheck.retries: 'x' is no whole number"),
        ("{disable: perhaps}", "healthcheck.disable: 'perhaps' is neither true nor false"),
    ],
)  # fmt: skip
def test_what_is_no_check_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(f"healthcheck: {text}") == said
