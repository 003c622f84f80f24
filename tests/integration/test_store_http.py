"""Claims about `bahefl store serve` and its client, on a real process over real sockets."""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError, StoreRefused, StoreUnavailable
from bahefl_flwr.identity import Identity
from bahefl_flwr.store import MAX_PART_BYTES, Store, manifest_cid, part_cid
from bahefl_flwr.store.dag_cbor import Link
from bahefl_flwr.store.http import HttpStore
from fault_proxy import FaultProxy
from served_store import ENDS_AT_ONCE, ServedStore, an_object, signed, site_identity

PARTS = [os.urandom(200_000), os.urandom(70_000), b"last part"]


@pytest.fixture(scope="module")
def member() -> Identity:
    return site_identity()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, member: Identity) -> Iterator[ServedStore]:
    """One store for the tests that leave it running; each puts objects of its own."""
    with ServedStore(tmp_path_factory.mktemp("served"), members=(member,)) as served:
        yield served


@pytest.fixture
def store(served: ServedStore, member: Identity) -> HttpStore:
    return served.client(member)


def fresh_parts() -> list[bytes]:
    """Parts that nobody has put yet."""
    return [os.urandom(200_000), os.urandom(1000), os.urandom(10)]


def port_of(served: ServedStore) -> int:
    return int(served.url.rpartition(":")[2])


def test_what_one_site_puts_another_reads(served: ServedStore, member: Identity) -> None:
    """put, has, manifest, expect, parts: the same answers as a folder gives."""
    store: Store = served.client(member)
    manifest = an_object(PARTS)
    assert not store.has(manifest.digest)
    assert store.put(manifest, iter(PARTS)) == manifest.digest
    elsewhere: Store = served.client(member)
    assert elsewhere.has(manifest.digest)
    assert elsewhere.expect(manifest.digest, run=bytes(32), round=7, site=manifest.site, epoch=2, kind=manifest.kind) == manifest
    assert list(elsewhere.parts(manifest)) == PARTS


def test_what_was_put_lies_in_the_folder_of_a_local_store(served: ServedStore, store: HttpStore) -> None:
    """So an operator audits, backs up and clears it with the same tools."""
    manifest = an_object(PARTS, round=1)
    store.put(manifest, PARTS)
    assert list(served.disk.parts(served.disk.manifest(manifest.digest))) == PARTS


def test_putting_again_sends_and_writes_nothing(served: ServedStore, store: HttpStore) -> None:
    """A repeated message costs one question."""
    manifest = an_object(PARTS, round=2)
    store.put(manifest, PARTS)
    before = {p: p.stat().st_ino for p in (served.folder / "store" / "objects").rglob("*")}
    store.put(manifest, PARTS)
    assert {p: p.stat().st_ino for p in (served.folder / "store" / "objects").rglob("*")} == before


def test_parts_that_a_put_counts_on_are_young_again(served: ServedStore, store: HttpStore) -> None:
    """So `gc` does not take an old upload away from under the put that completes it."""
    parts = fresh_parts()
    manifest = an_object(parts)
    served.disk.put(manifest, parts)
    old = served.file_of(manifest.parts[0].cid)
    os.utime(old, (0, 0))
    store.put(manifest, parts)
    assert time.time() - old.stat().st_mtime < 60


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_lost_part_is_reported_then_mended(served: ServedStore, store: HttpStore, index: int) -> None:
    """ObjectMissing names the site and the round; the owner's next put restores it."""
    parts = fresh_parts()
    manifest = an_object(parts)
    store.put(manifest, parts)
    served.file_of(manifest.parts[index].cid).unlink()
    assert not store.has(manifest.digest)
    with pytest.raises(ObjectMissing, match=rf"{manifest.parts[index].cid} .update of {manifest.site}, round 7.*put it"):
        list(store.parts(manifest))
    store.put(manifest, parts)
    assert list(store.parts(manifest)) == parts


