"""The store that the settings name, opened for one account. Which kind it is, nobody else needs to know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.identity import Identity
from bahefl_flwr.setting_groups import StoreSettings
from bahefl_flwr.store import LocalStore, Store


@contextmanager
def open_store(settings: StoreSettings, run: Path, identity: Identity | None) -> Iterator[Store]:
    """Open a site's store.

    Args:
      run: folder that a relative `store.path` starts from. identity: signs requests; only a served store needs it.

    Raises:
      StoreError: the folder cannot be used. SettingsError: the settings do not lead to a store.
    """
    if settings.kind == "local":
        yield LocalStore(run / settings.path)
    elif settings.kind == "s3":
        # Each kind loads its client by itself: sites that use a folder need none.
        from bahefl_flwr.store.s3 import BucketAddress, S3Store

        where = BucketAddress(url=settings.url, endpoint=settings.endpoint, region=settings.region)
        yield S3Store(where, timeout_s=settings.timeout_s, patience_s=settings.patience_s)
    else:
        assert identity is not None
        from bahefl_flwr.store.channel import Channel, Patience
        from bahefl_flwr.store.http import HttpStore

        channel = Channel(
            settings.url, address=identity.address, sign=identity.sign_text, certificate=_file(settings.certificate),
            patience=Patience(timeout_s=settings.timeout_s, total_s=settings.patience_s),
        )  # fmt: skip
        with closing(channel):
            yield HttpStore(channel)


def greet(settings: StoreSettings) -> None:
    """Make sure that a store of ours answers at `store.url`: no account is needed for that.

    Raises:
      StoreUnavailable: none does, within `store.timeout_s`. SettingsError: the certificate is no file.
    """
    from bahefl_flwr.store.channel import greet as ask

    ask(settings.url, certificate=_file(settings.certificate), timeout_s=settings.timeout_s)


def _file(name: str) -> Path | None:
    if not name:
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise SettingsError(f"store.certificate={name} is no file; give the PEM file of the store's certificate authority")
    return path
