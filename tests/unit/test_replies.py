"""What the driver makes of replies: a broken one drops one site, never the run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from threading import Timer

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from bahefl_flwr import replies as replies_module
from bahefl_flwr.replies import Reply, ask, ask_until_back
from bahefl_flwr.steps import Action
from in_process_grid import Deliver, InProcessGrid

GOOD = {
    "status": ConfigRecord({"ok": True, "digest": "ab"}),
    "metrics": MetricRecord({"loss": 0.5}),
    "evaluation": MetricRecord({}),
    "seconds": MetricRecord({"train": 1.5}),
    "bytes": MetricRecord({"update": 10, "gas": 7}),
}


def answered_with(content: dict[str, ConfigRecord | MetricRecord]) -> Reply:
    """The driver's reading of one node's reply with that content."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(content), reply_to=message)

    grid = InProcessGrid(app, 1, {})
    try:
        (reply,) = ask(grid, Action.TRAIN, {1000: {"x": 1}}, group="1", timeout_s=20).values()
    finally:
        grid.close()
    return reply


def test_good_reply_is_read() -> None:
    """Facts and figures of a well-formed reply arrive as they are."""
    reply = answered_with(GOOD)
    assert (reply.ok, reply.facts["digest"], reply.metrics, reply.bytes["gas"]) == (True, "ab", {"loss": 0.5}, 7)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": MetricRecord({"ok": 1})}, "no status record"),
        ({"status": ConfigRecord({"ok": "yes"})}, "no status record"),
        ({"status": ConfigRecord({"ok": False, "error": "UpdateError", "message": "NaN"})}, "UpdateError: NaN"),
        ({"metrics": ConfigRecord({"loss": 1.0})}, "not a MetricRecord"),
        ({"metrics": MetricRecord({"loss": float("nan")})}, "not a finite number"),
        ({"seconds": MetricRecord({"train": [1.0, 2.0]})}, "not a finite number"),
    ],
)
def test_malformed_reply_is_a_failed_one(change: dict[str, ConfigRecord | MetricRecord], complaint: str) -> None:
    """A reply of another form, or with figures that are not finite, becomes a failed reply that says so."""
    reply = answered_with({**GOOD, **change})
    assert not reply.ok
    assert complaint in reply.error


def test_missing_record_is_a_failed_reply() -> None:
    """A reply without one of the records is a failed one."""
    reply = answered_with({k: v for k, v in GOOD.items() if k != "evaluation"})
    assert "evaluation" in reply.error


def test_client_app_that_raises_is_named_by_its_last_line() -> None:
    """An exception of a ClientApp arrives as one line, not as a traceback."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise RuntimeError("first line\nlast line")

    grid = InProcessGrid(app, 1, {})
    (reply,) = ask(grid, Action.TRAIN, {1000: {}}, group="1", timeout_s=20).values()
    grid.close()
    assert (reply.ok, reply.error) == (False, "Flower error 2: last line")


def test_silent_node_is_reported_after_the_time_out() -> None:
    """A node that never replies is reported, after the time-out, and the others' replies are kept."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(dict(GOOD)), reply_to=message)

    grid = InProcessGrid(app, 2, {}, tamper=lambda site, message, deliver: None if site else deliver(message))
    replies = ask(grid, Action.TRAIN, {1000: {}, 1001: {}}, group="1", timeout_s=1)
    grid.close()
    assert replies[1000].ok
    assert "no reply within 1 s" in replies[1001].error
    assert (replies[1000].silent, replies[1001].silent) == (False, True)


def test_waiting_ends_soon_after_the_ledger_has_moved_on() -> None:
    """Once waiting is pointless, replies under way get a few seconds more, not the whole time-out."""
    grid, started = InProcessGrid(ClientApp(), 2, {}, tamper=lambda *_: None), time.monotonic()
    replies = ask(grid, Action.TRAIN, {1000: {}, 1001: {}}, group="1", timeout_s=60, is_over=lambda: True)
    grid.close()
    assert all(r.silent for r in replies.values())
    assert 3 < time.monotonic() - started < 10


