"""One message to a site of the lesion application, answered in a process of its own; as a script, that process.

Context and message come on standard input, the reply goes to a file. The process may be told to be killed (kill -9) at a point:

    fit      after the checkpoint of the first epoch
    before   after the commitment is journalled, before it is on the ledger
    after    after it is on the ledger, before the driver is told
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity


def answer(site: int, sites: int, run_config: dict[str, Any], message: Message, *, die: str, reply: Path) -> Message | None:
    """The reply of a new process; None if it was killed."""
    told = {
        "run": message.metadata.run_id, "node": message.metadata.dst_node_id, "site": site, "sites": sites,
        "config": run_config, "die": die, "reply": str(reply), "message": message_to_proto(message).SerializeToString().hex(),
    }  # fmt: skip
    done = subprocess.run([sys.executable, __file__], input=json.dumps(told), text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0
    answered = message_from_proto(ProtoMessage.FromString(reply.read_bytes()))
    return Message(answered.content, reply_to=message)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(point: str) -> None:
    """Let the process be killed at a point."""
    from bahefl_flwr.ledger.contract import FederationLedger
    from bahefl_flwr.lesion import checkpoint

    save, commit = checkpoint.save, FederationLedger.commit_update
    if point == "fit":
        checkpoint.save = lambda *a: (save(*a), _die())  # type: ignore[assignment]
    if point == "before":
        FederationLedger.commit_update = _die  # type: ignore[method-assign]
    if point == "after":
        FederationLedger.commit_update = lambda *a: (commit(*a), _die())  # type: ignore[method-assign]


def _main() -> None:
    from bahefl_flwr.app import client_app

    told = json.loads(sys.stdin.read())
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, told["run"], told["node"]
    _arm(told["die"])
    node = {"partition-id": told["site"], "num-partitions": told["sites"]}
    context = Context(told["run"], told["node"], node, RecordDict(), told["config"])
    message = message_from_proto(ProtoMessage.FromString(bytes.fromhex(told["message"])))
    reply = client_app(message, context)
    Path(told["reply"]).write_bytes(message_to_proto(reply).SerializeToString())


if __name__ == "__main__":
    _main()
