"""What the filter answers to every number, by running it; the kernel's own answers are in kernel/."""

from __future__ import annotations

import errno
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox_runtime.errors import UnsupportedError
from pytest_sandbox_runtime.kernel.capabilities import Capability, mask
from pytest_sandbox_runtime.supervisor.confinement import DEFAULT_CAPABILITIES, seccomp_program

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_ARCH_I386 = 0x40000003
X32 = 0x40000000
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
MACHINES = st.sampled_from(sorted(ARCHITECTURE))
PROGRAM = {machine: seccomp_program(machine) for machine in ARCHITECTURE}
TELLING = {machine: seccomp_program(machine, tells=True) for machine in ARCHITECTURE}
NESTING = {machine: seccomp_program(machine, nests=True) for machine in ARCHITECTURE}
ANSWER = {
    0x7FFF0000: "allow",
    0x50000 | errno.EPERM: "EPERM",
    0x50000 | errno.ENOSYS: "ENOSYS",
    0x80000000: "kill",
    0x7FC00000: "tell",
}

# From <asm/unistd.h> of each machine, less the names that the default profile of Docker allows.
EPERM = {
    "x86_64": "103 134 136 139 153 155-156 163-185 212 227 236-239 246 248-250 256 272 279 298 300 304 308 312-313"
    " 320-321 323 425-433 438 440 442-443 450 459-461",
    "aarch64": "18 39-42 58 60 89 97 104-106 112 116 142 161-162 170 217-219 224-225 235-239 241 262 265 268 272-273"
    " 280 282 294 425-433 438 440 442-443 450 459-461",
}
# Of those, what makes a sandbox: mounts, namespaces, host and domain name, pivot_root.
NESTS = {
    "x86_64": "155 165-166 170-171 308 428-433 442",
    "aarch64": "39-41 161-162 268 428-433 442",
}
NOT_ASSIGNED = {"x86_64": "336-423", "aarch64": "244-259 295-423"}
CLONE = {"x86_64": 56, "aarch64": 220}
SOCKET = {"x86_64": 41, "aarch64": 198}
CONNECT = {"x86_64": 42, "aarch64": 203}
PERSONALITY = {"x86_64": 135, "aarch64": 92}
UNSHARE = {"x86_64": 272, "aarch64": 97}
CLONE3 = 435
NEWEST = 466


def numbers(ranges: str) -> set[int]:
    pairs = ([int(end) for end in part.split("-")] for part in ranges.split())
    return {number for pair in pairs for number in range(pair[0], pair[-1] + 1)}


def run(program: bytes, data: bytes) -> tuple[int, int]:
    """What classic BPF says of ``data``, and the steps that it took: the instructions that the filter uses, no more."""
    accumulator = place = steps = 0
    while True:
        code, yes, no, operand = struct.unpack_from("=HBBI", program, place * 8)
        place, steps = place + 1, steps + 1
        if code == 0x06:
            return operand, steps
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        else:
            holds = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: accumulator & operand != 0}
            place += yes if holds[code] else no


def answer(
    machine: str,
    number: int,
    *arguments: int,
    architecture: int | None = None,
    programs: dict[str, bytes] = PROGRAM,
) -> str:
    arguments += (0,) * (6 - len(arguments))
    architecture = ARCHITECTURE[machine] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
    return ANSWER[run(programs[machine], data)[0]]


@pytest.mark.parametrize("machine", ARCHITECTURE)
def test_each_number_has_the_answer_that_docker_gives(machine: str) -> None:
    expected = dict.fromkeys(range(NEWEST + 1), "allow")
    expected |= dict.fromkeys(range(NEWEST + 1, 2048), "ENOSYS")
    expected |= dict.fromkeys(numbers(NOT_ASSIGNED[machine]), "ENOSYS")
    expected |= dict.fromkeys(numbers(EPERM[machine]), "EPERM")
    expected[CLONE3] = "ENOSYS"
    assert {number: answer(machine, number) for number in expected} == expected


@given(MACHINES, st.integers(NEWEST + 1, X32 - 1) | st.integers(X32 * 2, 0xFFFFFFFF))
def test_a_number_that_is_not_known_looks_like_an_older_kernel(machine: str, number: int) -> None:
    assert answer(machine, number) == "ENOSYS"


@given(st.integers(X32, X32 * 2 - 1))
def test_x32_calls_are_refused(number: int) -> None:
    assert answer("x86_64", number) == "EPERM"


@given(MACHINES, U32, U32)
def test_calls_of_another_architecture_kill(machine: str, number: int, architecture: int) -> None:
    if architecture != ARCHITECTURE[machine]:
        assert answer(machine, number, architecture=architecture) == "kill"


