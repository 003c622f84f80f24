"""A Flower app that does nothing in every phase, and measures how long that takes."""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client_app = ClientApp()
server_app = ServerApp()


@client_app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Answer at once, with the process's number."""
    if module := str(context.run_config["imports"]):
        import_module(module)
    numbers = {name: MetricRecord({}) for name in ("metrics", "evaluation", "seconds", "bytes")}
    status = ConfigRecord({"ok": True, "process": os.getpid(), "site": context.node_config["partition-id"]})
    return Message(RecordDict({"status": status, **numbers}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask all sites several times and write down how long each phase took, in seconds."""
    config = context.run_config
    while len(nodes := sorted(grid.get_node_ids())) < int(config["sites"]):
        time.sleep(0.1)
    phase = _as_flower if config["waiting"] == "flower" else _as_bahefl
    seconds = []
    for number in range(int(config["phases"])):
        started = time.monotonic()
        phase(grid, nodes, str(number))
        seconds.append(time.monotonic() - started)
    part = Path(str(config["result"]) + ".part")
    part.write_text(json.dumps(seconds))
    part.rename(str(config["result"]))


def _as_flower(grid: Grid, nodes: list[int], group: str) -> None:
    messages = [Message(RecordDict(), node, "query.hello", group_id=group) for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=300))
    _check(len(nodes), [not reply.has_error() for reply in replies])


def _as_bahefl(grid: Grid, nodes: list[int], group: str) -> None:
    from bahefl_flwr.replies import ask
    from bahefl_flwr.steps import Action

    replies = ask(grid, Action.HELLO, {node: {} for node in nodes}, group=group, timeout_s=300)
    _check(len(nodes), [reply.ok for reply in replies.values()])


def _check(sites: int, answered: list[bool]) -> None:
    if answered != [True] * sites:
        raise RuntimeError(f"{sum(answered)} good replies of {sites}")
