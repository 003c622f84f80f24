"""Before the first round: bring the sites together, have them registered, and start the task they agree on."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from flwr.serverapp import Grid

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import KeysError, RunFailed
from bahefl_flwr.federation import Federation
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.node_binding import expect_binding
from bahefl_flwr.records import LedgerView, MemberStatus
from bahefl_flwr.replies import BACK_S, Reply, ask, request_config
from bahefl_flwr.site.state import task_params
from bahefl_flwr.steps import Action

_POLL_S = 0.2
_TASK_FILE = "task.json"

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_SIGNATURE = re.compile(r"([0-9a-f]{130})?")

_log = logging.getLogger("bahefl_flwr.driver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a site says of itself, checked for form. Its standing and its member index are the ledger's to say, not its own.

    Attributes:
      address: Ethereum address, lower case with 0x.
      model: digest of the model it starts from, 32 bytes.
      examples: training examples it declares, at least 1.
      binding: its signature over its SuperNode's key; empty where it says nothing of one.
      named: whether its NumPyClient named them; else they are 1.
    """

    node: int
    address: str
    model: bytes
    examples: int
    binding: bytes = b""
    named: bool = True

    @classmethod
    def read(cls, reply: Reply) -> Self:
        """Check a reply to `query.hello`.

        Raises:
          ValueError: the reply is an error, or something in it is missing or impossible; says what.
        """
        if not reply.ok:
            raise ValueError(reply.error)
        address, model, examples = (reply.facts.get(name) for name in ("address", "model", "num-examples"))
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise ValueError(f"its address is {address!r}, not 0x and 40 hexadecimal digits")
        if not isinstance(model, str) or not _DIGEST.fullmatch(model):
            raise ValueError(f"its model digest is {model!r}, not 64 hexadecimal digits")
        if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
            raise ValueError(f"its num-examples is {examples!r}, not a whole number of at least 1")
        binding = reply.facts.get("binding", "")
        if not isinstance(binding, str) or not _SIGNATURE.fullmatch(binding):
            raise ValueError(f"its binding is {binding!r:.60}, not a signature of 65 bytes")
        return cls(
            node=reply.node,
            address=address.lower(),
            model=bytes.fromhex(model),
            examples=examples,
            binding=bytes.fromhex(binding),
            named=reply.facts.get("names-examples") is not False,
        )


def gather(federation: Federation, grid: Grid, wanted: int, rounds: int) -> dict[int, int]:
    """Wait for `wanted` sites, whitelist them if the run admits everybody, and let them register.

    Returns:
      Flower node id of every active member index.

    Raises:
      RunFailed: too few sites answered or registered in time (says which nodes and why), or too many are connected.
    """
    s = federation.settings.federation
    # Where the task goes on, a site that is away must not keep the others from its rounds.
    least = s.min_sites if _goes_on(federation) else wanted
    nodes = _wait_for_nodes(grid, wanted, least, s.hello_timeout_s)
    if s.admission == "automatic" and len(nodes) > s.sites:
        raise RunFailed(
            f"{len(nodes)} nodes are connected, but federation.sites={s.sites}: the encryption's "
            "noise is sized for that many; set federation.sites at the driver and at every site, or stop the extra SuperNodes"
        )
    hellos, refused = _admitted(federation, grid, nodes)
    if s.admission == "automatic":
        standings = federation.ledger.standings(h.address for h in hellos)
        strangers = [h for h in hellos if standings[h.address] is MemberStatus.NONE]
        if strangers:
            _whitelist(federation, strangers)
            hellos, refused = _admitted(federation, grid, nodes)
    members = _active(federation.ledger, hellos, refused)
    why = "; ".join(f"node {node}: {reason}" for node, reason in sorted(refused.items()))
    if len(members) < least:
        raise RunFailed(f"only {len(members)} of {least} sites registered. {why}")
    if refused:
        _log.warning("the run goes on without %s", why)
    _start(federation, members, rounds)
    return {m: hello.node for m, hello in members.items()}


def _goes_on(federation: Federation) -> bool:
    task = federation.ledger.view().task
    return bool(task.number) and task.run_digest == federation.run_digest(task.number)


def rounds_before(federation: Federation) -> int:
    """The number of the last round on the contract before this run's task, 0 if it is the first."""
    return int(json.loads((federation.folder / _TASK_FILE).read_text())["rounds_before"])


def _admitted(federation: Federation, grid: Grid, nodes: Iterable[int]) -> tuple[list[Hello], dict[int, str]]:
    """Ask all nodes who they are; who answers for an account of its own, and for every other node what is wrong."""
    hellos, refused = _greet(federation, grid, nodes)
    if federation.settings.federation.admission == "registrar":
        # First, so that nobody shuts a site out by giving its address.
        hellos = _bound(federation.ledger, grid, hellos, refused)
    return _distinct(hellos, refused), refused


def _greet(federation: Federation, grid: Grid, nodes: Iterable[int]) -> tuple[list[Hello], dict[int, str]]:
    """Ask all nodes who they are; the well-formed answers, and for every other node what is wrong."""
    view = federation.ledger.view()
    # A site that hears of no run takes an ended task for the past, drops its keys and makes room for the next one.
    run = view.task.run_digest if _goes_on(federation) else b""
    config = request_config({}, run=run, block=view.block_number)
    timeout_s = federation.settings.federation.hello_timeout_s
    replies = ask(grid, Action.HELLO, dict.fromkeys(nodes, config), group="hello", timeout_s=timeout_s)
    hellos: list[Hello] = []
    refused: dict[int, str] = {}
    for reply in replies.values():
        try:
            hellos.append(Hello.read(reply))
        except ValueError as error:
            refused[reply.node] = str(error)
    return hellos, refused


