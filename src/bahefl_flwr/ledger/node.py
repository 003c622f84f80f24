"""The embedded ledger as a process: `python -m bahefl_flwr.ledger.node`, and `NodeProcess`, which starts and stops one.

Light to import: py-evm is loaded in the node's own process only.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bahefl_flwr.errors import LedgerError

CHAIN_ID = 20260
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0

_log = logging.getLogger("bahefl_flwr.ledger")


class NodeProcess:
    """A ledger node as a child process, from `with` (or `start`) to its end.

    The node dies with this process, however that ends. If it is killed alone, it is started again on the same database and port:
    what was sealed is there, and who was asking it waits a moment. Its errors go to "<database>.log", beside the database.

    Args:
      database: file of the chain; created if missing, continued if not.
      chain_id: EIP-155 id of the chain.
      fund: addresses ("0x...") that own money in a new chain. Gas is free: only contracts that move money need it.
      port: TCP port on the loopback interface, 0 for any free one.
      restarts: how often it is started again in all.

    Attributes:
      url: JSON-RPC endpoint, once started.
    """

    def __init__(
        self, database: Path, *, chain_id: int = CHAIN_ID, fund: Sequence[str] = (), port: int = 0, restarts: int = 5
    ) -> None:
        self.url = ""
        self._database = database.resolve()
        self._arguments = ["--database", str(self._database), "--chain-id", str(chain_id), "--fund", *fund]
        self._port, self._restarts = port, restarts
        self._process: subprocess.Popen[bytes] | None = None
        self._change = threading.RLock()

    @property
    def log(self) -> Path:
        """File with what the node says on stderr."""
        return self._database.with_name(self._database.name + ".log")

    @property
    def pid(self) -> int | None:
        """Process id while the node runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def __enter__(self) -> Self:
        """Start the node and wait until it answers."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the node."""
        self.stop()

    def start(self) -> None:
        """Start the node and wait until it answers.

        Raises:
          LedgerError: it did not start; the message ends with what it said.
        """
        with self._change:
            if self.pid is not None:
                raise LedgerError(f"the ledger node for {self._database} runs already (process {self.pid})")
            self._database.parent.mkdir(parents=True, exist_ok=True)
            process = self._process = self._spawned()
            self.url = self._announced_url(process)
            self._port = int(self.url.rpartition(":")[2])
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _spawned(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "bahefl_flwr.ledger.node", "--port", str(self._port), *self._arguments],
                # Finds this very package even where Flower put it on sys.path by hand.
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the run, which ends its node when it has finished with it.
                start_new_session=True,
            )

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Start the node again if it ends while it should run."""
        process.wait()
        with self._change:
            while self._process is process and self._restarts:
                self._restarts -= 1
                _log.warning("the ledger node for %s ended (exit code %s): starting it again", self._database, process.returncode)
                self._close()
                try:
                    self.start()
                except LedgerError as error:
                    # Closed by now; a node that was killed while it started gets its other chances.
                    self._process = process
                    _log.warning("%s", error)

    def _announced_url(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
        line = process.stdout.readline() if ready else b""
        if line:
            return str(json.loads(line)["url"])
        self.stop()
        silence = "it ended without a word" if ready else f"nothing in {_START_TIMEOUT_S:.0f} s"
        said = self.log.read_text(errors="replace").strip().splitlines()[-1:] or [silence]
        raise LedgerError(f"the ledger node for {self._database} did not start: {said[0]}")

    def stop(self) -> None:
        """Close the node's stdin, which ends it after sealing what is pending; kill it if it does not end in 10 s. Idempotent."""
        with self._change:
            self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a ledger until stdin closes, the parent process ends, or SIGTERM or SIGINT arrives.

    Prints one JSON line {"url": ...} when it is ready.

    Returns:
      Exit code: 0, or LedgerError's if the ledger cannot be opened or written.
    """
    options = _parser().parse_args(arguments)
    parent, end = os.getppid(), threading.Event()
    threading.Thread(target=_end_with_stdin, args=(end,), daemon=True).start()
    try:
        # A forked sibling may hold our stdin open after the parent has died, so its id is watched as well.
        serve(
            options.database, chain_id=options.chain_id, funded=options.fund, port=options.port, end=end,
            wanted=lambda: os.getppid() == parent,
        )  # fmt: skip
    except (LedgerError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return LedgerError.exit_code
    return 0


def serve(
    database: Path, *, chain_id: int, port: int, end: threading.Event, funded: Sequence[bytes] = (),
    wanted: Callable[[], bool] = lambda: True,
) -> None:  # fmt: skip
    """Serve a ledger until `end` is set, nobody has `wanted` it for half a second, or SIGTERM or SIGINT arrives.

    Prints one JSON line {"url": ...} when it is ready. What is pending is sealed at the end.

    Raises:
      LedgerError: the database cannot be opened or written. OSError: the port is taken.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    # py-evm takes a second to import: not in the parent, which imports this module for NodeProcess.
    from bahefl_flwr.ledger.server import LedgerServer

    with LedgerServer(database, chain_id=chain_id, funded=funded, port=port) as server:
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        while not end.wait(0.5) and wanted() and not server.stopped.is_set():
            pass
    if server.failure:
        raise server.failure


def _end_with_stdin(end: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    end.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bahefl_flwr.ledger.node", description="Embedded ledger with a JSON-RPC endpoint."
    )
    parser.add_argument("--database", type=Path, required=True, help="SQLite file of the chain")
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1, 0 for any free one")
    parser.add_argument("--chain-id", type=int, default=CHAIN_ID)
    parser.add_argument("--fund", type=_address, nargs="*", default=[], metavar="ADDRESS", help="owns money in a new chain")
    return parser


def _address(text: str) -> bytes:
    data = bytes.fromhex(text.removeprefix("0x"))
    if len(data) != 20:
        raise argparse.ArgumentTypeError(f"{text} is not an address of 20 bytes")
    return data


if __name__ == "__main__":
    sys.exit(main())
