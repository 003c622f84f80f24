"""Before the first round: bring the sites together, have them registered, and start the task they agree on."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping

from flwr.serverapp import Grid

from bahefl_flwr.errors import RunFailed
from bahefl_flwr.federation import Federation
from bahefl_flwr.records import MemberStatus
from bahefl_flwr.replies import Reply, ask
from bahefl_flwr.round import Action
from bahefl_flwr.settings import Scalar
from bahefl_flwr.site.state import task_params

_POLL_S = 0.2
_HELLO: Mapping[str, Scalar | bytes] = {"bahefl-run": b"", "bahefl-number": 0, "bahefl-quorum": "0", "bahefl-last-try": False}

_log = logging.getLogger("bahefl_flwr.driver")


def gather(federation: Federation, grid: Grid, wanted: int, rounds: int) -> dict[int, int]:
    """Wait for `wanted` sites, whitelist them in a simulation, and let them register.

    Returns:
      Flower node id of every active member index.

    Raises:
      RunFailed: too few sites answered or registered in time; says which nodes and why.
    """
    timeout_s = federation.settings.federation.hello_timeout_s
    nodes = _wait_for_nodes(grid, wanted, timeout_s)
    replies = ask(grid, Action.HELLO, dict.fromkeys(nodes, _HELLO), group="hello", timeout_s=timeout_s)
    if strangers := [r for r in replies.values() if r.ok and r.facts["status"] == MemberStatus.NONE]:
        _whitelist(federation, strangers)
        replies = ask(grid, Action.HELLO, dict.fromkeys(nodes, _HELLO), group="hello", timeout_s=timeout_s)
    members = {int(r.facts["member"]): r for r in replies.values() if r.ok and r.facts["status"] == MemberStatus.ACTIVE}
    if len(members) < wanted:
        registered = {r.node for r in members.values()}
        others = (r for r in replies.values() if r.node not in registered)
        why = "; ".join(f"node {r.node}: {r.error or 'not active on the ledger'}" for r in others)
        raise RunFailed(f"only {len(members)} of {wanted} sites registered. {why}")
    _start(federation, members, rounds)
    return {m: reply.node for m, reply in members.items()}


def _wait_for_nodes(grid: Grid, wanted: int, timeout_s: float) -> list[int]:
    until = time.monotonic() + timeout_s
    while len(nodes := list(grid.get_node_ids())) < wanted:
        if time.monotonic() > until:
            raise RunFailed(f"{len(nodes)} of {wanted} sites connected within {timeout_s:.0f} s; start the missing SuperNodes")
        time.sleep(_POLL_S)
    return nodes


def _whitelist(federation: Federation, strangers: list[Reply]) -> None:
    """In a simulation the run is its own registrar. Weights are what sites say, capped (SCREENING.md)."""
    s = federation.settings.federation
    weights = [min(int(r.facts["num-examples"]), s.max_weight) if s.weighting == "examples" else 1 for r in strangers]
    federation.ledger.whitelist([str(r.facts["address"]) for r in strangers], weights)


def _start(federation: Federation, members: Mapping[int, Reply], rounds: int) -> None:
    """Paper step 1: the task goes on the ledger, with the model that all sites start from."""
    ledger, settings = federation.ledger, federation.settings
    if ledger.view().task.open:
        _log.info("the ledger has an open task: continuing it")
        return
    models = Counter(str(r.facts["model"]) for r in members.values())
    model, votes = models.most_common(1)[0]
    if votes < len(members):
        odd = [m for m, r in members.items() if r.facts["model"] != model]
        raise RunFailed(
            f"sites {odd} start from other weights than the rest: seed get_parameters (or load the same file) at every site"
        )
    ledger.start_task(
        run_digest=_run_digest(federation), initial_model=bytes.fromhex(model),
        security_params=task_params(settings).digest(), threshold=settings.he.threshold, rounds=rounds,
    )  # fmt: skip


def _run_digest(federation: Federation) -> bytes:
    """Names this run in every manifest: the shared settings, on this contract, in this folder."""
    ledger = federation.ledger
    where = f"{ledger.chain_id} {ledger.address} {ledger.view().task.number + 1} {federation.folder.name}"
    return hashlib.sha256(federation.settings.digest() + where.encode()).digest()
