"""Claims about the settings of the store: what leads nowhere is refused before anything starts."""

from __future__ import annotations

import pytest

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.settings import compose


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("store.url=https://store",), "are for stores elsewhere: add store=http or store=s3"),
        (("store=http",), "store.kind=http needs store.url=https://..., got ''"),
        (("store=http", "store.url=s3://bucket"), "store.kind=http needs store.url=https://..."),
        (("store=http", "store.url=https://"), "needs store.url"),
        (("store=s3", "store.url=https://bucket"), "store.kind=s3 needs store.url=s3://..."),
        (("store=s3", "store.url=s3://b", "store.endpoint=minio"), "store.endpoint needs http(s)://..., got 'minio'"),
        (("store=http", "store.url=https://me:word@store"), "store.url holds a user name or password"),
        (("store=s3", "store.url=s3://b", "store.endpoint=https://me:word@s3"), "store.endpoint holds a user name or password"),
        (("store.kind=ftp",), "store.kind: Input should be 'local', 'http' or 's3'"),
        (("store.timeout_s=0",), "store.timeout_s: Input should be greater than 0"),
    ],
)
def test_a_contradiction_is_refused_with_what_to_do(overrides: tuple[str, ...], message: str) -> None:
    """The message names the setting and the way out, and repeats no password."""
    with pytest.raises(SettingsError) as refused:
        compose(overrides)
    assert message in str(refused.value)
    assert "word@" not in str(refused.value)


def test_where_the_store_is_does_not_change_the_run() -> None:
    """Sites may reach one store under several addresses: the run's digest leaves it out."""
    assert compose(["store=http", "store.url=https://store"]).digest() == compose().digest()
