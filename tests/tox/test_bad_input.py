"""What cannot be right is said with its environment and its key, before anything is installed or started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tox.conftest import Project

pytestmark = pytest.mark.needs("networks")

INI = """
[tox]
no_package = true
[testenv]
skip_install = true
runner = sandbox
commands = python -c ""
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(autouse=True)
def one_environment(project: Project, work: Path) -> None:
    """All of them use one environment, which is never installed to."""
    project.env["TOX_WORK_DIR"] = str(work)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sandbox_memmory = 1G", "sandbox_memmory of environment py is no key\n  hint: did you mean sandbox_memory?"),
        ("sandbox_memory = lots", "sandbox_memory of environment py: 'lots' is no size"),
        ("sandbox_memory = 1", "sandbox_memory of environment py: memory=1 is less than"),
        ("sandbox_cpus = -1", "sandbox_cpus of environment py: cpus=-1.0 is not more than 0"),
        ("sandbox_pids = many", "sandbox_pids of environment py: "),
        ("sandbox_limits = some", "sandbox_limits of environment py: 'some' is none of enforce, best-effort"),
        ("sandbox_network = nowhere", "sandbox_network of environment py: 'nowhere' is none of none, host, internet"),
        ("sandbox_network = a:b", "sandbox_network of environment py: allow has 'a:b', which is no name with a port"),
        ("sandbox_keep = nothing", "sandbox_keep of environment py: nothing is not there\n  hint: nothing/ is"),
        ("sandbox_image = https://a", "sandbox_image of environment py: "),
        ("sandbox_image = ./nothing", "sandbox_image of environment py: cannot read the archive"),
        (
            "sandbox_services = db",
            "sandbox_services of environment py: no section declares a service 'db'\n  hint: decl",
        ),
    ],
)
def test_a_key_of_an_environment(project: Project, line: str, said: str) -> None:
    project.write("tox.ini", INI + line)
    assert f"py: failed with {said}" in project.fails()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("imge = host", "imge of [sandbox:db] is no key\n  hint: did you mean image?"),
        ("ports = 80", "it has neither an image nor a service"),
        ("image = host\nports = x", "failed with ports of [sandbox:db]: "),
        ("image = host\nports = 99999", "port 99999 is no number from 1 to 65535"),
        ("image = host\nready = soon", "ready = soon is none of port:NUMBER, log:PATTERN and http:PATH"),
        ("image = host\nready = log:(", "'(' is no regular expression"),
        ("image = host\ntimeout = long", "failed with timeout of [sandbox:db]: "),
        ("image = ./nothing", "failed with image of [sandbox:db]: cannot read the archive"),
        ("service = postgrse", "pytest_sandbox.services has\n  hint: did you mean postgres?"),
        ("service = nowhere:db", "service = nowhere:db: No module named 'nowhere'"),
        ("service = os:nothing", "service = os:nothing: module 'os' has no attribute 'nothing'"),
        ("service = os:sep", "service = os:sep is neither a Service nor a function that returns one"),
        ("service = builtins:dict", "builtins:dict returns {'name': 'db'}, which is no Service"),
    ],
)
def test_a_key_of_a_service(project: Project, lines: str, said: str) -> None:
    project.write("tox.ini", f"{INI}sandbox_services = db\n[sandbox:db]\n{lines}\n")
    out = project.fails()
    assert "[sandbox:db]" in out
    assert said in out


def test_the_tables_of_toml_are_checked_too(project: Project) -> None:
    services = (
        'sandbox_services = ["dbb"]\nrunner = "sandbox"\n[sandbox.db]\nimage = "host"\ncommand = "redis-server"\n'
    )
    project.write("tox.toml", f"no_package = true\n[env_run_base]\nskip_install = true\n{services}")
    assert "no section declares a service 'dbb'\n  hint: did you mean db?" in project.fails("-e", "py")
    project.write("tox.toml", (project.root / "tox.toml").read_text().replace("dbb", "db"))
    assert "[sandbox:db]: command = 'redis-server' is no list" in (project.fails("-e", "py"))
    project.write("tox.toml", (project.root / "tox.toml").read_text().replace('["db"]', '"db"'))
    assert "sandbox_services of environment py: " in project.fails("-e", "py")


def test_what_is_for_a_sandbox_is_refused_where_there_is_none(project: Project) -> None:
    project.write("tox.ini", INI.replace("runner = sandbox", "sandbox_memory = 1G"))
    assert "sandbox_memory of environment py is for a sandbox\n  hint: runner = sandbox" in project.fails()
    # One that says so may have inherited it.
    project.write("tox.ini", f"{INI}sandbox_memory = 1G\n[testenv:plain]\nrunner = virtualenv\n")
    project.tox("-e", "plain")


def test_a_key_is_refused_before_anything_is_installed(project: Project) -> None:
    project.write("tox.ini", f"{INI}deps = no-such-package\nsandbox_memory = lots\n")
    out = project.fails()
    assert "'lots' is no size" in out
    assert "install_deps" not in out


def test_tox_lists_and_shows_what_it_would_refuse_to_run(project: Project) -> None:
    project.write(
        "tox.ini", f"{INI}sandbox_memory = lots\nsandbox_services = db cache\n[sandbox:other]\nimage = host\n"
    )
    assert "py" in project.tox("list")
    shown = project.tox("config", "-e", "py", "--core")
    assert "sandbox_memory = lots\n" in shown
    assert "sandbox = other\n" in shown
    assert not project.runs.exists()
