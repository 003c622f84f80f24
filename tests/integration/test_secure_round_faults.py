"""Runs in which somebody fails or cheats: the culprit is left out and named, and the round still ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from bahefl_flwr.errors import RunFailed
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import ExclusionReason, RoundPhase
from bahefl_flwr.site import coordination
from bahefl_flwr.site.screening import Verdict
from bahefl_flwr.store import part_cid
from federation_run import Run, federated_run, flip_one_byte
from in_process_grid import Deliver, Tamper

QUICK = ("federation.rounds=1", "ledger.commit_window_s=20", "ledger.aggregate_window_s=12", "ledger.verify_window_s=8",
         "ledger.open_grace_s=2")  # fmt: skip


def once(action: str, act: Callable[[Run, int, Message], None]) -> Callable[[Run], Tamper]:
    """A tamper that calls `act` before the first delivery of `action` to any site."""

    def make(run: Run) -> Tamper:
        seen: list[int] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == action and not seen:
                seen.append(site)
                act(run, site, message)
            return deliver(message)

        return tamper

    return make


def test_site_that_raises_in_fit_is_left_out(tmp_path: Path) -> None:
    """A NumPyClient that raises makes its site decline on the ledger at once; the others finish the round without waiting."""

    def misbehave(site: int, number: int) -> None:
        if (site, number) == (2, 1):
            raise ValueError("no GPU today")

    run = federated_run(tmp_path, misbehave=misbehave)
    declined = run.lines[0]["declined"]
    assert len(declined) == 1
    assert run.lines[0]["included"] == [m for m in range(4) if m not in declined]
    assert run.rounds[2].included == 0b1111


def test_a_site_that_lost_its_journal_makes_no_second_ciphertext(tmp_path: Path) -> None:
    """Asked again to train, it sees on the ledger that it has committed, and refuses; the round takes up what it committed."""
    again: list[Message | None] = []

    def lose(site: int, message: Message, deliver: Deliver) -> Message | None:
        reply = deliver(message)
        if message.metadata.message_type == "train" and site == 1 and not again:
            (journal,) = tmp_path.rglob("sites/001/journal")
            journal.unlink()
            again.append(deliver(message))
        return reply

    run = federated_run(tmp_path, *QUICK, tamper=lambda _: lose)
    (refusal,) = again
    assert refusal and "its journal is gone" in str(refusal.content)
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.rounds[1].included == 0b1111


def test_coordinator_that_raises_resigns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator whose aggregation raises resigns; another site aggregates in the same round, without a deadline passing."""
    failures = []

    class FailsOnce(coordination.TenSealAdder):
        def __call__(self, *args: object) -> object:
            if not failures:
                failures.append(1)
                raise MemoryError("out of memory")
            return super().__call__(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(coordination, "TenSealAdder", FailsOnce)
    run = federated_run(tmp_path, "federation.rounds=1")
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 1)
    assert run.rounds[1].failed.bit_count() == 1


def test_silent_coordinator_is_replaced_at_its_deadline(tmp_path: Path) -> None:
    """A coordinator that never answers is replaced after its deadline; the same updates are aggregated by its successor."""

    def dead_first_coordinator(run: Run) -> Tamper:
        dead: list[int] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.aggregate":
                dead.append(site)
                if site == dead[0]:
                    return Message(Error(8, "ClientApp stopped responding"), reply_to=message)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, *QUICK, tamper=dead_first_coordinator)
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 1)
    assert run.rounds[1].included == 0b1111


def test_relayed_message_of_another_round_is_refused(tmp_path: Path) -> None:
    """A message that names another round is answered by WrongRound and changes nothing."""
    answers: list[str] = []

    def replayed(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.upload":
                config = message.content["config"]
                config["bahefl-number"] = int(config["bahefl-number"]) + 1
                answers.append(str(deliver(message).content["status"]["error"]))
                config["bahefl-number"] = int(config["bahefl-number"]) - 1
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, "federation.rounds=1", tamper=replayed)
    assert answers == ["WrongRound"] * 4
    assert run.rounds[1].included == 0b1111


