"""Key ceremonies inside a run in which a member cheats or stays silent: it is named, excluded, and the run goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message

from bahefl_flwr.he import ceremony as steps
from bahefl_flwr.records import EpochPhase, RoundPhase
from bahefl_flwr.site import ceremony
from federation_run import Run, federated_run
from in_process_grid import Deliver, Tamper

pytestmark = pytest.mark.federation

ONE_ROUND = ("federation.rounds=1", "ledger.ceremony_window_s=8")


def test_member_that_publishes_other_key_parts_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member whose b_A is not the one its holders derive is accused by the others; the next epoch has no seat for it."""
    honest = steps.public_parts

    def rogue(share: Any) -> dict[int, Any]:
        parts = honest(share)
        if share.position == 1 and share.params.committee == 4:
            parts = {i: np.where(np.arange(part.shape[1]) == 0, part ^ 1, part) for i, part in parts.items()}
        return parts

    # Only where sites publish: those that judge derive with the real one what it should have published.
    monkeypatch.setattr(ceremony, "steps", SimpleNamespace(**{**vars(steps), "public_parts": rogue}))
    run = federated_run(tmp_path, *ONE_ROUND)
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.epochs[1].phase is EpochPhase.FAILED
    assert (run.epochs[2].phase, run.epochs[2].committee) == (EpochPhase.ACTIVE, 0b1101)


def test_member_that_opens_other_seeds_than_committed_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that reveals contributions it did not commit to is accused by every holder it cheated."""
    honest = steps.commitment

    def false_commitment(contributions: steps.Contributions) -> bytes:
        cheats = contributions.position == 2 and contributions.params.committee == 4
        return bytes(31) + b"\x01" if cheats else honest(contributions)

    monkeypatch.setattr(steps, "commitment", false_commitment)
    run = federated_run(tmp_path, *ONE_ROUND)
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.epochs[2].committee == 0b1011


@pytest.mark.parametrize("action", ["query.commit_seeds", "query.confirm_key"])
def test_silent_member_is_left_out_of_the_next_epoch(tmp_path: Path, action: str) -> None:
    """A member that does not act in a ceremony is excluded at the deadline; the ceremony repeats without it."""

    def silent(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if site == 3 and message.metadata.message_type == action:
                return Message(Error(8, "ClientApp stopped responding"), reply_to=message)
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, *ONE_ROUND, tamper=silent)
    member = next(m.index for m in run.members if m.address == run.address(3))
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.epochs[2].committee == 0b1111 & ~(1 << member)
    assert run.rounds[1].included == 0b1111


def test_no_site_holds_the_whole_key(tmp_path: Path) -> None:
    """With threshold 3 of 4 no site's files hold every subset's seed, and no file of the driver holds one."""
    run = federated_run(tmp_path, "federation.rounds=1")
    seeds = [run.key_seeds(site) for site in range(4)]
    everything = set().union(*seeds)
    assert all(held < everything for held in seeds)
    assert all(seeds[a] | seeds[b] < everything for a in range(4) for b in range(a))
    driver = b"".join(p.read_bytes() for p in (run.folder / "driver").iterdir())
    assert not any(seed in driver for seed in everything)
