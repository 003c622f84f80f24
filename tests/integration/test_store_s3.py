"""Claims about the store in a bucket, against moto's server as a real process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError, StoreUnavailable
from bahefl_flwr.store import Store
from bahefl_flwr.store.s3 import S3Store
from s3_server import CREDENTIALS, S3Server
from served_store import an_object

PARTS = [os.urandom(200_000), os.urandom(70_000), b"last part"]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator sets them."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def store(server: S3Server) -> S3Store:
    return server.store("federation/one")


def test_what_one_site_puts_another_reads(server: S3Server, store: S3Store) -> None:
    """put, has, manifest, expect, parts: the same answers as a folder gives."""
    manifest = an_object(PARTS)
    assert not store.has(manifest.digest)
    assert store.put(manifest, iter(PARTS)) == manifest.digest
    elsewhere: Store = server.store("federation/one")
    assert elsewhere.has(manifest.digest)
    assert elsewhere.expect(manifest.digest, run=bytes(32), round=7, site=manifest.site, epoch=2, kind=manifest.kind) == manifest
    assert list(elsewhere.parts(manifest)) == PARTS


def test_objects_lie_under_the_prefix_by_their_names(server: S3Server, store: S3Store) -> None:
    """An operator finds the object of an error message by its name."""
    manifest = an_object(PARTS, round=1)
    store.put(manifest, PARTS)
    keys = {o.key for o in server.bucket.objects.filter(Prefix="federation/one/")}
    assert {f"federation/one/objects/{cid}" for cid in (manifest.cid, *(p.cid for p in manifest.parts))} <= keys


def test_putting_again_writes_nothing(server: S3Server, store: S3Store) -> None:
    """A repeated message reads, and leaves every object as it is."""
    manifest = an_object(PARTS, round=2)
    store.put(manifest, PARTS)
    before = {o.key: o.last_modified for o in server.bucket.objects.all()}
    store.put(manifest, PARTS)
    assert {o.key: o.last_modified for o in server.bucket.objects.all()} == before


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_lost_part_is_reported_then_mended(server: S3Server, index: int) -> None:
    """ObjectMissing names the site and the round; the owner's next put restores it."""
    store, manifest = server.store(f"lost/{index}"), an_object(PARTS)
    store.put(manifest, PARTS)
    server.bucket.Object(f"lost/{index}/objects/{manifest.parts[index].cid}").delete()
    assert not store.has(manifest.digest)
    with pytest.raises(ObjectMissing, match=rf"{manifest.parts[index].cid} .update of {manifest.site}, round 7.*put it"):
        list(store.parts(manifest))
    store.put(manifest, PARTS)
    assert list(store.parts(manifest)) == PARTS


@pytest.mark.parametrize(
    "bytes_now", [b"", b"shorter", b"\0" * 200_000, os.urandom(3_000_000)], ids=["empty", "short", "other", "long"]
)
@pytest.mark.parametrize("target", ["manifest", "part"])
def test_an_altered_object_is_refused_then_mended(server: S3Server, bytes_now: bytes, target: str) -> None:
    """Whatever is in its place, of any length, is ObjectCorrupt; the owner's next put mends it."""
    prefix = f"altered/{target}/{len(bytes_now)}"
    store, manifest = server.store(prefix), an_object(PARTS)
    store.put(manifest, PARTS)
    cid = manifest.cid if target == "manifest" else manifest.parts[0].cid
    server.bucket.Object(f"{prefix}/objects/{cid}").put(Body=bytes_now)
    with pytest.raises(ObjectCorrupt):
        list(store.parts(store.manifest(manifest.digest)))
    store.put(manifest, PARTS)
    assert list(store.parts(store.manifest(manifest.digest))) == PARTS


def test_parts_that_are_not_the_manifests_are_never_sent(store: S3Store) -> None:
    """A mistake of the site's own."""
    with pytest.raises(StoreError, match="handed to put is not the one that manifest"):
        store.put(an_object(PARTS), PARTS[::-1])


def test_a_bucket_that_is_not_there_is_no_lost_object(server: S3Server) -> None:
    """Nobody is blamed for a wrong address."""
    with pytest.raises(StoreUnavailable, match=r"s3://elsewhere is not there .*mend store.url") as failed:
        server.store(bucket="elsewhere").manifest(bytes(32))
    assert not isinstance(failed.value, StoreError)


def test_a_service_that_is_down_blames_nobody(tmp_path: Path) -> None:
    """StoreUnavailable, after the patience and not long after it."""
    with S3Server(tmp_path / "log") as server:
        store = server.store(patience_s=1.0)
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"did not serve .*is store.endpoint its address"):
            store.manifest(bytes(32))


def test_a_site_waits_for_a_service_that_restarts(tmp_path: Path) -> None:
    """Within its patience."""
    with S3Server(tmp_path / "log") as server:
        store = server.store(patience_s=60.0)
        server.kill()
        server.start()
        store.put(an_object(PARTS), PARTS)
        assert store.has(an_object(PARTS).digest)


def test_all_objects_are_listed_and_can_be_removed(server: S3Server) -> None:
    """As `bahefl store gc` needs it; removing twice is harmless."""
    store, manifest = server.store("listed"), an_object(PARTS)
    store.put(manifest, PARTS)
    server.bucket.Object("listed/objects/README").put(Body=b"not ours")
    files = list(store.files())
    assert {str(f.link): f.size_bytes for f in files} == {
        manifest.cid: len(manifest.encode()), **{p.cid: p.size_bytes for p in manifest.parts}
    }  # fmt: skip
    for file in [*files, *files]:
        store.remove(file.link)
    assert not list(store.files())
