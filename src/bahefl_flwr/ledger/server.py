"""The HTTP endpoint of the embedded ledger, on the loopback interface only, and the thread that seals blocks.

Nothing here looks inside a request's body.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.database import ChainDatabase
from bahefl_flwr.ledger.rpc import Rpc

COALESCE_S = 0.05
"""How long a block collects transactions after its first one: concurrent senders share one fsync and one second of chain time."""
MAX_BODY_BYTES = 8 * 2**20
IDLE_CONNECTION_S = 600.0


class LedgerServer:
    """A running ledger: database, chain, sealing thread and HTTP endpoint, from `with` to its end.

    Attributes:
      url: where it listens.
      failure: why it stopped by itself (the database could not be written), or None.
      stopped: set when it has stopped by itself.
    """

    def __init__(self, database: Path, *, chain_id: int, funded: Sequence[bytes], port: int) -> None:
        self._database = ChainDatabase(database, chain_id)
        self._chain = Chain(self._database, chain_id, funded)
        self._changed = threading.Condition(threading.RLock())
        self._http = _HttpServer(("127.0.0.1", port), Rpc(self._chain, self._changed))
        self._closing = False
        self.failure: LedgerError | None = None
        self.stopped = threading.Event()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._http.serve_forever, self._seal_until_closed)]

    def __enter__(self) -> Self:
        """Start to listen and to seal."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening, seal what is pending, close the file."""
        self._http.shutdown()
        self._http.server_close()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._threads[1].join()
        with self._changed:
            self._database.close()

    def _seal_until_closed(self) -> None:
        try:
            while self._wait_for_transaction():
                time.sleep(COALESCE_S)
                with self._changed:
                    self._chain.seal()
                    self._changed.notify_all()
        except LedgerError as error:
            # A node that cannot store its blocks must not accept more: end it, and let the restart find the last whole block.
            self.failure = error
            self.stopped.set()

    def _wait_for_transaction(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._chain.pending_transactions())
            return bool(self._chain.pending_transactions())


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], rpc: Rpc) -> None:
        super().__init__(address, _Handler)
        self.rpc = rpc


class _Handler(BaseHTTPRequestHandler):
    """One connection; POST only. Keeps the connection open between requests, as web3.py does."""

    server: _HttpServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_CONNECTION_S
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one packet

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return self._refuse(411, "give a Content-Length")
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            return self._refuse(413, f"at most {MAX_BODY_BYTES} bytes")
        # Browsers cannot send this type to another origin unasked: keeps web pages off the loopback endpoint.
        if self.headers.get_content_type() != "application/json":
            return self._refuse(415, "the content type must be application/json")
        body = self.rfile.read(int(length))
        if len(body) == int(length):
            self._reply(200, self.server.rpc.handle(body))
        return None

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True
        self._reply(status, why.encode("ascii"), kind="text/plain")

    def _reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line per request would fill the log."""
