"""What a user gets wrong, as pytest shows it: in our words, with a hint, and without a way through our internals."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., pytest.RunResult]

needs_sandboxes = pytest.mark.needs("overlay-on-host")
DRIVEN = "def test_driven(sandbox):\n    pass\n"
# Makes the process one that the kernel allows no user namespace, and that would need one.
NO_USER_NAMESPACES = """
import sys
from pytest_sandbox_runtime.kernel.capabilities import Capability, capget, capset, drop_bounding
from pytest_sandbox_runtime.supervisor.identities import map_identities
map_identities("")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
drop_bounding([Capability.SYS_ADMIN])
kept = capget().permitted & ~(1 << Capability.SYS_ADMIN)
capset(kept, kept, 0)
"""
NO_LINUX = """
import sys
sys.platform = "darwin"
sys.modules["fcntl"] = sys.modules["pwd"] = sys.modules["resource"] = None
"""
PYTEST = """
import pytest
sys.exit(pytest.main(["-p", "pytest_sandbox.plugin", *sys.argv[1:]]))
"""
ALL_WAYS = """
    import pytest

    @pytest.mark.sandbox
    def test_inside():
        pass

    def test_driven(sandbox):
        pass

    def test_engine(sandbox_engine):
        pass

    def test_factory(sandbox_factory):
        sandbox_factory()
    """


def assert_shows_no_internals(result: pytest.RunResult) -> None:
    for words in ("*Traceback*", "*INTERNALERROR*", "*During handling of*", "*direct cause of*", "*raise *Error(*"):
        result.stdout.no_fnmatch_line(words)
    # Only as the name of the error's type, which a user may want to catch.
    assert "pytest_sandbox_runtime/" not in result.stdout.str()
    assert "pytest_sandbox/" not in result.stdout.str()
    assert result.stderr.str() == ""


def assert_nothing_runs(runs: Path) -> None:
    commands = []
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                commands.append(file.read())
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert [command for command in commands if os.fsencode(runs) in command] == []


@pytest.fixture
def base(pytester: pytest.Pytester) -> Path:
    """A tar with a member that leads out, and what a truncated and an unsuitable one begin with."""
    for name, member in (("out.tar", "../../escaped"), ("cut.tar", "bin/sh"), ("else.tar", "README")):
        with tarfile.open(pytester.path / name, "w") as archive:
            header = tarfile.TarInfo(member)
            header.size = 4096
            archive.addfile(header, io.BytesIO(bytes(4096)))
    os.truncate(pytester.path / "cut.tar", 2000)
    (pytester.path / "words.tar").write_text("these are only words\n" * 100)
    return pytester.path


@needs_sandboxes
@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nowhere.tar", "cannot read the archive */nowhere.tar: No such file or directory"),
        ("words.tar", "*/words.tar* is no *"),
        ("cut.tar", "*/cut.tar* truncated*"),
        ("out.tar", "*/out.tar*../../escaped*"),
        ("else.tar", "*/else.tar*"),
    ],
)
def test_a_base_that_is_none_ends_the_test_in_its_own_words(
    run: Run, runs: Path, base: Path, image: str, said: str
) -> None:
    result = run(DRIVEN, "--sandbox-image", image)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_driven*", said, "  hint: *"])
    assert_shows_no_internals(result)
    assert_nothing_runs(runs)
    assert not (base.parent / "escaped").exists()


@needs_sandboxes
def test_what_a_factory_cannot_make_ends_where_the_user_asked(run: Run, runs: Path, base: Path) -> None:
    result = run(
        """
        import pytest
        from pytest_sandbox import Image

        def start(factory, path):
            return factory(image=Image.archive(path))

        def test_cut(sandbox_factory):
            start(sandbox_factory, "cut.tar")

        def test_unknown(sandbox_factory):
            sandbox_factory(memroy="1G")

        @pytest.fixture(scope="session")
        def database(sandbox_factory):
            return start(sandbox_factory, "nowhere.tar")

        def test_missing(database):
            pass
        """
    )
    result.assert_outcomes(failed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "> *return factory(image=Image.archive(path))",
            "E *ImageError: cannot read the archive */nowhere.tar: No such file or directory",
            "E *hint: *",
            "> *return factory(image=Image.archive(path))",
            "E *ImageError: *truncated*",
            '> *sandbox_factory(memroy="1G")',
            "E *SpecError: a sandbox takes no argument 'memroy'",
            "E *hint: did you mean memory?",
        ]
    )
    assert_shows_no_internals(result)
    assert_nothing_runs(runs)


@needs_sandboxes
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("user='nobody-at-all'", "user 'nobody-at-all' does not exist in the sandbox"),
        ("workdir='/no/such/place'", "workdir /no/such/place is no directory in the host"),
        ("workdir='/etc/passwd'", "workdir /etc/passwd is no directory in the host"),
        ("mounts=[Mount(source='/no/such', target='/mnt')]", "*could not hold /no/such *No such file or directory*"),
    ],
)
@pytest.mark.parametrize("way", ["sandbox", ""], ids=["driven", "inside"])
def test_what_the_machine_has_not_ends_the_test_in_its_own_words(
    run: Run, runs: Path, words: str, said: str, way: str
) -> None:
    result = run(
        f"""
        import pytest
        from pytest_sandbox import Mount

        @pytest.mark.sandbox({words})
        def test_it({way}):
            raise RuntimeError
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_it*", said])
    assert_shows_no_internals(result)
    assert_nothing_runs(runs)


