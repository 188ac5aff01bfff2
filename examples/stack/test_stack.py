"""nginx, PostgreSQL and a service of Flask, each an image of its own over one Debian: built once, started anew.

The first run makes the images, in minutes and with the network; every later one takes seconds.
"""

import glob
import http.client
import json
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from pytest_sandbox import Image
from pytest_sandbox_runtime import Engine, EngineSettings

HERE = Path(__file__).parent
POSTGRES = "/usr/lib/postgresql/15/bin"


def trusting(image: Image) -> Image:
    """Return ``image`` with the certificate authorities that were added to this machine: of a proxy, for example."""
    added = sorted(glob.glob("/usr/local/share/ca-certificates/*.crt"))
    return image.copy(added, "/usr/local/share/ca-certificates/").run("update-ca-certificates") if added else image


BASE = trusting(Image.debian("bookworm", packages=["ca-certificates"]))
SITE = (
    BASE.apt("nginx-light")
    .copy(HERE / "site/nginx.conf", "/etc/nginx/sites-available/default")
    .copy(HERE / "site/index.html", "/srv/site/")
    .expose(80)
)
DATABASE = (
    BASE
    # It would make a random key, and so another image with each build; clusters here do without TLS.
    .run("dpkg-divert --no-rename --add /usr/sbin/make-ssl-cert && ln -s /bin/true /usr/sbin/make-ssl-cert")
    .apt("postgresql-common")
    # A cluster has numbers of its own: each test makes one, and the image stays the same.
    .run("sed -i 's/^#create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf")
    .apt("postgresql-15")
    .env(PGDATA="/var/lib/postgresql/data", PATH=f"{POSTGRES}:/usr/sbin:/usr/bin:/sbin:/bin")
    .user("postgres")
    .expose(5432)
)
SERVICE = (
    BASE.apt("python3-pip")
    .pip(requirements=HERE / "service/requirements.txt")
    .run("useradd --system service")
    .copy(HERE / "service/app.py", "/srv/service/")
    .workdir("/srv/service")
    .user("service")
    .expose(8000)
)


def get(sandbox, port: int, path: str) -> tuple[int, str]:
    """Return the status and the body that the server in ``sandbox`` answers with."""
    with closing(http.client.HTTPConnection("sandbox")) as client:
        client.sock = sandbox.connect(port)
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.sandbox(image=SITE)
def test_nginx_serves_the_site(sandbox) -> None:
    sandbox.run(["nginx", "-t"], check=True)
    sandbox.run(["nginx"], check=True)
    status, body = get(sandbox, 80, "/")
    assert (status, "It is served" in body) == (200, True)
    assert get(sandbox, 80, "/health") == (200, "well\n")
    assert get(sandbox, 80, "/missing")[0] == 404


@pytest.fixture
def database(sandbox):
    """A sandbox with a PostgreSQL that has just been made."""
    sandbox.run(["initdb", "--no-sync", "--auth=trust"], check=True)
    sandbox.run(["pg_ctl", "start", "--wait", "--log=/tmp/postgres.log", "-o", "-c fsync=off"], check=True)
    return sandbox


def query(database, sql: str) -> str:
    return database.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql], check=True).stdout.strip()


@pytest.mark.sandbox(image=DATABASE)
def test_postgresql_keeps_what_it_is_told(database) -> None:
    query(database, "CREATE TABLE colours (name text PRIMARY KEY)")
    query(database, "INSERT INTO colours VALUES ('blue'), ('green')")
    assert query(database, "SELECT string_agg(name, ',' ORDER BY name) FROM colours") == "blue,green"


@pytest.mark.sandbox(image=DATABASE)
def test_the_next_test_has_a_postgresql_of_its_own(database) -> None:
    assert query(database, "SELECT count(*) FROM pg_tables WHERE tablename = 'colours'") == "0"
    with database.connect(5432) as connection:
        # May we talk in TLS? "N": a new cluster has no certificate.
        connection.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
        assert connection.recv(1) == b"N"


@pytest.mark.sandbox(image=SERVICE)
def test_the_service_adds(sandbox) -> None:
    with sandbox.popen(["gunicorn", "--bind=127.0.0.1:8000", "app:app"], stderr=subprocess.STDOUT) as server:
        assert any(b"Listening at" in line for line in server.stdout), "it ended before it listened"
        status, body = get(sandbox, 8000, "/add?n=40&n=2")
        assert (status, json.loads(body)) == (200, {"sum": 42, "of": [40, 2]})
        assert get(sandbox, 8000, "/add?n=many")[0] == 500
        server.terminate()
        assert server.wait() == 0


def test_the_images_are_the_same_when_they_are_made_again(sandbox_engine) -> None:
    images = (SITE, DATABASE, SERVICE)
    first = [sandbox_engine.images.build(image).digest for image in images]
    with Engine.open(EngineSettings(store=sandbox_engine.store.path, rebuild=True)) as anew:
        assert [anew.images.build(image).digest for image in images] == first