def _distinct(hellos: Sequence[Hello], refused: dict[int, str]) -> list[Hello]:
    """Those whose address nobody else gives; the others join `refused`."""
    shared = {address for address, n in Counter(h.address for h in hellos).items() if n > 1}
    # Which of them holds the account's key cannot be told from here, so none of them takes part.
    for h in hellos:
        if h.address in shared:
            nodes_of = sorted(other.node for other in hellos if other.address == h.address)
            refused[h.node] = f"nodes {nodes_of} all say that their address is {h.address}; give each site an identity of its own"
    return [h for h in hellos if h.address not in shared]


def _bound(ledger: FederationLedger, grid: Grid, hellos: Iterable[Hello], refused: dict[int, str]) -> list[Hello]:
    """Those whose account has signed for the key that their node authenticated with; the others join `refused`."""
    keys = {node.node_id: bytes(node.public_key) for node in grid.get_nodes()}
    bound: list[Hello] = []
    for h in hellos:
        try:
            expect_binding(keys.get(h.node, b""), ledger.chain_id, ledger.address, h.address, h.binding)
        except KeysError as error:
            refused[h.node] = str(error)
        else:
            bound.append(h)
    return bound


def _active(ledger: FederationLedger, hellos: Iterable[Hello], refused: dict[int, str]) -> dict[int, Hello]:
    """By member index as the ledger has it, whatever a site claims; who is not active joins `refused`."""
    members: dict[int, Hello] = {}
    for h in hellos:
        member = ledger.member(h.address)
        if member is None or member.status is not MemberStatus.ACTIVE:
            standing = member.status.name.lower() if member else "not whitelisted"
            refused[h.node] = f"{h.address} is not active on the ledger ({standing}; `bahefl members` adds and reinstates)"
        else:
            members[member.index] = h
    return members


def _wait_for_nodes(grid: Grid, wanted: int, least: int, timeout_s: float) -> list[int]:
    """Ids of the connected nodes: `wanted` of them, or after a while `least`."""
    started = time.monotonic()
    while len(nodes := list(grid.get_node_ids())) < wanted:
        waited_s = time.monotonic() - started
        if len(nodes) >= least and waited_s > BACK_S:
            break
        if waited_s > timeout_s:
            raise RunFailed(f"{len(nodes)} of {least} sites connected within {timeout_s:.0f} s; start the missing SuperNodes")
        time.sleep(_POLL_S)
    return nodes


def _whitelist(federation: Federation, strangers: list[Hello]) -> None:
    """The run is its own registrar. Weights are what sites say, capped."""
    s = federation.settings.federation
    if s.weighting == "examples" and (unnamed := [h.node for h in strangers if not h.named]):
        _log.warning(
            "nodes %s name no number of examples, so each weighs as much as one example; let get_properties return "
            '{"num-examples": ...} to weigh sites by their data',
            unnamed,
        )
    weights = [min(h.examples, s.max_weight) if s.weighting == "examples" else 1 for h in strangers]
    federation.ledger.whitelist([h.address for h in strangers], weights)


def _start(federation: Federation, members: Mapping[int, Hello], rounds: int) -> None:
    """Paper step 1: the task goes on the ledger, with the model that all sites start from."""
    ledger, settings = federation.ledger, federation.settings
    view = ledger.view()
    if _goes_on(federation):
        _log.info("the ledger has this run's task: going on with it from round %d", view.round.number)
        return
    _expect_room(ledger, view, settings.federation.sites)
    model = _common_start(members)
    # Before the task is there: a driver that dies in between starts it again.
    content = json.dumps({"rounds_before": view.round.number})
    atomic_write(federation.folder / _TASK_FILE, content.encode(), mode=0o644)
    ledger.start_task(
        run_digest=federation.run_digest(view.task.number + 1), initial_model=model,
        security_params=task_params(settings).digest(), threshold=task_params(settings).threshold, rounds=rounds,
        screened=settings.screening.kind != "off",
    )  # fmt: skip


def _expect_room(ledger: FederationLedger, view: LedgerView, sites: int) -> None:
    """The contract has no task of another run, and no more active members than keys and noise are sized for."""
    if view.task.open:
        raise RunFailed(
            f"the contract {ledger.address} has an open task of another run ({view.task.run_digest.hex()[:16]}): go on with it "
            "from the folder it was started in, by the same run.name, or end it there with `bahefl resume RUN --end`"
        )
    if (active := view.active.bit_count()) > sites:
        raise RunFailed(
            f"the contract {ledger.address} has {active} active members, federation.sites is {sites}: keys and noise are "
            "sized for that many. A simulation makes new sites in every run, so leave ledger.contract empty there; "
            "in a deployment raise federation.sites, or suspend the members that left"
        )


def _common_start(members: Mapping[int, Hello]) -> bytes:
    """Digest of the weights that all sites start from."""
    models = Counter(h.model for h in members.values())
    model, votes = models.most_common(1)[0]
    if votes < len(members):
        odd = [m for m, h in members.items() if h.model != model]
        raise RunFailed(
            f"sites {odd} start from other weights than the rest: seed get_parameters (or load the same file) at every site"
        )
    return model
