"""Whole secure runs with poisoned updates: who is left out, why, and that the model learns on. Every claim on the real parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from numpy.typing import NDArray

from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sketch import SketchShare, open_sketches
from bahefl_flwr.records import ExclusionReason, RoundOutcome, RoundPhase
from bahefl_flwr.screening.record import decode_record
from bahefl_flwr.site import coordination, sketches, training
from bahefl_flwr.site.model import MODEL_FILE, load_model
from federation_run import Arrays, Run, common_update, distance, federated_run, known_update
from hostile_updates import LATER_MARK, MARK, poisoned, spoil_marked
from in_process_grid import Deliver, Tamper

SIX = ("federation.sites=6", "federation.min_sites=3", "federation.rounds=1")
BADLY = 2


def members(run: Run, *sites: int) -> set[int]:
    """Member indices of sites."""
    index = {member.address: member.index for member in run.members}
    return {index[run.address(site)] for site in sites}


def reasons(run: Run, number: int) -> dict[int, ExclusionReason]:
    """Who was left out of a round, and why, as the ledger has it."""
    r = run.rounds[number]
    left_out = [m for m in range(16) if (r.committed & ~r.included) >> m & 1]
    return dict(zip(left_out, map(ExclusionReason, r.reasons), strict=True))


def improved(run: Run) -> bool:
    """The final model is nearer to the goal of the honest sites than the initial one."""
    start = [np.full_like(a, 0.5) for a in common_update()]
    return distance(list(load_model(run.site_folder(0) / MODEL_FILE).arrays)) < 0.97 * distance(start)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four sites, two rounds, nobody misbehaves."""
    return federated_run(tmp_path_factory.mktemp("honest"))


def test_nobody_is_left_out_of_an_honest_run(honest: Run) -> None:
    """Every site is included in every round, and the record of the decision is the aggregate's last part."""
    assert all(honest.rounds[n].included == 0b1111 and not honest.rounds[n].split for n in (1, 2))
    manifest = honest.store.manifest(honest.rounds[2].aggregate)
    record = decode_record(honest.store.part(manifest.parts[-1], of=manifest))
    assert record.figures.members == (0, 1, 2, 3)
    assert record.history.rounds == 1


def test_the_figures_of_a_round_are_logged(honest: Run) -> None:
    """metrics.jsonl gets norms, cosines and weights of all sites, as the coordinator saw them."""
    shown = honest.lines[1]["screening"]
    assert set(shown["norms"]) == set(shown["cosines"]) == set(shown["weights"]) == {"0", "1", "2", "3"}
    assert all(0.8 < norm < 1.3 for norm in shown["norms"].values())
    assert honest.lines[1]["outcome"] == "whole"


def test_each_poisoned_update_is_left_out_with_its_reason(tmp_path: Path) -> None:
    """After an honest round, an update of no size, of too much, and against the history are excluded; the ledger says why."""
    changes = {1: lambda a: 1e-4 * a, 2: np.sign, 3: lambda a: -a}

    def update(site: int, number: int) -> Arrays:
        change = changes.get(site) if number == 2 else None
        return poisoned(change, site)(site, number) if change else known_update(site, number)

    run = federated_run(tmp_path, "federation.sites=7", "federation.min_sites=3", "he.update_range=2", update=update)
    wanted = {1: ExclusionReason.ZERO, 2: ExclusionReason.OVERSIZED, 3: ExclusionReason.UNDOING}
    assert reasons(run, 1) == {}
    assert reasons(run, 2) == {m: reason for site, reason in wanted.items() for m in members(run, site)}
    assert run.lines[1]["excluded"] == {str(m): reason.name.lower() for m, reason in reasons(run, 2).items()}
    assert improved(run)


def test_copies_are_all_left_out(tmp_path: Path) -> None:
    """Two of six sites send the same update: neither counts."""

    def update(site: int, number: int) -> Arrays:
        return known_update(0 if site == 1 else site, number)

    run = federated_run(tmp_path, *SIX, update=update)
    assert reasons(run, 1) == dict.fromkeys(members(run, 0, 1), ExclusionReason.DUPLICATE)


def test_half_of_the_sites_hostile_from_the_start_are_outvoted(tmp_path: Path) -> None:
    """Three of six flip the sign in the very first round: two sums are opened, the sites vote, and the honest half is taken."""
    run = federated_run(tmp_path, *SIX, update=poisoned(lambda a: -a, 0, 1, 2))
    r = run.rounds[1]
    assert r.phase is RoundPhase.FINALIZED
    winners = r.split if r.outcome is RoundOutcome.SECOND else r.included & ~r.split
    assert {m for m in range(6) if winners >> m & 1} == members(run, 3, 4, 5)
    assert set(run.lines[0]["excluded"].values()) == {"outvoted"}
    assert improved(run)


