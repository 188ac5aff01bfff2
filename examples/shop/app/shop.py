"""The shop: products and orders in PostgreSQL, how often each was looked at in Redis. Threads, and no framework."""

import json
import os
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

DATABASE = os.environ["DATABASE_URL"]
CACHE = redis.Redis.from_url(os.environ["CACHE_URL"])


def query(statement, *values):
    """Return the rows of a statement, which is committed."""
    connection = psycopg2.connect(DATABASE)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()
    finally:
        connection.close()


class Shop(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self):
        """Health, all products, or one."""
        if self.path == "/health":
            self.answer(
                HTTPStatus.OK, {"products": query("SELECT count(*) FROM products")[0][0], "cache": CACHE.ping()}
            )
        elif self.path == "/products":
            rows = query("SELECT id, name, stock FROM products ORDER BY id LIMIT 100")
            self.answer(HTTPStatus.OK, [{"id": number, "name": name, "stock": stock} for number, name, stock in rows])
        elif match := re.fullmatch(r"/products/(\d+)", self.path):
            self.show(int(match[1]))
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def show(self, number):
        """Answer with one product, and count that somebody has looked."""
        rows = query("SELECT name, stock FROM products WHERE id = %s", number)
        if not rows:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "no such product"})
            return
        name, stock = rows[0]
        self.answer(HTTPStatus.OK, {"name": name, "stock": stock, "views": CACHE.incr(f"views:{number}")})

    def do_POST(self):
        """An order: {"product": 1, "quantity": 2}."""
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        taken = query(
            "UPDATE products SET stock = stock - %s WHERE id = %s AND stock >= %s RETURNING stock",
            *(order["quantity"], order["product"], order["quantity"]),
        )
        if not taken:
            self.answer(HTTPStatus.CONFLICT, {"error": "sold out"})
            return
        rows = query(
            "INSERT INTO orders (product, quantity) VALUES (%s, %s) RETURNING id", order["product"], order["quantity"]
        )
        self.answer(HTTPStatus.CREATED, {"order": rows[0][0], "stock": taken[0][0]})

    def answer(self, status, body):
        """Send JSON."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    print("the shop is open", flush=True)
    ThreadingHTTPServer(("", 8000), Shop).serve_forever()
