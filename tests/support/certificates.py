"""Certificates for tests, made by openssl where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_EC_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"


class Certificates:
    """In `folder`, as PEM: an authority (`ca.pem`), a server's certificate for localhost (`server.pem`, `server.key`,
    and the key with a password as `locked.key`), and the one of a client alice.example (`client.pem`, `client.key`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run(f"req -x509 {_EC_KEY} -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem")
        self._issue("server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._issue("client", "alice.example", "keyUsage=digitalSignature")
        self._run("pkey -in server.key -aes128 -passout pass:secret -out locked.key")

    @staticmethod
    def possible() -> bool:
        return shutil.which("openssl") is not None

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _issue(self, name: str, common_name: str, extension: str) -> None:
        (self.folder / "extension").write_text(extension)
        self._run(f"req {_EC_KEY} -nodes -subj /CN={common_name} -keyout {name}.key -out {name}.csr")
        self._run(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension "
            f"-out {name}.pem"
        )

    def _run(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True)