def test_a_conflict_has_no_half_below_min_sites(tmp_path: Path) -> None:
    """With min_sites 4, three of six against three are no conflict: the ledger would refuse such halves."""
    run = federated_run(tmp_path, *SIX, "federation.min_sites=4", update=poisoned(lambda a: -a, 0, 1, 2))
    r = run.rounds[1]
    assert (r.phase, r.split) == (RoundPhase.FINALIZED, 0)


def test_two_halves_that_vote_for_themselves_are_told_apart_by_the_anchor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hostile sites vote for their own half: the public anchor data, the same at every site, decide."""
    run = federated_run(tmp_path, *SIX, update=poisoned(lambda a: -a, 0, 1, 2), ballots_reversed=(0, 1, 2))
    r = run.rounds[1]
    winners = r.split if r.outcome is RoundOutcome.SECOND else r.included & ~r.split
    assert {m for m in range(6) if winners >> m & 1} == members(run, 3, 4, 5)


def test_a_contested_round_without_anchor_leaves_the_model(tmp_path: Path) -> None:
    """With policy `hold` the round is finalised, and the model stays as it was."""
    run = federated_run(
        tmp_path, *SIX, "screening.policy=hold", update=poisoned(lambda a: -a, 0, 1, 2), ballots_reversed=(0, 1, 2)
    )
    r = run.rounds[1]
    assert (r.phase, r.outcome, r.opened) == (RoundPhase.FINALIZED, RoundOutcome.NONE, r.base)


def withheld(until: str, member: int) -> Callable[[Run], Tamper]:
    """A tamper by which one member puts its update only just before the first `until` of the run is delivered."""

    def make(run: Run) -> Tamper:
        held: list[Callable[[], object]] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            kind = message.metadata.message_type
            if kind == "query.upload" and run.address(site) == run.ledger.members()[member].address:
                held.append(lambda: deliver(message))
                return Message(Error(8, "does not answer"), reply_to=message)
            if kind == until and held:
                held[0]()
                held.clear()
            return deliver(message)

        return tamper

    return make


@pytest.mark.parametrize("until", ["query.aggregate", "query.open"])
def test_who_withholds_its_upload_fools_no_judge(tmp_path: Path, until: str) -> None:
    """It is missing when the key holders answer, and there when the coordinator judges, or the others: all say missing."""
    run = federated_run(tmp_path, "federation.rounds=1", tamper=withheld(until, 2))
    r = run.rounds[1]
    assert (r.phase, r.attempt, r.failed, r.voted_bad) == (RoundPhase.FINALIZED, 0, 0, 0)
    assert reasons(run, 1) == {2: ExclusionReason.MISSING}


def test_a_wrong_opening_of_sketches_is_found_and_others_open_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key holder that alters one number is accused by another one, and the round is decided from another quorum."""
    liars: list[int] = []

    def lying(c1: NDArray[np.uint32], plan: Any, share: Any, quorum: Any) -> SketchShare:
        honest = open_sketches(c1, plan, share, quorum)
        if not liars:
            liars.append(share.position)
        if share.position != liars[0]:
            return honest
        values = honest.values.copy()
        values[0, 0, 0] ^= 1
        return SketchShare(values=values, tags=honest.tags)

    monkeypatch.setattr(sketches, "open_sketches", lying)
    run = federated_run(tmp_path, "federation.rounds=1", "federation.sites=5")
    assert (run.rounds[1].phase, run.rounds[1].included) == (RoundPhase.FINALIZED, 0b11111)
    assert run.epochs[1].accused == 1 << liars[0]


