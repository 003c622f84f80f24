"""A TCP proxy on the loopback interface that breaks connections, slows them down, or says something else instead."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self


class FaultProxy:
    """A proxy to `port`, from `with` to its end.

    Attributes:
      url: where it listens. cut_answer_after: break each of the next connections after so many bytes of answers, one value each.
      cut_request_after: likewise, of requests. connections: accepted so far.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self.cut_answer_after: list[int] = []
        self.cut_request_after: list[int] = []
        self.connections = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        limits = [cuts.pop(0) if cuts else None for cuts in (self.cut_request_after, self.cut_answer_after)]
        tasks = [
            asyncio.create_task(_copy(reader, back, limits[0])),
            asyncio.create_task(_copy(there, writer, limits[1])),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, back):
            each.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, limit: int | None) -> None:
    passed = 0
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            data = data if limit is None else data[: limit - passed]
            target.write(data)
            await target.drain()
            passed += len(data)
            if limit is not None and passed >= limit:
                return