@pytest.mark.parametrize("target", ["manifest", "part"])
def test_a_damaged_file_is_reported_then_mended(served: ServedStore, store: HttpStore, target: str) -> None:
    """One exchanged byte on the server's disk is ObjectCorrupt; the owner's next put mends it."""
    parts = fresh_parts()
    manifest = an_object(parts)
    store.put(manifest, parts)
    path = served.file_of(manifest.cid if target == "manifest" else manifest.parts[0].cid)
    path.write_bytes(bytes((path.read_bytes()[0] ^ 1,)) + path.read_bytes()[1:])
    assert not store.has(manifest.digest)
    with pytest.raises(ObjectCorrupt, match="its author must put it again"):
        list(store.parts(store.manifest(manifest.digest)))
    store.put(manifest, parts)
    assert list(store.parts(store.manifest(manifest.digest))) == parts


def test_a_put_that_broke_off_goes_on_at_the_part_where_it_broke(served: ServedStore, member: Identity) -> None:
    """The parts that arrived are not sent again."""
    parts = [os.urandom(300_000) for _ in range(4)]
    manifest = an_object(parts)
    for data, ref in zip(parts[:3], manifest.parts, strict=False):
        served.disk.place(Link.parse(ref.cid), data)
    with FaultProxy(port_of(served)) as proxy:
        proxy.cut_request_after = [400_000]  # enough for one part, not for two
        served.client(member, url=proxy.url).put(manifest, parts)
        assert proxy.connections == 1
    assert served.disk.has(manifest.digest)


def test_a_connection_that_breaks_during_a_put_is_made_again(served: ServedStore, member: Identity) -> None:
    """Three times in the middle of a body; the object is whole in the end."""
    parts = [os.urandom(300_000) for _ in range(3)]
    manifest = an_object(parts)
    with FaultProxy(port_of(served)) as proxy:
        proxy.cut_request_after = [100_000, 50_000, 200_000]
        served.client(member, url=proxy.url).put(manifest, parts)
        assert proxy.connections == 4
    assert list(served.disk.parts(manifest)) == parts


def test_a_read_that_broke_off_goes_on_where_it_broke(served: ServedStore, member: Identity) -> None:
    """By range: over a line that breaks every 300 kB a part of 900 kB still arrives."""
    parts = [os.urandom(900_000)]
    manifest = an_object(parts)
    served.disk.put(manifest, parts)
    with FaultProxy(port_of(served)) as proxy:
        proxy.cut_answer_after = [300_000] * 5
        assert list(served.client(member, url=proxy.url).parts(manifest)) == parts
        assert 3 <= proxy.connections <= 5


def test_a_range_of_an_object_is_served(served: ServedStore, member: Identity) -> None:
    """One range, open or closed; none outside of the object."""
    parts = [bytes(range(256))]
    manifest = an_object(parts)
    served.disk.put(manifest, parts)
    path = f"/v1/objects/{manifest.parts[0].cid}"

    def ranged(asked: str) -> tuple[int, bytes]:
        answer = signed(member, "GET", served.url, path, time=int(time.time()), headers={"range": asked})
        return answer.status_code, answer.content

    assert ranged("bytes=10-12") == (206, b"\n\x0b\x0c")
    assert ranged("bytes=250-") == (206, parts[0][250:])
    assert ranged("bytes=0-9999") == (206, parts[0])
    assert ranged("bytes=256-")[0] == 416
    assert ranged("bytes=-5") == ranged("lines=1-2") == (200, parts[0])


def test_a_stranger_neither_reads_nor_writes(served: ServedStore, store: HttpStore) -> None:
    """StoreRefused says who is refused and whom to ask. It is no StoreError: no object's author is blamed for it."""
    manifest = an_object(PARTS, round=3)
    store.put(manifest, PARTS)
    stranger = site_identity()
    for act in (lambda s: s.manifest(manifest.digest), lambda s: s.put(an_object(PARTS, round=4), PARTS)):
        with pytest.raises(
            StoreRefused, match=rf"not-a-member.: {stranger.address.lower()} is no active member.*registrar"
        ) as refused:
            act(served.client(stranger))
        assert not isinstance(refused.value, StoreError)


