"""Runs in which a key holder lies about its decryption share: it is named, another quorum opens, and no round is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.share_format import DecryptionShare
from bahefl_flwr.records import LedgerView, RoundPhase, mask_of, members_in
from bahefl_flwr.site import checked_opening, verification
from bahefl_flwr.site.model import MODEL_FILE, Model, load_model
from bahefl_flwr.site.state import Outcome, Site
from bahefl_flwr.store import part_cid
from federation_run import Run, federated_run
from in_process_grid import Deliver, Tamper

pytestmark = pytest.mark.federation

FIVE = ("federation.sites=5", "ledger.commit_window_s=30", "ledger.verify_window_s=20", "ledger.open_grace_s=3")
CULPRIT = 1

Lie = Callable[[DecryptionShare], DecryptionShare]


def shifted(share: DecryptionShare) -> DecryptionShare:
    """A chosen amount on every coefficient: without proofs it would move the model by as much."""
    residues = share.residues.copy()
    residues[:, 0] = (residues[:, 0] + np.uint32(12345)) % np.uint32(2**29)
    return DecryptionShare(residues=residues, tags=share.tags)


def zeros(share: DecryptionShare) -> DecryptionShare:
    """Garbage, with garbage for proof."""
    return DecryptionShare(residues=np.zeros_like(share.residues), tags=np.zeros_like(share.tags))


def lying(monkeypatch: pytest.MonkeyPatch, lie: Lie, *culprits: int) -> None:
    """The sites at these positions of the first committee release something else than their keys give."""
    honest = verification.partial_decrypt

    def partial_decrypt(c1: np.ndarray, share: KeyShare, quorum: tuple[int, ...]) -> DecryptionShare:
        released = honest(c1, share, quorum)
        return lie(released) if share.params.committee == 5 and share.position in culprits else released

    monkeypatch.setattr(verification, "partial_decrypt", partial_decrypt)


def final_model(run: Run) -> Model:
    """The one model that all sites ended with."""
    models = [load_model(run.site_folder(s) / MODEL_FILE) for s in range(run.settings.federation.sites)]
    assert len({model.digest() for model in models}) == 1
    return models[0]


@pytest.mark.parametrize("lie", [shifted, pytest.param(zeros, marks=pytest.mark.slow)])
def test_wrong_share_costs_its_sender_its_seat_and_no_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: Lie) -> None:
    """The quorum is struck, another one opens the same aggregate, and the next keys are made without the liar."""
    honest = federated_run(tmp_path / "honest", *FIVE)
    lying(monkeypatch, lie, CULPRIT)
    run = federated_run(tmp_path / "lying", *FIVE)
    assert [r.phase for n, r in run.rounds.items() if n <= 2] == [RoundPhase.FINALIZED] * 2
    disputed = [r for r in run.rounds.values() if r.disputed]
    assert disputed and all(r.disputed == 1 << CULPRIT and not r.open_quorum >> CULPRIT & 1 for r in disputed)
    assert run.view and run.view.task.excluded == 1 << CULPRIT
    assert not run.epochs[max(run.epochs)].committee >> CULPRIT & 1
    # Rounding and encryption noise differ from run to run: 6e-5 a round, one standard deviation.
    assert np.allclose(final_model(run).vector(), final_model(honest).vector(), atol=6e-4)


def test_two_liars_of_five_do_not_stop_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With t - 1 key holders lying, the quorum of the honest ones is found."""
    lying(monkeypatch, zeros, 0, 1)
    run = federated_run(tmp_path, *FIVE, "federation.rounds=1")
    assert (run.rounds[1].phase, run.rounds[1].open_quorum) == (RoundPhase.FINALIZED, 0b11100)


def test_share_that_nobody_can_read_is_not_waited_for(tmp_path: Path) -> None:
    """A key holder that names a share on the ledger and never stores it is left out of the next quorum."""

    def swallow(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.confirm":
                for share in run.ledger.shares(1):
                    if share.member == CULPRIT and run.store.has(share.digest):
                        run.stored(part_cid(run.store.manifest(share.digest).parts[0].digest)).unlink(missing_ok=True)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, *FIVE, "federation.rounds=1", tamper=swallow)
    assert (run.rounds[1].phase, run.rounds[1].disputed) == (RoundPhase.FINALIZED, 1 << CULPRIT)


def test_false_accusation_loses_no_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key holder that accuses an honest one strikes one quorum; the next opens, and nobody is excluded."""
    accused: list[int] = []

    def slander(site: Site, *arguments: object) -> None:
        view = site.ledger.view()
        if site.me().index == CULPRIT and not accused:
            accused.append(next(m for m in range(5) if view.round.open_quorum >> m & 1 and m != CULPRIT))
            checked_opening._accuse(site, view, accused[0], "slander", Outcome())

    honest = checked_opening._own_share

    def own_share(site: Site, *arguments: object) -> object:
        slander(site)
        return honest(site, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checked_opening, "_own_share", own_share)
    run = federated_run(tmp_path, *FIVE, "federation.rounds=1")
    assert accused
    assert (run.rounds[1].phase, run.rounds[1].disputed) == (RoundPhase.FINALIZED, 1 << accused[0])
    assert run.view and run.view.task.excluded == 0


def test_who_accuses_everybody_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key holder that strikes quorum after quorum ends one round; those it slandered accuse it, and it opens nothing more."""
    honest = checked_opening._own_share

    def slander(site: Site, view: LedgerView, outcome: Outcome) -> KeyShare | None:
        if site.me().index == CULPRIT:
            for other in (0, 2):
                checked_opening._accuse(site, view, other, "slander", Outcome())
        return honest(site, view, outcome)

    monkeypatch.setattr(checked_opening, "_own_share", slander)
    run = federated_run(tmp_path, "federation.sites=3", "federation.rounds=1", "ledger.verify_window_s=20")
    assert [r.phase for r in run.rounds.values()] == [RoundPhase.ABORTED, RoundPhase.FINALIZED]
    assert run.view and run.view.task.excluded == 1 << CULPRIT


