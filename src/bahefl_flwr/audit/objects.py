"""Stores that an audit reads and never changes: a run's folder, a store elsewhere, and the objects inside a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Never

from bahefl_flwr.errors import ObjectMissing, StoreError
from bahefl_flwr.store.local import LocalStore
from bahefl_flwr.store.manifest import Manifest


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
