"""A served store as a process: sockets, TLS, and connections that lead nowhere. Prints nothing and reads no command line.

What is answered is service.py's business.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import select
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bahefl_flwr.errors import SettingsError, StoreError
from bahefl_flwr.store.service import StoreService

IDLE_S = 15.0
"""A connection on which nothing was asked for so long is closed, however busily it trickles."""
_BACKLOG = 128
_STOP_S = 10
_MAX_HEADER_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and how a store listens.

    Attributes:
      port: 0 for any free one. certificate, key: PEM files for TLS; None without.
      behind_proxy: allow other interfaces than the loopback one without TLS, for a proxy on another host that adds it.
      connections: open at the same time; more are closed at once.
    """

    host: str
    port: int
    certificate: Path | None
    key: Path | None
    behind_proxy: bool
    connections: int

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("TLS needs both --certificate and --key")
        if self.certificate is None and not self.behind_proxy and not _is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host} is not the loopback interface, and without TLS everybody on the way could read along: "
                "give --certificate and --key, or --behind-proxy where a proxy adds TLS"
            )


def serve(service: StoreService, where: Listening, *, ready: Callable[[str], None], with_parent: bool = False) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
      ready: is given the URL once requests are accepted.
      with_parent: also end when stdin closes or the parent process ends.

    Raises:
      StoreError: the port cannot be had. SettingsError: the certificate or key cannot be used.
    """
    with _bound(where) as listener:
        connection: Any = partial(_Connection, where.connections)  # called like the class that uvicorn's types ask for
        config = uvicorn.Config(
            service, http=connection, ws="none", lifespan="off", interface="asgi3", access_log=False, log_config=None,
            server_header=False, proxy_headers=False, limit_concurrency=None, timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=_STOP_S, h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            ssl_certfile=where.certificate, ssl_keyfile=where.key, backlog=_BACKLOG,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"cannot use {where.certificate} with {where.key}: {error}") from error
        server = uvicorn.Server(config)
        # For the moment before uvicorn takes over, and for after it: it hands a signal on to whoever had it before.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        if with_parent:
            threading.Thread(target=_end_with_parent, args=(server, os.getppid()), daemon=True).start()
        ready(f"http{'s' if where.certificate else ''}://{_authority(listener)}")
        server.run(sockets=[listener])


class _Connection(H11Protocol):
    """One connection; ends by itself if it asks nothing: neither silence nor a header byte a second keeps it open."""

    def __init__(self, most: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most = most
        self._seen: tuple[object, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch = self.loop.call_later(IDLE_S, self._look)
        if len(self.connections) > self._most:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete  # the service has a deadline of its own
        seen = None if busy else (self.cycle, self.transport.get_write_buffer_size())
        if seen is not None and seen == self._seen:
            self.transport.abort()
            return
        self._seen = seen
        self._watch = self.loop.call_later(IDLE_S, self._look)


def _bound(where: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        return socket.create_server((where.host, where.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StoreError(f"cannot listen on {where.host} port {where.port}: {error}; name another --host or --port") from error


def _authority(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end_with_parent(server: uvicorn.Server, parent: int) -> None:
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 0.5)
        if readable and not os.read(0, 4096):
            break
    server.should_exit = True