@needs_sandboxes
def test_a_sandbox_used_after_its_end_fails_where_it_is_used(run: Run, runs: Path) -> None:
    result = run(
        """
        def test_closed(sandbox):
            sandbox.close()
            sandbox.run("true")

        def test_missing_program(sandbox):
            sandbox.run(["no-such-program"])

        def test_failed_command(sandbox):
            sandbox.run("echo why >&2; exit 3", check=True)

        def test_missing_file(sandbox):
            sandbox.read_text("/no/such/file")
        """
    )
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            '> *sandbox.run("true")',
            "E *SandboxClosedError: sandbox * was closed",
            "E *hint: use it within its with block, or its test",
            "> *sandbox.run([[]*no-such-program*)",
            "E *CommandNotFoundError: there is no program 'no-such-program' in the sandbox",
            "E *CommandFailedError: *ended with exit status 3",
            "E *why",
            '> *sandbox.read_text("/no/such/file")',
            "E *MissingFileError: cannot read /no/such/file in the sandbox: No such file or directory",
        ]
    )
    assert_shows_no_internals(result)
    assert_nothing_runs(runs)


@needs_sandboxes
def test_our_way_is_shown_where_a_user_wants_it_all(run: Run) -> None:
    suite = "def test_closed(sandbox):\n    sandbox.close()\n    sandbox.run('true')\n"
    run(suite, "--full-trace").stdout.fnmatch_lines(["*pytest_sandbox_runtime/sandbox.py:*"])


@pytest.fixture
def run_elsewhere(pytester: pytest.Pytester, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in a process that ``setup`` has made one of another kind of host."""

    def run_suite(setup: str, source: str, *options: str) -> pytest.RunResult:
        # Other plugins may not be made for it.
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        pytester.makepyfile(source)
        return pytester.run(sys.executable, "-c", setup + PYTEST, "-rs", *options)

    return run_suite


def test_another_system_is_told_what_is_needed(run_elsewhere: Run, runs: Path) -> None:
    result = run_elsewhere(NO_LINUX, ALL_WAYS)
    result.assert_outcomes(failed=1, errors=3)
    result.stdout.fnmatch_lines(
        ["sandboxes need Linux, and this is darwin", "  hint: run the suite in a Linux virtual machine, or in WSL2"] * 3
    )
    assert_shows_no_internals(result)
    assert not runs.parent.exists()


def test_another_system_skips_where_the_user_chose_so(run_elsewhere: Run) -> None:
    result = run_elsewhere(
        NO_LINUX, ALL_WAYS, "-o", "sandbox_missing=skip", "-o", "sandbox_limits=best-effort", "-k", "not factory"
    )
    result.assert_outcomes(skipped=3, deselected=1)
    result.stdout.fnmatch_lines(["SKIPPED *sandboxes need Linux, and this is darwin*"])


def test_another_system_has_a_doctor(run_elsewhere: Run) -> None:
    result = run_elsewhere(NO_LINUX, ALL_WAYS, "--sandbox-doctor")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["sandboxes need Linux, and this is darwin", "  hint: *"])
    result.stdout.no_fnmatch_line("*test_*")


def test_another_system_runs_what_asks_for_no_sandbox(run_elsewhere: Run) -> None:
    run_elsewhere(NO_LINUX, "def test_plain():\n    pass\n").assert_outcomes(passed=1)


@pytest.mark.needs("user-namespaces")
def test_a_kernel_without_user_namespaces_is_told_what_to_set(run_elsewhere: Run, runs: Path) -> None:
    result = run_elsewhere(NO_USER_NAMESPACES, ALL_WAYS)
    result.assert_outcomes(failed=1, errors=3)
    result.stdout.fnmatch_lines(
        [
            "cannot make a sandbox: could not start the supervisor: No space left on device *",
            "  hint: user.max_user_namespaces is 0: sudo sysctl -w user.max_user_namespaces=15000",
        ]
        * 3
    )
    assert_shows_no_internals(result)
    assert_nothing_runs(runs)


@pytest.mark.needs("user-namespaces")
def test_a_kernel_without_user_namespaces_skips_where_the_user_chose_so(run_elsewhere: Run) -> None:
    result = run_elsewhere(NO_USER_NAMESPACES, ALL_WAYS, "-o", "sandbox_missing=skip", "-k", "not factory")
    result.assert_outcomes(skipped=3, deselected=1)
    result.stdout.fnmatch_lines(["SKIPPED *could not start the supervisor*"])
