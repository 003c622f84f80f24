"""A Flower Grid whose sites live in this process: the real apps and messages, without SuperLink and Ray.

Faults are injected between grid and site: a `Tamper` sees every message and may repeat, alter, drop or replace it.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Deliver = Callable[[Message], Message]
Tamper = Callable[[int, Message, Deliver], Message | None]
"""From (site, message, deliver) to the reply the driver gets; None for no reply at all."""


def plain_delivery(site: int, message: Message, deliver: Deliver) -> Message | None:
    """No fault."""
    return deliver(message)


def unreached(message: Message) -> Message:
    """What the SuperLink replies for a node that it has heard nothing of for a minute."""
    return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)


class InProcessGrid(Grid):
    """`sites` nodes, each serving one message at a time in a thread; those in `away` are not connected."""

    def __init__(self, app: ClientApp, sites: int, run_config: dict[str, object], *, tamper: Tamper = plain_delivery) -> None:
        self.run_id = secrets.randbits(63)
        self._run = Run.create_empty(run_id=self.run_id)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self.run_id, 1
        self._app, self._tamper = app, tamper
        self._sites = {
            1000 + i: Context(self.run_id, 1000 + i, {"partition-id": i, "num-partitions": sites}, RecordDict(), dict(run_config))
            for i in range(sites)
        }
        self._locks = {node: threading.Lock() for node in self._sites}
        self._pool = ThreadPoolExecutor(2)
        self._replies: dict[str, Message] = {}
        self.delivered: list[tuple[int, str]] = []
        self.largest_message_bytes = 0
        self.away: set[int] = set()

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self._sites if node not in self.away]

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
            ids.append(message.metadata.message_id)
            self._pool.submit(self._serve, message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Sequence[Message]:
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Sequence[Message]:
        waiting, replies, until = set(self.push_messages(messages)), [], time.monotonic() + (timeout or 3600)
        while waiting and time.monotonic() < until:
            got = self.pull_messages(waiting)
            waiting -= {m.metadata.reply_to_message_id for m in got}
            replies += got
            time.sleep(0.005)
        return replies

    def _serve(self, message: Message) -> None:
        node = message.metadata.dst_node_id
        with self._locks[node]:
            reply = unreached(message) if node in self.away else self._reply(node, message)
        self._weigh(message)
        if reply is not None:
            self._weigh(reply)
            reply.metadata.__dict__["_message_id"] = str(uuid.uuid4())
            self._replies[message.metadata.message_id] = reply

    def _reply(self, node: int, message: Message) -> Message | None:
        self.delivered.append((node - 1000, message.metadata.message_type))
        return self._tamper(node - 1000, message, lambda m: self._execute(node, m))

    def _weigh(self, message: Message) -> None:
        if message.has_content():
            size = recorddict_to_proto(message.content).ByteSize()
            self.largest_message_bytes = max(self.largest_message_bytes, size)

    def _execute(self, node: int, message: Message) -> Message:
        try:
            return self._app(message, self._sites[node])
        except Exception as error:  # noqa: BLE001  # as Flower does: any error of an app becomes a reply
            return Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
