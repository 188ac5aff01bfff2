"""The rest of what a service says."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose import ComposeService, Dependency, Limits, NetworkUse, Restart

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import Project


def test_what_is_not_said_is_the_images_or_none(service: Callable[..., ComposeService]) -> None:
    assert service("image: nginx") == ComposeService(
        name="web", origin="", image="nginx", limits=Limits(), networks=(NetworkUse(network="default"),)
    )


def test_declarations_can_be_compared_hashed_and_pickled(read: Callable[..., Project]) -> None:
    text = "services: {web: {image: x, ports: [80], volumes: [/x], environment: {A: 1}, labels: {a: b}}}"
    project = read(text)
    assert project == read(text)
    assert hash(project) == hash(read(text))
    assert pickle.loads(pickle.dumps(project)) == project
    with pytest.raises(KeyError, match="none"):
        project.service("none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bundle exec thin -p 3000", ("bundle", "exec", "thin", "-p", "3000")),
        ("[bundle, 'exec thin']", ("bundle", "exec thin")),
        ("sh -c 'echo \"hello $$HOME\"; exit'", ("sh", "-c", 'echo "hello $HOME"; exit')),
        ('sh -c "a && b | c > d"', ("sh", "-c", "a && b | c > d")),
        (r"find / -exec ls {} \;", ("find", "/", "-exec", "ls", "{}", ";")),
        ("echo # no comment", ("echo",)),
        ('"echo # no comment"', ("echo", "#", "no", "comment")),
        ("", None),
        ("~", None),
        ("[]", ()),
        ("''", ()),
    ],
)
@pytest.mark.parametrize("key", ["command", "entrypoint"])
def test_a_command_is_words(
    service: Callable[..., ComposeService], key: str, text: str, words: tuple[str, ...] | None
) -> None:
    assert getattr(service(f"{key}: {text}"), key) == words


def test_a_process_is_as_it_is_said(service: Callable[..., ComposeService]) -> None:
    web = service("""
user: "1000:1000"
working_dir: /srv/./app/
init: true
tty: true
stdin_open: true
read_only: "true"
shm_size: 64m
stop_signal: usr1
stop_grace_period: 1m30s
cap_add: [NET_ADMIN, cap_sys_ptrace]
cap_drop: [all]
platform: linux/amd64
pull_policy: if_not_present
container_name: my-web
hostname: web.example.test
domainname: example.test
""")
    assert (web.user, web.working_dir, web.init, web.tty, web.stdin_open) == ("1000:1000", "/srv/app", True, True, True)
    assert (web.read_only, web.shm_size, web.stop_signal, web.stop_grace_period) == (True, 64 << 20, "SIGUSR1", 90.0)
    assert (web.cap_add, web.cap_drop) == (("NET_ADMIN", "SYS_PTRACE"), ("ALL",))
    assert (web.platform, web.pull_policy) == ("linux/amd64", "missing")
    assert (web.container_name, web.hostname, web.domainname) == ("my-web", "web.example.test", "example.test")


@pytest.mark.parametrize(
    ("text", "restart"),
    [
        ("", Restart()),
        ("restart: no", Restart()),
        ('restart: "no"', Restart()),
        ("restart: always", Restart(policy="always")),
        ("restart: unless-stopped", Restart(policy="unless-stopped")),
        ("restart: on-failure", Restart(policy="on-failure")),
        ("restart: on-failure:3", Restart(policy="on-failure", retries=3)),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 3, delay: 5s}}", Restart(policy="on-failure", retries=3)),
        ("deploy: {restart_policy: {condition: none}}", Restart()),
        ("deploy: {restart_policy: {}}", Restart(policy="always")),
        ("restart: no\ndeploy: {restart_policy: {condition: any}}", Restart()),
    ],
)  # fmt: skip
def test_a_restart_has_all_its_forms(service: Callable[..., ComposeService], text: str, restart: Restart) -> None:
    assert service(text).restart == restart


@pytest.mark.parametrize(("text", "name"), [("SIGINT", "SIGINT"), ("15", "SIGTERM"), ("SIGRTMIN+3", "SIGRTMIN+3")])
def test_a_signal_has_a_name(service: Callable[..., ComposeService], text: str, name: str) -> None:
    assert service(f"stop_signal: '{text}'").stop_signal == name


@pytest.mark.parametrize(
    "policy", ["always", "never", "missing", "build", "daily", "weekly", "every_12h", "every_1w2d"]
)
def test_a_pull_policy_is_kept(service: Callable[..., ComposeService], policy: str) -> None:
    assert service(f"pull_policy: {policy}").pull_policy == policy


def test_other_hosts_have_all_their_forms(service: Callable[..., ComposeService]) -> None:
    text = "['a=192.0.2.1', 'b:192.0.2.2', 'c=[::1]', 'd:::1', 'host.docker.internal:host-gateway', 'a=192.0.2.1']"
    assert service(f"extra_hosts: {text}").extra_hosts == (
        ("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "::1"), ("d", "::1"), ("host.docker.internal", "host-gateway"),
    )  # fmt: skip
    assert service("extra_hosts: {a: 192.0.2.1, b: ['::1', 192.0.2.2]}").extra_hosts == (
        ("a", "192.0.2.1"), ("b", "::1"), ("b", "192.0.2.2"),
    )  # fmt: skip


def test_dependencies_have_all_their_forms(read: Callable[..., Project]) -> None:
    project = read("""
