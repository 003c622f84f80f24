"""Claims about the quotas of a served store, on real files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bahefl_flwr.errors import StoreError
from bahefl_flwr.store import LocalStore
from bahefl_flwr.store.dag_cbor import RAW, Link
from bahefl_flwr.store.usage import FILE_NAME, QuotaExceeded, Quotas, Usage

ONE, OTHER = "0x" + "1" * 40, "0x" + "2" * 40
QUOTAS = Quotas(total_bytes=500, account_bytes=300, account_files=4)


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def usage(store: LocalStore, clock: Clock) -> Iterator[Usage]:
    usage = Usage(store, QUOTAS, clock)
    yield usage
    usage.close()


@pytest.fixture
def put(store: LocalStore, usage: Usage) -> Callable[[str, bytes], Link]:
    """Put a part on an account."""

    def put(account: str, data: bytes) -> Link:
        link = Link(RAW, hashlib.sha256(data).digest())
        with usage.putting(account, link, len(data)):
            store.place(link, data)
        return link

    return put


Put = Callable[[str, bytes], Link]


def test_each_account_pays_for_what_it_puts(put: Put, usage: Usage) -> None:
    """Files and bytes, by account."""
    put(ONE, bytes(100))
    put(OTHER, b"\1" * 50)
    assert (usage.used(ONE), usage.used(OTHER)) == ((1, 100), (1, 50))


def test_putting_again_is_free(put: Put, usage: Usage) -> None:
    """A repeated or repaired put costs nothing, whoever repeats it."""
    put(ONE, bytes(100))
    put(ONE, bytes(100))
    put(OTHER, bytes(100))
    assert (usage.used(ONE), usage.used(OTHER)) == ((1, 100), (0, 0))


def test_an_account_has_its_bytes_and_no_more(put: Put) -> None:
    """The message says whose quota, how much, and whom to ask."""
    put(ONE, bytes(300))
    with pytest.raises(QuotaExceeded, match=f"{ONE} has put all of its 300 bytes: ask the store's operator"):
        put(ONE, b"x")
    put(OTHER, b"x")


def test_an_account_has_its_files_and_no_more(put: Put) -> None:
    """Many small files fill a disk as well."""
    for i in range(4):
        put(ONE, bytes((i,)))
    with pytest.raises(QuotaExceeded, match="all of its 4 files"):
        put(ONE, b"one more")


def test_all_accounts_together_have_the_total(put: Put) -> None:
    """The message names what the operator can do."""
    put(ONE, bytes(300))
    put(OTHER, b"\1" * 200)
    with pytest.raises(QuotaExceeded, match=r"the store is full \(500 bytes\).*bahefl store gc"):
        put(OTHER, b"x")


def test_who_put_what_survives_a_restart(put: Put, store: LocalStore, clock: Clock) -> None:
    """A second server on the same folder counts the same."""
    put(ONE, bytes(100))
    again = Usage(store, QUOTAS, clock)
    assert again.used(ONE) == (1, 100)
    again.close()


def test_files_of_unknown_origin_count_in_the_total(put: Put, store: LocalStore, clock: Clock) -> None:
    """A folder that was filled before it was served takes nobody's quota, and cannot be overfilled."""
    for i in range(5):
        store.place(Link(RAW, hashlib.sha256(bytes((i,)) * 99).digest()), bytes((i,)) * 99)
    usage = Usage(store, QUOTAS, clock)
    assert usage.used(ONE) == (0, 0)
    with pytest.raises(QuotaExceeded, match="the store is full"), usage.putting(ONE, Link(RAW, bytes(32)), 6):
        pass
    usage.close()


def test_what_gc_deleted_can_be_used_again(put: Put, store: LocalStore, usage: Usage, clock: Clock) -> None:
    """The files have the last word: a full account is counted again, at most once a minute, before it is refused."""
    link = put(ONE, bytes(300))
    store.remove(link)
    with pytest.raises(QuotaExceeded):
        put(ONE, b"too early")
    clock.now = 61.0
    put(ONE, b"in time")
    assert usage.used(ONE) == (1, 7)


def test_a_file_that_is_being_written_counts(usage: Usage, clock: Clock) -> None:
    """A recount in the middle of a put forgets nothing: concurrent puts cannot pass the quota together."""
    with usage.putting(ONE, Link(RAW, bytes(32)), 300):
        clock.now = 61.0
        with pytest.raises(QuotaExceeded), usage.putting(ONE, Link(RAW, b"\1" * 32), 1):
            pass
    assert usage.used(ONE) == (1, 300)


def test_a_damaged_account_book_is_refused(store: LocalStore) -> None:
    """The message names the file, and what moving it away means."""
    (store.root / FILE_NAME).write_bytes(b"no database" * 500)
    with pytest.raises(StoreError, match=rf"{FILE_NAME}.*move it away: quotas then count anew"):
        Usage(store, QUOTAS)
