"""Where a node is, and what opens it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

FILE = "rpc.json"


@dataclass(frozen=True)
class Connection:
    """An address, the certificate that is trusted there, and a token."""

    rpc: str
    """`host:port` of gRPC."""
    certificate: bytes
    """The node's certificate, PEM."""
    token: str
    """The administrator's token, or one with limits."""
    rest: str | None = None
    """`host:port` of REST, if the node serves it."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Connection:
        """Reads the file that a running node keeps in its data directory; takes either."""
        file = Path(path).expanduser()
        if file.is_dir():
            file = file / FILE
        found = json.loads(file.read_text())
        # Paths in it are absolute, or relative to it.
        return cls(
            rpc=found["rpc"],
            rest=found.get("rest"),
            certificate=(file.parent / found["tls_cert"]).read_bytes(),
            token=(file.parent / found["token_file"]).read_text().strip(),
        )
