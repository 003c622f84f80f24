"""Sealing: bytes that only the named sites can open, and that open only in the context they were made for.

Random content key, AES-256-GCM, the key wrapped for each recipient through an ephemeral X25519 key. No files, no long-term keys.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bahefl_flwr.errors import SealError
from bahefl_flwr.records import ObjectKind

_MAGIC = b"BAHS"
_VERSION = 1
_FIXED = struct.Struct(">4sBB32s32s")  # magic, version, recipients, ephemeral public key, commitment to the content key
_ENTRY = struct.Struct(">20s48s")  # address, wrapped content key
_TAG_BYTES = 16
# Every AES key below encrypts exactly one message, so its nonce may be constant (RFC 9180 does the same).
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class _Sealed:
    recipients: dict[bytes, bytes]
    ephemeral: bytes
    commitment: bytes
    header: bytes
    body: bytes


def sealing_context(*, kind: ObjectKind, run: bytes, round: int, epoch: int, sender: str) -> bytes:
    """The context of a sealed object: one readable line, the same for sender and recipients, printed in every error.

    Args:
      kind: what the plaintext is.
      run: the run's digest, 32 bytes.
      round: round of the object; 0 in a key ceremony.
      epoch: key epoch.
      sender: checksummed address of the site that seals.
    """
    return f"{kind.value} from {sender}, round {round}, epoch {epoch}, run {run.hex()}".encode("ascii")


def seal(plaintext: bytes, recipients: Mapping[str, bytes], context: bytes) -> bytes:
    """Seal `plaintext` for `recipients`. Two calls never give the same bytes: keep the first result where a retry must repeat it.

    Args:
      plaintext: any length below 2**31.
      recipients: Ethereum address -> raw X25519 public key (32 bytes), 1..255 of them.
      context: what opening must name again, from `sealing_context`.

    Returns:
      86 bytes and 68 per recipient more than the plaintext. Every recipient opens the same plaintext, even if the sender
      cheats: the header commits to the content key.

    Raises:
      SealError: no or too many recipients, or an unusable address or public key, naming the recipient.
    """
    if not 1 <= len(recipients) <= 255:
        raise SealError(f"an object is sealed to 1..255 sites, got {len(recipients)}")
    content_key = secrets.token_bytes(32)
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    aes_key, commitment = _content_keys(content_key)
    entries = sorted(
        (_address_bytes(address), _wrap(content_key, ephemeral, key, address, context)) for address, key in recipients.items()
    )
    if len({address for address, _ in entries}) != len(entries):
        raise SealError("two recipients of a sealed object have the same address")
    header = _FIXED.pack(_MAGIC, _VERSION, len(entries), public, commitment) + b"".join(_ENTRY.pack(*e) for e in entries)
    return header + AESGCM(aes_key).encrypt(_NONCE, plaintext, header + context)


def is_usable(public_key: bytes) -> bool:
    """Whether an X25519 public key can be sealed to: 32 bytes, and no point of low order (RFC 7748, section 6.1)."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        return False
    return True


def unseal(sealed: bytes, address: str, private_key: X25519PrivateKey, context: bytes) -> bytes:
    """Open what was sealed to `address` in `context`.

    Checks: (1) the format, exactly, (2) this site is a recipient, (3) the wrapped key opens with our key in this context,
    (4) it is the content key that the header commits to, (5) the body opens under header and context.

    Raises:
      SealError: the first check that failed, and the context, which names the sender and the round.
    """
    name = context.decode("ascii", "replace")
    parsed = _parse(sealed, name)  # 1
    wrapped = parsed.recipients.get(_address_bytes(address))
    if wrapped is None:  # 2
        raise SealError(f"sealed object ({name}) is not addressed to {address}; ask its sender to seal to the present members")
    content_key = _unwrap(wrapped, parsed.ephemeral, private_key, address, context)  # 3
    aes_key, commitment = _content_keys(content_key)
    if commitment != parsed.commitment:  # 4
        raise SealError(f"sealed object ({name}) holds another key for {address} than it commits to; its sender cheats")
    try:
        return AESGCM(aes_key).decrypt(_NONCE, parsed.body, parsed.header + context)  # 5
    except InvalidTag as error:
        raise SealError(f"sealed object ({name}) was altered after it was sealed; fetch it again") from error


def _parse(sealed: bytes, name: str) -> _Sealed:
    if len(sealed) < _FIXED.size:
        raise SealError(f"sealed object ({name}) is {len(sealed)} bytes, too short to be one")
    magic, version, count, ephemeral, commitment = _FIXED.unpack_from(sealed)
    if (magic, version) != (_MAGIC, _VERSION):
        raise SealError(f"sealed object ({name}) is not of format {_MAGIC.decode()} {_VERSION}; update the older site")
    end = _FIXED.size + count * _ENTRY.size
    if count == 0 or len(sealed) < end + _TAG_BYTES:
        raise SealError(f"sealed object ({name}) announces {count} recipients in {len(sealed)} bytes; it is cut short")
    entries = list(_ENTRY.iter_unpack(sealed[_FIXED.size : end]))
    addresses = [address for address, _ in entries]
    if any(first >= second for first, second in pairwise(addresses)):
        raise SealError(f"sealed object ({name}) lists its recipients twice or out of order")
    return _Sealed(dict(entries), ephemeral, commitment, sealed[:end], sealed[end:])


def _wrap(content_key: bytes, ephemeral: X25519PrivateKey, recipient: bytes, address: str, context: bytes) -> bytes:
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    except ValueError as error:
        raise SealError(f"the sealing key of {address} is not a usable X25519 key ({error}); it must register again") from error
    key = _wrapping_key(shared, ephemeral.public_key().public_bytes_raw(), recipient, address)
    return AESGCM(key).encrypt(_NONCE, content_key, context)


def _unwrap(wrapped: bytes, ephemeral: bytes, private_key: X25519PrivateKey, address: str, context: bytes) -> bytes:
    name = context.decode("ascii", "replace")
    try:
        shared = private_key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        key = _wrapping_key(shared, ephemeral, private_key.public_key().public_bytes_raw(), address)
        return AESGCM(key).decrypt(_NONCE, wrapped, context)
    except (InvalidTag, ValueError) as error:
        raise SealError(
            f"the key wrapped for {address} does not open as {name}: sealed to another key, in another context, or altered"
        ) from error


def _wrapping_key(shared: bytes, ephemeral: bytes, recipient: bytes, address: str) -> bytes:
    # Both public keys go in: X25519 alone maps several public keys to one shared secret (RFC 7748, section 7).
    return _derive(shared, b"bahefl seal v1 wrap" + ephemeral + recipient + _address_bytes(address), 32)


def _content_keys(content_key: bytes) -> tuple[bytes, bytes]:
    # GCM alone does not bind its key: one ciphertext can open under two keys to two texts (Dodis et al., CRYPTO 2018).
    derived = _derive(content_key, b"bahefl seal v1 content", 64)
    return derived[:32], derived[32:]


def _derive(secret: bytes, info: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(secret)


def _address_bytes(address: str) -> bytes:
    try:
        raw = bytes.fromhex(address.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 20:
        raise SealError(f"{address!r} is not an Ethereum address")
    return raw
