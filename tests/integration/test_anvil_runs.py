"""Claims about `ledger=rpc`: whole runs on a node that makes blocks by the clock, confirmed, and reorganised in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from flwr.app import Message

from anvil_node import AnvilNode
from bahefl_flwr.errors import LedgerError
from bahefl_flwr.federation import administer, chain_policy, ledger_address, open_federation
from bahefl_flwr.records import MemberStatus, RoundPhase
from bahefl_flwr.settings import Settings, compose
from bahefl_flwr.site import state
from federation_run import Run, federated_run
from in_process_grid import Deliver, Tamper

NOBODY = "0x" + "11" * 20


@pytest.fixture
def node() -> Iterator[AnvilNode]:
    with AnvilNode() as running:
        yield running


def on(node: AnvilNode, folder: Path, *more: str) -> tuple[str, ...]:
    """Overrides for a run on a node, its administrator's key outside of the run folder."""
    return ("ledger=rpc", f"ledger.url={node.url}", f"ledger.administrator={folder / 'administrator'}", *more)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Folder of a run."""
    (tmp_path / "first").mkdir()
    return tmp_path / "first"


def settings_of(node: AnvilNode, folder: Path, *more: str) -> Settings:
    return compose([*on(node, folder, "ledger.confirmations=0"), *more])


def test_a_later_run_continues_with_the_contract_of_an_earlier_one(node: AnvilNode, first: Path, tmp_path: Path) -> None:
    """Another run folder, the same administrator: it may whitelist, for the contract still obeys it."""
    with open_federation(settings_of(node, tmp_path), first) as run:
        contract = run.ledger.address
    second = tmp_path / "second"
    second.mkdir()
    with open_federation(settings_of(node, tmp_path, f"ledger.contract={contract}"), second) as later:
        later.ledger.whitelist([NOBODY], [1])
        assert later.ledger.status(NOBODY) is MemberStatus.WHITELISTED
    assert ledger_address(second).contract == contract


def test_the_commands_of_a_running_run_act_as_its_administrator(node: AnvilNode, first: Path, tmp_path: Path) -> None:
    """They find chain, contract and key by the run folder alone."""
    settings = settings_of(node, tmp_path)
    with open_federation(settings, first):
        (first / "config.yaml").write_text(settings.yaml())
        administer(first).whitelist([NOBODY], [1])
        assert administer(first).status(NOBODY) is MemberStatus.WHITELISTED


def test_the_administrators_key_is_readable_by_its_owner_alone(node: AnvilNode, first: Path, tmp_path: Path) -> None:
    """It lies where ledger.administrator says, and nowhere in the run folder."""
    with open_federation(settings_of(node, tmp_path), first):
        pass
    key = tmp_path / "administrator" / "identity.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in first.iterdir()] == ["ledger.json"]


def test_another_chain_is_told_apart(node: AnvilNode, first: Path, tmp_path: Path) -> None:
    """A chain id that differs ends the run before anything is sent."""
    with (
        pytest.raises(LedgerError, match=r"is chain 20260, expected 7; check ledger\.url and ledger\.chain_id"),
        open_federation(settings_of(node, tmp_path, "ledger.chain_id=7"), first),
    ):
        pass


@dataclass
class OneReorganisation:
    """Once all sites of a round have committed and answered, replaces the newest blocks by others without their commits."""

    node: AnvilNode
    depth: int
    left: int
    done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, run: Run) -> Tamper:
        """As `federated_run` asks for it."""
        return self.tamper

    def tamper(self, site: int, message: Message, deliver: Deliver) -> Message | None:
        """Deliver; after the last answer to the first `train`, reorganise."""
        reply = deliver(message)
        with self.lock:
            self.left -= message.metadata.message_type.startswith("train")
            if not self.left and not self.done:
                self.done = True
                self.node.reorganise(self.depth)
        return reply


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_survives_a_reorganisation_deeper_than_its_confirmations(tmp_path: Path) -> None:
    """Blocks by the clock, one confirmation: commits that had counted vanish, are made again, and the round is finalised."""
    with AnvilNode("--block-time", "1") as node:
        trouble = OneReorganisation(node, depth=3, left=4)
        run = federated_run(tmp_path, *on(node, tmp_path), "federation.rounds=1", tamper=trouble.of)
    assert trouble.done
    assert [r.phase for r in run.rounds.values()] == [RoundPhase.FINALIZED]
    assert run.rounds[1].included == 0b1111


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sites_whose_nodes_are_behind_the_drivers_are_not_asked_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sites that see every block two later than the driver wait for it, and refuse nothing."""
    behind = replace(chain_policy(compose()), confirmations=2)
    monkeypatch.setattr(state, "chain_policy", lambda _: behind)
    with AnvilNode("--block-time", "1") as node:
        run = federated_run(tmp_path, *on(node, tmp_path, "ledger.confirmations=0", "federation.rounds=1"))
    assert [r.phase for r in run.rounds.values()] == [RoundPhase.FINALIZED]
    assert not [line for line in caplog.messages if "did not" in line]
