r"""Secrets at rest: one file each, encrypted under a passphrase, that opens only as what it was written as.

The file format, its bounds, and who may read the file. Not what the bytes mean, and not where a passphrase comes from.

A key file is a line of text, a binding, and a body (big-endian, no padding, nothing after the end):

    "bahefl key file 1, scrypt and AES-256-GCM\n"  or  "bahefl key file 1, THROW-AWAY: not encrypted\n"
    kind u8 | site 20 bytes | chain id u64 | contract 20 bytes | epoch u64
    encrypted:   log2 N u8 | r u8 | p u8 | salt 32 bytes | key check 32 bytes | AES-256-GCM of the secret, tag last
    throw-away:  SHA-256 of everything else, 32 bytes | the secret

scrypt (RFC 7914) gives 64 bytes: the AES key, and the key check that tells a wrong passphrase from an altered file. Everything
before the AES-256-GCM text is its associated data.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bahefl_flwr.durable import atomic_write, create_once
from bahefl_flwr.errors import KeysError

MIN_PASSPHRASE_CHARACTERS: Final = 12
# The largest secret is a key share of 16 members: 6,435 seeds, 206 kB.
MAX_SECRET_BYTES: Final = 1 << 20
NO_CONTRACT: Final = "0x" + "00" * 20

_ENCRYPTED: Final = b"bahefl key file 1, scrypt and AES-256-GCM\n"
_NOT_ENCRYPTED: Final = b"bahefl key file 1, THROW-AWAY: not encrypted\n"
_BINDING: Final = struct.Struct(">B20sQ20sQ")
_KEY: Final = struct.Struct(">BBB32s32s")  # log2 N, r, p, salt, key check
_TAG_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_MAX_FILE_BYTES: Final = len(_NOT_ENCRYPTED) + _BINDING.size + _KEY.size + _TAG_BYTES + MAX_SECRET_BYTES
# Salt and so key are fresh for every file, and a key encrypts one text: its nonce may be constant (as in sealing.py).
_NONCE: Final = bytes(12)


class ThrowAway(Enum):
    """Type of `THROW_AWAY`; not a bool or None, so that no missing passphrase can be taken for it."""

    THROW_AWAY = "throw-away keys, not encrypted"


THROW_AWAY: Final = ThrowAway.THROW_AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class ScryptCost:
    """Cost parameters of scrypt; memory is 128 * 2**log2_n * r bytes."""

    log2_n: int = 16
    r: int = 8
    p: int = 1


# 64 MiB and 0.18 s of one cloud core for each file, and a site opens two per message; OWASP's 2**17 takes 0.35 s.
DEFAULT_COST: Final = ScryptCost()
# What a file may ask of its reader: 256 MiB and 3.5 s. There is no lower bound: who does not know the passphrase cannot make a
# file that opens, at whatever cost.
_MAX_COST: Final = ScryptCost(log2_n=18, r=8, p=4)


class Passphrase:
    """What opens a site's key files. Prints redacted, refuses pickling and copying, compares by `is` only.

    Args:
      text: at least 12 printable characters, as typed; put into Unicode form NFKC, since keyboards differ in how they write ä.

    Raises:
      KeysError: too short, or with a line break or another control character.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFKC", text)
        if not normal.isprintable():
            raise KeysError("the passphrase holds a line break or control character; give it without (files often end with one)")
        if len(normal) < MIN_PASSPHRASE_CHARACTERS:
            raise KeysError(
                f"the passphrase has fewer than {MIN_PASSPHRASE_CHARACTERS} characters; five random words are a good one"
            )
        self._text = normal.encode()

    def __repr__(self) -> str:
        return "<Passphrase redacted>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Passphrase does not leave its process and is not copied; read it where it is needed")

    def stretch(self, salt: bytes, cost: ScryptCost) -> bytes:
        """64 bytes of scrypt(passphrase, salt). Raises ValueError or MemoryError where the cost is impossible."""
        return Scrypt(salt=salt, length=64, n=1 << cost.log2_n, r=cost.r, p=cost.p).derive(self._text)


Protection = Passphrase | ThrowAway


