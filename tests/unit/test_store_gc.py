"""Claims about what `bahefl store gc` may delete."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bahefl_flwr.store import LocalStore, Manifest
from bahefl_flwr.store.gc import Needed, Plan, carry_out, plan
from served_store import an_object

NOTHING = Needed(digests=frozenset(), runs=frozenset())
PARTS = [b"first", b"second"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def manifest(store: LocalStore) -> Manifest:
    """An object in the store, of two parts."""
    manifest = an_object(PARTS)
    store.put(manifest, PARTS)
    return manifest


def planned(store: LocalStore, needed: Needed = NOTHING, *, age_s: float = -60.0) -> Plan:
    """What would go; with a negative age everything is old enough."""
    return plan(store, list(store.files()), needed, older_than=time.time() - age_s)


def test_what_no_ledger_names_goes_with_its_parts(store: LocalStore, manifest: Manifest) -> None:
    """Manifest first, so that it is never read in half."""
    decided = planned(store)
    carry_out(store, decided)
    assert decided.remove[0].link.digest == manifest.digest
    assert not list(store.files())


def test_what_a_ledger_names_stays_with_its_parts(store: LocalStore, manifest: Manifest) -> None:
    """Whatever its age."""
    carry_out(store, planned(store, Needed(digests=frozenset({manifest.digest}), runs=frozenset())))
    assert list(store.parts(store.manifest(manifest.digest))) == PARTS


def test_what_belongs_to_a_run_that_goes_on_stays(store: LocalStore, manifest: Manifest) -> None:
    """A coordinator stores its sum before the ledger names it."""
    assert not planned(store, Needed(digests=frozenset(), runs=frozenset({manifest.run}))).remove


def test_what_is_young_stays(store: LocalStore, manifest: Manifest) -> None:
    """Parts arrive before their manifest, and some manifests before the ledger hears of them."""
    decided = planned(store, age_s=3600)
    assert not decided.remove
    assert len(decided.kept) == 3


def test_parts_that_no_manifest_names_go_when_they_are_old(store: LocalStore, manifest: Manifest) -> None:
    """An upload that was given up."""
    store.remove(next(f.link for f in store.files() if f.link.digest == manifest.digest))
    assert planned(store, age_s=3600).young == 2
    assert len(planned(store).remove) == 2


def test_a_part_that_two_objects_share_stays_with_either(store: LocalStore, manifest: Manifest) -> None:
    """A copy of an object under another round has the same parts."""
    other = an_object(PARTS, round=8)
    store.put(other, PARTS)
    carry_out(store, planned(store, Needed(digests=frozenset({other.digest}), runs=frozenset())))
    assert list(store.parts(store.manifest(other.digest))) == PARTS
    assert not store.has(manifest.digest)


def test_a_damaged_manifest_keeps_all_parts(store: LocalStore, manifest: Manifest) -> None:
    """Its parts cannot be told from nobody's: the disk's fault must not become a deletion."""
    loose = b"of nobody"
    store.put(an_object([loose], round=9), [loose])
    path = store._path(manifest.cid)
    path.write_bytes(path.read_bytes()[:-1])
    decided = planned(store, Needed(digests=frozenset({manifest.digest}), runs=frozenset()))
    assert decided.damaged == (manifest.cid,)
    assert [f.link.codec for f in decided.remove] == [0x71]


def test_putting_again_makes_it_young(store: LocalStore, manifest: Manifest) -> None:
    """Whoever puts an object counts on it from now on, also where every byte was there."""
    for file in store.files():
        os.utime(store._path(str(file.link)), (0, 0))
    assert len(planned(store, age_s=3600).remove) == 3
    store.put(manifest, PARTS)
    assert not planned(store, age_s=3600).remove


def test_what_else_lies_in_the_folder_is_left_alone(store: LocalStore, manifest: Manifest) -> None:
    """Only files that are named like objects are ours."""
    note = store._path(manifest.cid).parent / "README"
    note.write_text("not ours")
    carry_out(store, planned(store))
    assert note.read_text() == "not ours"
