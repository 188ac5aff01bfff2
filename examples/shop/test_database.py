"""Fifty tests that change the database, each one its own copy of what was filled in once."""

import psycopg
import pytest
import redis


@pytest.fixture
def sql(database):
    with psycopg.connect(database.url(), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("product", range(1, 41))
def test_an_order_takes_from_the_stock_of_its_product_only(sql, product):
    sql.execute("UPDATE products SET stock = stock - 3 WHERE id = %s", [product])
    sql.execute("INSERT INTO orders (product, quantity) VALUES (%s, 3)", [product])
    assert sql.execute("SELECT id, stock FROM products WHERE stock <> 10").fetchall() == [(product, 7)]
    assert sql.execute("SELECT id, product, quantity FROM orders").fetchall() == [(1, product, 3)]


@pytest.mark.parametrize("attempt", range(5))
def test_what_one_test_ruins_the_next_one_has(sql, attempt):  # noqa: ARG001  the same again
    assert sql.execute("SELECT count(*), sum(stock) FROM products").fetchone() == (50, 500)
    sql.execute("DROP TABLE orders, products")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE products SET stock = -1", psycopg.errors.CheckViolation),
        ("INSERT INTO orders (product, quantity) VALUES (1, 0)", psycopg.errors.CheckViolation),
        ("INSERT INTO orders (product, quantity) VALUES (51, 1)", psycopg.errors.ForeignKeyViolation),
        ("INSERT INTO products (stock) VALUES (1)", psycopg.errors.NotNullViolation),
    ],
)
def test_the_schema_refuses_nonsense(sql, statement, error):
    with pytest.raises(error):
        sql.execute(statement)


def test_the_cache_begins_empty(cache):
    with redis.Redis.from_url(cache.url()) as client:
        assert client.keys() == []
        assert client.incr("views:1") == 1