def test_an_unsigned_request_is_refused(served: ServedStore) -> None:
    """Only the greeting is for everybody."""
    assert httpx.get(f"{served.url}/v1/health").content == b"bahefl store, protocol 1\n"
    for method, path in (("GET", "/v1/objects/" + an_object(PARTS).cid), ("POST", "/v1/missing")):
        answer = httpx.request(method, served.url + path)
        assert (answer.status_code, answer.headers["bahefl-refusal"]) == (401, "unsigned")


def test_a_clock_that_is_off_is_told(served: ServedStore, member: Identity) -> None:
    """How far, and what to do."""
    answer = signed(member, "POST", served.url, "/v1/missing", time=int(time.time()) + 500)
    assert answer.status_code == 401
    assert "ahead of the store's, at most 120 s are allowed: set both by NTP" in answer.text


def test_a_replayed_request_changes_nothing(served: ServedStore, member: Identity) -> None:
    """Within the clock window anybody who overheard a put can repeat it: the same bytes, which are there already."""
    data = os.urandom(1000)
    path, now = f"/v1/objects/{an_object([data]).parts[0].cid}", int(time.time())
    first = signed(member, "PUT", served.url, path, body=data, time=now)
    again = signed(member, "PUT", served.url, path, body=data, time=now)
    assert (first.status_code, again.status_code) == (201, 200)


def test_nothing_is_ever_overwritten_or_deleted(served: ServedStore, member: Identity) -> None:
    """Other bytes under a name are refused, and there is no request that deletes."""
    data = os.urandom(1000)
    manifest = an_object([data])
    served.disk.put(manifest, [data])
    path, now = f"/v1/objects/{manifest.parts[0].cid}", int(time.time())
    assert signed(member, "PUT", served.url, path, body=b"other", time=now).status_code == 422
    assert signed(member, "DELETE", served.url, path, time=now).status_code == 405
    assert list(served.disk.parts(manifest)) == [data]


def test_an_object_cannot_be_read_in_half(served: ServedStore, member: Identity) -> None:
    """A manifest is taken only when all its parts are there."""
    manifest = an_object(fresh_parts())
    path = f"/v1/objects/{manifest.cid}"
    answer = signed(member, "PUT", served.url, path, body=manifest.encode(), time=int(time.time()))
    assert (answer.status_code, answer.headers["bahefl-refusal"]) == (409, "incomplete")


@pytest.mark.parametrize("body", [b"no manifest", b"\xa0", b""])
def test_what_is_no_manifest_is_not_stored_as_one(served: ServedStore, member: Identity, body: bytes) -> None:
    """The digest fits, the form does not."""
    path = f"/v1/objects/{manifest_cid(hashlib.sha256(body).digest())}"
    answer = signed(member, "PUT", served.url, path, body=body, time=int(time.time()))
    assert (answer.status_code, answer.headers["bahefl-refusal"]) == (422, "malformed")


def test_a_part_too_large_is_refused(served: ServedStore, member: Identity) -> None:
    """By its announced length, before it is read."""
    body = bytes(MAX_PART_BYTES + 1)
    path = f"/v1/objects/{part_cid(hashlib.sha256(body).digest())}"
    answer = signed(member, "PUT", served.url, path, body=body, time=int(time.time()))
    assert (answer.status_code, answer.headers["bahefl-refusal"]) == (413, "too-large")


def test_too_many_names_in_one_question_are_refused(served: ServedStore, member: Identity) -> None:
    """What the server hashes for one question is bounded."""
    body = "".join(f"{an_object([bytes((i,))]).cid}\n" for i in range(65)).encode()
    answer = signed(member, "POST", served.url, "/v1/missing", body=body, time=int(time.time()))
    assert answer.status_code == 413


def test_an_object_of_many_parts_is_put_and_checked(served: ServedStore, store: HttpStore) -> None:
    """More than one question has names for."""
    parts = [os.urandom(20) for _ in range(150)]
    manifest = an_object(parts)
    store.put(manifest, parts)
    assert store.has(manifest.digest)
    served.file_of(manifest.parts[149].cid).unlink()
    assert not store.has(manifest.digest)


