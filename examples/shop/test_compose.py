"""The shop as its compose file has it: names of Docker's hub stand for images that are made here."""

from pathlib import Path

import httpx
import pytest

from pytest_sandbox import Image, sandbox_compose

DEBIAN = Image.debian("bookworm")
POSTGRES = DEBIAN.apt("postgresql").copy(
    Path(__file__).parent / "database/entrypoint.sh", "/entrypoint.sh", chmod=0o755
)
shop = sandbox_compose(
    "compose.yaml",
    images={
        "nginx:1": DEBIAN.apt("nginx-light")
        .run("rm /etc/nginx/sites-enabled/default")
        .cmd(["nginx", "-g", "daemon off;"]),
        "postgres:15": POSTGRES.entrypoint(["/entrypoint.sh"]).stop_signal("SIGINT"),
        "redis:7": DEBIAN.apt("redis-server").cmd(["redis-server", "--bind", "*", "--protected-mode", "no"]),
        "debian:bookworm-slim": DEBIAN,
    },
)


@pytest.fixture
def http(shop):
    with httpx.Client(base_url=shop["web"].url(), trust_env=False) as client:
        yield client


def test_the_front_door(http):
    assert http.get("/").text == "welcome\n"


def test_all_behind_it_are_well(http):
    assert http.get("/health").json() == {"products": 50, "cache": True}


def test_an_order_is_taken(http):
    assert http.post("/orders", json={"product": 3, "quantity": 8}).json()["stock"] == 2


def test_the_services_are_the_files(shop):
    assert sorted(shop.services) == ["app", "cache", "database", "web"]
    assert shop["app"].run("getent hosts database cache", check=True).stdout.count("\n") == 2
