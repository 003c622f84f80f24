"""A real Ethereum node for tests: anvil, from `npm ci --prefix tests/nodes`. It mines, forgets and reorganises on request."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest
import requests

CHAIN_ID = 20260
_PACKAGE = Path(__file__).parent / "nodes" / "node_modules" / "@foundry-rs" / "anvil-linux-amd64"
_START_TIMEOUT_S = 20.0


def binary() -> str:
    """The static binary inside the npm package, or what the PATH has; the test is skipped where there is neither."""
    found = shutil.which(_PACKAGE / "bin" / "anvil") or shutil.which("anvil")
    if not found:
        pytest.skip("anvil is not installed: npm ci --prefix tests/nodes")
    return found


class AnvilNode:
    """An anvil process, from `with` to its end. Gas is free unless `base_fee` is given.

    Args:
      options: further command-line options, e.g. "--no-mining". base_fee: wei per unit of gas.

    Attributes:
      url: JSON-RPC endpoint, the same after a restart.
    """

    def __init__(self, *options: str, base_fee: int = 0) -> None:
        self.url = ""
        self._port = "0"
        self._options = [
            "--chain-id", str(CHAIN_ID), "--hardfork", "london", "--threads", "1", "--accounts", "1",
            "--base-fee", str(base_fee), "--gas-price", str(base_fee), *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start the node and wait until it listens."""
        command = [binary(), "--port", self._port, *self._options]
        # Into a file: anvil writes a line per request, and would stop at a pipe that nobody empties.
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            self._port = self._announced_port(log)
        self.url = f"http://127.0.0.1:{self._port}"

    def _announced_port(self, log: IO[bytes]) -> str:
        end, said = time.monotonic() + _START_TIMEOUT_S, ""
        while time.monotonic() < end:
            # Not by seek: the position is the child's too.
            said = os.pread(log.fileno(), 100_000, 0).decode()
            if listening := re.search(r"Listening on [\d.]+:(\d+)", said):
                return listening[1]
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"anvil did not start: {said[-500:]}")

    def kill(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def ask(self, method: str, *parameters: object) -> Any:
        """The result of a JSON-RPC method."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        reply = requests.post(self.url, json=body, timeout=20).json()
        assert "error" not in reply, reply
        return reply["result"]

    def mine(self, blocks: int = 1) -> None:
        """Make blocks at once."""
        for _ in range(blocks):
            self.ask("evm_mine")

    def advance(self, seconds: int) -> None:
        """Let chain time pass: the next block is that much later, and is made."""
        self.ask("evm_increaseTime", seconds)
        self.mine()

    def reorganise(self, depth: int) -> None:
        """Drop the newest blocks with their transactions and make as many empty ones in their place, and one more."""
        self.ask("anvil_reorg", depth, [])
        self.mine()