@pytest.mark.slow
def test_slander_is_answered_where_others_could_hold_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with more sites than seats the keys outlive the first round that strikes ended, so that the slanderer is excluded."""
    honest, slanderers = checked_opening._own_share, []

    def slander(site: Site, view: LedgerView, outcome: Outcome) -> KeyShare | None:
        seats = members_in(view.epoch.committee)
        if not slanderers and site.me().index in seats:
            slanderers.append(site.me().index)
        if site.me().index in slanderers:
            for other in set(seats) - set(slanderers):
                checked_opening._accuse(site, view, other, "slander", Outcome())
        return honest(site, view, outcome)

    monkeypatch.setattr(checked_opening, "_own_share", slander)
    run = federated_run(tmp_path, "federation.sites=6", "he.committee=3", "federation.rounds=1", "ledger.verify_window_s=20")
    assert [r.phase for r in run.rounds.values()] == [RoundPhase.ABORTED, RoundPhase.FINALIZED]
    assert run.view and run.view.task.excluded == 1 << slanderers[0]


def test_quorum_that_has_not_released_convicts_nobody(tmp_path: Path) -> None:
    """A driver that asks to confirm a quorum of which one member has released, another is disputed, gets no accusation of it."""
    released: dict[str, int] = {}

    def crooked(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            config, kind = message.content["config"], message.metadata.message_type
            quorum = int(str(config["bahefl-quorum"]), 16)
            members = {m.address: m.index for m in run.ledger.members()}
            if kind == "query.open" and quorum and not released:
                victim = members[run.address(site)]
                outside = next(m for m in range(5) if not quorum >> m & 1)
                if quorum >> victim & 1:
                    other = next(m for m in members_in(quorum) if m != victim)
                    released.update(victim=victim, disputed=other, quorum=mask_of((victim, other, outside)))
                    config["bahefl-quorum"] = f"{released['quorum']:x}"
                    deliver(message)
                    config["bahefl-quorum"] = f"{quorum:x}"
            if kind == "query.confirm" and run.ledger.view().round.disputed:
                config["bahefl-quorum"] = f"{released['quorum']:x}"
            return deliver(message)

        return tamper

    with pytest.MonkeyPatch.context() as patch:
        honest, struck = checked_opening._own_share, []

        def slander(site: Site, view: LedgerView, outcome: Outcome) -> KeyShare | None:
            if not struck and not view.round.open_quorum >> site.me().index & 1 and released:
                struck.append(site.me().index)
                checked_opening._accuse(site, view, released["disputed"], "slander", Outcome())
            return honest(site, view, outcome)

        patch.setattr(checked_opening, "_own_share", slander)
        run = federated_run(tmp_path, *FIVE, "federation.rounds=1", "ledger.verify_window_s=12", tamper=crooked)
    assert released and struck
    assert run.view and not run.view.task.excluded
    assert not run.epochs[1].accused >> released["victim"] & 1


def test_lost_key_share_costs_no_round(tmp_path: Path) -> None:
    """A key holder whose share is gone from its disk still verifies; t others open, and the next epoch includes it again."""

    def lose(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            share = run.site_folder(2) / "epochs" / "00001" / "share.key"
            if message.metadata.message_type == "query.aggregate":
                share.unlink(missing_ok=True)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, *FIVE, "he.epoch_rounds=1", tamper=lose)
    assert [run.rounds[n].phase for n in (1, 2)] == [RoundPhase.FINALIZED] * 2
    assert (run.rounds[2].epoch, run.epochs[2].committee) == (2, 0b11111)


@pytest.mark.slow
def test_too_few_key_holders_abandon_the_round_and_keep_the_model(tmp_path: Path) -> None:
    """With fewer than t shares left the round waits to its deadline and is abandoned with the reason; the last model stays."""

    def lose(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.aggregate" and message.content["config"]["bahefl-number"] == 2:
                for lost in (0, 1):
                    (run.site_folder(lost) / "epochs" / "00001" / "share.key").unlink(missing_ok=True)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, "screening=off", "ledger.verify_window_s=8", tamper=lose)
    assert [run.rounds[n].phase for n in (1, 2, 3, 4)] == [RoundPhase.FINALIZED, *[RoundPhase.ABORTED] * 3]
    assert "released decryption shares" in run.rounds[2].abort_reason
    assert run.view and "in a row were abandoned" in run.view.task.end_reason
    assert [line["begun"] for line in run.lines] == [True, True, True, True, False], "the fifth only records the end"
    assert final_model(run).round == 1
