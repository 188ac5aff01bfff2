"""What a run says of its sandboxes: header, sections of failed tests, summary. PYTEST_DONT_REWRITE."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pytest_sandbox.fixtures import BEGAN, CAPTURED, ENGINE, IS_INSIDE, KEPT, LEFT, REFUSED, SERVICES, STARTED, STARTS
from pytest_sandbox.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from _pytest.terminal import TerminalReporter


def header(config: pytest.Config) -> str:
    """Return the line of the report's head."""
    settings = config.stash[SETTINGS]
    words = [f"image {settings.image}"]
    if settings.unit:
        words.insert(0, f"every {settings.unit} inside")
    if settings.best_effort_limits and sys.platform == "linux":
        from pytest_sandbox_runtime.capabilities import limits_not_enforced

        refused = limits_not_enforced()
        words.append(f"limits not enforced: {', '.join(refused)}" if refused else "limits enforced")
    return f"sandbox: {', '.join(words)}"


def begin(item: pytest.Item) -> None:
    """Note how much the services of the run have printed before this test."""
    if services := item.config.stash.get(SERVICES, []):
        item.stash[BEGAN] = {service: service.log_size for service in services}


def add_sections(item: pytest.Item, call: pytest.CallInfo[object]) -> None:
    """Show, in a failed phase's report, what each of the test's sandboxes did, and an error of ours as the user's."""
    if call.excinfo is not None and not item.config.getoption("fulltrace"):
        _hide_internals(call.excinfo.value)
    for sandbox in item.stash.get(STARTED, []):
        if text := sandbox.logs():
            item.add_report_section(call.when, f"log sandbox:{sandbox.name}", text)
    for service in (*item.stash.get(SERVICES, []), *item.config.stash.get(SERVICES, [])):
        if text := service.logs_since(item.stash.get(BEGAN, {}).get(service, 0)):
            item.add_report_section(call.when, f"log {service.name}", text)


def _hide_internals(error: BaseException) -> None:
    """Let an error of ours, which says itself what was wrong, end where the user's code called us."""
    from pytest_sandbox_runtime.errors import SandboxError

    if not isinstance(error, SandboxError):
        return
    internal = _internal()
    error.__cause__, error.__suppress_context__ = None, True
    last = step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(internal):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None


def _internal() -> tuple[str, ...]:
    """Return where the frames of our two packages are, and of what stands between them."""
    import contextlib
    import functools
    from concurrent import futures

    import pytest_sandbox
    import pytest_sandbox_runtime

    folders = (*pytest_sandbox.__path__, *pytest_sandbox_runtime.__path__, *futures.__path__)
    return (*(folder + os.sep for folder in folders), contextlib.__file__, functools.__file__)


def summarize(reporter: TerminalReporter, config: pytest.Config) -> None:
    """Write what was kept, and the slowest starts, where they were asked for."""
    if kept := _told(reporter, KEPT):
        reporter.section("kept sandboxes")
        for nodeid, path in kept:
            reporter.write_line(f"{nodeid}: {_shell_command(path)}")
    if captured := _told(reporter, CAPTURED):
        reporter.section("captured packets")
        for nodeid, path in captured:
            reporter.write_line(f"{nodeid}: {path}")
    for title, name in (("refused by the network of a sandbox", REFUSED), ("left behind", LEFT)):
        if told := _told(reporter, name):
            reporter.section(title)
            for nodeid, what in told:
                reporter.write_line(f"{nodeid}: {what}")
    wanted = config.stash[SETTINGS].durations
    starts = list(config.stash.get(STARTS, ()))
    starts.sort(reverse=True)
    if wanted is None or not starts:
        return
    reporter.section(f"slowest {wanted or len(starts)} sandboxes to start")
    for seconds, nodeid, image in starts[: wanted or None]:
        reporter.write_line(f"{seconds * 1000:8.1f} ms  {nodeid}  ({image})")


def _told(reporter: TerminalReporter, wanted: str) -> list[tuple[str, str]]:
    """Return the user properties ``wanted``, each with the test that it is of."""
    said = (
        (report.nodeid, value)
        for reports in reporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == wanted
    )
    return list(dict.fromkeys(said))


def _shell_command(path: str) -> str:
    """Return what to paste into a shell to look at the sandbox that is kept at ``path``."""
    from pytest_sandbox_runtime.images.places import command_on

    return command_on(os.path.dirname(os.path.dirname(path)), f"shell {os.path.basename(path)}")


def close_engine(config: pytest.Config) -> None:
    """End the run's engine, if one was opened."""
    engine = config.stash.get(ENGINE, None)
    if engine is not None:
        engine.close()
        if config.stash[SETTINGS].capture != "none" and not hasattr(config, "workerinput"):
            from pytest_sandbox.capturing import forget_empty

            forget_empty(engine)
        del config.stash[ENGINE]


def open_shell(item: pytest.Item) -> None:
    """Join the terminal to a shell in the first sandbox of a test that has just failed, or in the one it runs in."""
    if IS_INSIDE in item.config.stash:
        from pytest_sandbox_runtime.terminal import interact_here, shell_of

        _at_the_terminal(item, lambda: interact_here(shell_of(os.path.exists)))
    elif sandboxes := item.stash.get(STARTED, []):
        _at_the_terminal(item, sandboxes[0].shell)


def _at_the_terminal(item: pytest.Item, talk: Callable[[], int]) -> None:
    capture: Any = item.config.pluginmanager.getplugin("capturemanager")
    # What captures the output has taken the input, too.
    capture.suspend(in_=True)
    try:
        print(f"\n{item.nodeid} failed; this is its sandbox. Leave it with exit.", flush=True)
        talk()
    finally:
        capture.resume()


def explain_changes(op: str, left: object, right: object) -> list[str] | None:
    """Return what a person wants to read where two Changes were to be equal, as pytest_assertrepr_compare does."""
    module = sys.modules.get("pytest_sandbox_runtime.changes")
    if module is None or op != "==" or not (isinstance(left, module.Changes) and isinstance(right, module.Changes)):
        return None
    return ["the changes differ", *module.explain_difference(left, right)]
