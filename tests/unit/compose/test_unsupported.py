"""Keys that nothing here does are errors, each with what to do instead, and those without effect are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox_runtime.compose.unsupported import BUILD_KEYS, SERVICE_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox_runtime.compose import ComposeService

VALUES = {
    "blkio_config": "{weight: 300}",
    "cgroup": "host",
    "cgroup_parent": "m-executor",
    "cpu_count": "2",
    "cpu_percent": "50",
    "cpu_rt_period": "1400us",
    "cpu_rt_runtime": "400ms",
    "cpu_shares": "73",
    "cpuset": "0,1",
    "credential_spec": "{file: x.json}",
    "device_cgroup_rules": "['c 1:3 mr']",
    "devices": "['/dev/ttyUSB0:/dev/ttyUSB0']",
    "dns": "8.8.8.8",
    "dns_opt": "[use-vc]",
    "dns_search": "[example.com]",
    "external_links": "[redis]",
    "gpus": "all",
    "group_add": "[mail]",
    "ipc": "shareable",
    "isolation": "hyperv",
    "mac_address": "02:42:ac:11:65:43",
    "mem_swappiness": "10",
    "memswap_limit": "1g",
    "models": "[m]",
    "oom_kill_disable": "true",
    "oom_score_adj": "500",
    "pid": "host",
    "post_start": "[{command: x}]",
    "pre_start": "[{command: x}]",
    "pre_stop": "[{command: x}]",
    "privileged": "true",
    "provider": "{type: x}",
    "pull_refresh_after": "1h",
    "runtime": "runc",
    "security_opt": "['seccomp:unconfined']",
    "storage_opt": "{size: 1G}",
    "sysctls": "{net.core.somaxconn: 1024}",
    "use_api_socket": "true",
    "userns_mode": "host",
    "uts": "host",
    "volumes_from": "[db]",
}
BUILD_VALUES = {
    "entitlements": "[network.host]",
    "extra_hosts": "[a=192.0.2.1]",
    "isolation": "x",
    "network": "front",
    "no_cache": "true",
    "privileged": "true",
    "pull": "true",
    "shm_size": "1g",
    "ssh": "[default]",
    "tags": "[a:b]",
    "ulimits": "{nproc: 5}",
}


@pytest.mark.parametrize(("key", "hint"), SERVICE_KEYS.items())
def test_a_key_that_nothing_here_does_is_an_error(mistake: Callable[..., str], key: str, hint: str) -> None:
    assert mistake(f"{key}: {VALUES[key]}") == f"{key}: is not supported\n  hint: {hint}"


@pytest.mark.parametrize(("key", "hint"), BUILD_KEYS.items())
def test_a_key_of_builds_that_nothing_here_does_is_an_error(mistake: Callable[..., str], key: str, hint: str) -> None:
    assert mistake(f"build: {{{key}: {BUILD_VALUES[key]}}}") == f"build.{key}: is not supported\n  hint: {hint}"


@pytest.mark.parametrize(
    "text",
    [
        "privileged: false",
        "privileged: 'false'",
        "devices: []",
        "oom_score_adj: 0",
        "cgroup: private",
        "ipc: private",
        "isolation: default",
        "security_opt: ['no-new-privileges:true']",
        "sysctls: {}",
        "build: {context: ., network: host, no_cache: false}",
    ],
)
def test_what_asks_for_nothing_but_the_way_it_is_is_taken(service: Callable[..., ComposeService], text: str) -> None:
    assert service(text).name == "web"


@pytest.mark.parametrize(
    "text",
    [
        "attach: false",
        "develop: {watch: [{path: ./src, action: rebuild}]}",
        "logging: {driver: json-file, options: {max-size: 10m}}",
        "mem_reservation: 5m",
        "deploy: {endpoint_mode: vip, labels: {a: b}, update_config: {parallelism: 2, delay: 10s}, rollback_config: {order: stop-first}, placement: {constraints: [node.role==manager]}}",
        "build: {context: ., cache_from: [x], cache_to: [y], platforms: [linux/amd64], provenance: true, sbom: true}",
        "x-own: {any: [thing]}",
    ],
)  # fmt: skip
def test_what_has_no_effect_on_a_test_is_taken(service: Callable[..., ComposeService], text: str) -> None:
    assert service(text).name == "web"
