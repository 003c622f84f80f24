"""Key epochs in whole runs: when new keys are made, who is left out of them, and what becomes of the old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from flwr.app import Message

from bahefl_flwr import console
from bahefl_flwr.records import EpochPhase, LedgerView, ObjectKind, RoundPhase
from bahefl_flwr.site import ceremony, dispute
from bahefl_flwr.site.state import Site
from bahefl_flwr.site.transcript import seats
from bahefl_flwr.store import part_cid
from federation_run import Run, federated_run
from in_process_grid import Deliver, Tamper

pytestmark = pytest.mark.federation

THREE = ("federation.sites=3", "federation.rounds=1", "ledger.ceremony_window_s=20")
CULPRIT = 1

Cheat = Callable[[Site, LedgerView, list[bytes]], list[bytes]]


def cheating(monkeypatch: pytest.MonkeyPatch, kind: ObjectKind, cheat: Cheat) -> None:
    """In the first epoch the site of index CULPRIT keeps something else than it should."""
    honest = ceremony._keep

    def keep(site: Site, view: LedgerView, parts: Iterable[bytes], made: ObjectKind, name: str) -> bytes:
        if made is kind and view.epoch.epoch == 1 and site.me().index == CULPRIT:
            parts = cheat(site, view, list(parts))
        return honest(site, view, parts, made, name)

    monkeypatch.setattr(ceremony, "_keep", keep)


def one_bit_more(part: bytes, at: int) -> bytes:
    return part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]


def assert_culprit_is_excluded(run: Run) -> None:
    assert run.view and run.view.task.excluded == 1 << CULPRIT
    assert (run.epochs[1].phase, run.epochs[2].committee) == (EpochPhase.FAILED, 0b101)
    assert run.rounds[1].phase is RoundPhase.FINALIZED


def test_key_parts_of_other_seeds_exclude_their_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two holders that contradict each other the liar is named by evidence, even where it is one word against another's."""
    cheating(monkeypatch, ObjectKind.PUBLIC_KEY_PARTS, lambda _site, _view, parts: [one_bit_more(parts[0], 1000), *parts[1:]])
    assert_culprit_is_excluded(federated_run(tmp_path, *THREE))


def test_seeds_that_only_one_holder_cannot_open_exclude_their_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that cheats a single other one is named: the cheated one proves it with its key of the epoch."""
    cheating(monkeypatch, ObjectKind.SEEDS, lambda _site, _view, parts: [one_bit_more(parts[0], -1), *parts[1:]])
    assert_culprit_is_excluded(federated_run(tmp_path, *THREE))


def test_unusable_sealing_key_excludes_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that names a key of low order, to which nobody can seal, is accused by all, instead of silencing all."""
    cheating(monkeypatch, ObjectKind.SEED_COMMITMENT, lambda _site, _view, parts: [parts[0][:32] + bytes(32)])
    assert_culprit_is_excluded(federated_run(tmp_path, *THREE))


def test_withheld_seed_part_excludes_its_sender(tmp_path: Path) -> None:
    """A member that keeps back the sealed part of a single other one is accused by all: everybody looks for every part."""

    def withhold(run: Run) -> Tamper:
        withheld: list[Path] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.publish_key_parts" and not withheld:
                sealed = run.store.manifest(run.ledger.ceremony(1)[CULPRIT].sealed_seeds)
                withheld.append(run.stored(part_cid(sealed.parts[0].digest)))
                withheld[0].unlink()
            return deliver(message)

        return tamper

    assert_culprit_is_excluded(federated_run(tmp_path, *THREE, tamper=withhold))


def test_false_evidence_excludes_its_author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who accuses a member that did nothing wrong is found out by everybody, and excluded itself."""

    def slander(site: Site, view: LedgerView, parts: list[bytes]) -> list[bytes]:
        dispute.accuse_with_evidence(site, view, seats(site, view)[0], "slander")
        return parts

    cheating(monkeypatch, ObjectKind.PUBLIC_KEY_PARTS, slander)
    assert_culprit_is_excluded(federated_run(tmp_path, *THREE))


def test_keys_are_renewed_on_schedule_and_old_ones_deleted(tmp_path: Path) -> None:
    """With he.epoch_rounds=1 every round has its own key, and a site keeps nothing of the epochs before."""
    run = federated_run(tmp_path, "federation.rounds=3", "he.epoch_rounds=1")
    assert [run.rounds[n].epoch for n in (1, 2, 3)] == [1, 2, 3]
    assert len({run.epochs[n].key_digest for n in (1, 2, 3)}) == 3
    assert [p.name for p in sorted((run.site_folder(0) / "epochs").iterdir())] == ["00003"]


def test_keys_are_renewed_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bahefl keys renew` takes effect at the round's end: the round in hand keeps its key. `bahefl keys show` lists both."""

    def ask(run: Run) -> Tamper:
        done: list[int] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.aggregate" and not done:
                done.append(1)
                assert console.main(["keys", "renew", str(run.folder)]) == 0
                assert console.main(["keys", "show", str(run.folder)]) == 0
            if message.metadata.message_type == "query.upload" and message.content["config"]["bahefl-number"] == 2:
                assert console.main(["keys", "show", str(run.folder)]) == 0
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, tamper=ask)
    assert [run.rounds[n].epoch for n in (1, 2)] == [1, 2]
    assert [run.rounds[n].phase for n in (1, 2)] == [RoundPhase.FINALIZED] * 2
    shown = capsys.readouterr().out
    assert "epoch 1 is the last with these keys" in shown
    assert shown.count("; new keys follow the open round") == 1
    assert f"  site 0  {next(m.address for m in run.members if m.index == 0)}" in shown
    assert run.epochs[2].key_digest.hex()[:16] in shown


def test_suspended_key_holder_gets_no_new_key(tmp_path: Path) -> None:
    """A member that the registrar suspends is out of the next round's committee: its old share opens nothing new."""

    def suspend(run: Run) -> Tamper:
        done: list[int] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "query.upload" and not done:
                done.append(1)
                run.ledger.suspend(run.address(3), "test")
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, tamper=suspend)
    assert run.rounds[2].epoch == 2
    members = {m.address: m.index for m in run.members}
    assert not run.epochs[2].committee >> members[run.address(3)] & 1


def test_silent_member_is_back_in_the_next_epoch(tmp_path: Path) -> None:
    """A member that misses a ceremony's deadline is left out of that epoch's committee, and of no later one's."""

    def drop(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            config = message.content["config"]
            if message.metadata.message_type == "query.commit_seeds" and site == 2 and config["bahefl-number"] == 1:
                return None
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, "ledger.ceremony_window_s=6", "he.epoch_rounds=1", tamper=drop)
    members = {m.address: m.index for m in run.members}
    bit = 1 << members[run.address(2)]
    used = [run.epochs[run.rounds[n].epoch] for n in (1, 2)]
    assert [bool(e.committee & bit) for e in used] == [False, True]