services:
  a: {image: x}
  b: {image: x}
  web: {image: x, depends_on: [a], links: [b]}
  job: {image: x, depends_on: {a: {condition: service_healthy, restart: true}, b: {condition: service_completed_successfully}}}
""")
    assert project.service("web").depends_on == (Dependency(service="b"), Dependency(service="a"))
    assert project.service("job").depends_on == (
        Dependency(service="a", condition="service_healthy", restart=True),
        Dependency(service="b", condition="service_completed_successfully"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("command: echo a; echo b", "command: has ; outside of quotes\n  hint: this is no line for a shell: write a list of sh, -c and the line, or quote the character"),
        ("command: \"echo 'a\"", "command: \"echo 'a\" cannot be split into words: no closing quotation"),
        ("working_dir: app", "working_dir: 'app' is no absolute path without ..\n  hint: paths in a sandbox begin with /"),
        ("image: ''", "image: is empty"),
        ("restart: never", "restart: 'never' is no policy\n  hint: there is no, always, on-failure, unless-stopped"),
        ("restart: always:3", "restart: 'always:3': only on-failure takes a number of times\n  hint: for example \"on-failure:3\""),
        ("restart: on-failure:x", "restart: 'x' is no whole number"),
        ("pull_policy: refresh", "pull_policy: 'refresh' is no policy\n  hint: there is always, never, missing, build, daily, weekly, every_<duration>"),
        ("stop_signal: SIGTREM", "stop_signal: there is no signal SIGTREM\n  hint: did you mean SIGTERM?"),
        ("stop_signal: '99'", "stop_signal: there is no signal 99"),
        ("cap_add: [NET_ADMN]", "cap_add[0]: there is no capability NET_ADMN\n  hint: did you mean NET_ADMIN?"),
        ("hostname: -x", "hostname: '-x' is no host name\n  hint: letters, digits and -, at most 63 between dots"),
        ("container_name: my web", "container_name: 'my web' is no name of a container\n  hint: letters, digits, _, . and -, two at least"),
        ("extra_hosts: [a]", "extra_hosts[0]: 'a' is no host and its address\n  hint: for example \"somehost=192.0.2.1\", or \"somehost=host-gateway\""),
        ("network_mode: none\nextra_hosts: [a=host-gateway]", "extra_hosts: there is no host-gateway without a network\n  hint: leave network_mode out, or the name"),
        ("extra_hosts: [a=b]", "extra_hosts[0]: 'b' is no IP address\n  hint: for example \"somehost=192.0.2.1\", or \"somehost=host-gateway\""),
        ("shm_size: much", "shm_size: 'much' is no size\n  hint: write bytes, or for example \"256m\""),
        ("init: perhaps", "init: 'perhaps' is neither true nor false"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(mistake: Callable[..., str], text: str, said: str) -> None:
    assert mistake(text) == said


def test_another_name_for_a_linked_service_is_refused(mistakes: Callable[..., str]) -> None:
    said = mistakes("services:\n  db: {image: x}\n  web: {image: x, links: ['db:database', 'db:db']}\n")
    assert said == (
        "compose.yaml:3:27: services.web.links[0]: another name, 'database', is not supported\n"
        "  hint: say database as an alias of db: networks, a network's name, aliases"
    )
