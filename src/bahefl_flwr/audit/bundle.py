"""A bundle: one zip file with a run's chain and every object that it names; it verifies without the run's folder.

Nothing is compressed and nothing carries a date, so equal runs make equal bundles. Read strictly and never unpacked to disk.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from eth_utils.address import to_checksum_address

from bahefl_flwr.errors import LedgerError, ObjectCorrupt, StoreError
from bahefl_flwr.ledger.replay import RecordedBlock
from bahefl_flwr.store.manifest import MAX_PART_BYTES
from bahefl_flwr.untrusted_json import read_json

FORMAT = 1
ABOUT = "about.json"
CHAIN = "chain.jsonl"
# One byte more than an object may have, so that a longer one is seen to be longer.
MAX_OBJECT_BYTES = MAX_PART_BYTES + 1
_MAX_ABOUT_BYTES = 1 << 16
_MAX_BLOCK_BYTES = 64 << 20
_MAX_CHAIN_BYTES = 16 << 30
_OBJECT = re.compile(r"objects/(b[a-z2-7]{58})")
_MAGIC = b"PK\x03\x04"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16
# What Python's zipfile raises on damaged files, besides its own error.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The first entry of a bundle: whose it is. `model`: digest of the final model as the run's summary names it, or ""."""

    run: str
    chain_id: int
    contract: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle opened for reading."""

    about: About
    _zip: zipfile.ZipFile
    _names: frozenset[str]

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open a bundle.

        Checks: (1) a zip file; (2) every entry is one of ours, once, stored as it is, not longer than it may be; (3) the first
        says which run it is, in this version's format.

        Raises:
          StoreError: naming the first check that failed.
        """
        try:
            file = zipfile.ZipFile(path)  # 1
        except _DAMAGE as error:
            raise StoreError(
                f"{path} begins as a bundle but is cut or damaged ({error}); fetch it again, compare its sha256"
            ) from error
        with file:
            for entry in file.infolist():  # 2
                _check_entry(path, entry)
            names = frozenset(file.namelist())
            if len(names) != len(file.namelist()):
                raise StoreError(f"{path} has an entry twice; it is not a bundle that this package wrote")
            yield cls(about=_about(path, file), _zip=file, _names=names)  # 3

    def blocks(self) -> Iterator[RecordedBlock]:
        """The chain, block by block.

        Raises:
          LedgerError: it is not there, or not in its form.
        """
        try:
            with self._zip.open(CHAIN) as lines:
                number = 0
                while line := lines.readline(_MAX_BLOCK_BYTES):
                    yield _block(line, number)
                    number += 1
        except (*_DAMAGE, KeyError) as error:
            raise LedgerError(f"the bundle's chain cannot be read: {error}") from error

    def object(self, cid: str) -> bytes | None:
        """The bytes of an object, not verified; None if it is not in the bundle."""
        name = f"objects/{cid}"
        if name not in self._names:
            return None
        try:
            return self._zip.read(name)
        except _DAMAGE as error:
            raise ObjectCorrupt(f"{cid} was altered in the bundle: {error}") from error


def begins_as_bundle(path: Path) -> bool:
    """Whether a file has a zip file's first bytes; its end, which tells the rest, may be cut off."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def write_bundle(path: Path, about: About, blocks: Iterable[RecordedBlock], objects: Iterable[tuple[str, bytes]]) -> str:
    """Write a bundle; its SHA-256.

    Args:
      objects: CIDs and bytes, each CID once.

    Raises:
      StoreError: the file cannot be written, or there is one.
    """
    if path.exists():
        what = "a folder" if path.is_dir() else "there already"
        raise StoreError(f"{path} is {what}, and nothing is overwritten: name a new file for the bundle")
    temporary = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(temporary, "w", compression=zipfile.ZIP_STORED, allowZip64=True) as file:
            file.writestr(_entry(ABOUT), json.dumps({"format": FORMAT, **asdict(about)}, indent=1, sort_keys=True) + "\n")
            with file.open(_entry(CHAIN), "w", force_zip64=True) as chain:
                for block in blocks:
                    chain.write(_line(block))
            for cid, data in objects:
                file.writestr(_entry(f"objects/{cid}"), data)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write the bundle {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return file_digest(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.create_system, entry.external_attr, entry.compress_type = 3, _PLAIN_FILE, zipfile.ZIP_STORED
    return entry


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    most = {ABOUT: _MAX_ABOUT_BYTES, CHAIN: _MAX_CHAIN_BYTES}.get(entry.filename, 0)
    if _OBJECT.fullmatch(entry.filename):
        most = MAX_OBJECT_BYTES
    # Stored as it is: a compressed entry could become any size.
    plain = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size and not entry.flag_bits & 1
    if not plain or entry.file_size > most:
        shown = entry.filename[:80]
        raise StoreError(f"{path} has an entry {shown!r} of {entry.file_size} bytes, which no bundle has; nothing of it is read")


def _about(path: Path, file: zipfile.ZipFile) -> About:
    try:
        found: dict[str, Any] = read_json(file.read(ABOUT))
        if found.pop("format") != FORMAT:
            raise ValueError(f"it is of another format than {FORMAT}")
        about = About(**found)
        texts = (about.run, about.contract, about.model)
        if not all(isinstance(text, str) for text in texts) or not isinstance(about.chain_id, int):
            raise ValueError("a field is of the wrong type")
        # Addresses are compared as text, also with those in manifests: one form only.
        about = replace(about, contract=to_checksum_address(about.contract))
    except (*_DAMAGE, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is no bundle of this version: {ABOUT}: {error}") from error
    return about


def _line(block: RecordedBlock) -> bytes:
    fields = {"header": block.header.hex(), "transactions": [raw.hex() for raw in block.transactions]}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _block(line: bytes, number: int) -> RecordedBlock:
    try:
        found = read_json(line)
        return RecordedBlock(
            header=bytes.fromhex(found["header"]), transactions=tuple(bytes.fromhex(raw) for raw in found["transactions"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"block {number} of the bundle's chain is not in its form: {error!r}") from error