def test_unknown_or_repeated_reply_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """A reply to no message of ours, or a second one to the same, is reported and changes nothing."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(dict(GOOD)), reply_to=message)

    class Stutters(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Sequence[Message]:
            got = list(super().pull_messages(message_ids))
            stray = Message(RecordDict(dict(GOOD)), reply_to=got[0]) if got else None
            return got + got[:1] + ([stray] if stray else [])

    grid = Stutters(app, 2, {})
    replies = ask(grid, Action.TRAIN, {1000: {}, 1001: {}}, group="1", timeout_s=20)
    grid.close()
    assert [r.ok for r in replies.values()] == [True, True]
    assert caplog.text.count("replied twice, or to no message of ours") >= 2


def test_node_that_comes_back_is_asked_once_more() -> None:
    """It was not connected when it was asked; soon it is, and its reply counts. Whoever answered is not asked again."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(dict(GOOD)), reply_to=message)

    grid = InProcessGrid(app, 2, {})
    grid.away.add(1001)
    Timer(0.5, grid.away.clear).start()
    replies = ask_until_back(grid, Action.TRAIN, {1000: {}, 1001: {}}, group="1", timeout_s=20)
    grid.close()
    assert [replies[node].ok for node in (1000, 1001)] == [True, True]
    assert sorted(site for site, _ in grid.delivered) == [0, 1]


def test_waiting_for_who_is_away_is_part_of_the_time_out() -> None:
    """Whoever comes back has what is left of it."""
    sent: list[float] = []

    class Notes(InProcessGrid):
        def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
            messages = list(messages)
            sent.extend(message.metadata.ttl for message in messages)
            return super().push_messages(messages)

    grid = Notes(ClientApp(), 1, {})
    grid.away.add(1000)
    Timer(0.5, grid.away.clear).start()
    ask_until_back(grid, Action.TRAIN, {1000: {}}, group="1", timeout_s=20)
    grid.close()
    first_s, second_s = sent
    assert second_s <= first_s - 1


def test_who_is_away_when_the_time_is_over_is_not_asked_again() -> None:
    """A site that hung has used it up; the one that was away then may be back."""
    grid, started = InProcessGrid(ClientApp(), 2, {}, tamper=lambda *_: None), time.monotonic()
    grid.away.add(1000)
    Timer(1, grid.away.clear).start()
    replies = ask_until_back(grid, Action.TRAIN, {1000: {}, 1001: {}}, group="1", timeout_s=2)
    grid.close()
    assert [replies[node].away for node in (1000, 1001)] == [True, False]
    assert [site for site, _ in grid.delivered] == [1]
    assert time.monotonic() - started < 10


def test_what_a_killed_supernode_had_taken_is_not_waited_for() -> None:
    """Connected anew before the driver looked for the first time, it will never reply; it is asked once more."""
    app, taken = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(dict(GOOD)), reply_to=message)

    def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
        taken.append(site)
        return deliver(message) if len(taken) > 1 else None

    class Anew(InProcessGrid):
        def get_nodes(self) -> Iterable[NodeInfo]:
            return [NodeInfo(node_id=1000, last_activated_at="10:01" if taken else "10:00")]

    grid, started = Anew(app, 1, {}, tamper=tamper), time.monotonic()
    (reply,) = ask_until_back(grid, Action.TRAIN, {1000: {}}, group="1", timeout_s=100).values()
    grid.close()
    assert reply.ok and len(taken) == 2
    assert time.monotonic() - started < 30


def test_node_that_stays_away_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the others' replies are what there is; the one that is missing says why."""
    monkeypatch.setattr(replies_module, "BACK_S", 0.1)
    grid = InProcessGrid(ClientApp(), 1, {})
    grid.away.add(1000)
    (reply,) = ask_until_back(grid, Action.TRAIN, {1000: {}}, group="1", timeout_s=20).values()
    grid.close()
    assert (reply.ok, reply.silent, reply.away) == (False, True, True)
    assert "Node Unavailable" in reply.error
