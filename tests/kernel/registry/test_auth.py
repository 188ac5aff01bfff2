"""Registries that want to know who one is, and clients that want to know who a registry is."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox_runtime.errors import RegistryAuthError, RegistryError, RegistryUnreachableError
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.registry.client import Registries
from pytest_sandbox_runtime.images.registry.login import remember

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.registry.images import Pushed
    from tests.kernel.registry.proxies import Proxy, Sent
    from tests.kernel.registry.registries import Authority, Registry
    from tests.kernel.registry.tokens import TokenServer

    Push = Callable[..., Pushed]

pytestmark = pytest.mark.needs("docker-registry", "skopeo", "htpasswd", "openssl")

CREDENTIALS = "--dest-creds=me:pass:word"


def config(home: dict[str, str], host: str, **entry: str) -> Path:
    path = Path(home["HOME"], ".docker/config.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path


# A name and a password


def test_a_password_with_a_colon_lets_in(guarded: Registry, push: Push, images: Images, home: dict[str, str]) -> None:
    pushed = push(f"{guarded.host}/auth/basic:1", CREDENTIALS)
    remember(home, guarded.host, "me", "pass:word")
    assert images.pull(f"{guarded.host}/auth/basic:1").digest == pushed.digest


def test_without_credentials_it_is_said_that_there_are_none(guarded: Registry, images: Images) -> None:
    said = f"{guarded.host} asks for a name and a password \\(there are no credentials for it\\)"
    with pytest.raises(RegistryAuthError, match=said) as caught:
        images.pull(f"{guarded.host}/auth/basic:1")
    assert f"pytest-sandbox login {guarded.host}" in caught.value.hint
    assert caught.value.status == 401


def test_of_credentials_that_were_tried_is_said_where_they_come_from_and_not_what_they_are(
    guarded: Registry, images: Images, home: dict[str, str]
) -> None:
    path = remember(home, guarded.host, "me", "wrong:secret")
    with pytest.raises(RegistryAuthError) as caught:
        images.pull(f"{guarded.host}/auth/basic:1")
    carried = pickle.loads(pickle.dumps(caught.value))
    assert f"{guarded.host}/auth/basic refuses: 401 authentication required (tried were me of {path})" in str(carried)
    encoded = base64.b64encode(b"me:wrong:secret").decode()
    for shown in (str(carried), repr(carried.__dict__), repr(caught.value.__cause__)):
        assert "secret" not in shown
        assert encoded not in shown


# Tokens


def test_what_is_public_is_had_by_a_token_of_nobody(
    tokened: Registry, tokens: TokenServer, push: Push, images: Images
) -> None:
    pushed = push(f"{tokened.host}/public/a:1", CREDENTIALS)
    tokens.asked.clear()
    assert images.pull(f"{tokened.host}/public/a:1").digest == pushed.digest
    assert tokens.asked == [("GET", {"service": ["tests"], "scope": ["repository:public/a:pull"]}, "")]
    assert images.pull(f"{tokened.host}/public/a:1").digest == pushed.digest
    assert len(tokens.asked) == 1


def test_what_is_private_is_had_by_a_token_for_a_password(
    tokened: Registry, tokens: TokenServer, push: Push, images: Images, home: dict[str, str]
) -> None:
    pushed = push(f"{tokened.host}/private/a:1", CREDENTIALS)
    with pytest.raises(
        RegistryAuthError, match=f"{tokened.host}/private/a refuses: 401 authentication required"
    ) as caught:
        images.pull(f"{tokened.host}/private/a:1")
    assert "it may not be there, or be private" in caught.value.hint
    remember(home, tokened.host, "me", "pass:word")
    assert (
        Images(images._store, registries=lambda: Registries(home)).pull(f"{tokened.host}/private/a:1").digest
        == pushed.digest
    )


def test_a_token_is_had_for_a_refresh_token(
    tokened: Registry, tokens: TokenServer, push: Push, images: Images, home: dict[str, str]
) -> None:
    pushed = push(f"{tokened.host}/private/b:1", CREDENTIALS)
    config(home, tokened.host, identitytoken="refresh me")
    tokens.asked.clear()
    assert images.pull(f"{tokened.host}/private/b:1").digest == pushed.digest
    ((method, fields, _),) = tokens.asked
    assert method == "POST"
    assert fields["grant_type"] == ["refresh_token"]
    assert fields["scope"] == ["repository:private/b:pull"]


def test_a_registry_token_is_shown_as_it_is(
    tokened: Registry, tokens: TokenServer, push: Push, images: Images, home: dict[str, str]
) -> None:
    pushed = push(f"{tokened.host}/private/c:1", CREDENTIALS)
    config(home, tokened.host, registrytoken=tokens.token(["repository:private/c:pull"], is_known=True))
    tokens.asked.clear()
    assert images.pull(f"{tokened.host}/private/c:1").digest == pushed.digest
    assert tokens.asked == []


def test_a_token_server_that_refuses_is_named(
    tokened: Registry, tokens: TokenServer, images: Images, home: dict[str, str]
) -> None:
    path = remember(home, tokened.host, "me", "wrong")
    host = tokens.url.split("/")[2]
    with pytest.raises(
        RegistryAuthError, match=f"{host} gives no token for {tokened.host}: 401 Unauthorized .tried were me of {path}."
    ) as caught:
        images.pull(f"{tokened.host}/public/a:1")
    assert "log in as another one" in caught.value.hint


def challenge(text: str) -> Callable[[Sent], None]:
    def change(sent: Sent) -> None:
        sent.status, sent.body = 401, b""
        sent.headers = {"Content-Length": "0", "WWW-Authenticate": text}

    return change


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            'Bearer realm="http://tokens.example/x"',
            "has tokens given out at 'http://tokens.example/x', where anybody could listen",
        ),
        ('Bearer realm="ftp://a.example/x"', "where anybody could listen"),
        ("Bearer", "has tokens given out at ''"),
        ("Negotiate", "refuses, and asks for negotiate"),
        ("", "refuses, and asks for nothing that is known"),
    ],
)
def test_who_asks_for_something_strange_gets_nothing(
    proxy: Proxy, images: Images, home: dict[str, str], text: str, why: str
) -> None:
    remember(home, proxy.host, "me", "secret")
    proxy.fault("/manifests/", challenge(text))
    with pytest.raises(RegistryError, match=why):
        images.pull(f"{proxy.host}/a:1")


def test_a_token_that_is_no_longer_good_is_had_again(
    tokened: Registry, tokens: TokenServer, push: Push, images: Images
) -> None:
    pushed = push(f"{tokened.host}/public/d:1", CREDENTIALS)
    good = tokens.token

    def stale(scopes: Any, *, is_known: bool) -> str:
        tokens.token = good  # type: ignore[method-assign]
        return good(["repository:public/other:pull"], is_known=is_known)

    tokens.token = stale  # type: ignore[method-assign]
    tokens.asked.clear()
    assert images.pull(f"{tokened.host}/public/d:1").digest == pushed.digest
    assert len(tokens.asked) == 2


# Credentials that stay where they are


def test_credentials_do_not_follow_to_another_host(
    guarded: Registry, proxy: Proxy, push: Push, images: Images, home: dict[str, str]
) -> None:
    pushed = push(f"{guarded.host}/auth/led:1", CREDENTIALS)
    upstream, proxy.upstream = proxy.upstream, guarded.host
    remember(home, proxy.host, "me", "pass:word")
    push(f"{upstream}/auth/led:1")

    def lead(sent: Sent) -> None:
        # The same server, by another name.
        sent.status = 307
        sent.headers["Location"] = f"http://localhost:{proxy.server_address[1]}/elsewhere"

    proxy.fault(f"GET .*/{pushed.layers[0]}", lead)
    with pytest.raises(RegistryError):
        images.pull(f"{proxy.host}/auth/led:1")
    elsewhere = proxy.requests("GET /elsewhere")
    assert elsewhere
    assert all("Authorization" not in headers for headers in elsewhere)
    assert all("Authorization" in headers for headers in proxy.requests(f"GET .*/{pushed.layers[0]}"))


def test_another_host_that_asks_for_credentials_gets_none(
    guarded: Registry, proxy: Proxy, push: Push, images: Images, home: dict[str, str]
) -> None:
    pushed = push(f"{guarded.host}/auth/asks:1", CREDENTIALS)
    proxy.upstream = guarded.host
    for host in (proxy.host, f"localhost:{proxy.server_address[1]}"):
        remember(home, host, "me", "pass:word")

    def lead(sent: Sent) -> None:
        sent.status = 307
        sent.headers["Location"] = f"http://localhost:{proxy.server_address[1]}/elsewhere"

    proxy.fault(f"GET .*/{pushed.layers[0]}", lead)
    proxy.fault("GET /elsewhere", challenge(f'Bearer realm="http://localhost:{proxy.server_address[1]}/give"'))
    with pytest.raises(RegistryAuthError, match=f"{proxy.host}/auth/asks refuses: 401"):
        images.pull(f"{proxy.host}/auth/asks:1")
    assert all("Authorization" not in headers for headers in proxy.requests("GET /elsewhere"))
    assert not proxy.requests("/give")


def test_nobody_is_led_from_tls_to_none(
    behind_tls: Proxy,
    registry: Registry,
    push: Push,
    authority: Authority,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.certificate)
    pushed = push(f"{registry.host}/auth/down:1")

    def lead(sent: Sent) -> None:
        sent.status, sent.headers["Location"] = 307, f"http://{registry.host}/v2/auth/down/blobs/{pushed.layers[0]}"

    behind_tls.fault(f"GET .*/{pushed.layers[0]}", lead)
    with pytest.raises(RegistryError, match=f"{behind_tls.host} leads to http://{registry.host}, where nobody follows"):
        images.pull(f"{behind_tls.host}/auth/down:1")


# Certificates


@pytest.fixture
def encrypted_name(encrypted: Registry, push: Push) -> str:
    name = f"{encrypted.host}/tls:1"
    push(name, layers=1)
    return name


def test_a_certificate_that_nobody_knows_is_not_believed(
    encrypted: Registry, encrypted_name: str, images: Images
) -> None:
    said = f"the certificate of {encrypted.host} is not to be believed: self.signed certificate"
    with pytest.raises(RegistryUnreachableError, match=said) as caught:
        images.pull(encrypted_name)
    assert f"certs.d/{encrypted.host}/ca.crt, or name it in SSL_CERT_FILE" in caught.value.hint


def test_an_authority_of_certs_d_is_believed(
    encrypted: Registry, encrypted_name: str, authority: Authority, images: Images, home: dict[str, str]
) -> None:
    directory = Path(home["HOME"], ".config/containers/certs.d", encrypted.host)
    directory.mkdir(parents=True)
    shutil.copy(authority.certificate, directory / "ca.crt")
    assert images.pull(encrypted_name)


def test_an_authority_of_ssl_cert_file_is_believed(
    encrypted_name: str, authority: Authority, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.certificate)
    assert images.pull(encrypted_name)


def test_an_insecure_registry_is_believed_without(
    encrypted: Registry, registry: Registry, encrypted_name: str, images: Images, home: dict[str, str], tmp_path: Path
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{encrypted.host}"\ninsecure = true\n')
    home["CONTAINERS_REGISTRIES_CONF"] = str(conf)
    assert images.pull(encrypted_name)


def test_a_certificate_for_another_name_is_not_believed(
    encrypted: Registry, encrypted_name: str, authority: Authority, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.certificate)
    other = encrypted_name.replace("127.0.0.1", "a.localhost")
    with pytest.raises(RegistryUnreachableError, match="is not to be believed: Hostname mismatch|there is no host"):
        images.pull(other)


def test_a_damaged_certificate_is_named(
    encrypted: Registry, encrypted_name: str, images: Images, home: dict[str, str]
) -> None:
    directory = Path(home["HOME"], ".config/containers/certs.d", encrypted.host)
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text("none")
    with pytest.raises(RegistryError, match=f"the certificate {directory}/ca.crt cannot be used: "):
        images.pull(encrypted_name)


def test_a_registry_that_wants_to_see_a_certificate_is_shown_one(
    authority: Authority,
    images: Images,
    home: dict[str, str],
    tmp_path: Path,
    put_image: Callable[..., Any],
    run_registry: Callable[..., Any],
) -> None:
    tls = {"certificate": authority.certificate, "key": authority.key, "clientcas": [authority.certificate]}
    put_image(images._store, "made:1")
    with run_registry(tmp_path / "mutual", http={"tls": tls}) as mutual:
        directory = Path(home["HOME"], ".config/containers/certs.d", mutual.host)
        directory.mkdir(parents=True)
        shutil.copy(authority.certificate, directory / "ca.crt")
        with pytest.raises(RegistryUnreachableError):
            images.push("made:1", f"{mutual.host}/a:1")
        shutil.copy(authority.certificate, directory / "client.cert")
        shutil.copy(authority.key, directory / "client.key")
        fresh = Images(images._store, registries=lambda: Registries(home))
        assert fresh.push("made:1", f"{mutual.host}/a:1")


def test_who_speaks_tls_for_a_registry_is_not_spoken_to_without(
    behind_tls: Proxy,
    authority: Authority,
    images: Images,
    put_image: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.certificate)
    put_image(images._store, "made:1")
    locations: list[str] = []
    behind_tls.fault("POST .*/uploads/", lambda sent: locations.append(sent.headers["Location"]))
    images.push("made:1", f"{behind_tls.host}/behind/tls:1")
    assert locations[0].startswith(f"http://{behind_tls.host}/")


def test_a_proxy_is_shown_who_one_is(
    proxy: Proxy, push: Push, registry: Registry, images: Images, home: dict[str, str], tmp_path: Path
) -> None:
    pushed = push(f"{registry.host}/auth/proxied:1")
    conf = tmp_path / "registries.conf"
    conf.write_text('[[registry]]\nlocation = "registry.invalid"\ninsecure = true\n')
    home["CONTAINERS_REGISTRIES_CONF"] = str(conf)
    home["http_proxy"] = home["HTTPS_PROXY"] = f"me:pass%3Aword@{proxy.host}"
    assert images.pull("registry.invalid/auth/proxied:1").digest == pushed.digest
    (asked,) = proxy.requests("GET http://registry.invalid/v2/auth/proxied/manifests/1")
    assert asked["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pass:word").decode()
    home["NO_PROXY"] = ".invalid"
    with pytest.raises(RegistryUnreachableError, match="there is no host registry.invalid"):
        Images(images._store, registries=lambda: Registries(home)).pull("registry.invalid/auth/proxied:1")


def test_skopeo_reads_what_is_logged_in(guarded: Registry, push: Push, home: dict[str, str]) -> None:
    push(f"{guarded.host}/auth/others:1", CREDENTIALS)
    path = remember(home, guarded.host, "me", "pass:word")
    argv = ["skopeo", "inspect", "--tls-verify=false", "--authfile", path, f"docker://{guarded.host}/auth/others:1"]
    subprocess.run(argv, check=True, capture_output=True)
