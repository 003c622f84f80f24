"""What a round costs on the ledger: gas, and CPU seconds of the node and of the sites, on the embedded chain and on anvil.

    python benchmarks/ledger.py                          prints the tables
    python benchmarks/ledger.py --anvil PATH --write     with anvil, into docs/benchmarks.md

The node is a process of its own. All sites are accounts of this process, which act at the same time, each as a real site does: it
reads the ledger, signs, sends, and waits for its receipt. Digests are made up. Linux only: CPU seconds are read from /proc.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from document import table, write_between_markers
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from measuring import Figures, medians

from bahefl_flwr.errors import LedgerUnreachable
from bahefl_flwr.ledger.connection import Connection, Receipt
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.ledger.node import CHAIN_ID, NodeProcess
from bahefl_flwr.records import EpochPhase, RoundOutcome, mask_of, members_in

SITES = (5, 10, 50, 100)
ROUNDS = 5
_WARM_UP = 2  # rounds that fill storage slots for the first time
_LAYERS = 64
_DAY = 86_400
_CONFIG = ContractConfig(
    commit_window_s=_DAY, aggregate_window_s=_DAY, verify_window_s=_DAY, open_grace_s=_DAY, ceremony_window_s=_DAY
)  # fmt: skip
_DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_ADMIN: LocalAccount = Account.from_key(keccak(text="administrator"))
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A running node: its endpoint and its process."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds it has used so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def embedded() -> Iterator[Node]:
    """The node that a run starts by default."""
    with tempfile.TemporaryDirectory() as folder, NodeProcess(Path(folder) / "chain.sqlite") as process:
        assert process.pid is not None
        yield Node(url=process.url, pid=process.pid)


@contextmanager
def anvil(program: str) -> Iterator[Node]:
    """Foundry's test node, gas free as on our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--chain-id", str(CHAIN_ID), "--hardfork", "london", "--gas-limit", "60000000"]
    free = ["--base-fee", "0", "--gas-price", "0", "--disable-min-priority-fee", "--silent"]
    process = subprocess.Popen([*command, *free])
    try:
        _wait_for(Connection(f"http://127.0.0.1:{port}", CHAIN_ID))
        yield Node(url=f"http://127.0.0.1:{port}", pid=process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(connection: Connection) -> None:
    for _ in range(20):
        try:
            return connection.check()
        except LedgerUnreachable:
            time.sleep(0.1)
    return connection.check()


@dataclass(slots=True, kw_only=True)
class Federation:
    """N registered sites on a new contract; `onions` are the layers not yet revealed, `gas` is that of one round, by kind."""

    sites: int
    ledgers: list[FederationLedger]
    admin: FederationLedger
    onions: list[list[bytes]]
    gas: dict[str, list[int]] = field(default_factory=dict)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(10))

    def each(self, kind: str, members: Sequence[int], send: Callable[[int, FederationLedger], Receipt]) -> None:
        """These members send a transaction each, at the same time; before it, each reads the ledger."""

        def act(i: int) -> int:
            self.ledgers[i].view()
            return send(i, self.ledgers[i]).gas_used

        self.gas.setdefault(kind, []).extend(self.pool.map(act, members))


def start(node: Node, sites: int) -> Federation:
    """Deploy, register, and make a key."""
    admin = FederationLedger.deploy(Connection(node.url, CHAIN_ID, account=_ADMIN), _CONFIG)
    accounts = [Account.from_key(_digest("account", i)) for i in range(sites)]
    ledgers = [FederationLedger(Connection(node.url, CHAIN_ID, account=account), admin.address) for account in accounts]
    federation = Federation(sites=sites, ledgers=ledgers, admin=admin, onions=[_onion(i) for i in range(sites)])
    admin.whitelist([account.address for account in accounts], [1000] * sites)
    for i, ledger in enumerate(ledgers):
        federation.gas.setdefault("register", []).append(ledger.register(_digest("key", i), federation.onions[i].pop()).gas_used)
    admin.start_task(
        run_digest=_digest("run"), initial_model=_digest("model"), security_params=_digest("params"), threshold=0, rounds=10**6,
        screened=False,
    )  # fmt: skip
    epoch = admin.view().epoch
    committee = members_in(epoch.committee)
    for step in (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH, EpochPhase.CONFIRM):
        federation.each("ceremony", committee, _ceremony_step(step, epoch.epoch))
    return federation


def _ceremony_step(step: EpochPhase, epoch: int) -> Callable[[int, FederationLedger], Receipt]:
    send = {
        EpochPhase.COMMIT: FederationLedger.commit_seeds,
        EpochPhase.REVEAL: FederationLedger.reveal_seeds,
        EpochPhase.PUBLISH: FederationLedger.publish_key_parts,
        EpochPhase.CONFIRM: FederationLedger.confirm_key,
    }[step]
    return lambda i, ledger: send(ledger, epoch, _digest(step, 0 if step is EpochPhase.CONFIRM else i))