def test_32_bit_calls_kill_on_a_64_bit_machine() -> None:
    assert answer("x86_64", 20, architecture=AUDIT_ARCH_I386) == "kill"


@given(MACHINES, U64, st.sampled_from([17, 25, 26, 27, 28, 29, 30]))
def test_clone_with_any_namespace_is_refused_whatever_else_it_asks_for(machine: str, flags: int, bit: int) -> None:
    assert answer(machine, CLONE[machine], flags | 1 << bit) == "EPERM"


@given(MACHINES, U64)
def test_clone_without_namespaces_is_allowed_whatever_else_it_asks_for(machine: str, flags: int) -> None:
    assert answer(machine, CLONE[machine], flags & ~0x7E020000) == "allow"


@given(MACHINES, U32)
def test_sockets_to_the_hypervisor_and_to_the_kernels_ciphers_are_refused(machine: str, above: int) -> None:
    # The kernel reads an int: a high word must not lead past the filter.
    refused = {family for family in range(64) if answer(machine, SOCKET[machine], above << 32 | family) == "EPERM"}
    assert refused == {38, 40}


@given(MACHINES, U32)
def test_personality_takes_the_values_that_docker_allows(machine: str, persona: int) -> None:
    allowed = persona in {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}
    assert answer(machine, PERSONALITY[machine], persona) == ("allow" if allowed else "EPERM")


@pytest.mark.parametrize("persona", [0, 8, 0x20000, 0x20008, 0xFFFFFFFF])
def test_personality_can_be_asked_and_set_to_plain_linux(persona: int) -> None:
    assert answer("x86_64", 135, persona) == "allow"


def test_personality_cannot_switch_off_address_randomization() -> None:
    assert answer("x86_64", 135, 0x40000) == "EPERM"


@given(MACHINES, U64, U64, U32)
def test_one_that_tells_does_so_of_connections_but_to_a_path(machine: str, fd: int, where: int, above: int) -> None:
    said = {
        size
        for size in range(256)
        if answer(machine, CONNECT[machine], fd, where, above << 32 | size, programs=TELLING) == "tell"
    }
    assert said == {*range(256)} - {110}
    assert answer(machine, CONNECT[machine], fd, where, 110, programs=TELLING) == "allow"
    assert answer(machine, CONNECT[machine], fd, where, 16) == "allow"


@given(MACHINES, U32, U64)
def test_of_all_else_it_says_the_same(machine: str, number: int, argument: int) -> None:
    if number != CONNECT[machine]:
        assert answer(machine, number, argument, programs=TELLING) == answer(machine, number, argument)


@given(MACHINES, st.integers(0, NEWEST))
def test_one_that_nests_lets_a_sandbox_be_made_and_nothing_else(machine: str, number: int) -> None:
    said, plain = answer(machine, number, programs=NESTING), answer(machine, number)
    lets = number in numbers(NESTS[machine]) | {UNSHARE[machine]}
    assert (said, plain) == ("allow", "EPERM") if lets else said == plain


@given(MACHINES, U64, st.sampled_from([CLONE, UNSHARE]))
def test_one_that_nests_keeps_the_namespace_of_control_groups(machine: str, flags: int, call: dict[str, int]) -> None:
    leaves = flags & 0x2000000
    assert answer(machine, call[machine], flags, programs=NESTING) == ("EPERM" if leaves else "allow")
    assert answer(machine, call[machine], 0x2000000, programs=NESTING) == "EPERM"


@given(MACHINES, U32, st.sampled_from([PROGRAM, TELLING, NESTING]))
def test_a_call_costs_few_steps(machine: str, number: int, programs: dict[str, bytes]) -> None:
    data = struct.pack("=IIQ6Q", number, ARCHITECTURE[machine], 0, *[1] * 6)
    assert run(programs[machine], data)[1] <= 16
    assert len(programs[machine]) <= 128 * 8


def test_a_machine_without_numbers_is_an_error_that_names_it() -> None:
    with pytest.raises(UnsupportedError, match="no system call filter for the machine 'riscv64'") as caught:
        seccomp_program("riscv64")
    assert pickle.loads(pickle.dumps(caught.value)).hint == "there is one for x86_64 and aarch64"


def test_the_default_capabilities_are_those_of_docker() -> None:
    assert mask(DEFAULT_CAPABILITIES) == 0xA80425FB


def test_capabilities_have_the_numbers_of_the_kernel() -> None:
    assert [Capability.CHOWN, Capability.SYS_ADMIN, Capability.SYSLOG, Capability.BPF] == [0, 21, 34, 39]
    numbers = [number for name, number in vars(Capability).items() if name.isupper()]
    assert sorted(numbers) == list(range(Capability.CHECKPOINT_RESTORE + 1)) == list(range(41))