def first_part(run: Run, digest: bytes) -> Path:
    """File of the first part of a stored object."""
    site_store = run.store
    return run.stored(part_cid(site_store.manifest(digest).parts[0].digest))


def spoilt_by_its_owner(member: int, spoil: Callable[[Run], None]) -> Callable[[Run], Tamper]:
    """A tamper that spoils a stored update before it is screened, and whose owner never puts anything again."""

    def make(run: Run) -> Tamper:
        spoilt: list[int] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.screen" and not spoilt:
                spoilt.append(site)
                spoil(run)
            owner = run.ledger.members()[member].address if spoilt else ""
            if message.metadata.message_type == "query.upload" and run.address(site) == owner:
                return Message(Error(8, "does not answer"), reply_to=message)
            return deliver(message)

        return tamper

    return make


def test_altered_update_is_left_out_and_named(tmp_path: Path) -> None:
    """One exchanged byte in a stored update, and an owner that does not mend it: left out, with the reason on the ledger."""

    def alter(run: Run) -> None:
        flip_one_byte(first_part(run, run.ledger.updates(1)[3].digest))

    run = federated_run(tmp_path, "federation.rounds=1", tamper=spoilt_by_its_owner(3, alter))
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.lines[0]["excluded"] == {"3": "corrupt"}


def test_update_altered_before_it_is_screened_is_put_again(tmp_path: Path) -> None:
    """The key holders say so, its owner mends it, and it counts."""

    def alter(run: Run, site: int, message: Message) -> None:
        flip_one_byte(first_part(run, run.ledger.updates(1)[3].digest))

    run = federated_run(tmp_path, "federation.rounds=1", tamper=once("query.screen", alter))
    assert (run.rounds[1].phase, run.rounds[1].included) == (RoundPhase.FINALIZED, 0b1111)


def test_other_bytes_than_committed_are_left_out(tmp_path: Path) -> None:
    """A site that puts another update's bytes under its committed digest is left out and named."""

    def swap(run: Run) -> None:
        mine, other = (first_part(run, run.ledger.updates(1)[i].digest) for i in (1, 2))
        mine.chmod(0o600)
        mine.write_bytes(other.read_bytes())

    run = federated_run(tmp_path, "federation.rounds=1", tamper=spoilt_by_its_owner(1, swap))
    assert run.lines[0]["excluded"] == {"1": "corrupt"}


def test_update_altered_after_aggregation_is_put_again(tmp_path: Path) -> None:
    """A verifier that finds an update altered does not vote; the owner puts it again and the round is verified in full."""

    def alter(run: Run, site: int, message: Message) -> None:
        flip_one_byte(first_part(run, run.ledger.updates(1)[0].digest))

    run = federated_run(tmp_path, "federation.rounds=1", tamper=once("query.open", alter))
    assert (run.rounds[1].phase, run.rounds[1].voted_ok) == (RoundPhase.FINALIZED, 0b1111)


@pytest.mark.parametrize("which", ["aggregate", "share"])
def test_object_altered_before_opening_is_put_again(tmp_path: Path, which: str) -> None:
    """One exchanged byte in the aggregate or in a decryption share: sites refuse it, its owner puts it again, the model opens."""

    def alter(run: Run, site: int, message: Message) -> None:
        r = run.ledger.round(1)
        if message.content["config"]["bahefl-number"] == 2:
            shares = [s for s in run.ledger.shares(1) if s.quorum == r.open_quorum]
            flip_one_byte(first_part(run, r.aggregate if which == "aggregate" else shares[0].digest))

    def second_round(run: Run) -> Tamper:
        done: list[int] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "train" and message.content["config"]["bahefl-number"] == 2 and not done:
                done.append(1)
                alter(run, site, message)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, tamper=second_round)
    assert [run.rounds[n].phase for n in (1, 2)] == [RoundPhase.FINALIZED] * 2
    assert run.rounds[2].included == 0b1111


