"""Claims about the local store, on real files."""

import errno
import os
import resource
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import LocalStore, Store, manifest_for

SITE = "0x52908400098527886E0F7030069857D2E4169EE7"
FIELDS: dict[str, Any] = {"run": bytes(32), "round": 7, "site": SITE, "epoch": 2, "kind": ObjectKind.UPDATE}
PARTS = [b"first part" * 100, b"second part"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def files(store: LocalStore) -> set[Path]:
    """Every file under the store, temporary ones too."""
    return {path for path in store.root.rglob("*") if path.is_file()}


def test_what_was_put_is_read(store: LocalStore) -> None:
    """put, then manifest and parts, gives the same object; another process sees it too."""
    manifest = manifest_for(PARTS, **FIELDS)
    digest = store.put(manifest, iter(PARTS))
    elsewhere: Store = LocalStore(store.root)
    assert digest == manifest.digest
    assert elsewhere.has(digest)
    assert elsewhere.manifest(digest) == manifest
    assert list(elsewhere.parts(manifest)) == PARTS


def test_files_are_named_by_the_cids_of_their_bytes(store: LocalStore) -> None:
    """An operator finds the file of an error message by its name."""
    manifest = manifest_for(PARTS, **FIELDS)
    store.put(manifest, PARTS)
    assert {path.name for path in files(store)} == {manifest.cid, *(part.cid for part in manifest.parts)}


def test_putting_again_writes_nothing(store: LocalStore) -> None:
    """An object that is intact is left alone: a repeated message costs no write."""
    manifest = manifest_for(PARTS, **FIELDS)
    store.put(manifest, PARTS)
    before = {path: path.stat().st_ino for path in files(store)}
    store.put(manifest, PARTS)
    assert {path: path.stat().st_ino for path in files(store)} == before


@pytest.mark.parametrize("handed", [PARTS[:1], [*PARTS, b"x"], PARTS[::-1], [PARTS[0], b"Second part"], []])
def test_parts_that_are_not_the_manifests_are_refused(store: LocalStore, handed: list[bytes]) -> None:
    """Too few, too many, exchanged or altered parts: nothing reads as the object afterwards."""
    manifest = manifest_for(PARTS, **FIELDS)
    with pytest.raises(StoreError, match=rf"part \d .* {manifest.cid} .*{SITE}, round 7"):
        store.put(manifest, handed)
    assert not store.has(manifest.digest)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("run", b"\1" * 32),
        ("round", 8),
        ("site", "0x8617E340B3D01FA5F11F306F4090FD50E238070D"),
        ("epoch", 3),
        ("kind", ObjectKind.AGGREGATE),
    ],
)
def test_expect_refuses_an_object_bound_to_anything_else(store: LocalStore, field: str, other: Any) -> None:
    """A replayed or copied object is refused, naming the field, the site and the round that were expected."""
    digest = store.put(manifest_for(PARTS, **FIELDS), PARTS)
    wanted = FIELDS | {field: other}
    with pytest.raises(ObjectCorrupt, match=rf"{wanted['site']}, round {wanted['round']}.* names {field} "):
        store.expect(digest, **wanted)


def test_expect_returns_the_bound_object(store: LocalStore) -> None:
    """The right run, round, site, epoch and kind are let through."""
    manifest = manifest_for(PARTS, **FIELDS)
    assert store.expect(store.put(manifest, PARTS), **FIELDS) == manifest


def test_a_missing_object_is_named(store: LocalStore) -> None:
    """ObjectMissing names the CID always, and site and round where they are known."""
    manifest = manifest_for(PARTS, **FIELDS)
    with pytest.raises(ObjectMissing, match=manifest.cid):
        store.manifest(manifest.digest)
    with pytest.raises(ObjectMissing, match=f"{manifest.cid} .update of {SITE}, round 7"):
        store.expect(manifest.digest, **FIELDS)
    with pytest.raises(ObjectMissing, match=f"{manifest.parts[0].cid} .update of {SITE}, round 7"):
        list(store.parts(manifest))


def test_put_and_parts_hold_one_part_in_memory(store: LocalStore) -> None:
    """Memory does not grow with the number of parts: 32 MiB pass through in less than 6 MiB."""
    size, count = 1 << 20, 32

    def parts() -> Iterator[bytes]:
        return (index.to_bytes(1, "big") * size for index in range(count))

    tracemalloc.start()
    manifest = manifest_for(parts(), **FIELDS)
    store.put(manifest, parts())
    read = sum(len(part) for part in store.parts(manifest))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == count * size
    assert peak < 6 << 20


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A disk that takes no file above 600 bytes (the kernel answers EFBIG, as it answers ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_no_trace(store: LocalStore) -> None:
    """When the disk is full, put says so and leaves neither an object nor a temporary file."""
    manifest = manifest_for(PARTS, **FIELDS)
    with pytest.raises(StoreError, match=rf"{manifest.cid}.*Errno {errno.EFBIG}.*free space"):
        store.put(manifest, PARTS)
    assert not files(store)


def test_temporary_files_of_killed_processes_are_removed_after_an_hour(store: LocalStore) -> None:
    """Opening the store clears what a killed process left, and never what a living one is writing."""
    old, young = store.root / "tmp" / ".writing-old", store.root / "tmp" / ".writing-young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    an_hour_ago = time.time() - 3601
    os.utime(old, (an_hour_ago, an_hour_ago))
    LocalStore(store.root)
    assert not old.exists()
    assert young.exists()


def test_an_unusable_folder_is_refused(tmp_path: Path) -> None:
    """A file in place of the folder is a StoreError that names it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot use"):
        LocalStore(tmp_path / "file")
