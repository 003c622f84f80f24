"""What a site refuses when it is asked to help open an aggregate."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.journal import Journal
from bahefl_flwr.records import LedgerView, RoundRecord
from bahefl_flwr.site.state import Site
from bahefl_flwr.site.verification import _decrypt_once


def asked(tmp_path: Path, aggregate: bytes, number: int = 3, spoiled: bytes = bytes(32)) -> None:
    """Ask the site that keeps its journal in `tmp_path` to help open `aggregate`."""
    site: Any = SimpleNamespace(journal=Journal(tmp_path / "journal"))
    view: Any = SimpleNamespace(task=SimpleNamespace(run_digest=b"r" * 32))
    r: Any = SimpleNamespace(number=number, aggregate=aggregate, spoiled=spoiled)
    _decrypt_once(cast("Site", site), cast("LedgerView", view), cast("RoundRecord", r))


def test_one_aggregate_of_a_round_and_no_other(tmp_path: Path) -> None:
    """After helping to open one aggregate a site refuses any other of that round, also after a restart (protocol rule 4)."""
    asked(tmp_path, b"a" * 32)
    with pytest.raises(ProtocolError, match="already helped"):
        asked(tmp_path, b"b" * 32)


def test_after_a_spoiled_aggregate_that_it_opened_the_next_one_is_helped(tmp_path: Path) -> None:
    """One after another, each only once its predecessor was found spoiled here; and only if the ledger calls it spoiled, too."""
    spoiled = b"p" * 32
    for former, later in itertools.pairwise((b"a" * 32, b"b" * 32, b"c" * 32)):
        asked(tmp_path, former, spoiled=spoiled)
        with pytest.raises(ProtocolError, match="already helped"):
            asked(tmp_path, later, spoiled=spoiled)
        Journal(tmp_path / "journal").put(((b"r" * 32).hex(), 3, f"spoiled-{former.hex()}"), {"opened": True})
        with pytest.raises(ProtocolError, match="already helped"):
            asked(tmp_path, later)
        asked(tmp_path, later, spoiled=spoiled)
    with pytest.raises(ProtocolError, match="already helped"):
        asked(tmp_path, b"d" * 32, spoiled=spoiled)


def test_asking_again_and_other_rounds_are_fine(tmp_path: Path) -> None:
    """The same aggregate may be asked for again, and every round counts for itself."""
    asked(tmp_path, b"a" * 32)
    asked(tmp_path, b"a" * 32)
    asked(tmp_path, b"b" * 32, number=4)
    assert Journal(tmp_path / "journal").get(((b"r" * 32).hex(), 4, "share")) == {"aggregate": (b"b" * 32).hex()}
