"""The shop's machines: nginx in front of a service in Python, with PostgreSQL and Redis behind it."""

from pathlib import Path

from pytest_sandbox import Image, Service, ready
from pytest_sandbox.services import nginx, postgres, redis

HERE = Path(__file__).parent
SCHEMA = HERE / "database/schema.sql"


def fill(database):
    """Make the tables, and what is in them: done once, and every test starts with a copy."""
    database.sandbox.put(SCHEMA, "/tmp/schema.sql")
    database.run(["psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file=/tmp/schema.sql", "shop"], check=True)


database = postgres(name="database", database="shop").seed(fill, inputs=[SCHEMA])
cache = redis(name="cache")
app = Service(
    Image.debian("bookworm").apt("python3-psycopg2", "python3-redis").copy(HERE / "app/shop.py", "/srv/shop.py"),
    name="app",
    command=["python3", "/srv/shop.py"],
    env={"DATABASE_URL": "postgresql://postgres@database/shop", "CACHE_URL": "redis://cache/0"},
    ports=[8000],
    ready=ready.http("/health"),
    depends_on=[database, cache],
)
web = nginx(name="web", site=(HERE / "web/site.conf").read_text(), depends_on=[app])
