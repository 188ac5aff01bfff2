"""Which capabilities a confined process has, and what it executes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.kernel.capabilities import (
    Capability,
    bounding,
    capget,
    capset,
    clear_ambient,
    drop_bounding,
    mask,
)
from pytest_sandbox_runtime.kernel.libc import SyscallError
from pytest_sandbox_runtime.kernel.processes import Prctl, prctl
from pytest_sandbox_runtime.supervisor.confinement import confine, cut_bounding_set, seccomp_program
from tests.kernel.confinement.confined import (
    DEFAULT,
    become_user_with_namespace,
    capability_lines,
    confined,
    in_child,
    stay_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("seccomp", "syscall-numbers")

AMBIENT_RAISE = 2


@pytest.mark.needs("root")
def test_a_body_run_as_root_has_the_default_capabilities_and_no_more() -> None:
    share = capget().permitted & DEFAULT
    bound = bounding() & DEFAULT
    said = confined(capability_lines, stay_root, keep_permitted=False)
    assert said == f"Prm={share:x} Eff={share:x} Bnd={bound:x} Inh=0 Amb=0"


@pytest.mark.needs("root")
def test_init_keeps_its_capabilities_and_what_it_executes_does_not() -> None:
    has, bound = capget(), bounding() & DEFAULT
    assert confined(capability_lines, stay_root).startswith(
        f"Prm={has.permitted:x} Eff={has.effective:x} Bnd={bound:x} "
    )
    executed = confined(run_program_that_tells, stay_root)
    assert executed == f"Prm={bound:x} Eff={bound:x} Bnd={bound:x}"


def run_program_that_tells() -> str:
    lines = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(line.split(":\t") for line in lines if line.startswith("Cap"))
    return " ".join(f"{name}={int(found['Cap' + name], 16):x}" for name in ("Prm", "Eff", "Bnd"))


@pytest.mark.needs("user-namespaces")
def test_in_a_user_namespace_init_is_all_powerful_and_what_it_executes_has_the_defaults() -> None:
    said = confined(
        lambda: f"{capget().permitted & ~DEFAULT != 0} {run_program_that_tells()}", become_user_with_namespace
    )
    assert said == f"True Prm={DEFAULT:x} Eff={DEFAULT:x} Bnd={DEFAULT:x}"


@pytest.mark.needs("user-namespaces")
def test_a_body_run_as_a_mapped_root_has_the_default_capabilities() -> None:
    said = confined(capability_lines, become_user_with_namespace, keep_permitted=False)
    assert said == f"Prm={DEFAULT:x} Eff={DEFAULT:x} Bnd={DEFAULT:x} Inh=0 Amb=0"


@pytest.mark.needs("user-namespaces")
def test_a_body_run_as_an_ordinary_user_has_no_capabilities() -> None:
    said = confined(capability_lines, lambda: become_user_with_namespace(1000), keep_permitted=False)
    assert said == f"Prm=0 Eff=0 Bnd={DEFAULT:x} Inh=0 Amb=0"


def hand_down_kill() -> None:
    has = capget()
    capset(has.effective, has.permitted, mask([Capability.KILL]))
    prctl(Prctl.CAP_AMBIENT, AMBIENT_RAISE, Capability.KILL)
    assert capability_lines().endswith(" Inh=20 Amb=20")


def test_capabilities_handed_down_are_taken_back(enter: Callable[[], None]) -> None:
    def enter_and_hand_down() -> None:
        enter()
        hand_down_kill()

    assert confined(capability_lines, enter_and_hand_down).endswith(" Inh=0 Amb=0")


def test_the_ambient_set_can_be_emptied_by_itself(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        hand_down_kill()
        clear_ambient()
        return capability_lines()

    assert in_child(attempt).endswith(" Inh=20 Amb=0")


def test_capabilities_are_read_as_proc_tells_them(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        has = capget()
        read = f"Prm={has.permitted:x} Eff={has.effective:x} Bnd={bounding():x} Inh={has.inheritable:x} Amb=0"
        return "the same" if read == capability_lines() else f"{read} is not {capability_lines()}"

    assert in_child(attempt) == "the same"


def test_a_capability_that_cannot_be_taken_away_is_an_error(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        capset(0, 0, 0)
        with pytest.raises(SyscallError) as caught:
            confine(seccomp_program(), keep_permitted=False)
        return str(caught.value)

    assert in_child(attempt) == "prctl(CAPBSET_DROP, 2): EPERM, Operation not permitted"


def test_a_capability_dropped_from_the_bounding_set_is_gone_from_it(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        before = bounding()
        drop_bounding([Capability.CHOWN, Capability.BPF])
        return f"{before & ~bounding():x}"

    assert in_child(attempt) == f"{mask([Capability.CHOWN, Capability.BPF]):x}"


def test_a_cut_bounding_set_is_handed_to_forks_and_leaves_this_process_its_own(enter: Callable[[], None]) -> None:
    def attempt() -> str:
        enter()
        before = capget()
        cut_bounding_set()
        return f"{capget() == before} {in_child(lambda: f'{bounding() & ~DEFAULT}')}"

    assert in_child(attempt) == "True 0"
