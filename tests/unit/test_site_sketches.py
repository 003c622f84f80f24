"""What a site does where sketches cannot be made, or what it kept of them is damaged; on a site put together by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bahefl_flwr.errors import ProtocolError, SpoiledSum, UnusableUpdate, WrongRound
from bahefl_flwr.journal import Journal
from bahefl_flwr.records import ExclusionReason, RoundPhase
from bahefl_flwr.settings import compose
from bahefl_flwr.site import checked_opening, sketches
from bahefl_flwr.site.state import Outcome, Request, Site
from bahefl_flwr.site.updates import Updates
from bahefl_flwr.store import LocalStore
from round_views import ALL, QUORUM, round_, verified, view

ROUND = verified(screen_seed=bytes([5]) * 32)
MADE = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)


@pytest.mark.parametrize("unusable", [{}, {2: ExclusionReason.MALFORMED, 4: ExclusionReason.MISSING}])
def test_a_round_without_a_sound_update_has_nothing_to_open(unusable: dict[int, ExclusionReason]) -> None:
    """Said as the protocol's error, with the reason of each update, to key holders and judges alike."""
    site: Any = SimpleNamespace(settings=compose())
    with pytest.raises(ProtocolError, match="no committed update can be used") as told:
        sketches.question(site, view(ROUND), ROUND, Updates(sound={}, unusable=unusable, part_blocks=(1,)))
    assert all(f"site {m} ({reason.name.lower()})" in str(told.value) for m, reason in unusable.items())


def sketched(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[np.ndarray[Any, Any], int]:
    """The sketch of an update at the site that keeps it in `folder`, and how often it was made for that."""
    made: list[int] = []

    def make(*_: object) -> np.ndarray[Any, Any]:
        made.append(1)
        return MADE

    monkeypatch.setattr(sketches, "sketch", make)
    site: Any = SimpleNamespace(round_folder=lambda _number: folder)
    asked: Any = SimpleNamespace(name="sketches-05", part_blocks=(1,), plan=None)
    manifest: Any = SimpleNamespace(digest=bytes([9]) * 32)
    return sketches._sketch(site, ROUND, asked, 2, manifest, asked.plan), len(made)


def test_a_sketch_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second time it is read, the same numbers."""
    assert sketched(monkeypatch, tmp_path)[1] == 1
    again, made = sketched(monkeypatch, tmp_path)
    np.testing.assert_array_equal(again, MADE)
    assert made == 0


@pytest.mark.parametrize("damage", ["empty", "torn", "one bit", "no digest"])
def test_a_damaged_sketch_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str) -> None:
    """Also one that would still be read, with other numbers: by these a site would accuse honest key holders."""
    sketched(monkeypatch, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = {
        "empty": b"", "torn": whole[:-5], "one bit": whole[:-1] + bytes([whole[-1] ^ 1]), "no digest": whole.partition(b"\n")[2],
    }  # fmt: skip
    path.write_bytes(damaged[damage])
    again, made = sketched(monkeypatch, tmp_path)
    np.testing.assert_array_equal(again, MADE)
    assert made == 1
    assert path.read_bytes() == whole


def test_a_struck_quorum_that_opens_out_of_range_is_the_wrong_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shares are right, so nobody is accused, and the site says as ever that another quorum is asked about."""
    struck = 0b11100

    def spoiled(*_: object) -> None:
        raise SpoiledSum("out of range", positions=((0, 0),))

    monkeypatch.setattr(checked_opening, "open_checked", spoiled)
    r = verified(disputed=struck)
    site: Any = None
    with pytest.raises(WrongRound, match="asked about quorum 1c, the ledger is at 7"):
        checked_opening.expect_agreement(site, Request(run=b"", number=4, quorum=struck), view(r), r, Outcome())
    assert r.open_quorum == QUORUM


def answer(
    monkeypatch: pytest.MonkeyPatch, folder: Path, unusable: dict[int, ExclusionReason], *, last_try: bool, seed: int = 5
) -> list[tuple[int, ...]]:
    """Ask site 0 as a key holder for its part in the openings; about which sites it answers."""
    answered: list[tuple[int, ...]] = []
    r = round_(RoundPhase.AGGREGATE, committed=ALL, screen_seed=bytes([seed]) * 32)
    sound: Any = {m: SimpleNamespace(digest=bytes([m]) * 32) for m in range(5) if m not in unusable}
    monkeypatch.setattr(sketches, "read_updates", lambda *_: Updates(sound=sound, unusable=unusable, part_blocks=(1,)))
    monkeypatch.setattr(sketches, "_sealed_answer", lambda _s, _v, _r, asked, _q: answered.append(asked.members) or b"sealed")
    ledger = SimpleNamespace(
        view=lambda: view(r), sketches=lambda _number: [], release_sketch=lambda *_: SimpleNamespace(gas_used=1)
    )
    site: Any = SimpleNamespace(
        ledger=ledger, journal=Journal(folder / "journal"), store=LocalStore(folder / "store"), folder=folder,
        address="0x" + "11" * 20, settings=compose(), me=lambda: SimpleNamespace(index=0),
        round_folder=lambda number: Site.round_folder(site, number),
    )  # fmt: skip
    sketches.release_sketches(site, Request(run=bytes(32), number=4, quorum=QUORUM, last_try=last_try))
    return answered


@pytest.mark.parametrize("reason", [ExclusionReason.MISSING, ExclusionReason.CORRUPT])
def test_an_update_that_cannot_be_read_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: ExclusionReason
) -> None:
    """Its owner may put it again; at the last try, or once owners were asked, the others are answered for without it."""
    with pytest.raises(UnusableUpdate, match=r"updates of sites \[3\] are missing or altered in the store; put them again"):
        answer(monkeypatch, tmp_path, {3: reason}, last_try=False)
    assert answer(monkeypatch, tmp_path, {3: reason}, last_try=True) == [(0, 1, 2, 4)]


def test_an_update_that_is_no_ciphertext_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To put it again would not help."""
    assert answer(monkeypatch, tmp_path, {3: ExclusionReason.MALFORMED}, last_try=False) == [(0, 1, 2, 4)]


def test_the_same_question_is_answered_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Asked again, a site computes nothing: sealing anew would give other bytes than those on the ledger."""
    assert answer(monkeypatch, tmp_path, {}, last_try=False) == [(0, 1, 2, 3, 4)]
    assert answer(monkeypatch, tmp_path, {}, last_try=True) == []


def test_a_second_sketch_of_a_round_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ledger that shows another seed after a reorganisation, or lies: two sketches of one update tell more than one."""
    answer(monkeypatch, tmp_path, {}, last_try=False, seed=5)
    with pytest.raises(ProtocolError, match="already answered sketches-0505050505050505; it does not answer sketches-06"):
        answer(monkeypatch, tmp_path, {}, last_try=True, seed=6)