def test_wrong_aggregate_is_voted_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that adds something to the sum is out-voted and replaced; its successor's aggregate is opened."""
    cheated = []

    class AddsSomething(coordination.TenSealAdder):
        def __call__(self, *args: object) -> object:
            total = super().__call__(*args)  # type: ignore[arg-type]
            if not cheated:
                cheated.append(1)
                total[0, 0, 0, 0] ^= 1
            return total

    monkeypatch.setattr(coordination, "TenSealAdder", AddsSomething)
    run = federated_run(tmp_path, "federation.rounds=1")
    assert (run.rounds[1].phase, run.rounds[1].attempt) == (RoundPhase.FINALIZED, 1)


def test_quorum_member_that_stays_silent_is_replaced(tmp_path: Path) -> None:
    """A committee member that never answers any more is left out of the next quorum; the round is finalised with t others."""
    silent: list[int] = []

    def drop(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type in ("query.open", "query.confirm"):
                if not silent:
                    silent.append(site)
                if site == silent[0]:
                    return Message(Error(8, "ClientApp stopped responding"), reply_to=message)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, *QUICK, tamper=drop)
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.rounds[1].voted_ok.bit_count() == 3


def test_too_few_updates_abandon_the_round_with_a_reason(tmp_path: Path) -> None:
    """If nearly all sites fail, rounds are abandoned on the ledger with the reason, and the run ends with RunFailed."""

    def misbehave(site: int, number: int) -> None:
        if site:
            raise ValueError("broken")

    with pytest.raises(RunFailed, match="abandoned"):
        federated_run(tmp_path, *QUICK, misbehave=misbehave)


def test_sound_update_that_is_left_out_costs_the_coordinator_its_office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that calls a sound update missing is out-voted; its successor includes everybody."""
    honest, cheated = coordination.judge, []

    def blind_to_one(*args: Any) -> Verdict:
        verdict = honest(*args)
        if cheated:
            return verdict
        cheated.append(max(verdict.weights))
        weights = {m: weight for m, weight in verdict.weights.items() if m not in cheated}
        return replace(verdict, weights=weights, reasons={cheated[0]: ExclusionReason.MISSING})

    monkeypatch.setattr(coordination, "judge", blind_to_one)
    run = federated_run(tmp_path, "federation.rounds=1")
    assert (run.rounds[1].phase, run.rounds[1].attempt, run.rounds[1].included) == (RoundPhase.FINALIZED, 1, 0b1111)


@pytest.mark.parametrize("other", [{"threshold": 1}, {"screened": False}])
def test_sites_refuse_keys_of_another_task_than_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, object]
) -> None:  # fmt: skip
    """A driver that starts the task with a lower threshold than the sites' settings, or unscreened, gets no keys, no updates."""
    honest = FederationLedger.start_task

    def lowered(self: FederationLedger, **task: object) -> object:
        return honest(self, **{**task, **other})  # type: ignore[arg-type]

    monkeypatch.setattr(FederationLedger, "start_task", lowered)
    with pytest.raises(RunFailed):
        federated_run(tmp_path, *QUICK, "ledger.ceremony_window_s=4")
    assert not [p for p in tmp_path.rglob("*.key") if p.name == "share.key"]


def test_figure_that_is_no_number_costs_no_round(tmp_path: Path) -> None:
    """A NaN among a site's metrics is left out; the site's update counts."""
    run = federated_run(tmp_path, "federation.rounds=1", misbehave=lambda *_: {"odd": float("nan"), "note": "text"})
    assert run.rounds[1].included == 0b1111
    assert "odd" not in run.lines[0]["train"]


def test_altered_key_parts_are_put_again(tmp_path: Path) -> None:
    """One exchanged byte in a member's public key parts: sites refuse to encrypt until the owner has put them again."""

    def alter(run: Run, site: int, message: Message) -> None:
        flip_one_byte(first_part(run, run.ledger.ceremony(1)[0].key_parts))

    run = federated_run(tmp_path, "federation.rounds=1", tamper=once("train", alter))
    assert (run.rounds[1].phase, run.rounds[1].included) == (RoundPhase.FINALIZED, 0b1111)
