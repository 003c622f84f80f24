"""What a site puts into the store when it is asked to put everything: nothing that the ledger does not name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bahefl_flwr.records import ObjectKind, RoundPhase
from bahefl_flwr.site.objects import keep, kept_names
from bahefl_flwr.site.state import Request, Site
from bahefl_flwr.site.training import upload
from bahefl_flwr.store import LocalStore
from bahefl_flwr.store.manifest import Manifest
from round_views import ALL, round_, view

ADDRESS, RUN = "0x" + "11" * 20, bytes(32)
ROUND = 4


class Ledger:
    """Just what `upload` reads; `named` are the digests that transactions named."""

    def __init__(self, named: set[bytes]) -> None:
        self._named = [SimpleNamespace(digest=digest) for digest in named]

    def view(self) -> object:
        return view(round_(RoundPhase.VERIFY, committed=ALL))

    def updates(self, number: int) -> list[SimpleNamespace]:
        return self._named

    def shares(self, number: int) -> list[SimpleNamespace]:
        return self._named


def site_with(folder: Path) -> Any:
    """A site's folder and store."""
    made: Any = SimpleNamespace(store=LocalStore(folder / "store"), folder=folder, address=ADDRESS)
    made.settings = SimpleNamespace(screening=SimpleNamespace(kind="sketch"))
    made.round_folder = lambda number: Site.round_folder(cast("Site", made), number)
    return made


def kept_object(site: Any, kind: ObjectKind, name: str) -> Manifest:
    """An object that the site keeps, and whose transaction it then sent."""
    return keep(site, [name.encode()], run=RUN, round=ROUND, epoch=1, kind=kind, owner=ADDRESS, name=name)


@pytest.mark.parametrize("kind", [ObjectKind.UPDATE, ObjectKind.SHARE])
def test_what_the_ledger_does_not_name_is_not_put(tmp_path: Path, kind: ObjectKind) -> None:
    """An update or share whose transaction failed stays at home, and what the ledger names is put."""
    site = site_with(tmp_path)
    failed, named = kept_object(site, kind, "failed"), kept_object(site, kind, "named")
    site.ledger = Ledger({named.digest})
    upload(site, Request(run=RUN, number=ROUND))
    assert kept_names(site, ROUND) == ("failed", "named")
    assert (site.store.has(failed.digest), site.store.has(named.digest)) == (False, True)


def test_an_aggregate_may_be_put_by_anybody(tmp_path: Path) -> None:
    """It is a public sum of public ciphertexts, and who recomputed it heals it."""
    site = site_with(tmp_path)
    aggregate = kept_object(site, ObjectKind.AGGREGATE, "aggregate")
    site.ledger = Ledger(set())
    upload(site, Request(run=RUN, number=ROUND))
    assert site.store.has(aggregate.digest)
