"""The whole shop, through its front door."""

import httpx
import pytest


@pytest.fixture(scope="module")
def http(shop):
    with httpx.Client(base_url=shop.url(), trust_env=False) as client:
        yield client


def test_the_front_door(http):
    assert http.get("/").text == "welcome\n"


def test_all_behind_it_are_well(http):
    assert http.get("/health").json() == {"products": 50, "cache": True}


def test_a_visit_counts(http):
    assert [http.get("/products/7").json()["views"] for _ in range(3)] == [1, 2, 3]


def test_an_order_is_taken_until_the_product_is_sold_out(http):
    assert http.post("/orders", json={"product": 3, "quantity": 8}).json() == {"order": 1, "stock": 2}
    refused = http.post("/orders", json={"product": 3, "quantity": 8})
    assert (refused.status_code, refused.json()) == (409, {"error": "sold out"})


def test_what_is_not_there(http):
    assert http.get("/products/51").status_code == 404


@pytest.mark.sandbox
def test_the_inner_machines_have_names_too(sandbox, shop):
    assert {one.service.name for one in shop.dependencies} == {"app", "database", "cache"}
    for name in ("web", "app", "database", "cache"):
        assert sandbox.run(["getent", "hosts", name]).returncode == 0
