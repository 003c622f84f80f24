"""Stores that an audit reads and never changes: a run's folder, the objects inside a bundle, and a store elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from bahefl_flwr.errors import ObjectMissing, SettingsError, StoreError
from bahefl_flwr.identity import Identity
from bahefl_flwr.setting_groups import StoreSettings
from bahefl_flwr.store.local import LocalStore
from bahefl_flwr.store.manifest import Manifest
from bahefl_flwr.store.reading import VerifiedReads
from bahefl_flwr.stores import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How an auditor gets at a run's store.

    Attributes:
      folder: the store's folder, where it is not where the run's settings say. identity: a member's account, for a served store.
    """

    folder: Path | None = None
    identity: Identity | None = None


class ReadOnlyStore(LocalStore):
    """A store's folder as it is: nothing is created, cleaned up or repaired."""

    def __init__(self, root: Path) -> None:
        # Not LocalStore's own: that makes folders and removes what killed processes left.
        self.root = root
        self._objects = root / "objects"

    def put(self, manifest: Manifest, parts: Iterable[bytes]) -> Never:
        """Refuse."""
        raise StoreError(f"{self.root} is being audited; nothing is written to it")


class BundledStore(ReadOnlyStore):
    """The objects of a bundle.

    Args:
      name: of the bundle, for messages. read: the bytes of an object by CID, None if there is none.
    """

    def __init__(self, name: Path, read: Callable[[str], bytes | None]) -> None:
        super().__init__(name)
        self._object = read

    def raw(self, cid: str, limit: int, label: str = "") -> bytes:
        """The bytes of an object as they are, not verified."""
        data = self._object(cid)
        if data is None:
            raise ObjectMissing(f"{cid}{label} is not in {self.root}")
        return data[: limit + 1]


@contextmanager
def open_objects(run: Path, settings: StoreSettings | None, access: Access) -> Iterator[VerifiedReads]:
    """The objects of a run.

    Args:
      settings: of the run's store; None for a folder in the place that it has by default.

    Raises:
      SettingsError: a served store needs an account, and there is none. StoreError: there is no such folder.
    """
    if access.folder is not None:
        if not (access.folder / "objects").is_dir():
            raise StoreError(f"{access.folder} is no store: a store's folder has objects/ in it")
        yield ReadOnlyStore(access.folder)
    elif settings is None or settings.kind == "local":
        yield ReadOnlyStore(run / (settings.path if settings else "store"))
    elif settings.kind == "http" and access.identity is None:
        raise SettingsError(
            f"the store at {settings.url} is for the members of the federation: give a member's keys with --identity, or the "
            "store's own folder with --store"
        )
    else:
        with open_store(settings, run, access.identity) as store:
            assert isinstance(store, VerifiedReads)
            yield store
