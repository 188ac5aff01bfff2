"""PYTEST_DONT_REWRITE. Keys that Compose has and that nothing here does: each an error, with what to do instead.

What is without effect here, too, but cannot be missed in a test, is accepted; docs/compose.md lists it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_sandbox_runtime.compose.fields import Section
    from pytest_sandbox_runtime.compose.nodes import Node

_LEAVE = "leave it out"
_OWN = "a sandbox has namespaces of its own; leave it out"
_DEVICES = "a sandbox has no devices of the host; leave it out"
_CPUS = "say cpus, how many processors' time there is"
_OOM = "the kernel chooses in each sandbox by itself; leave it out"
_NAMES = "services find each other by name; leave it out"
SERVICE_KEYS = {
    "blkio_config": "there are limits for memory, processors and processes; leave it out",
    "cgroup": _OWN,
    "cgroup_parent": _OWN,
    "cpu_count": _CPUS,
    "cpu_percent": _CPUS,
    "cpu_rt_period": _CPUS,
    "cpu_rt_runtime": _CPUS,
    "cpu_shares": _CPUS,
    "cpuset": _CPUS,
    "credential_spec": "it is for Windows; leave it out",
    "device_cgroup_rules": _DEVICES,
    "devices": _DEVICES,
    "dns": _NAMES,
    "dns_opt": _NAMES,
    "dns_search": _NAMES,
    "external_links": "there is nothing outside of the project; make it a service of the file",
    "gpus": _DEVICES,
    "group_add": "the user's groups are those of the image's /etc/group; add them there",
    "ipc": _OWN,
    "isolation": _LEAVE,
    "mac_address": "addresses are given out; leave it out",
    "mem_swappiness": _LEAVE,
    "memswap_limit": "say mem_limit, how much memory there is",
    "models": "make the model a service of the file",
    "oom_kill_disable": _OOM,
    "oom_score_adj": _OOM,
    "pid": _OWN,
    "post_start": "run the command in the test, once the service is there",
    "pre_start": "make it a service, and wait for it: depends_on with service_completed_successfully",
    "pre_stop": "run the command in the test, before the service ends",
    "privileged": "a sandbox never has the host's rights; say the capabilities that it needs under cap_add",
    "provider": "there is nobody to provide it; make it a service of the file",
    "pull_refresh_after": "say pull_policy",
    "runtime": "there is one, this one; leave it out",
    "security_opt": "the filter of system calls and no_new_privs are always there; leave it out",
    "storage_opt": _LEAVE,
    "sysctls": "parameters of the kernel are the host's; leave it out",
    "use_api_socket": "there is no Docker here",
    "userns_mode": _OWN,
    "uts": _OWN,
    "volumes_from": "name the volumes under volumes, in both services",
}
BUILD_KEYS = {
    "entitlements": "a build has no more rights than a sandbox; leave it out",
    "extra_hosts": _LEAVE,
    "isolation": _LEAVE,
    "network": "a step has the host's network, or none with RUN --network=none; leave it out",
    "no_cache": "set PYTEST_SANDBOX_NO_CACHE for a run that makes every layer anew",
    "privileged": "a build has no more rights than a sandbox; leave it out",
    "pull": "run pytest-sandbox pull",
    "shm_size": _LEAVE,
    "ssh": "RUN --mount=type=ssh is not supported; take a secret",
    "tags": "run pytest-sandbox tag",
    "ulimits": _LEAVE,
}
NETWORK_KEYS = {"driver_opts": "the bridges are not Docker's; leave it out"}
VOLUME_KEYS = {"driver_opts": "for a directory of the host, name its path under the service's volumes"}
ATTACHMENT_KEYS = {
    "driver_opts": "the bridges are not Docker's; leave it out",
    "gw_priority": _LEAVE,
    "interface_name": _LEAVE,
    "link_local_ips": _LEAVE,
    "mac_address": "addresses are given out; leave it out",
}
# What asks for nothing but the way it is.
_AS_IT_IS = {
    ("cgroup", "private"),
    ("ipc", "private"),
    ("isolation", "default"),
    ("network", "default"),
    ("network", "host"),
    ("security_opt", "no-new-privileges:true"),
    ("security_opt", "no-new-privileges"),
}


def refuse(section: Section, keys: Mapping[str, str]) -> None:
    """Tell the section's problems each of ``keys`` that asks for something."""
    for name, hint in keys.items():
        node = section.node.get(name)
        if node is not None and _asks(name, node):
            section.problems.add(node.error("is not supported", hint))


def refuse_build_keys(section: Section) -> None:
    """Tell the section's problems what a ``build`` may not say."""
    refuse(section, BUILD_KEYS)


def refuse_service_keys(section: Section) -> None:
    """Tell the section's problems what a service may not say."""
    refuse(section, SERVICE_KEYS)
    reservations = section.node.get("deploy", "resources", "reservations")
    for name in ("devices", "generic_resources"):
        node = reservations.get(name) if reservations else None
        if node is not None and _asks(name, node):
            section.problems.add(node.error("is not supported", _DEVICES))


def _asks(name: str, node: Node) -> bool:
    if isinstance(node.value, tuple):
        return any(_asks(name, item) for item in node.value)
    if isinstance(node.value, dict):
        return bool(node.value)
    # 0 is False, too.
    return node.value not in {None, 0, "", "false", "0"} and (name, node.value) not in _AS_IT_IS
