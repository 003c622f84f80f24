"""Sites that hang or lie to the driver: each costs its own part of a window, nobody else's office, and never the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock, Timer
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from bahefl_flwr import driver as driver_module
from bahefl_flwr.driver import MAX_REFUSALS_IN_A_ROW, Driver
from bahefl_flwr.errors import RunFailed, TransactionReverted
from bahefl_flwr.identity import Identity
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.steps import Advance, Step
from federation_run import Run, federated_run
from in_process_grid import Deliver, Tamper, unreached

pytestmark = pytest.mark.federation

WINDOWS = ("federation.rounds=1", "ledger.commit_window_s=60", "ledger.aggregate_window_s=15", "ledger.verify_window_s=15",
           "ledger.open_grace_s=3")  # fmt: skip


def member_of(run: Run, site: int) -> int:
    """Member index of a site, by partition id."""
    member = run.ledger.member(run.address(site))
    assert member
    return member.index


def hangs(
    action: str, chosen: Callable[[Run, int, Message], bool] = lambda *_: True
) -> tuple[list[int], Callable[[Run], Tamper]]:
    """The first site of which `chosen` is true never replies to `action`; its member index is appended to the list."""
    hung: list[int] = []

    def make(run: Run) -> Tamper:
        sites: list[int] = []
        one_at_a_time = Lock()

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            with one_at_a_time:
                if message.metadata.message_type == action and not sites and chosen(run, site, message):
                    sites.append(site)
                    hung.append(member_of(run, site))
            silent = message.metadata.message_type == action and site in sites
            return None if silent else deliver(message)

        return tamper

    return hung, make


def at_fault(run: Run) -> list[int]:
    """Members that lost score over their office as coordinator."""
    return [m.index for m in run.members if m.coordinator_faults]


def test_site_hung_in_upload_costs_nobody_the_office(tmp_path: Path) -> None:
    """A site that commits and never answers `upload` is left out in the first attempt; its coordinator is not punished."""
    hung, tamper = hangs("query.upload")
    run = federated_run(tmp_path, *WINDOWS, tamper=tamper)
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 0)
    assert run.lines[0]["excluded"] == {str(hung[0]): "missing"}
    assert at_fault(run) == []


def test_quorum_member_hung_in_open_is_replaced_in_time(tmp_path: Path) -> None:
    """A quorum member that never answers `open` leaves enough of the window for a second quorum without it."""

    def in_quorum(run: Run, site: int, message: Message) -> bool:
        return bool(int(str(message.content["config"]["bahefl-quorum"]), 16) >> member_of(run, site) & 1)

    hung, tamper = hangs("query.open", in_quorum)
    run = federated_run(tmp_path, *WINDOWS, tamper=tamper)
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 0)
    assert not run.rounds[1].open_quorum >> hung[0] & 1
    assert at_fault(run) == []


def test_hung_coordinator_is_the_only_one_punished(tmp_path: Path) -> None:
    """A coordinator that never answers is replaced at its deadline; its successor finishes the round from the same updates."""
    hung, tamper = hangs("query.aggregate")
    run = federated_run(tmp_path, *WINDOWS, tamper=tamper)
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 1)
    assert run.rounds[1].included == 0b1111
    assert at_fault(run) == hung


def test_hung_trainer_is_left_out_when_commits_close(tmp_path: Path) -> None:
    """A site that never answers `train` is waited for until the commit deadline; the others finish the round."""
    hung, tamper = hangs("train", lambda run, site, _: run.ledger.view().round.coordinator != member_of(run, site))
    run = federated_run(tmp_path, *WINDOWS, "ledger.commit_window_s=20", tamper=tamper)
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 0)
    assert run.rounds[1].included == 0b1111 & ~(1 << hung[0])
    assert at_fault(run) == []


def test_site_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    """Away for two questions in a row, it is asked once more when it is connected again, and the round has its update."""
    refused: list[str] = []

    def tamper(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if site != 1 or message.metadata.message_type != "train" or len(refused) == 2:
                return deliver(message)
            refused.append(message.metadata.message_type)
            assert run.grid
            if len(refused) == 2:
                run.grid.away.add(1001)
                Timer(1, run.grid.away.clear).start()
            return unreached(message)

        return tamper

    run = federated_run(tmp_path, *WINDOWS, tamper=tamper)
    assert len(refused) == 2 and run.rounds[1].committed == run.rounds[1].included == 0b1111


def test_only_selected_sites_take_part(tmp_path: Path) -> None:
    """With fraction_train below 1 the ledger names the round's sites, and they alone commit."""
    run = federated_run(tmp_path, "federation.rounds=1", strategy_options={"fraction_train": 0.75, "min_train_nodes": 1})
    r = run.rounds[1]
    assert (r.phase, r.selected.bit_count(), r.committed) == (RoundPhase.FINALIZED, 3, r.selected)
    assert run.strategy and run.strategy.test_metrics


