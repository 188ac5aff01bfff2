"""PYTEST_DONT_REWRITE. The certificate authority of a run: its sandboxes trust the servers that a test exposes."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from pytest_sandbox_runtime.files import Files

# Where distributions have the certificates that programs trust: Debian and Alpine, Fedora, and Alpine's older place.
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_MARK = b"# the authority of this run of pytest-sandbox\n"


class Authority:
    """Made when it is first needed; what it signs lies in ``directory``, which is its owner's only."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    @functools.cached_property
    def _authority(self) -> Any:
        try:
            import trustme
        except ImportError as error:
            msg = "tls=True needs trustme, which is not installed"
            raise UnsupportedError(msg, hint="pip install pytest-sandbox[tls]") from error
        return trustme.CA()

    def certificate(self, name: str) -> str:
        """Return the file with a key and a certificate for ``name``."""
        path = os.path.join(self._directory, f"{os.urandom(6).hex()}.pem")
        self._authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
        os.chmod(path, 0o600)
        return path

    def make_trusted(self, files: Files) -> None:
        """Have the programs of a sandbox trust it: again, nothing."""
        bundle = bundle_of(files)
        known = files.read_bytes(bundle) if files.exists(bundle) else b""
        if _MARK not in known:
            files.mkdir(os.path.dirname(bundle), parents=True, exist_ok=True)
            files.write_bytes(bundle, known + b"\n" + _MARK + self._authority.cert_pem.bytes())


def bundle_of(files: Files) -> str:
    """Return the file of a sandbox that has the certificates that its programs trust."""
    return next((path for path in _BUNDLES if files.exists(path)), _BUNDLES[0])