def test_a_spoiled_aggregate_is_audited_and_made_again_without_the_culprit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value far out of its site's range passes the sketch and spoils the sum: the site is named, and the round is finished.

    The same coordinator makes the sum again without it, and its later updates are not even screened.
    """
    spoil_marked(monkeypatch)

    def update(site: int, number: int) -> Arrays:
        arrays = known_update(site, number)
        if site == BADLY:
            arrays[-1] = np.asarray(MARK)
        return arrays

    run = federated_run(tmp_path, "federation.rounds=2", update=update)
    r = run.rounds[1]
    assert (r.phase, r.attempt) == (RoundPhase.FINALIZED, 1)
    assert run.view and r.disputed == run.view.task.excluded == run.view.epoch.accused == 0
    assert reasons(run, 1) == dict.fromkeys(members(run, BADLY), ExclusionReason.GARBAGE)
    assert r.failed == 0
    assert reasons(run, 2) == dict.fromkeys(members(run, BADLY), ExclusionReason.GARBAGE)
    assert improved(run)


def test_who_was_late_to_a_spoiled_sum_opens_it_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A majority calls the sum spoiled before one site has looked: that site looks then, and votes for what follows."""
    spoil_marked(monkeypatch)
    late = 1

    def update(site: int, number: int) -> Arrays:
        arrays = known_update(site, number)
        if site == BADLY:
            arrays[-1] = np.asarray(MARK)
        return arrays

    def tamper(run: Run) -> Tamper:
        def hold_back(site: int, message: Message, deliver: Deliver) -> Message | None:
            if site == late and message.metadata.message_type == "query.confirm":
                while (r := run.ledger.view().round).phase is RoundPhase.VERIFIED and not any(r.spoiled):
                    time.sleep(0.1)
            return deliver(message)

        return hold_back

    run = federated_run(tmp_path, "federation.sites=5", "federation.rounds=1", update=update, tamper=tamper)
    r = run.rounds[1]
    assert (r.phase, r.attempt, r.failed) == (RoundPhase.FINALIZED, 1, 0)
    (index,) = members(run, late)
    assert r.voted_ok >> index & r.confirmed >> index & 1


def test_who_hides_behind_another_spoiler_is_found_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first audit opens eight places, all of one site; the second sum shows the other one, and the third holds the honest."""
    spoil_marked(monkeypatch)
    marks = {BADLY: MARK, 0: LATER_MARK}

    def update(site: int, number: int) -> Arrays:
        arrays = known_update(site, number)
        if site in marks:
            arrays[-1] = np.asarray(marks[site])
        return arrays

    run = federated_run(tmp_path, "federation.sites=5", "federation.rounds=1", update=update)
    r = run.rounds[1]
    assert (r.phase, r.attempt) == (RoundPhase.FINALIZED, 2)
    assert reasons(run, 1) == dict.fromkeys(members(run, *marks), ExclusionReason.GARBAGE)
    assert run.view and r.disputed == run.view.task.excluded == run.view.epoch.accused == 0


def test_a_coordinator_that_favours_a_poisoned_update_is_voted_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It submits a sum with everybody in it; the others judge themselves, and its successor leaves the update out."""
    lied: list[int] = []
    judge = coordination.judge

    def partial_judge(site: Any, view: Any, r: Any, outcome: Any) -> Any:
        verdict = judge(site, view, r, outcome)
        if verdict.reasons and not lied:
            lied.append(site.me().index)
            everybody = sorted({*verdict.weights, *verdict.reasons})
            return type(verdict)(
                updates=verdict.updates,
                weights=dict.fromkeys(everybody, 8),
                reasons={},
                record=verdict.record,
                shown=verdict.shown,
            )
        return verdict

    monkeypatch.setattr(coordination, "judge", partial_judge)
    run = federated_run(tmp_path, "federation.rounds=2", update=poisoned(lambda a: -a, BADLY, start=2))
    r = run.rounds[2]
    assert (r.phase, r.attempt) == (RoundPhase.FINALIZED, 1)
    assert reasons(run, 2) == dict.fromkeys(members(run, BADLY), ExclusionReason.UNDOING)
    assert r.failed == 1 << lied[0]


def test_an_update_without_proof_is_left_out_as_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ciphertext that was shaped to give the key away has no valid proof, so no key holder sketches or opens it."""
    honest = training.encrypt_with_proof
    shaped: list[int] = []

    def encrypt(packed: NDArray[np.int64], key: Any, params: SecurityParams, context: bytes) -> Any:
        ciphertext, proof = honest(packed, key, params, context)
        if not shaped:
            shaped.append(1)
            for l, q in enumerate(params.data_primes):  # c1 + 2^49: the constant is the same in all slots
                ciphertext[0, 1, l] = ((ciphertext[0, 1, l].astype(np.int64) + (1 << 49)) % q).astype(np.uint32)
        return ciphertext, proof

    monkeypatch.setattr(training, "encrypt_with_proof", encrypt)
    run = federated_run(tmp_path, "federation.rounds=1")
    assert list(reasons(run, 1).values()) == [ExclusionReason.MALFORMED]
    assert run.rounds[1].included.bit_count() == 3


def test_without_screening_a_poisoned_update_is_added(tmp_path: Path) -> None:
    """`screening=off` opens no sketch, draws no seed, and adds whatever is well-formed."""
    run = federated_run(tmp_path, "screening=off", "federation.rounds=2", update=poisoned(lambda a: -a, BADLY, start=2))
    assert run.rounds[2].included == 0b1111
    assert run.rounds[2].screen_seed == bytes(32)
    assert run.lines[1]["screening"] == {}
