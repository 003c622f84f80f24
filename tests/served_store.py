"""`bahefl store serve` as a process for tests, and the accounts that use it. It ends with the test, or before when killed."""

from __future__ import annotations

import hashlib
import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from bahefl_flwr.identity import Identity
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import LocalStore, Manifest, manifest_for
from bahefl_flwr.store.channel import Channel, Patience
from bahefl_flwr.store.http import HttpStore
from bahefl_flwr.store.signing import authorization

_START_TIMEOUT_S = 60.0
QUICK = Patience(timeout_s=20.0, total_s=20.0)
ENDS_AT_ONCE = Patience(timeout_s=1.0, total_s=1.0)


class ServedStore:
    """A store process, from `with` to its end.

    Args:
      folder: holds the objects in `store`, the accounts file, and what the process says in `log`. options: further ones.

    Attributes:
      url: where it listens; the same after a restart.
    """

    def __init__(self, folder: Path, *options: str, members: tuple[Identity, ...] = ()) -> None:
        self.folder, self.options, self.url = folder, list(options), ""
        self.accounts = folder / "accounts"
        self.log = folder / "log"
        self._port = "0"
        self.process: subprocess.Popen[bytes] | None = None
        self.admit(*members)

    def admit(self, *members: Identity) -> None:
        """Let these accounts in, and no others."""
        self.accounts.write_text("".join(f"{m.address}  # a site\n" for m in members))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it listens."""
        who = [] if "--contract" in self.options else ["--accounts", str(self.accounts)]
        command = [
            sys.executable, "-c", "from bahefl_flwr.console import bahefl; bahefl()", "store", "serve",
            str(self.folder / "store"), "--port", self._port, "--with-parent", *who, *self.options,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], _START_TIMEOUT_S)
        line = self.process.stdout.readline() if ready else b""
        assert line, f"the store did not start: {self.log.read_text()}"
        self.url = json.loads(line)["url"]
        self._port = self.url.rpartition(":")[2]

    def stop(self) -> int:
        """Close its stdin, which ends it; the exit code."""
        assert self.process
        assert self.process.stdin
        self.process.stdin.close()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            assert self.process.stdout
            self.process.stdout.close()

    def kill(self) -> None:
        """kill -9."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def client(self, identity: Identity, patience: Patience = QUICK, url: str = "") -> HttpStore:
        """The store as a site sees it."""
        return HttpStore(Channel(url or self.url, address=identity.address, sign=identity.sign_text, patience=patience))

    @property
    def disk(self) -> LocalStore:
        """The folder behind it."""
        return LocalStore(self.folder / "store")

    def file_of(self, cid: str) -> Path:
        """The file that holds a part or manifest."""
        (path,) = (self.folder / "store" / "objects").glob(f"*/{cid}")
        return path

    def memory_kib(self) -> int:
        """Resident memory of the process."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


def site_identity(folder: Path | None = None) -> Identity:
    """A new account."""
    return Identity.create_or_load(folder or Path(tempfile.mkdtemp()) / "identity")


def an_object(parts: list[bytes], **fields: Any) -> Manifest:
    """The manifest of some site's object."""
    whole = {"run": bytes(32), "round": 7, "site": "0x" + "5" * 40, "epoch": 2, "kind": ObjectKind.UPDATE, **fields}
    return manifest_for(parts, **whole)


def signed(
    identity: Identity, method: str, url: str, path: str, *, body: bytes = b"", time: int, headers: dict[str, str] | None = None
) -> httpx.Response:
    """One request, signed as at `time`, and nothing else."""
    digest = hashlib.sha256(body).digest()
    header = {"authorization": authorization(identity.sign_text, identity.address, method, path, digest, time)}
    return httpx.request(method, url + path, content=body or None, headers=header | (headers or {}), timeout=20)
