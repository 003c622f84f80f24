"""The HTTP side of a served store: who asks, how much comes, how long it takes, and what is answered. An ASGI application.

What is done with objects is shelf.py's business, sockets and processes are serving.py's. The protocol: docs/store.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bahefl_flwr.store.dag_cbor import Link
from bahefl_flwr.store.roster import Roster, RosterUnknown
from bahefl_flwr.store.shelf import Shelf, parse_name
from bahefl_flwr.store.signing import BadSignature, check, read_claim
from bahefl_flwr.store.wire import GREETING, HEALTH, MAX_BODY_BYTES, MISSING, OBJECTS, WORD_HEADER, Refusal, Word

REQUEST_S = 120.0
"""Longest time for one request, its body included: 1 MiB at 9 kB/s."""
DRAIN_S = 5.0

_RANGE = re.compile(r"bytes=([0-9]{1,12})-([0-9]{1,12})?", re.ASCII)

_log = logging.getLogger("bahefl_flwr.store")


class StoreService:
    """Answers requests, each on its own: between two of them it remembers nothing but who put how much.

    Args:
      window_s: how far a request's time may be from ours. most_requests: answered at the same time; bounds the memory to about
        three times as many MiB. clock: Unix seconds; for tests.
    """

    def __init__(
        self, shelf: Shelf, roster: Roster, *, window_s: float, most_requests: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._shelf, self._roster, self._clock = shelf, roster, clock
        self._window_s, self._free = window_s, most_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        if self._free <= 0:
            await _refused(Refusal(Word.BUSY, "the store answers as many requests as it may: try again"))(scope, receive, send)
            return
        self._free -= 1
        try:
            response = await self._within_bounds(request)
            async with asyncio.timeout(REQUEST_S):
                await response(scope, receive, send)
        except (TimeoutError, ClientDisconnect):
            _log.info("gave up on a slow or lost client")
        finally:
            self._free += 1

    async def _within_bounds(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(REQUEST_S):
                return await self._answer(request)
        except TimeoutError:
            return _refused(Refusal(Word.TOO_SLOW, f"the request took more than {REQUEST_S:.0f} s"))
        except Refusal as refusal:
            await _drain(request)
            return _refused(refusal)

    async def _answer(self, request: Request) -> Response:
        method, path = request.method, _path_of(request)
        if (method, path) == ("GET", HEALTH):
            return Response(GREETING, media_type="text/plain")
        act = self._action(method, path)
        account, digest = await self._signed(request, method, path)
        body = await _body_of(request, digest)
        return await act(request, account, body, digest)

    def _action(self, method: str, path: str) -> _Action:
        if path == MISSING:
            actions = {"POST": self._missing}
        elif path.startswith(OBJECTS):
            parse_name(path.removeprefix(OBJECTS))
            actions = {"GET": self._read, "HEAD": self._read, "PUT": self._write}
        else:
            raise Refusal(Word.NO_SUCH_PATH, f"there is nothing at {path[:80]}: is this the address of the store?")
        if method not in actions:
            raise Refusal(Word.WRONG_METHOD, f"{path[:80]} takes {' and '.join(actions)} only; nothing is ever deleted this way")
        return actions[method]

    async def _signed(self, request: Request, method: str, path: str) -> tuple[str, bytes]:
        """The account that asks, which is a member, and the digest that it signed for the body."""
        try:
            claim = read_claim(request.headers.get("authorization", ""))
            account = check(claim, method, path, self._clock(), self._window_s)
        except BadSignature as error:
            raise Refusal(Word.UNSIGNED, str(error)) from error
        try:
            admitted = await run_in_threadpool(self._roster.admits, account)
        except RosterUnknown as error:
            raise Refusal(Word.NO_ROSTER, f"the store cannot tell at present who the members are ({error}): try again") from error
        if not admitted:
            _log.warning("refused %s: not a member", account)
            raise Refusal(Word.NOT_A_MEMBER, f"{account} is no active member of this store's federation: ask the registrar")
        return account, claim.body

    async def _read(self, request: Request, account: str, body: bytes, digest: bytes) -> Response:
        data = await run_in_threadpool(self._shelf.read, _link_of(request))
        return _ranged(data, request.headers.get("range", ""))

    async def _write(self, request: Request, account: str, body: bytes, digest: bytes) -> Response:
        changed = await run_in_threadpool(self._shelf.write, account, _link_of(request), body, digest)
        return Response(status_code=201 if changed else 200)

    async def _missing(self, request: Request, account: str, body: bytes, digest: bytes) -> Response:
        return Response(await run_in_threadpool(self._shelf.missing, body), media_type="text/plain")


_Action = Callable[[Request, str, bytes, bytes], Awaitable[Response]]
"""From a request, its account, its body and that one's SHA-256 to the answer."""


def _path_of(request: Request) -> str:
    """The path as it was sent, which is what was signed; paths of this protocol need no escapes and no queries."""
    if request.scope["query_string"]:
        raise Refusal(Word.NO_SUCH_PATH, "requests to the store have no query")
    raw: bytes = request.scope["raw_path"]
    return raw.decode("ascii", "replace")


def _link_of(request: Request) -> Link:
    return parse_name(_path_of(request).removeprefix(OBJECTS))


async def _body_of(request: Request, digest: bytes) -> bytes:
    """The body, if it is the signed one. Never more than a part or manifest is held."""
    length = request.headers.get("content-length", "0")
    too_large = Refusal(Word.TOO_LARGE, f"a body has at most {MAX_BODY_BYTES} bytes")
    if not length.isdigit() or len(length) > 12 or int(length) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    if hashlib.sha256(body).digest() != digest:
        raise Refusal(Word.UNSIGNED, "the body is not the one that was signed: it changed on the way, send it again")
    return bytes(body)


async def _drain(request: Request) -> None:
    """Read what is left of a body that is refused, or the answer would be lost in a reset connection. Holds none of it."""
    read = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            async for chunk in request.stream():
                read += len(chunk)
                if read > MAX_BODY_BYTES:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read already
        return


def _ranged(data: bytes, asked: str) -> Response:
    """The whole object, or the one range of it that was asked for. A range we do not understand is ignored, as HTTP allows."""
    found = _RANGE.fullmatch(asked)
    if found is None:
        return Response(data, media_type="application/octet-stream", headers={"accept-ranges": "bytes"})
    first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
    if first > last:
        raise Refusal(Word.NO_SUCH_RANGE, f"the object has {len(data)} bytes")
    headers = {"content-range": f"bytes {first}-{last}/{len(data)}"}
    return Response(data[first : last + 1], 206, media_type="application/octet-stream", headers=headers)


def _refused(refusal: Refusal) -> Response:
    headers = {WORD_HEADER: refusal.word.word}
    if refusal.word.status == Word.BUSY.status:
        headers["retry-after"] = "1"
    if refusal.word in (Word.TOO_SLOW, Word.TOO_LARGE):
        headers["connection"] = "close"  # what is left of the request is not worth reading
    return Response(f"{refusal}\n", refusal.word.status, headers, "text/plain")
