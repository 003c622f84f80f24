"""The driver's side of messages: send one action to some sites, collect what comes back, trust none of it.

A reply that is late, broken or malformed becomes a `Reply` that says so; it never becomes an exception.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from bahefl_flwr.pacing import pause_s
from bahefl_flwr.settings import Scalar
from bahefl_flwr.steps import Action

_SLOWEST_S = 0.25
_LOOK_S = 1.0
# What moved the ledger on is mostly the very action whose reply is still under way.
_GRACE_S = 3.0
# Flower's ErrorCode of the reply that the SuperLink itself gives for a node without heartbeat.
_NODE_UNAVAILABLE = 5
BACK_S = 90.0
"""How long a site that is away is waited for: a SuperNode that was killed may need a minute (Flower's lease)."""

Numbers = Mapping[str, float | int]
Config = dict[str, Scalar | bytes]

_log = logging.getLogger("bahefl_flwr.driver")


def request_config(
    client: Mapping[str, Scalar], *, run: bytes = b"", number: int = 0, quorum: int = 0, last_try: bool = False, block: int = 0
) -> Config:
    """The config record of a request: what the NumPyClient is told, and our own entries, which `site/client_app.py` reads."""
    ours: Config = {
        "bahefl-run": run,
        "bahefl-number": number,
        "bahefl-quorum": f"{quorum:x}",
        "bahefl-last-try": last_try,
        "bahefl-block": block,
    }
    return {**client, **ours}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one node answered.

    With `ok` False only `error` means anything, `silent` (there was no reply at all), `away` (and its node is not connected), and
    what `facts` tell people.
    """

    node: int
    ok: bool
    error: str = ""
    silent: bool = False
    away: bool = False
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    metrics: Numbers = field(default_factory=dict)
    evaluation: Numbers = field(default_factory=dict)
    seconds: Numbers = field(default_factory=dict)
    bytes: Numbers = field(default_factory=dict)


def ask(
    grid: Grid,
    action: Action,
    configs: Mapping[int, Mapping[str, Scalar | bytes]],
    *,
    group: str,
    timeout_s: float,
    is_over: Callable[[], bool] = lambda: False,
) -> dict[int, Reply]:
    """Send `action` to nodes and wait until all have replied, `timeout_s` has passed, or it `is_over`.

    Args:
      configs: config record by Flower node id.
      group: Flower's group id of the messages (a label, for instance the round).
      is_over: looked at once a second; true ends the waiting after 3 s more, for replies that are under way.

    Returns:
      One `Reply` per node of `configs`, whatever happened.
    """
    messages = [
        Message(RecordDict({"config": ConfigRecord(dict(config))}), dst_node_id=node, message_type=action.value,
                group_id=group, ttl=timeout_s + 60)
        for node, config in configs.items()
    ]  # fmt: skip
    # Before anything is sent: a SuperNode that takes its message may be killed, and back, before the first look.
    connected = _connected(grid)
    ids = list(grid.push_messages(messages))
    waiting = {i: m.metadata.dst_node_id for i, m in zip(ids, messages, strict=True) if i}
    replies: dict[int, Reply] = {}
    started = time.monotonic()
    until, look_at = started + timeout_s, started + _LOOK_S
    while waiting:
        replies |= _pull(grid, waiting)
        now = time.monotonic()
        if now > until:
            break
        if now > look_at:
            look_at = now + _LOOK_S
            replies |= _lost(grid, waiting, connected)
            if is_over():
                until, look_at = min(until, now + _GRACE_S), math.inf
        time.sleep(pause_s(now - started, slowest_s=_SLOWEST_S))
    error = f"no reply within {time.monotonic() - started:.0f} s"
    return replies | {n: Reply(node=n, ok=False, error=error, silent=True) for n in set(configs) - set(replies)}


def ask_until_back(
    grid: Grid, action: Action, configs: Mapping[int, Mapping[str, Scalar | bytes]], *, group: str, timeout_s: float
) -> dict[int, Reply]:
    """As `ask`; nodes that are away are waited for, at most `BACK_S`, and asked once more. All that within `timeout_s`."""
    end = time.monotonic() + timeout_s
    replies = ask(grid, action, configs, group=group, timeout_s=timeout_s)
    away = {node for node, reply in replies.items() if reply.away}
    if not away:
        return replies
    until = min(end, time.monotonic() + BACK_S)
    while away - set(grid.get_node_ids()) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    back = {node: configs[node] for node in away & set(grid.get_node_ids())}
    left_s = end - time.monotonic()
    if not back or left_s <= 0:
        return replies
    return replies | ask(grid, action, back, group=group, timeout_s=left_s)


def _lost(grid: Grid, waiting: dict[str, int], connected: dict[int, str]) -> dict[int, Reply]:
    """Replies that will never come, by node; what they would answer leaves `waiting`.

    What a SuperNode has taken goes with it when it is killed, and Flower delivers no message twice. One that connects again
    within the same moment that Flower misses it in is never reported as unavailable.

    Args:
      connected: since when each node is connected, as first seen; nodes seen for the first time are added.
    """
    anew = {node for node, since in _connected(grid).items() if connected.setdefault(node, since) != since}
    error = "its SuperNode was started anew meanwhile: what it had been asked is lost"
    lost = {i: node for i, node in waiting.items() if node in anew}
    for message_id in lost:
        del waiting[message_id]
    return {node: Reply(node=node, ok=False, error=error, silent=True, away=True) for node in lost.values()}


def _connected(grid: Grid) -> dict[int, str]:
    """Since when each node is connected, in Flower's words; "" where the grid does not know."""
    return {node.node_id: str(getattr(node, "last_activated_at", "")) for node in grid.get_nodes()}


def _pull(grid: Grid, waiting: dict[str, int]) -> dict[int, Reply]:
    """The replies that have come in, by node; what they answer leaves `waiting`."""
    replies: dict[int, Reply] = {}
    for message in grid.pull_messages(list(waiting)):
        # The node is known by the message it answers: errors made by the SuperLink carry another source.
        node = waiting.pop(message.metadata.reply_to_message_id, None)
        if node is None:
            source, to = message.metadata.src_node_id, message.metadata.reply_to_message_id
            _log.warning("node %d replied twice, or to no message of ours (%s); ignored", source, to)
            continue
        replies[node] = _read(node, message)
    return replies


def _read(node: int, message: Message) -> Reply:
    """Check the form of a reply: the records we know, finite numbers, nothing else is looked at."""
    if message.has_error():
        away = message.error.code == _NODE_UNAVAILABLE
        error = f"Flower error {message.error.code}: {_last_line(message.error.reason)}"
        return Reply(node=node, ok=False, error=error, silent=away, away=away)
    status = message.content.get("status")
    if not isinstance(status, ConfigRecord) or not isinstance(status.get("ok"), bool):
        return Reply(node=node, ok=False, error="malformed reply: no status record; is the site's ClientApp a secure_client_app?")
    if not status["ok"]:
        error = f"{status.get('error', 'error')!s}: {status.get('message', '')!s}"
        return Reply(node=node, ok=False, error=error, facts=_facts(status))
    try:
        metrics, evaluation, seconds, sizes = (
            _numbers(message.content, name) for name in ("metrics", "evaluation", "seconds", "bytes")
        )
    except ValueError as error:
        return Reply(node=node, ok=False, error=f"malformed reply: {error}")
    return Reply(node=node, ok=True, facts=_facts(status), metrics=metrics, evaluation=evaluation, seconds=seconds, bytes=sizes)


def _facts(status: ConfigRecord) -> dict[str, Scalar]:
    return {k: v for k, v in status.items() if isinstance(v, bool | int | float | str)}


def _numbers(content: RecordDict, name: str) -> Numbers:
    record = content.get(name)
    if not isinstance(record, MetricRecord):
        raise ValueError(f"record {name!r} is {type(record).__name__}, not a MetricRecord")
    for key, value in record.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}.{key} is {value!r}, not a finite number")
    return dict(record.items())  # type: ignore[arg-type]


def _last_line(reason: str | None) -> str:
    """A ClientApp that raised is reported with its whole traceback; what happened stands in the last line."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