def test_parts_that_are_not_the_manifests_are_never_sent(store: HttpStore) -> None:
    """Too few, too many, or others: a mistake of the site's own."""
    manifest = an_object(PARTS)
    for wrong in (PARTS[:2], [*PARTS, b"more"], PARTS[::-1]):
        with pytest.raises(StoreError, match="handed to put is not the one that manifest"):
            store.put(manifest, wrong)


def test_a_store_that_is_down_blames_nobody(tmp_path: Path, member: Identity) -> None:
    """StoreUnavailable says where, for how long, why, and what happens to what was to be stored."""
    with ServedStore(tmp_path, members=(member,)) as served:
        store = served.client(member, ENDS_AT_ONCE)
        served.kill()
        with pytest.raises(StoreUnavailable, match=rf"no answer from the store at {served.url} for 1 s .*is kept") as failed:
            store.manifest(bytes(32))
        assert not isinstance(failed.value, StoreError)


def test_a_killed_store_loses_nothing_it_acknowledged(tmp_path: Path, member: Identity) -> None:
    """kill -9 between two puts and in the middle of one; after the restart the client goes on by itself."""
    with ServedStore(tmp_path, members=(member,)) as served:
        store = served.client(member)
        first, second = an_object(PARTS), an_object(PARTS, round=8)
        store.put(first, PARTS)
        served.kill()
        served.start()
        assert list(store.parts(first)) == PARTS

        def parts() -> Iterator[bytes]:
            yield PARTS[0]
            served.kill()
            served.start()
            yield from PARTS[1:]

        store.put(second, parts())
        assert list(store.parts(store.manifest(second.digest))) == PARTS


def test_another_server_is_no_store(served: ServedStore, member: Identity) -> None:
    """A wrong address is not mistaken for a store that has lost its objects."""
    store = served.client(member, ENDS_AT_ONCE, url=f"{served.url}/elsewhere")
    with pytest.raises(StoreUnavailable, match=r"no-such-path.*is this the address of the store"):
        store.manifest(bytes(32))


def test_quotas_are_told_to_whoever_meets_them(tmp_path: Path, member: Identity) -> None:
    """StoreRefused says what is used up and whom to ask; what fits is still taken."""
    with ServedStore(tmp_path, "--account-files", "4", members=(member,)) as served:
        store = served.client(member)
        store.put(an_object(PARTS), PARTS)
        with pytest.raises(StoreRefused, match=r"full.*all of its 4 files: ask the store's operator"):
            store.put(an_object([b"more"]), [b"more"])
        store.put(an_object(PARTS), PARTS)


def test_members_that_leave_are_refused_at_once(tmp_path: Path, member: Identity) -> None:
    """The accounts file is read again when it changes."""
    with ServedStore(tmp_path, members=(member,)) as served:
        store = served.client(member)
        store.put(an_object(PARTS), PARTS)
        served.admit(site_identity())
        with pytest.raises(StoreRefused, match="is no active member"):
            store.has(an_object(PARTS).digest)


def test_a_full_disk_is_said(tmp_path: Path, member: Identity) -> None:
    """Nothing half-written is left, and the client hears that it is the server's disk."""
    with ServedStore(tmp_path, members=(member,)) as served:
        assert served.process
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(StoreRefused, match="disk refuses to write: its operator must free space"):
            served.client(member).put(an_object(PARTS), PARTS)
        assert not list((tmp_path / "store" / "tmp").iterdir())


def test_it_ends_with_whoever_started_it(tmp_path: Path, member: Identity) -> None:
    """Exit code 0."""
    with ServedStore(tmp_path, members=(member,)) as served:
        pass
    assert served.process
    assert served.process.returncode == 0


def test_sigterm_ends_it_cleanly(tmp_path: Path, member: Identity) -> None:
    """As systemd does it: exit code 0."""
    with ServedStore(tmp_path, members=(member,)) as served:
        assert served.process
        served.process.terminate()
        assert served.process.wait(20) == 0
