"""A reader of the local store finds every exchanged byte, and the owner's next put mends it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import LocalStore, Manifest, manifest_cid, manifest_for

SITE = "0x52908400098527886E0F7030069857D2E4169EE7"
FIELDS: dict[str, Any] = {"run": bytes(32), "round": 7, "site": SITE, "epoch": 2, "kind": ObjectKind.UPDATE}
PARTS = [os.urandom(5000), os.urandom(100)]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with one object of `PARTS`."""
    store = LocalStore(tmp_path / "store")
    store.put(manifest_for(PARTS, **FIELDS), PARTS)
    return store


@pytest.fixture
def manifest() -> Manifest:
    """The manifest of that object."""
    return manifest_for(PARTS, **FIELDS)


def file_of(store: LocalStore, cid: str) -> Path:
    """The file that holds the object `cid`."""
    (path,) = store.root.glob(f"objects/*/{cid}")
    return path


def exchanged(data: bytes, position: int) -> bytes:
    """`data` with the lowest bit of one byte flipped."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def truncate(path: Path) -> None:
    """Cut off the last byte."""
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    """Append one byte."""
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    """Leave a file of no bytes, as a crashed file system may."""
    path.write_bytes(b"")


def exchange_for_another(path: Path) -> None:
    """Put another valid part in its place."""
    path.write_bytes(PARTS[1] if path.stat().st_size != len(PARTS[1]) else PARTS[0])


def make_a_pipe(path: Path) -> None:
    """A named pipe, which a careless reader would wait on for ever."""
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[Callable[[Path], None]] = [truncate, extend, empty, exchange_for_another, make_a_pipe]


def test_every_byte_of_a_manifest_counts(store: LocalStore, manifest: Manifest) -> None:
    """One exchanged byte at any position of the manifest is refused; the error names CID, site and round."""
    path, intact = file_of(store, manifest.cid), manifest.encode()
    for position in range(len(intact)):
        path.write_bytes(exchanged(intact, position))
        with pytest.raises(ObjectCorrupt, match=manifest.cid):
            store.manifest(manifest.digest)
        with pytest.raises(ObjectCorrupt, match=f"{manifest.cid} .update of {SITE}, round 7"):
            store.expect(manifest.digest, **FIELDS)
        assert not store.has(manifest.digest)


@pytest.mark.parametrize("position", [0, 1, 2047, 2048, 4095, 4096, 4998, 4999])
def test_one_exchanged_byte_of_a_part_is_found(store: LocalStore, manifest: Manifest, position: int) -> None:
    """First, last, middle, and both sides of a page border: refused, naming the part, the site and the round."""
    file_of(store, manifest.parts[0].cid).write_bytes(exchanged(PARTS[0], position))
    with pytest.raises(ObjectCorrupt, match=f"{manifest.parts[0].cid} .update of {SITE}, round 7"):
        list(store.parts(manifest))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("target", ["manifest", "part"])
def test_damage_is_refused_then_mended_by_the_next_put(
    store: LocalStore, manifest: Manifest, damage: Callable[[Path], None], target: str
) -> None:
    """Every kind of damage to a file is ObjectCorrupt, and putting again makes the object whole."""
    damage(file_of(store, manifest.cid if target == "manifest" else manifest.parts[0].cid))
    with pytest.raises(ObjectCorrupt):
        list(store.parts(store.manifest(manifest.digest)))
    store.put(manifest, PARTS)
    assert list(store.parts(store.manifest(manifest.digest))) == PARTS


@pytest.mark.parametrize("index", [0, 1])
def test_a_lost_part_is_reported_then_mended(store: LocalStore, manifest: Manifest, index: int) -> None:
    """A deleted part is ObjectMissing, `has` says no, and putting again restores it."""
    file_of(store, manifest.parts[index].cid).unlink()
    assert not store.has(manifest.digest)
    with pytest.raises(ObjectMissing, match=f"{manifest.parts[index].cid} .update of {SITE}, round 7"):
        list(store.parts(manifest))
    store.put(manifest, PARTS)
    assert list(store.parts(manifest)) == PARTS


def test_a_digest_of_no_manifest_is_refused(store: LocalStore) -> None:
    """A site that commits the digest of other bytes than a manifest is named, with the round."""
    garbage = b"no manifest"
    digest = hashlib.sha256(garbage).digest()
    path = store._path(manifest_cid(digest))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(garbage)
    with pytest.raises(ObjectCorrupt, match=f"^{manifest_cid(digest)} is not a manifest.*update of {SITE}, round 7"):
        store.expect(digest, **FIELDS)


def test_a_longer_file_is_never_read_whole(store: LocalStore, manifest: Manifest) -> None:
    """A part that has grown to a gigabyte is refused after its declared length and one byte."""
    os.truncate(file_of(store, manifest.parts[1].cid), 1 << 30)
    with pytest.raises(ObjectCorrupt):
        store.part(manifest.parts[1])