def greets(changes: Callable[[int], Mapping[str, str | int]]) -> Callable[[Run], Tamper]:
    """Sites lie in their greeting: `changes` by partition id."""

    def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
        reply = deliver(message)
        if message.metadata.message_type != "query.hello":
            return reply
        status = ConfigRecord({**reply.content["status"], **changes(site)})  # type: ignore[dict-item]
        return Message(RecordDict({**reply.content, "status": status}), reply_to=message)

    return lambda _: tamper


def test_lying_greeting_drops_its_site_only(tmp_path: Path) -> None:
    """A site with impossible examples is left out, and nobody gets another member's index by claiming it."""
    liar = greets(lambda site: {"num-examples": 0} if site == 3 else {"member": 0})
    run = federated_run(
        tmp_path, "federation.rounds=1", "he.committee=3", tamper=liar, strategy_options={"min_available_nodes": 3}
    )
    assert run.rounds[1].included == 0b111
    assert {m.address for m in run.members} == {run.address(site) for site in range(3)}


def test_two_nodes_with_one_address_are_both_refused(tmp_path: Path) -> None:
    """Which of two nodes holds an account's key cannot be told, so neither takes part, and the message names both."""
    twins = greets(lambda site: {"address": "0x" + "ab" * 20} if site in {1, 2} else {})
    with pytest.raises(RunFailed, match=r"2 of 4 sites registered.*nodes \[1001, 1002\] all say"):
        federated_run(tmp_path, tamper=twins)


def test_more_nodes_than_sites_are_refused(tmp_path: Path) -> None:
    """Nodes beyond federation.sites would break the noise budget in some later round, so the run does not start."""
    with pytest.raises(RunFailed, match=r"5 nodes are connected, but federation\.sites=4"):
        federated_run(tmp_path, nodes=5)


def test_run_whose_model_nobody_opens_fails(tmp_path: Path) -> None:
    """If no site can evaluate the final model the run says so, with the sites' reasons, instead of reporting success."""

    def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
        broken = message.metadata.message_type == "evaluate"
        return Message(Error(2, "disk full"), reply_to=message) if broken else deliver(message)

    with pytest.raises(RunFailed, match=r"no site could open.*site 0: Flower error 2: disk full"):
        federated_run(tmp_path, "federation.rounds=1", tamper=lambda _: tamper)


def test_step_that_is_always_refused_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that refuses the same step again and again ends the run with what it answered."""

    def refuse(number: int) -> None:
        raise TransactionReverted("NotYet(5, 4)", reason="NotYet")

    monkeypatch.setattr(driver_module.time, "sleep", lambda _: None)
    steps = ("expire_epoch", "close_commits", "draw_seed", "close_ballots", "replace_coordinator", "finalize")
    ledger = SimpleNamespace(view=lambda: SimpleNamespace(round=SimpleNamespace(number=1)), **dict.fromkeys(steps, refuse))
    driver = Driver(
        ledger, None, {}, client_config=lambda *_: {}, on_replies=lambda *_: None, on_round_end=lambda _: None,  # type: ignore[arg-type]
        screened=True,
    )  # fmt: skip
    for _ in range(MAX_REFUSALS_IN_A_ROW - 1):
        driver._advance(Advance(step=Step.FINALIZE, number=1))
    with pytest.raises(RunFailed, match=r"refused finalize 1 20 times in a row: NotYet\(5, 4\)"):
        driver._advance(Advance(step=Step.FINALIZE, number=1))


def test_contract_with_other_members_is_refused(tmp_path: Path) -> None:
    """A contract on which sites of another run are active is refused before a task starts, with what to do about it."""

    def crowd(run: Run) -> Tamper:
        joined: list[Identity] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if site == 0 and not joined:
                joined.append(Identity.create_or_load(tmp_path / "stranger"))
                run.ledger.whitelist([joined[0].address], [1])
                connection = Connection(run.ledger._connection.url, run.ledger.chain_id, account=joined[0].account)
                FederationLedger.attach(connection, run.ledger.address).register(joined[0].sealing_public, joined[0].onion.tip)
            return deliver(message)

        return tamper

    with pytest.raises(RunFailed, match=r"has 4 active members, federation\.sites is 3"):
        federated_run(tmp_path, "federation.sites=3", tamper=crowd)