class SecretKind(IntEnum):
    """What a key file holds. The numbers are part of the format."""

    IDENTITY = 1
    EPOCH_ENTROPY = 2
    KEY_SHARE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a secret is and where it belongs. A file written under one binding opens under no other.

    Attributes:
      kind: what the bytes are.
      site: Ethereum address of the site, upper and lower case alike.
      chain_id, contract, epoch: of an epoch's secrets, the ledger that counts the epoch and its number; else left out.
    """

    kind: SecretKind
    site: str
    chain_id: int = 0
    contract: str = NO_CONTRACT
    epoch: int = 0

    def __str__(self) -> str:
        where = f", epoch {self.epoch} of contract {self.contract} on chain {self.chain_id}" if self.epoch else ""
        return f"{self.kind.name.lower().replace('_', ' ')} of {self.site}{where}"


def write_secret(path: Path, secret: bytes, protection: Protection, binding: Binding) -> None:
    """Put `secret` at `path` durably, mode 0600, replacing what was there.

    Args:
      secret: 1 byte to 1 MiB.
      protection: the passphrase, or `THROW_AWAY` for the plain files of a simulation.
      binding: what reading must name again.

    Raises:
      KeysError: the folder is open to others, the disk refuses, or an argument is out of range.
    """
    _write(atomic_write, path, secret, protection, binding)


def create_secret(path: Path, secret: bytes, protection: Protection, binding: Binding) -> None:
    """Like `write_secret`, but leave a file that is there alone: of several processes one wins, and all then read the same."""
    if not path.exists():
        _write(create_once, path, secret, protection, binding)


def read_secret(path: Path, protection: Protection, binding: Binding) -> bytes:
    """The secret at `path`.

    Checks: (1) file and folder are open to this user only, (2) the format, (3) the file is encrypted if and only if there is a
    passphrase, (4) it was written under this binding, (5) its scrypt cost is within bounds, (6) the passphrase is the one it was
    written with, (7) every byte is as it was written.

    For throw-away files (7) is a checksum: it finds damage, not an attacker, who could read the secret anyway.

    Raises:
      KeysError: the first check that failed, and what to do.
    """
    data = _read_private(path)  # 1
    mark, stated, body_at = _parse(data, path)  # 2
    _expect_mark(mark, protection, path)  # 3
    if _encoded(stated) != _encoded(binding):  # 4
        raise KeysError(f"{path} holds the {stated}; wanted is the {binding}: put the right file there, or name the right folder")
    if isinstance(protection, Passphrase):
        return _decrypted(data, body_at, protection, path)
    head, digest, secret = data[:body_at], data[body_at : body_at + _DIGEST_BYTES], data[body_at + _DIGEST_BYTES :]
    if hashlib.sha256(head + secret).digest() != digest:  # 7
        raise KeysError(f"{path} is damaged: start a new run; throw-away keys are made anew")
    return secret


def stated_site(path: Path) -> str:
    """Lower-case address that the key file names, readable without its passphrase; true only once `read_secret` has opened it.

    Raises:
      KeysError: checks 1 and 2 of `read_secret`.
    """
    return _parse(_read_private(path), path)[1].site


def _write(put: Callable[[Path, bytes], object], path: Path, secret: bytes, protection: Protection, binding: Binding) -> None:
    if not 0 < len(secret) <= MAX_SECRET_BYTES:
        raise KeysError(f"a key file holds 1 to {MAX_SECRET_BYTES} bytes, got {len(secret)} for {path}")
    try:
        _refuse_others(path.parent, path.parent.stat().st_mode, "700")
        put(path, _file_bytes(secret, protection, binding, salt=secrets.token_bytes(32)))
    except OSError as error:
        raise KeysError(f"cannot write {path}: {error}; name a folder this user may write, on a disk with space") from error


def _file_bytes(
    secret: bytes, protection: Protection, binding: Binding, *, salt: bytes, cost: ScryptCost = DEFAULT_COST
) -> bytes:
    """The whole file. A salt must never be used for two secrets."""
    head = _mark_of(protection) + _encoded(binding)
    if not isinstance(protection, Passphrase):
        return head + hashlib.sha256(head + secret).digest() + secret
    key, check = _keys(protection, salt, cost)
    head += _KEY.pack(cost.log2_n, cost.r, cost.p, salt, check)
    return head + AESGCM(key).encrypt(_NONCE, secret, head)


def _decrypted(data: bytes, key_at: int, passphrase: Passphrase, path: Path) -> bytes:
    log2_n, r, p, salt, check = _KEY.unpack_from(data, key_at)
    if log2_n > _MAX_COST.log2_n or r > _MAX_COST.r or p > _MAX_COST.p:  # 5
        raise KeysError(
            f"{path} asks for scrypt with N=2**{log2_n}, r={r}, p={p}, more than any file of ours: restore it from a backup"
        )
    try:
        key, found = _keys(passphrase, salt, ScryptCost(log2_n=log2_n, r=r, p=p))
    except (ValueError, MemoryError) as error:
        asked = f"scrypt with N=2**{log2_n}, r={r}, p={p}"
        raise KeysError(f"{path} asks for {asked}, which failed ({error}): free some memory, or restore the file") from error
    if not hmac.compare_digest(found, check):  # 6
        raise KeysError(
            f"{path} does not open with this passphrase: give the one it was written with, or restore an altered file"
        )
    text_at = key_at + _KEY.size
    try:
        return AESGCM(key).decrypt(_NONCE, data[text_at:], data[:text_at])  # 7
    except InvalidTag:
        raise KeysError(f"{path} was altered since it was written: restore it from a backup") from None


def _keys(passphrase: Passphrase, salt: bytes, cost: ScryptCost) -> tuple[bytes, bytes]:
    # GCM alone does not bind its key: one file could open under two passphrases (Len, Grubbs, Ristenpart, USENIX Security 2021).
    stretched = passphrase.stretch(salt, cost)
    return stretched[:32], stretched[32:]


def _parse(data: bytes, path: Path) -> tuple[bytes, Binding, int]:
    """First line, stated binding, and where the rest begins."""
    mark = next((mark for mark in (_ENCRYPTED, _NOT_ENCRYPTED) if data.startswith(mark)), b"")
    body_at = len(mark) + _BINDING.size
    least = body_at + (_KEY.size + _TAG_BYTES if mark == _ENCRYPTED else _DIGEST_BYTES)
    if not mark or not least < len(data) <= _MAX_FILE_BYTES:
        raise KeysError(f"{path} is not a key file of version 1: restore it from a backup, or move it away")
    kind, site, chain_id, contract, epoch = _BINDING.unpack_from(data, len(mark))
    try:
        known = SecretKind(kind)
    except ValueError:
        raise KeysError(f"{path} holds a secret of unknown kind {kind}: update this package, or restore the file") from None
    binding = Binding(kind=known, site=f"0x{site.hex()}", chain_id=chain_id, contract=f"0x{contract.hex()}", epoch=epoch)
    return mark, binding, body_at


def _encoded(binding: Binding) -> bytes:
    try:
        site, contract = (bytes.fromhex(address.removeprefix("0x")) for address in (binding.site, binding.contract))
        if len(site) != 20 or len(contract) != 20:
            raise ValueError
        return _BINDING.pack(binding.kind, site, binding.chain_id, contract, binding.epoch)
    except (ValueError, struct.error):
        raise KeysError(f"a secret cannot be bound to {binding}: addresses have 20 bytes, numbers at most 64 bits") from None


def _mark_of(protection: Protection) -> bytes:
    if isinstance(protection, Passphrase):
        return _ENCRYPTED
    if protection is THROW_AWAY:
        return _NOT_ENCRYPTED
    # A passphrase that was looked up and not found is None or "": it must never mean plain files.
    raise KeysError(f"got {type(protection).__name__} where a Passphrase is due: give the site's passphrase")


def _expect_mark(mark: bytes, protection: Protection, path: Path) -> None:
    if mark == _mark_of(protection):
        return
    if mark == _ENCRYPTED:
        raise KeysError(f"{path} is encrypted, and no passphrase was given: give the one it was written with")
    raise KeysError(
        f"{path} is a simulation's throw-away key, not encrypted, and a passphrase was given: move it away and make new keys; "
        "do not use this one outside simulations"
    )


def _read_private(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            _refuse_others(path.parent, path.parent.stat().st_mode, "700")
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeysError(f"{path} is not a regular file: put the key file there")
            _refuse_others(path, mode, "600")
            return file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error}; make the keys first, restore them, or mend the folder") from error


def _without_waiting(path: str, flags: int) -> int:
    # A pipe put in the file's place would otherwise hold the site forever.
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_others(path: Path, mode: int, wanted: str) -> None:
    if stat.S_IMODE(mode) & 0o077:
        found = f"{stat.S_IMODE(mode):03o}"
        raise KeysError(f"{path} has mode {found}: others may read this site's secrets; run: chmod {wanted} {path}")