def play_round(federation: Federation) -> None:
    """A whole round: everybody commits, attests and confirms, a quorum opens."""
    everybody = range(federation.sites)
    r = federation.admin.view().round
    number, aggregate, model = r.number, _digest("sum", r.number), _digest("model", r.number)
    federation.each(
        "commit", everybody, lambda i, ledger: ledger.commit_update(number, _digest("u", number, i), 8_000_000, 1000, r.base)
    )
    view = federation.admin.view()
    mask, weights = view.round.committed, bytes([1]) * federation.sites
    federation.each(
        "aggregate", [view.round.coordinator],
        lambda _, ledger: ledger.submit_aggregate(number, aggregate, 8_000_000, mask, 0, weights, b""),
    )  # fmt: skip
    federation.each("attest", everybody, lambda i, ledger: ledger.attest(number, aggregate, True, federation.onions[i].pop()))
    holders = members_in(view.epoch.committee)[: view.epoch.threshold]
    quorum = mask_of(holders)
    federation.each("share", holders, lambda i, ledger: ledger.release_share(number, quorum, _digest("s", i), aggregate))
    federation.each("confirm", everybody, lambda _, ledger: ledger.confirm_opening(number, quorum, model, RoundOutcome.WHOLE))
    federation.gas.setdefault("finalize", []).append(federation.admin.finalize(number).gas_used)


def measure(node: Node, sites: int, rounds: int) -> Figures:
    """Medians of a round: CPU seconds of node, clients and (part of the latter) signing, gas, transactions."""
    federation = start(node, sites)
    runs: list[Figures] = []
    for k in range(_WARM_UP + rounds):
        federation.gas = {kind: [] for kind in federation.gas}
        node_s, clients_s, started = node.cpu_s(), time.process_time(), time.perf_counter()
        play_round(federation)
        figures = {
            "node_s": node.cpu_s() - node_s,
            "clients_s": time.process_time() - clients_s,
            "wall_s": time.perf_counter() - started,
            "gas": float(sum(map(sum, federation.gas.values()))),
            "transactions": float(sum(map(len, federation.gas.values()))),
        }
        figures |= {f"gas {kind}": sum(used) / len(used) for kind, used in federation.gas.items() if used}
        if k >= _WARM_UP:
            runs.append(figures)
    federation.pool.shutdown()
    return medians(runs) | {"signing_s": runs[0]["transactions"] * _signing_s()}


def _signing_s() -> float:
    """CPU seconds of one signature."""
    transaction = {
        "to": _ADMIN.address, "value": 0, "data": bytes(164), "gas": 10**6, "nonce": 7, "chainId": CHAIN_ID,
        "maxFeePerGas": 0, "maxPriorityFeePerGas": 0,
    }  # fmt: skip
    _ADMIN.sign_transaction(transaction)
    started = time.process_time()
    for _ in range(100):
        _ADMIN.sign_transaction(transaction)
    return (time.process_time() - started) / 100


def _digest(*what: object) -> bytes:
    return keccak(text=" ".join(map(str, what)))


def _onion(i: int) -> list[bytes]:
    layers = [_digest("onion", i)]
    for _ in range(_LAYERS - 1):
        layers.append(keccak(layers[-1]))
    return layers


# ---- tables

_KINDS = ("commit", "aggregate", "attest", "share", "confirm", "finalize")


def text(nodes: dict[str, Callable[[], AbstractContextManager[Node]]], sizes: Sequence[int], rounds: int) -> str:
    """Measure everything; one table of CPU seconds, one of gas."""
    cpu, gas = [], []
    for name, run in nodes.items():
        for sites in sizes:
            with run() as node:
                figures = measure(node, sites, rounds)
            print(name, sites, {key: round(value, 4) for key, value in figures.items()}, file=sys.stderr, flush=True)
            cpu.append([name, str(sites), f"{figures['transactions']:.0f}", *(f"{figures[k]:.2f}" for k in _SECONDS)])
            if name == next(iter(nodes)):
                kinds = (f"{figures['gas ' + kind] / 1e3:.0f}" for kind in _KINDS)
                gas.append([str(sites), *kinds, f"{figures['gas'] / 1e6:.2f}"])
    head = ["node", "sites", "transactions", "node s", "all sites s", "of it signing s", "wall s"]
    about = (
        f"Medians of {rounds} rounds. {platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}; {datetime.now(UTC):%Y-%m-%d}."
    )
    gas_head = ["sites", *(f"{kind}, k" for kind in _KINDS), "round, M"]
    return "\n\n".join((about, table(head, cpu), _GAS, table(gas_head, gas)))


_GAS = "Gas per transaction, in thousands (means), and per round, in millions:"
_SECONDS = ("node_s", "clients_s", "signing_s", "wall_s")


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anvil", help="anvil's program, for its rows")
    parser.add_argument("--sites", type=int, nargs="+", default=SITES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    nodes = {"embedded": embedded}
    if options.anvil:
        nodes["anvil"] = lambda: anvil(options.anvil)
    written = text(nodes, options.sites, options.rounds)
    if options.write:
        write_between_markers(_DOCUMENT, "ledger", written)
    else:
        print(written)


if __name__ == "__main__":
    main()
