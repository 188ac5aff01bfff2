"""Files as people write them, each read whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.compose import (
    BindUse,
    Dependency,
    FileUse,
    Limits,
    NetworkUse,
    Port,
    Project,
    Restart,
    Subnet,
    TmpfsUse,
    Ulimit,
    VolumeUse,
    load,
)
from pytest_sandbox_runtime.errors import ComposeError

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = Path(__file__).parent / "files"


@pytest.fixture
def project(directory: Path) -> Callable[..., Project]:
    """A project of ``files``, in a copy below the working directory."""

    def project(name: str, **options: Any) -> Project:
        if not (directory / name).exists():
            shutil.copytree(FILES / name, directory / name)
        return load(name, **{"environ": {"DB_PASSWORD": "pw", "PAYMENT_KEY": "key"}, **options})

    return project


def names(project: Project) -> list[str]:
    return [service.name for service in project.services]


def test_a_shop(project: Callable[..., Project], directory: Path) -> None:
    shop = project("shop")
    assert (shop.name, names(shop)) == ("shop", ["db", "cache", "migrate", "web", "proxy", "worker"])
    web, worker, proxy = shop.service("web"), shop.service("worker"), shop.service("proxy")
    assert web.build is not None
    assert (web.build.context, web.build.target, web.build.args) == (
        f"{directory}/shop/web",
        "runtime",
        (("PYTHON_VERSION", "3.12"),),
    )
    assert web.command == ("gunicorn", "shop.wsgi", "--bind", "0.0.0.0:8000", "--workers", "4")
    assert (web.scale, web.limits) == (2, Limits(memory=512 << 20, cpus=0.5, pids=200))
    assert web.depends_on == (
        Dependency(service="db", condition="service_healthy"),
        Dependency(service="cache"),
        Dependency(service="migrate", condition="service_completed_successfully"),
    )
    assert worker.environment == (
        ("CELERY_QUEUES", "orders,mail"),
        ("TZ", "UTC"),
        ("DATABASE_URL", "postgres://shop:pw@db:5432/shop"),
        ("REDIS_URL", "redis://cache:6379/0"),
        ("LOG_LEVEL", "info"),
        ("CELERY_CONCURRENCY", "2"),
    )
    assert (worker.stop_signal, worker.stop_grace_period, worker.restart.policy) == ("SIGINT", 90.0, "unless-stopped")
    assert worker.secrets == (FileUse(source="payment_key", target="/run/secrets/payment_key"),)
    assert proxy.networks == (NetworkUse(network="front"), NetworkUse(network="back", aliases=("shop.internal",)))
    assert proxy.ports == (
        Port(target=80, published=8080, host_ip="127.0.0.1"),
        Port(target=443, published=8443),
    )
    assert shop.service("db").volumes[1] == TmpfsUse(target="/run/postgresql", size=64 << 20, mode=0o1777)
    assert shop.service("cache").command == ("redis-server", "--save", "", "--appendonly", "no")
    assert [config.content for config in shop.configs] == ["User-agent: *\nDisallow: /private\n"]
    assert [secret.content for secret in shop.secrets] == ["key"]
    assert [network.internal for network in shop.networks] == [False, True]
    assert shop.notes == ()


def test_a_shop_with_its_mail(project: Callable[..., Project]) -> None:
    assert "mail" in names(project("shop", profiles=["dev"]))
    assert names(project("shop", services=["worker"])) == ["db", "cache", "worker"]


def test_a_shop_without_its_variables(project: Callable[..., Project]) -> None:
    with pytest.raises(ComposeError) as caught:
        project("shop", environ={})
    assert str(caught.value) == (
        "shop/compose.yaml:18:5: x-app.environment.DATABASE_URL: the variable DB_PASSWORD is required: set DB_PASSWORD\n"
        "  hint: set it in the environment, or in the file .env beside the compose file"
    )


def test_wordpress_with_its_override(project: Callable[..., Project], directory: Path) -> None:
    press = project("wordpress")
    db, web = press.services
    assert (db.restart, db.command) == (Restart(), ("mysqld", "--innodb-buffer-pool-size=64M"))
    assert web.ports == (Port(target=80, published=18000),)
    assert dict(web.environment)["WORDPRESS_DEBUG"] == "1"
    assert web.volumes == (
        VolumeUse(source="wordpress_data", target="/var/www/html"),
        BindUse(source=f"{directory}/wordpress/plugins", target="/var/www/html/wp-content/plugins"),
    )
    assert [volume.name for volume in press.volumes] == ["wordpress_db_data", "wordpress_wordpress_data"]


def test_the_elastic_stack(project: Callable[..., Project]) -> None:
    elk = project("elk")
    search, setup, logstash, kibana = elk.services
    assert search.image == "docker.elastic.co/elasticsearch/elasticsearch:8.14.3"
    assert dict(search.environment)["ELASTIC_PASSWORD"] == "change$me"
    assert (search.ulimits[0], search.limits.memory) == (Ulimit(name="memlock", soft=-1, hard=-1), 1 << 30)
    assert setup.entrypoint == ("/bin/bash", "-c")
    assert setup.command is not None
    assert setup.command[0].endswith('echo "password of kibana_system is ${KIBANA_PASSWORD}"\n')
    assert [(port.target, port.protocol) for port in logstash.ports] == [
        (5044, "tcp"), (50000, "tcp"), (50000, "udp"), (9600, "tcp"), (9601, "tcp"), (9602, "tcp"),
    ]  # fmt: skip
    assert kibana.extra_hosts == (("host.docker.internal", "host-gateway"),)
    assert [network.key for network in elk.networks] == ["elk", "default"]


def test_monitoring_on_fixed_addresses(project: Callable[..., Project], directory: Path) -> None:
    monitoring = project("monitoring", environ={"PREFIX": "its"})
    prometheus, exporter, grafana = monitoring.services
    assert prometheus.networks == (
        NetworkUse(network="monitoring", ipv4_address="172.30.0.10", ipv6_address="fd00:30::10"),
    )
    assert monitoring.networks[0].subnets[0] == Subnet(
        subnet="172.30.0.0/24", ip_range="172.30.0.128/25", gateway="172.30.0.1"
    )
    assert exporter.command is not None
    assert exporter.command[1].endswith("^/(sys|proc|dev|host|etc)($|/)")
    assert exporter.volumes == (BindUse(source="/", target="/host", read_only=True, create_host_path=False),)
    assert grafana.secrets == (FileUse(source="admin", target="/run/secrets/grafana", uid=472, mode=0o400),)
    assert (monitoring.volumes[0].name, monitoring.secrets[0].file) == (
        "its-metrics",
        f"{directory}/monitoring/admin.txt",
    )


def test_django_on_a_base_in_another_file(project: Callable[..., Project], directory: Path) -> None:
    django = project("django", profiles=["test"])
    app, test, shell = (django.service(name) for name in ("app", "test", "shell"))
    assert app.build is not None
    assert app.build.dockerfile_inline == "FROM python:3.12-slim\nENV PATH=/venv/bin:$PATH\nCOPY . /app\n"
    assert app.volumes == (BindUse(source=f"{directory}/django/app", target="/app"),)
    assert dict(test.environment) == {
        "SECRET_KEY": "not $ecret",
        "DJANGO_SETTINGS_MODULE": "project.settings.test",
        "PYTHONUNBUFFERED": "1",
    }
    assert (test.command, test.ports, shell.command, shell.ports) == (("pytest", "-q"), (), None, app.ports)
    assert test.depends_on == (Dependency(service="db", condition="service_healthy", restart=True),)
    assert names(project("django")) == ["db", "app"]


def test_microservices_that_are_included(project: Callable[..., Project], directory: Path) -> None:
    micro = project("microservices")
    users, orders = micro.service("users"), micro.service("orders")
    assert dict(users.environment) == {"NAME": "users-1"}
    assert dict(orders.environment) == {"NAME": "orders-2", "MODE": "test"}
    assert users.networks == (NetworkUse(network="private"), NetworkUse(network="users"))
    assert orders.restart == Restart(policy="on-failure", retries=3)
    assert orders.volumes == (
        BindUse(source=f"{directory}/microservices/common/certs", target="/certs", read_only=True),
    )
    assert {network.name for network in micro.networks} == {"micro_public", "micro_private", "micro_users"}


def test_brokers_that_share_what_they_are(project: Callable[..., Project]) -> None:
    kafka = project("kafka", environ={"DEFAULT_VERSION": "3.9.0"})
    brokers = kafka.services[:3]
    assert [broker.hostname for broker in brokers] == ["broker-1", "broker-2", "broker-3"]
    assert {broker.image for broker in brokers} == {"apache/kafka:3.9.0"}
    assert [broker.healthcheck.interval for broker in brokers if broker.healthcheck] == [5.0, 5.0, 60.0]
    assert [dict(broker.environment)["KAFKA_NODE_ID"] for broker in brokers] == ["1", "2", "3"]
    assert brokers[0].volumes == (VolumeUse(source=None, target="/var/lib/kafka/data"),)
    assert kafka.service("topics").entrypoint == ("/bin/sh", "-ec")


def test_nextcloud_with_its_variables_in_a_file(project: Callable[..., Project], directory: Path) -> None:
    cloud = project("nextcloud")
    assert dict(cloud.service("db").environment) == {
        "MYSQL_PASSWORD": 'a "quoted" one',
        "MYSQL_DATABASE": "nextcloud",
        "MYSQL_USER": "nextcloud",
        "MYSQL_ROOT_PASSWORD": "",
    }
    assert cloud.service("app").volumes == cloud.service("cron").volumes
    assert [one.service for one in cloud.service("app").depends_on] == ["db", "redis"]
    build = cloud.service("web").build
    assert build is not None
    assert build.dockerfile == f"{directory}/nextcloud/Dockerfile.web"
