"""A private certificate authority for one cluster, made with the openssl command.

Keys are ECDSA P-256. Everything lies in one directory, mode 0700; what is already there is kept,
so that a cluster's data and its clients' kubeconfigs stay valid.
"""

import base64
import json
import os
import subprocess
from pathlib import Path

from . import console

_DAYS = "3650"


def _openssl(*arguments) -> None:
    result = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise console.Failure(f"openssl {' '.join(map(str, arguments))} failed:\n{result.stderr.strip()}")


class Authority:
    """One CA and the certificates it signs, in `directory`."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        if not self.ca_cert.exists():
            key = directory / "ca.key"
            _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
            _openssl("req", "-x509", "-new", "-key", key, "-sha256", "-days", _DAYS, "-subj", "/CN=quern-local-ca",
                     "-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign", "-out", self.ca_cert)

    @property
    def ca_cert(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca.key"

    def issue(self, name: str, common_name: str, *, groups=(), addresses=(), names=()) -> tuple[Path, Path]:
        """A certificate (and its key) for `common_name`, with `groups` as organisations.

        With `addresses` or `names` it is also good for a server under these. Returns (cert, key).
        """
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        alternatives = [f"IP:{a}" for a in addresses] + [f"DNS:{n}" for n in names]
        extensions = self.directory / f"{name}.ext"
        text = ("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                f"extendedKeyUsage=clientAuth{',serverAuth' if alternatives else ''}\n")
        if alternatives:
            text += f"subjectAltName={','.join(alternatives)}\n"
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={common_name}"
        wanted = f"# {subject}\n{text}"
        if cert.exists() and key.exists() and extensions.exists() and extensions.read_text() == wanted:
            return cert, key
        request = self.directory / f"{name}.csr"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        _openssl("req", "-new", "-key", key, "-sha256", "-subj", subject, "-out", request)
        extensions.write_text(wanted)
        _openssl("x509", "-req", "-in", request, "-CA", self.ca_cert, "-CAkey", self.ca_key, "-CAcreateserial",
                 "-sha256", "-days", _DAYS, "-extfile", extensions, "-out", cert)
        request.unlink()
        return cert, key

    def signing_key(self, name: str) -> tuple[Path, Path]:
        """A key pair that signs service-account tokens. Returns (public, private)."""
        public, private = self.directory / f"{name}.pub", self.directory / f"{name}.key"
        if not public.exists():
            _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
            _openssl("ec", "-in", private, "-pubout", "-out", public)
        return public, private


def write_kubeconfig(path: Path, server: str, ca: Path, cert: Path, key: Path, name: str = "quern-local") -> None:
    """A kubeconfig with everything inside it, readable by its owner only, replaced atomically."""
    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    config = {  # JSON is YAML
        "apiVersion": "v1", "kind": "Config", "current-context": name, "preferences": {},
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": inline(ca)}}],
        "users": [{"name": name, "user": {"client-certificate-data": inline(cert),
                                          "client-key-data": inline(key)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    text = json.dumps(config, indent=1) + "\n"
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    os.replace(temporary, path)
